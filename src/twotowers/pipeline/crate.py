"""A finished run as one archive, described as an RO-Crate: what `twotowers export` writes.

    ro-crate-metadata.json   what the archive is, in the words of schema.org: licence, software, the specification of
                             the claims, kind, size and digest of every file, and who ran it
    run.json                 the run's record
    everything else          as in the run's folder

The same run and name give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import mimetypes
import os
import stat
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import PlaceError, UserError, writing
from ..publishing.citing import project
from ..publishing.crowd import write_whole
from ..publishing.record import told_of_figure
from ..publishing.run_folder import RunFolder, project_root, shown_file
from .contributed import NotOursError, contribution
from .figures import command_of, find_run, require_own_name
from .freshness import DONE
from .status import run_status

METADATA, RECORD = "ro-crate-metadata.json", "run.json"
SPECIFICATION = "#specification"
LONGEST = 100  # letters of a name
_DAY = (1980, 1, 1, 0, 0, 0)  # the first that a zip can name: when a file was packed is no part of it
_KINDS = {".ipynb": "application/x-ipynb+json", ".csv": "text/csv", ".svg": "image/svg+xml"}
_FOLDERS = {  # of a run, and what lies in them
    "claims": "The effects of a claim, set by set, and the verdict on them.",
    "figures": "Facts, data or picture of a figure.",
    "handed": "What a chapter hands on to others.",
    "shown": "What a page says of a chapter, computed.",
    "tables": "A table of measurements.",
}


class NotFinishedError(UserError):
    """A run that is not complete, not up to date or damaged."""


class PersonError(UserError):
    """A name that cannot be shown."""


def export(run: str, *, by: str | None = None, output: Path | None = None) -> Path:
    """Write the archive of a finished run and return where it is.

    Args:
        run: the run's name, or its model.
        by: who ran it, as pages and citations will say.
        output: a file, or a folder for `<run>.zip`; by default the working folder.

    Raises:
        UserError: no such run, one that is not complete and up to date, one that was contributed, no name, or no place
            for a file.
    """
    root = project_root()
    by = None if by is None else person(by)
    found = find_run(root, run)
    output = output or Path()
    output = output / f"{found.name}.zip" if output.is_dir() else output
    if output.exists() and not output.is_file():  # which would be replaced
        raise PlaceError(f"{output} is a device or a pipe, not a file that an archive can be written to; name another.")
    require_finished(root, found)
    # While another command makes a chapter of it, its record and its files are not of one moment.
    with found.undisturbed():
        content = archive_of(found, by)
    with writing("The archive", output):
        write_whole(Path(os.path.realpath(output)), content)  # a link stays one
    return output


def person(name: str) -> str:
    """A name as it will be shown.

    Raises:
        PersonError: it is empty, too long, or has letters that nobody sees.
    """
    plain = unicodedata.normalize("NFC", " ".join(name.split()))
    if not plain or len(plain) > LONGEST or not plain.isprintable():
        raise PersonError(f"The name of who ran it is one line of 1 to {LONGEST} letters; give another with --by.")
    return plain


def require_finished(root: Path, run: RunFolder) -> None:
    """Refuse what is not all there, up to date and our own.

    Raises:
        DamagedRunError, RunNameError, NotOursError, NotFinishedError: it is not.
    """
    require_own_name(run)
    if (made := contribution(run)) is not None:
        raise NotOursError(f"The run {run.name} was contributed {made.by_whom}; hand on the archive that it came in.")
    bad = [line for line in run_status(root, run) if line.state.name != DONE]
    if bad:
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise NotFinishedError(
            f"The chapter {bad[0].chapter} of {run.name} is {bad[0].state}{others}; bring the run up to date first "
            f"with: {command_of(run)}"
        )


def archive_of(run: RunFolder, by: str | None) -> bytes:
    """The bytes of the archive of a run."""
    record = run.record()
    files = {RECORD: (json.dumps(record, indent=1) + "\n").encode()}
    for entry in record["chapters"].values():
        files |= {file: (run.path / file).read_bytes() for file in entry["files"]}
    files = dict(sorted(files.items()))
    described = json.dumps(metadata(run, files, by), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in {METADATA: described.encode(), **files}.items():
            entry = zipfile.ZipInfo(name, _DAY)
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, content)
    return packed.getvalue()


def metadata(run: RunFolder, files: Mapping[str, bytes], by: str | None) -> dict[str, Any]:
    """What the archive is, as JSON-LD."""
    from rocrate.model import ContextEntity, Person
    from rocrate.rocrate import ROCrate

    record, made = run.record(), _made(run)
    crate, today = ROCrate(), max(entry["date"] for entry in record["chapters"].values())
    crate.name = f"Two Towers: {run.title}, task {made['task']}, scale {made['scale']}, seed {made['seed']}"
    crate.description = "A finished run of an executable companion to arXiv 2402.02872."
    crate.datePublished = today
    crate.root_dataset["identifier"] = run.name
    crate.license = crate.add(_licence(crate, ContextEntity))
    who = crate.add(Person(crate, "#who", properties={"name": by})) if by else None
    specified = {"@type": "PropertyValue", "name": "specification of the claims", "value": made["specification_sha256"]}
    crate.root_dataset["additionalProperty"] = crate.add(ContextEntity(crate, SPECIFICATION, properties=specified))
    software = [
        crate.add(ContextEntity(crate, f"#{name}", properties=_software(name, version)))
        for name, version in sorted(made["packages"].items())
    ]
    crate.root_dataset["softwareRequirements"] = software
    parts = [crate.add_file(dest_path=name, properties=about) for name, about in _files(run, files)]
    action = {"@type": "CreateAction", "name": made["command"], "endTime": today}
    run_of = crate.add(ContextEntity(crate, "#run", properties=action))
    run_of["instrument"], run_of["result"] = software, parts
    crate.root_dataset["publisher"] = who or _publisher(crate, ContextEntity)
    crate.root_dataset["mentions"] = run_of
    if who:
        crate.root_dataset["author"] = who
        run_of["agent"] = who
    return dict(crate.metadata.generate())


def _made(run: RunFolder) -> dict[str, Any]:
    """What made the run, as its last chapter says."""
    shown = json.loads((run.path / shown_file("claims")).read_text(encoding="utf-8"))
    return dict(shown["facts"]["provenance"])


def _licence(crate: Any, entity: Any) -> Any:
    name = project().licence
    about = {"@type": "CreativeWork", "name": name, "description": f"The licence {name}, as the list of SPDX has it."}
    return entity(crate, f"https://spdx.org/licenses/{name}", properties=about)


def _publisher(crate: Any, entity: Any) -> Any:
    """Who answers for it where nobody says that he or she ran it."""
    return crate.add(
        entity(crate, "#authors", properties={"@type": "Organization", "name": ", ".join(project().authors)})
    )


def _software(name: str, version: str) -> dict[str, str]:
    """A package, with its package URL (ECMA-427), which names it whatever serves it."""
    url = f"pkg:pypi/{name}@{quote(version, safe='')}"
    return {"@type": "SoftwareApplication", "name": name, "softwareVersion": version, "version": version, "url": url}


def _files(run: RunFolder, files: Mapping[str, bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is said of each file: kind, size and digest, and of a picture what it shows."""
    digests = {file: made for entry in run.record()["chapters"].values() for file, made in entry["files"].items()}
    for name, content in files.items():
        kind = _KINDS.get(Path(name).suffix) or mimetypes.guess_type(name)[0]
        about = {"name": Path(name).name, "description": _description(name), "contentSize": str(len(content))}
        about["encodingFormat"] = kind or "application/octet-stream"
        about["sha256"] = digests.get(name) or hashlib.sha256(content).hexdigest()
        beside = f"{name.rpartition('.')[0]}.json"
        if name.startswith("figures/") and beside in files and not name.endswith(".json"):
            about["description"] = told_of_figure(files[beside], f"{run.name}/{beside}")["alt"]
        yield name, about


def _description(name: str) -> str:
    """What kind of file of a run it is, by its folder."""
    return _FOLDERS.get(name.rpartition("/")[0], "An executed chapter." if name != RECORD else "The run's record.")

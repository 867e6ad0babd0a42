"""Take in a run that somebody else has made: what `twotowers import` does.

The archive is checked whole before anything is written. Then everything that is drawn or written, figures and pages, is
made anew, here and by this package, from the archive's tables; so of the archive itself only numbers, the words in
tables, and the cells that a page shows as code come in. The run is put together in a folder beside and moved into place
at the end. Nothing of it is ever executed.

A run is taken in only if it measured the claims by our specification: verdicts are made when a page is, and effects
that were measured for other claims would be judged by the wrong rule, beside ours, in the atlas.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat

from ..chapters.registry import CHAPTERS, files_read
from ..chapters.registry import REGISTRY as REGISTERED
from ..errors import UserError, writing
from ..models.registry import REGISTRY
from ..paper import CLAIMS
from ..publishing.crowd import own_folder
from ..publishing.evidence import Evidence
from ..publishing.provenance import slug
from ..publishing.run_folder import (
    RunFolder,
    effects_file,
    figure_stem,
    handed_file,
    is_file_of,
    project_root,
    shown_file,
)
from ..publishing.specification import specification_digest
from . import schema
from .archive import ArchiveError, read_archive
from .contributed import KEY, Contribution
from .crate import METADATA, RECORD, SPECIFICATION, PersonError, person
from .freshness import text_of
from .harmless import read_json, require_harmless, require_still
from .redraw import redraw
from .schema import require_shape

Files = Mapping[str, bytes]


class TakenError(UserError):
    """There is a run of this name."""


class OtherSpecificationError(UserError):
    """A run that measured other claims, or by another rule."""


def import_run(file: Path) -> RunFolder:
    """Check the archive of a run and add it to `book/runs`, marked as contributed.

    Raises:
        NoFileError: there is no file.
        ArchiveError: it is not a whole and harmless run; nothing was written.
        OtherSpecificationError: it measured other claims than these.
        TakenError: there is a run of this name.
    """
    root = project_root()
    files = read_archive(file)
    name, made = _described(files, hashlib.sha256(file.read_bytes()).hexdigest())
    runs = root / "book" / "runs"
    _require_free(runs / name)
    record = _record(name, files)
    shown = {chapter: _shown(name, chapter, record, files) for chapter in CHAPTERS}
    made = _dated(made, record, shown)
    for other, content in files.items():
        require_harmless(other, content)
    _require_evidence(record, files)
    with _beside(runs) as beside:
        run = RunFolder(beside / name)
        _write(run, files, shown, made)
        for chapter in CHAPTERS:
            _draw(root, run, chapter, record, shown[chapter])
        run.update(lambda now: now.update({KEY: made.record()}))
        with RunFolder(runs / name).lock():  # a command that would begin a run of this name at this moment waits
            _require_free(runs / name)
            os.rename(run.path, runs / name)
    return RunFolder(runs / name)


# What the archive says


def _described(files: Files, digest: str) -> tuple[str, Contribution]:
    """The run's name and where it is from, if what the archive says of its files is true."""
    if METADATA not in files:
        raise ArchiveError(f"it has no {METADATA}")
    crate = read_json(METADATA, files[METADATA])
    require_shape(METADATA, crate, schema.CRATE)
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    root = _entity(entities, "./", schema.ROOT)
    parts = [part["@id"] for part in root["hasPart"]]
    listed = {name: str(_entity(entities, name, schema.PART)["sha256"]) for name in parts}
    _require_same(listed, {name: content for name, content in files.items() if name != METADATA})
    specified = _entity(entities, SPECIFICATION, schema.SPECIFIED)
    _require_specification(specified["value"])
    by = None
    if "author" in root:
        try:
            by = person(_entity(entities, "#who", schema.PERSON)["name"])
        except PersonError as error:
            raise ArchiveError("the name of who ran it cannot be shown") from error
    today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    return root["identifier"], Contribution(by, "", today, "", digest, specified["value"])


def _entity(entities: Mapping[str, Any], name: str, shape: schema.Schema) -> dict[str, Any]:
    found = entities.get(name)
    require_shape(METADATA, found, shape)
    return dict(found or {})


def _require_same(listed: Mapping[str, str], files: Files) -> None:
    if missing := sorted(listed.keys() - files.keys()):
        raise ArchiveError(f"{missing[0]} is missing")
    if extra := sorted(files.keys() - listed.keys()):
        raise ArchiveError(f"{extra[0]} is in it, but not in its list of files")
    for name, digest in listed.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise ArchiveError(f"{name} is not what its digest says")


def _require_specification(digest: str) -> None:
    ours = specification_digest()
    if digest != ours:
        raise OtherSpecificationError(
            f"This run measured the claims by another specification ({digest[:12]}; ours is {ours[:12]}), and its "
            f"effects cannot be judged by ours; run the model again with this version, or show the run with the "
            f"version that made it."
        )


def _require_free(place: Path) -> None:
    if place.exists() or place.is_symlink():
        raise TakenError(
            f"There is a run {place.name} already; nothing was changed. Move or remove book/runs/{place.name}, and "
            f"import the archive again."
        )


# What is in it


def _record(name: str, files: Files) -> dict[str, Any]:
    """The run's record, if it is one, speaks of this run, and of all files and no others."""
    if RECORD not in files:
        raise ArchiveError(f"{RECORD} is missing")
    record = dict(read_json(RECORD, files[RECORD]))
    require_shape(RECORD, record, schema.RECORD)
    facts = record["run"]
    if (facts["kind"] == "registry") != (facts["model"] in REGISTRY) or not name.startswith(slug(facts["model"])):
        raise ArchiveError(f"it is named {name}, but its model is another")
    of_chapters: dict[str, str] = {}
    for chapter, entry in record["chapters"].items():
        own = [f"{chapter}.ipynb", shown_file(chapter)]
        for file, digest in entry["files"].items():
            if not is_file_of(file, name, chapter) or file in of_chapters:
                raise ArchiveError(f"{file} is no file of the chapter {chapter}")
            of_chapters[file] = digest
        for file in own:
            if file not in entry["files"]:
                raise ArchiveError(f"{file} is missing")
    _require_same(of_chapters, {n: c for n, c in files.items() if n not in (METADATA, RECORD)})
    return record


def _shown(name: str, chapter: str, record: Mapping[str, Any], files: Files) -> dict[str, Any]:
    """What a chapter shows, if it is of this run, and reads its own files only."""
    place = shown_file(chapter)
    shown = dict(read_json(place, files[place]))
    require_shape(place, shown, schema.SHOWN)
    facts, made, run = shown["facts"], shown["facts"]["provenance"], record["run"]
    same = {"run": name, **{field: run[field] for field in ("title", "model", "task", "scale", "seed")}}
    for field, value in same.items():
        if facts[field] != value or made.get(field, value) != value:
            raise ArchiveError(f"{place} is of another run: its {field} is another")
    _require_specification(made["specification_sha256"])
    own = record["chapters"][chapter]["files"]
    for item in shown["items"].values():
        for file in (*(table["file"] for table in item["tables"].values()), *item["files"].values()):
            if file not in own:
                raise ArchiveError(f"{place} reads a file that is none of its chapter's")
    return shown


def _dated(made: Contribution, record: Mapping[str, Any], shown: Mapping[str, Any]) -> Contribution:
    date = max(entry["date"] for entry in record["chapters"].values())[:10]
    versions = {item["facts"]["provenance"]["packages"]["twotowers"] for item in shown.values()}
    return Contribution(
        made.by, date, made.imported, ", ".join(sorted(versions)), made.archive_sha256, made.specification_sha256
    )


def _require_evidence(record: Mapping[str, Any], files: Files) -> None:
    """All claims, and all that chapters hand on, must be there and be what they are."""
    for chapter in record["chapters"]:
        for file in files_read(chapter):
            if file not in files:
                raise ArchiveError(f"{file} is missing")
    for claim in CLAIMS:
        file = effects_file(claim)
        try:
            if Evidence.of(read_json(file, files[file])).claim != claim:
                raise ArchiveError(f"{file} is of another claim")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ArchiveError(f"{file} holds no effects") from error
    for chapter in REGISTERED:
        for file in map(handed_file, chapter.hands_on):
            require_shape(file, read_json(file, files[file]), schema.HANDED)


# Putting it together


@contextlib.contextmanager
def _beside(runs: Path) -> Iterator[Path]:
    """A temporary folder on the same disk as the runs; it is removed, and theirs, too, if nothing is in it."""
    try:
        with writing("The run folder in", runs), own_folder(runs, "import") as folder:
            yield folder
    finally:
        with contextlib.suppress(OSError):
            runs.rmdir()


def _write(run: RunFolder, files: Files, shown: Mapping[str, Any], made: Contribution) -> None:
    """The files as they came, but for what each page knows of the run: who has made it."""
    told = {KEY: {"by": made.by, "date": made.date, "imported": made.imported}}
    for said in shown.values():
        said["facts"]["provenance"] |= told
    own = {shown_file(chapter): (json.dumps(said, indent=1) + "\n").encode() for chapter, said in shown.items()}
    for name, content in files.items():
        if name != METADATA:
            place = run.path / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(own.get(name, content))


def _draw(root: Path, run: RunFolder, chapter: str, record: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    """Make a chapter's page and figures from its tables, and look at what came out."""
    entry, revision = record["chapters"][chapter], shown["facts"]["provenance"]["revision"]
    with run.workplace(chapter) as workplace:
        try:
            drawn = redraw(text_of(root, chapter), run, chapter, workplace, entry, revision)
        except Exception as error:  # whatever numbers that were made to do so break
            raise ArchiveError(f"its chapter {chapter} cannot be drawn from its tables") from error
        version = shown["facts"]["provenance"]["packages"]["twotowers"]
        if not drawn:
            raise ArchiveError(f"its chapter {chapter} shows other things than this version's; it is of {version}")
        notebook = nbformat.read(workplace / f"{chapter}.ipynb", as_version=4)
        require_still(f"{chapter}.ipynb", notebook)
        _require_figures(run, chapter, workplace, shown)
        run.commit(chapter, workplace, {name: value for name, value in entry.items() if name != "files"})


def _require_figures(run: RunFolder, chapter: str, workplace: Path, shown: Mapping[str, Any]) -> None:
    for item in shown["items"]:
        stem = figure_stem(run.name, item)
        if (workplace / f"{stem}.svg").is_file():
            require_harmless(f"{stem}.svg", (workplace / f"{stem}.svg").read_bytes())

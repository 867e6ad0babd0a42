"""The folder of a run: its name, its layout, and how chapters move into place. Nothing else knows the layout.

    run.json                      the record: what the run is of, and of each chapter what made it, with files' digests
    <chapter>.ipynb               the executed chapter
    shown/<chapter>.json          what its page shows, in order, and the facts that captions may name
    figures/<name>_<id>.*         a figure as svg, png and pdf, and its record, json; its numbers are <name>_<id>.csv,
                                  or <name>_<id>-<table>.csv if there are several tables
    tables/<id>-<name>.csv        what a computed text is made of
    claims/<claim>.json           the claim's effect in each demonstration set, and what controls it
    handed/<name>.json            what a chapter hands on to later ones

A chapter is made in a workplace inside the folder, of the same layout, and moved when it is complete. The record
forgets a chapter before anything of it is moved: wherever a move stops, no entry speaks of files that it did not make.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DamagedRunError, OtherRunError, RunFolderError, writing
from .crowd import clear_left_behind, in_use, locked, own_folder, own_prefix, remove, write_whole
from .run_record import EMPTY, FORMAT, NewerError, parsed


def project_root() -> Path:
    """The checkout that holds the book: around the working folder, else the one this package is installed from.

    Raises:
        RunFolderError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[3]):
        if (folder / "book" / "chapters").is_dir() and (folder / "_config.yml").is_file():
            return folder
    raise RunFolderError("There is no book here; run the command inside a clone of Two Towers.")


def runs_of(root: Path) -> list[RunFolder]:
    """All runs of a checkout that have a record, by name."""
    return [RunFolder(path.parent) for path in sorted((root / "book" / "runs").glob("[!.]*/run.json"))]


@functools.lru_cache(maxsize=4096)
def _digest_at(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    stat = path.stat()
    return _digest_at(path, stat.st_size, stat.st_ctime_ns)


class RunFolder:
    """One run's folder, `book/runs/<name>`."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self._begun: dict[str, Any] | None = None  # what it is of, if that was said here
        self._entered = False

    @property
    def title(self) -> str:
        """What a reader is told of the run."""
        return str(self.record()["run"].get("title", self.name))

    # The record

    def record(self) -> dict[str, Any]:
        """What the run is of (`run`), the check of its model, its chapters; empty where there is no record.

        Raises:
            DamagedRunError: the record cannot be read.
        """
        file = self.path / "run.json"
        try:
            if file.exists() and not file.is_file():
                raise ValueError  # a pipe would be waited for
            return parsed(file.read_text(encoding="utf-8") if file.exists() else json.dumps(EMPTY))
        except (OSError, ValueError) as error:
            what = error if isinstance(error, NewerError) else "is not a record of a run;"
            raise DamagedRunError(f"{self.name}/run.json {what} run the model again to replace it.") from None

    def record_or_empty(self) -> dict[str, Any]:
        """The record; an empty one where it cannot be read, so that the next run makes everything again."""
        try:
            return self.record()
        except DamagedRunError:
            return {**parsed(json.dumps(EMPTY)), "moving": {"": self._all_files()}}

    def entry(self, chapter: str) -> dict[str, Any]:
        found: dict[str, Any] = self.record_or_empty()["chapters"].get(chapter, {})
        return found

    def update(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Read the record, change it and write it; other chapters, here or on other machines, wait for their turn."""
        with self._writing(), self.lock():
            record = self.record_or_empty()
            change(record)
            self._write(record)

    def lock(
        self, name: str = "", *, waits: Callable[[], object] = lambda: None, given_up: Callable[[], bool] | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """A lock on the record, or on something of this run by its name, as `locked`."""
        file = self.path.parent / f".{self.name}{'.' if name else ''}{name}.lock"
        return locked(file, waits=waits, given_up=given_up)

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """While it is read as a whole, no other command moves anything in it: where nobody may write, nobody does."""
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self.lock())
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
            yield

    def _write(self, record: Mapping[str, Any]) -> None:
        write_whole(self.path / "run.json", json.dumps(record, indent=1) + "\n")

    def require_writable(self) -> None:
        """Make the folder, and clear away what a killed run has left in it.

        Raises:
            RunFolderError: it cannot be written.
        """
        self._entered = True
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._writing(), self.lock():
            self.path.mkdir(exist_ok=True)
            if links := [place.name for place in self.path.iterdir() if place.is_symlink() and place.is_dir()]:
                raise RunFolderError(
                    f"{self.path / links[0]} is a link; remove it, so that nothing is written elsewhere."
                )
            with tempfile.TemporaryFile(dir=self.path) as probe:
                probe.write(b" ")
            self._presence().touch()
            clear_left_behind(self.path)

    def _presence(self) -> Path:
        """Says that this process works in the folder, even if it has made nothing yet."""
        return self.path / f"{own_prefix()}here"

    def leave(self) -> None:
        """What this process began here with `require_writable` is over; a model that cannot be run leaves no folder."""
        if self._entered:
            with contextlib.suppress(OSError):
                self._presence().unlink(missing_ok=True)
            with contextlib.suppress(OSError), self.lock():
                self._forget_if_nothing_was_made()

    def _forget_if_nothing_was_made(self) -> None:
        record = self.record_or_empty()
        if record["chapters"] or record["check"] or any(map(in_use, self.path.glob(".tmp-*"))):
            return
        runs = self.path.parent
        for file in (self.path / "run.json", runs / f".{self.name}.lock", runs / ".sources" / f"{self.name}.json"):
            with contextlib.suppress(OSError):
                file.unlink()
        for folder in (self.path, runs / ".sources", runs):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Say what the run is of. If that is not what it was of, everything that was made goes first."""
        self._begun = dict(facts)
        with self._writing(), self.lock():
            record = self.record_or_empty()
            if record["run"] != facts or record["moving"].get(""):
                old = self._all_files()
                record = {"format": FORMAT, "run": dict(facts), "check": {}, "chapters": {}, "moving": {"": old}}
                self._write(record)
                for file in old:
                    (self.path / file).unlink(missing_ok=True)
                self._write(record | {"moving": {}})

    @contextlib.contextmanager
    def workplace(self, chapter: str) -> Iterator[Path]:
        """A temporary folder in which a chapter is made; removed in the end."""
        with self._writing(), own_folder(self.path, chapter) as folder:
            yield folder

    def parts(self, chapter: str) -> Path:
        """Where parts of a chapter's sweeps are kept while it is made, for one that is interrupted."""
        return self.path / f".parts-{chapter}"

    def commit(self, chapter: str, workplace: Path, entry: Mapping[str, Any]) -> None:
        """Move what was made in a workplace into place, and take it into the record with its digests.

        Raises:
            RunFolderError: it cannot be written; the record then speaks of nothing that is not there.
        """
        new = sorted(str(f.relative_to(workplace)) for f in _files(workplace))
        with self._writing(), self.lock():
            record = self.record_or_empty()
            if self._begun is not None and record["run"] != self._begun:
                raise OtherRunError(
                    f"The run {self.name} was replaced by another command while this one made its chapter {chapter}, "
                    f"which is not kept; repeat this one with --replace if it is to have the last word."
                )
            old = {*record["chapters"].pop(chapter, {}).get("files", {}), *record["moving"].pop(chapter, ())}
            others = {file for other in record["chapters"].values() for file in other["files"]}
            record["moving"][chapter] = sorted((old | set(new)) - others)
            self._write(record)
            for file in sorted(old - set(new) - others):
                (self.path / file).unlink(missing_ok=True)
            for file in new:
                target = self.path / file
                target.parent.mkdir(exist_ok=True)
                (workplace / file).replace(target)
            digests = {file: digest_of(self.path / file) for file in new}
            record["chapters"][chapter] = {**entry, "files": digests}
            del record["moving"][chapter]
            self._write(record)
            remove(self.parts(chapter))

    # Reading what was made

    def notebook(self, chapter: str) -> Path:
        return self.path / f"{chapter}.ipynb"

    def damage(self, entry: Mapping[str, Any]) -> list[str]:
        """What is wrong with the files of a chapter's entry, in words; nothing if each is as it was made."""
        problems = []
        for file, digest in entry.get("files", {}).items():
            try:
                if self._leads_out(file):
                    problems.append(f"{file} leads out of the run's folder")
                elif (path := self.path / file).is_fifo():
                    problems.append(f"{file} is a pipe")  # which would be waited for
                elif digest_of(path) != digest:
                    problems.append(f"{file} was changed")
            except FileNotFoundError:
                problems.append(f"{file} is gone")
            except OSError as error:
                problems.append(f"{file} cannot be read ({error.strerror})")
        return problems

    def _leads_out(self, file: str) -> bool:
        """Whether a file is, or lies behind, a link to somewhere else."""
        return not Path(os.path.realpath(self.path / file)).is_relative_to(os.path.realpath(self.path))

    def digest_in_record(self, file: str) -> str | None:
        """The digest with which a file was made, by whichever chapter made it; None if none did."""
        for entry in self.record_or_empty()["chapters"].values():
            if file in entry["files"]:
                return str(entry["files"][file])
        return None

    def read(self, file: str, digest: str | None) -> str:
        """The text of a file, which must have this digest.

        Raises:
            DamagedRunError: it is gone, or another.
        """
        path = self.path / file
        if digest is None or not path.is_file():
            raise DamagedRunError(f"{self.name}/{file} is missing; run the model again to make it.")
        if self._leads_out(file) or digest_of(path) != digest:
            raise DamagedRunError(f"{self.name}/{file} is not what was made; run the model again to mend it.")
        return path.read_text(encoding="utf-8")

    # Where a folder or file of the user's is that a run was made of: kept here, published nowhere

    def remember_sources(self, **places: str) -> None:
        with self._writing():
            file = self.path.parent / ".sources" / f"{self.name}.json"
            file.parent.mkdir(exist_ok=True)
            write_whole(file, json.dumps(places) + "\n")

    def sources(self) -> dict[str, str]:
        """What `remember_sources` was told; nothing on another machine."""
        try:
            found = json.loads((self.path.parent / ".sources" / f"{self.name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _all_files(self) -> list[str]:
        files = (file for file in _files(self.path) if not file.relative_to(self.path).parts[0].startswith("."))
        return sorted(str(file.relative_to(self.path)) for file in files if file.name != "run.json")

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return writing("The run folder", self.path, RunFolderError)


def effects_file(claim: str) -> str:
    return f"claims/{claim}.json"


def handed_file(name: str) -> str:
    return f"handed/{name}.json"


def shown_file(chapter: str) -> str:
    return f"shown/{chapter}.json"


def is_file_of(file: str, run: str, chapter: str) -> bool:
    """Whether a chapter of a run may have a file of this name."""
    own = [re.escape(f"{chapter}.ipynb"), re.escape(shown_file(chapter))]
    figures = rf"figures/{re.escape(run)}_[\w-]+\.(svg|png|pdf|json|csv)"
    return (
        re.fullmatch("|".join([*own, figures, r"(tables/[\w-]+\.csv)", r"(claims|handed)/\w+\.json"]), file) is not None
    )


def figure_stem(run: str, figure: str) -> str:
    """How the files of a figure begin: the run is in their names, so that a file that was downloaded has it, too."""
    return f"figures/{run}_{figure}"


def figure_ids(run: str, files: Iterable[str]) -> list[str]:
    """The figures whose pictures are among files of a run, by their ids, in order."""
    stems = (Path(file).stem for file in files if file.startswith("figures/") and file.endswith(".svg"))
    return sorted(stem.removeprefix(f"{run}_") for stem in stems)


def is_drawn(file: str) -> bool:
    """Whether a file of a run is drawn from others of it."""
    return file.startswith("figures/") and not file.endswith(".csv")


def table_files(run: str, item: str, names: Sequence[str], *, figure: bool) -> dict[str, str]:
    """Where the tables of an item lie: those of a figure beside it, where its numbers are published."""
    if figure:
        stem = figure_stem(run, item)
        return {name: f"{stem}{'' if len(names) == 1 else f'-{name}'}.csv" for name in names}
    return {name: f"tables/{item}-{name}.csv" for name in names}


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith(".")]

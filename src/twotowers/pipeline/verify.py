"""Verify figures: run again what made them, beside the run and without touching it, and compare.

A chapter reads what earlier ones have handed on, as the run keeps it; what it hands on itself is compared, too. So if
all chapters are the same, the whole run is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..chapters.registry import CHAPTERS, find
from ..errors import UnknownNameError, UserError, writing
from ..models.loading import Loading
from ..publishing.crowd import own_folder
from ..publishing.provenance import RUN_NOTE
from ..publishing.run_folder import RunFolder, figure_stem, handed_file, is_drawn, project_root, shown_file
from ..publishing.shown import Shown
from .compare import first_difference
from .contributed import contribution
from .figures import command_of, figure_id, figures_of, find_run
from .freshness import changed_results, made_of
from .kernels import Kernels
from .progress import Progress
from .run import Prepared, prepare
from .status import study_of

SAME, DIFFERS, STALE = "same within tolerance", "differs", "stale"
AGAIN = "again"  # the folder in which a chapter is run again
STORED = (OSError, ValueError, KeyError, TypeError)  # what reading a file raises that is not what was written


class NotHereError(UserError):
    """What a run was made of is not at hand."""


@dataclass(frozen=True)
class Verified:
    """A figure, or whatever else a chapter makes: whether it is the same, and if not, what differs or has changed."""

    name: str
    verdict: str
    said: str = ""

    def __str__(self) -> str:
        return f"{self.verdict}: {self.said}" if self.said else self.verdict


def verify(figures: Sequence[str] = (), *, model: str | None = None) -> Iterator[Verified]:
    """Say of each figure whether it comes out again; without figures, of all that the run has made.

    Of a run that was contributed nothing is executed either: this package's chapters are, and every line says whose
    values it compares with.

    Raises:
        UserError: no such run or figure, or its model is not at hand; nothing has been run then.
        ChapterError: a chapter stopped with an error that is ours.
    """
    root = project_root()
    run = find_run(root, model, figures[0] if figures else "")
    wanted = [figure_id(run, figure) for figure in figures]
    known = figures_of(run)
    for figure in wanted:
        if figure not in known:
            raise UnknownNameError("figure", figure, known, f" (of the run {run.name})")
    made = run.record()["chapters"]
    chapters = [name for name in CHAPTERS if name in ({known[figure] for figure in wanted} if wanted else made)]
    return with_whose(run, _verified(root, run, _prepared(run), chapters, wanted))


def with_whose(run: RunFolder, found: Iterator[Verified]) -> Iterator[Verified]:
    """What was found of a run, unchanged; of one that was contributed, each says whose values were compared."""
    made = contribution(run)
    for verified in found:
        said = [verified.said, f"the run was contributed {made.by_whom}" if made else ""]
        yield dataclasses.replace(verified, said="; ".join(filter(None, said)))


def _verified(
    root: Path, run: RunFolder, prepared: Prepared, chapters: Sequence[str], wanted: Sequence[str]
) -> Iterator[Verified]:
    for chapter in chapters:
        kept = _kept(run, chapter)
        names = [name for name in kept.items if name != RUN_NOTE.id and (not wanted or name in wanted)]
        entry = run.entry(chapter)
        if changed := changed_results(entry, made_of(root, chapter, prepared.study, run)):
            yield from (Verified(name, STALE, "; ".join(changed)) for name in names)
            continue
        with _run_again(root, prepared, chapter) as folder:
            now = Shown.read(folder, chapter)
            yield from (_compared(run, entry, kept, now, name) for name in names)
            if not wanted:
                yield from (_handed(run, folder, name) for name in find(chapter).hands_on)


def _prepared(run: RunFolder) -> Prepared:
    """The run as it was asked for, from its own record.

    Raises:
        NotHereError: its model or task is not at hand, or is another one.
    """
    if study_of(run) is None:
        raise NotHereError(
            f"The model or task of the run {run.name} is not at hand, or is another than it was; run it here first "
            f"with: {command_of(run)}"
        )
    facts, places = run.record()["run"], run.sources()
    model, task = places.get("model", facts["model"]), places.get("task", facts["task"])
    return prepare(model, task, facts["scale"], facts["seed"], Loading(**facts["loading"]))


def _kept(run: RunFolder, chapter: str) -> Shown:
    """What the run keeps of a chapter's page, if it is what was made."""
    file = shown_file(chapter)
    run.read(file, run.digest_in_record(file))
    return Shown.read(run.path, chapter)


@contextlib.contextmanager
def _run_again(root: Path, prepared: Prepared, chapter: str) -> Iterator[Path]:
    """A folder with all that a chapter makes, executed beside its run; removed in the end."""
    building = root / "_build"
    with writing("The folder", building), own_folder(building, "verify") as place:
        beside = RunFolder(place / prepared.run.name)
        beside.path.mkdir()
        with prepared.run.undisturbed():
            for name in ("run.json", "handed", "claims"):
                _copy(prepared.run.path / name, beside.path / name)
        folder, progress, kernels = beside.path / AGAIN, Progress(f"{beside.name}: "), Kernels()
        folder.mkdir()
        progress.say(f"{beside.name}: {chapter} (run again, to compare)")
        try:
            dataclasses.replace(prepared, run=beside).execute(chapter, folder, progress, kernels, 1)
        finally:
            kernels.end()
            progress.clear()
        yield folder


def _copy(file: Path, target: Path) -> None:
    if file.is_dir():
        shutil.copytree(file, target)
    elif file.exists():
        shutil.copy2(file, target)


def _compared(run: RunFolder, entry: dict[str, Any], kept: Shown, now: Shown, name: str) -> Verified:
    """One item: its numbers first, then the files that are drawn from them."""
    if name not in now.items:
        return Verified(name, STALE, "today's page does not show it")
    try:
        said = first_difference(kept.inputs(name), now.inputs(name))
    except STORED as error:
        said = f"its numbers cannot be read ({error})"
    if said is None:
        stem = figure_stem(run.name, name)
        files = {file: made for file, made in entry["files"].items() if is_drawn(file) and _begins(file, stem)}
        said = "; ".join(run.damage({"files": files}))
    return Verified(name, DIFFERS, said) if said else Verified(name, SAME)


def _begins(file: str, stem: str) -> bool:
    return file.rpartition(".")[0] == stem


def _handed(run: RunFolder, folder: Path, name: str) -> Verified:
    """What a chapter hands on to later ones."""
    file = handed_file(name)
    now = json.loads((folder / file).read_text(encoding="utf-8"))
    try:
        kept = json.loads((run.path / file).read_text(encoding="utf-8"))
    except STORED as error:
        return Verified(file, DIFFERS, f"it cannot be read ({error})")
    said = first_difference({"what is handed on": kept["value"]}, {"what is handed on": now["value"]})
    return Verified(file, DIFFERS, said) if said else Verified(file, SAME)

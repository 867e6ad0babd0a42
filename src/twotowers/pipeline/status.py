"""The state of every run and chapter of a checkout, without running anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..chapters.registry import CHAPTERS, needs
from ..errors import RunFolderError, UserError
from ..models.files import is_here
from ..models.loading import Loading
from ..publishing.provenance import run_name
from ..publishing.run_folder import RunFolder, project_root, runs_of
from ..study import Study, open_study
from .contributed import contribution, state_of
from .freshness import DAMAGED, DONE, LOOK, MISSING, STALE, State, made_of, state


@dataclass(frozen=True)
class Line:
    """The state of one chapter of one run; `model_here` says whether the model's own files could be compared."""

    run: str
    chapter: str
    state: State
    model_here: bool


def status(root: Path) -> Iterator[Line]:
    """All runs that have a record, by name, and all chapters in the order of the book."""
    for run in runs_of(root):
        yield from run_status(root, run)


def run_status(root: Path, run: RunFolder) -> list[Line]:
    """The chapters of one run. One that reads of a chapter that is not done is itself not known to be up to date.

    A run that was contributed is compared with nothing but its own record.
    """
    if (made := contribution(run)) is not None:
        return [Line(run.name, chapter, state_of(run, made, chapter), True) for chapter in CHAPTERS]
    study, lines = study_of(run), dict[str, Line]()
    for chapter in CHAPTERS:
        found = state(run, chapter, made_of(root, chapter, study, run))
        behind = [name for name in CHAPTERS if name in needs(chapter) and lines[name].state.name not in (DONE, LOOK)]
        if behind and found.name in (DONE, LOOK):
            found = State(STALE, tuple(f"{name}, which it reads of, is {lines[name].state.name}" for name in behind))
        lines[chapter] = Line(run.name, chapter, found, study is not None)
    return list(lines.values())


def study_of(run: RunFolder) -> Study | None:
    """The study that a run was made of, if its model and task are at hand and are still what they were."""
    facts, places = run.record_or_empty()["run"], run.sources()
    try:
        model, task = places.get("model", facts["model"]), places.get("task", facts["task"])
        missing = (facts["kind"] == "folder" and "model" not in places) or (facts["own_task"] and "task" not in places)
        if missing or not is_here(model):
            return None
        study = open_study(model, task, facts["scale"], facts["seed"], Loading(**facts["loading"]))
        return study if run_name(study) == run.name else None
    except (UserError, KeyError, TypeError, OSError):
        return None


def chapters_made(key: str) -> int:
    """How many chapters of a registry model's usual run were made in this checkout; 0 outside of one."""
    try:
        run = RunFolder(project_root() / "book" / "runs" / key)
        return 0 if contribution(run) else len(run.record_or_empty()["chapters"])
    except RunFolderError:
        return 0


def not_fit_to_publish(lines: list[Line]) -> dict[str, State]:
    """Chapters of a run that a site should not show as they are; those that were never made are simply not there."""
    bad = (STALE, LOOK, DAMAGED)
    return {
        line.chapter: line.state
        for line in lines
        if line.state.name in bad or (line.state.name == MISSING and line.state.reasons)
    }

"""Draw anew the pages of runs that only look otherwise today: another colour, caption or prose, the same results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..chapters.registry import needs
from ..errors import RunFolderError, writing
from ..processes import Processes
from ..publishing.run_folder import RunFolder
from .freshness import LOOK, made_of, state, text_of
from .progress import Progress
from .redraw import redraw
from .schedule import side_by_side
from .status import run_status


def draw_looks_anew(root: Path, runs: Iterable[RunFolder], drawing: Processes) -> None:
    """Draw every page of these runs anew whose look alone is stale; no model is needed, and all else is left as it is.

    Raises:
        RunFolderError: a run's folder cannot be written.
    """
    pages = [(run, line.chapter) for run in runs for line in run_status(root, run) if line.state.name == LOOK]
    drawing, progress = drawing.enough_for(len(pages), 1), Progress()
    # While a page is moved into place, what it hands on is not to be had, and one that reads it would look stale.
    side_by_side(
        pages,
        {(run, chapter): [(run, other) for other in needs(chapter)] for run, chapter in pages},
        drawing.number,
        lambda page: _draw_anew(root, *page, drawing, progress),
        look=progress.show,
        end=drawing.end,
    )


def _draw_anew(root: Path, run: RunFolder, chapter: str, drawing: Processes, progress: Progress) -> None:
    with writing("The run folder", run.path, RunFolderError), run.lock(chapter), run.workplace(chapter) as workplace:
        found = state(run, chapter, now := made_of(root, chapter, None, run))
        if found.name != LOOK:  # another command was here before
            return
        entry = run.entry(chapter)
        if drawing.call(redraw, text_of(root, chapter), run, chapter, workplace, entry, None):
            run.commit(chapter, workplace, entry | {"made_of": entry["made_of"] | {"look": now["look"]}})
            progress.say(f"{run.name}: {chapter} (drawn anew: {'; '.join(found.reasons)})")

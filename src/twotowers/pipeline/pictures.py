"""Pictures that a build draws beside those of the runs: for narrow places, and with common axes. Drawn side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..chapters.registry import CHAPTERS
from ..publishing.crowd import clear_left_behind
from .machine import cores
from .narrow import draw_narrow, narrow_place
from .overview import figures_of
from .pages import Published
from .processes import processes
from .same_axes import alike_places, draw_alike
from .schedule import side_by_side

FEW = 4  # pictures for which a process is not worth its start


def draw_ahead(runs: Sequence[Published], narrow: Path, alike: Path) -> None:
    """Draw into two folders what is not there yet, and remove what no page will show."""
    ahead, shown = list[tuple[Any, ...]](), set[Path]()
    for chapter in CHAPTERS:
        for figure, having in figures_of(chapter, runs).items():
            for own in having:
                shown.add(place := narrow_place(own, chapter, figure, narrow))
                ahead += [] if place.is_file() else [(draw_narrow, own, chapter, figure, place)]
            shown.update(places := alike_places(figure, chapter, having, alike))
            if not all(place.is_file() for place in places):
                ahead.append((draw_alike, figure, chapter, having, places))
    at_once = max(1, min(cores(), len(ahead) // FEW))
    with processes(at_once) as drawing:
        work = range(len(ahead))
        side_by_side(work, {}, at_once, lambda n: drawing.call(*ahead[n]), look=lambda: None, end=drawing.end)
    for folder in (narrow, alike):
        clear_left_behind(folder)
    for old in {*narrow.glob("[!.]*"), *alike.glob("[!.]*")} - shown:
        old.unlink()

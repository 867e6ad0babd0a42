"""Pictures that a build draws beside those of the runs: for narrow places, and with common axes. Drawn side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..chapters.registry import CHAPTERS
from ..processes import Processes
from ..publishing.crowd import clear_left_behind
from .narrow import draw_narrow, narrow_place
from .overview import figures_of
from .pages import Published
from .same_axes import alike_places, draw_alike
from .schedule import side_by_side

FEW = 8  # pictures for which processes are not worth their start


def draw_ahead(runs: Sequence[Published], narrow: Path, alike: Path, drawing: Processes) -> None:
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
    drawing, work = drawing.enough_for(len(ahead), FEW), range(len(ahead))
    side_by_side(work, {}, drawing.number, lambda n: drawing.call(*ahead[n]), look=lambda: None, end=drawing.end)
    for folder in (narrow, alike):
        clear_left_behind(folder)
    for old in {*narrow.glob("[!.]*"), *alike.glob("[!.]*")} - shown:
        old.unlink()

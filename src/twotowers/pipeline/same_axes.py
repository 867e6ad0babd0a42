"""One figure of several runs, as narrow as half a page, drawn so that the measure has the same limits in each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axis import Axis
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator
from PIL import Image

from ..publishing.crowd import write_whole
from ..publishing.style import styled
from .narrow import digest, narrow_drawings
from .pages import Published

DPI, COLOURS = 140, 64  # bitmaps: as vectors these pictures would be a quarter of the site


def drawn_alike(figure: str, chapter: str, runs: Sequence[Published], kept: Path) -> list[Path]:
    """Pictures of a figure, one for each run, with common limits; none where that is not simple.

    Args:
        kept: a folder for pictures; what is there already, of the same results and look, is not drawn again.
    """
    places = alike_places(figure, chapter, runs, kept)
    if not all(place.is_file() for place in places):
        draw_alike(figure, chapter, runs, places)
    return places if all(place.stat().st_size for place in places) else []


def alike_places(figure: str, chapter: str, runs: Sequence[Published], kept: Path) -> list[Path]:
    key = digest(runs, chapter, figure)
    return [kept / f"{own.name}-{figure}-{key}.png" for own in runs]


def draw_alike(figure: str, chapter: str, runs: Sequence[Published], places: Sequence[Path]) -> None:
    """Draw a figure of each run with common limits; where that is not simple, the files are empty."""
    drawings = narrow_drawings(figure, chapter, runs)
    simple = same_limits(drawings)
    for number, place in enumerate(places):
        picture = io.BytesIO()
        if simple:
            whole = io.BytesIO()
            with styled():
                drawings[number].savefig(whole, dpi=DPI)
            small = Image.open(whole).convert("RGB").quantize(COLOURS)
            small.save(picture, format="PNG", dpi=(DPI, DPI), optimize=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, picture.getvalue())


def same_limits(drawings: Sequence[Drawing]) -> bool:
    """Give the axes of each panel that hold the measure common limits: y, or x where y has names; not of maps, nor of
    planes, whose axes are in units of their own, and as long as each other.

    Returns:
        False, and nothing is changed, where panels do not correspond.
    """
    panels = [drawing.axes for drawing in drawings]
    if len(drawings) < 2 or len({len(axes) for axes in panels}) != 1:
        return False
    if any(isinstance(part, QuadMesh) for axes in panels for ax in axes for part in ax.collections):
        return False
    if any(ax.get_aspect() != "auto" for axes in panels for ax in axes):
        return False
    for column in zip(*panels, strict=True):
        if not all(ax.axison for ax in column):
            continue  # words, and no measure
        named = any(_named(ax.yaxis) for ax in column)
        measures = [ax.xaxis if named else ax.yaxis for ax in column]
        if len({measure.get_scale() for measure in measures}) == 1 and not any(map(_named, measures)):
            limits = [limit for measure in measures for limit in measure.get_view_interval()]
            inverted = measures[0].get_inverted()
            for ax in column:
                low, high = (max(limits), min(limits)) if inverted else (min(limits), max(limits))
                (ax.set_xlim if named else ax.set_ylim)(low, high)
    return True


def _named(axis: Axis) -> bool:
    """Whether ticks were given, as names of rows are."""
    return isinstance(axis.get_major_locator(), FixedLocator)

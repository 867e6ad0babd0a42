"""Figures for narrow places, a phone or half a page: their panels below each other, drawn from what a run has kept."""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure as Drawing

from ..publishing.crowd import own_folder
from ..publishing.publish import Figure, drawn, is_narrow, narrow_file, write_narrow
from ..publishing.run_folder import digest_of, figure_stem
from ..publishing.shown import UNDRAWABLE, Shown
from ..publishing.style import NARROW
from .freshness import PACKAGE
from .pages import Published
from .redraw import items_of


def stage_narrow(book: Path, own: Published, chapter: str, kept: Path) -> None:
    """Write the narrow pictures of a chapter's figures beside the others, in the staged book.

    Args:
        kept: a folder for pictures; what is there already, of the same results and code, is not drawn again.
    """
    for figure in own.pictures(chapter):
        place = narrow_place(own, chapter, figure, kept)
        if not place.is_file():
            draw_narrow(own, chapter, figure, place)
        if place.stat().st_size:
            shutil.copyfile(place, book / "runs" / own.name / narrow_file(figure_stem(own.name, figure)))


def narrow_place(own: Published, chapter: str, figure: str, kept: Path) -> Path:
    stem = Path(figure_stem(own.name, figure)).name
    return Path(narrow_file(str(kept / f"{digest([own], chapter, figure)}-{stem}")))


def draw_narrow(own: Published, chapter: str, figure: str, place: Path) -> None:
    """Draw a narrow picture; of a figure that needs its width the file is empty."""
    made = narrow_drawings(figure, chapter, [own])
    place.parent.mkdir(parents=True, exist_ok=True)
    with own_folder(place.parent, "narrow") as folder:  # so that a picture is there whole or not at all
        stem = folder / place.name.removesuffix(narrow_file(""))
        if made:
            write_narrow(stem, made[0])
        else:
            Path(narrow_file(str(stem))).touch()
        Path(narrow_file(str(stem))).replace(place)


def narrow_drawings(figure: str, chapter: str, runs: Sequence[Published]) -> list[Drawing]:
    """The figure of each run by today's code; none if it needs its width, or results are those of other code."""
    item = items_of(chapter).get(figure)
    if not isinstance(item, Figure):
        return []
    try:
        shown = [Shown.read(own.run.path, chapter) for own in runs]
        drawings = [drawn(item, kept.facts, kept.inputs(figure), width=NARROW) for kept in shown]
    except UNDRAWABLE:
        return []
    return drawings if all(map(is_narrow, drawings)) else []


def digest(runs: Sequence[Published], chapter: str, figure: str) -> str:
    """Of all that pictures of a figure are drawn from: the runs' own pictures, and the code."""
    of = [digest_of(own.run.path / f"{own.pictures(chapter)[figure]}.svg") for own in runs]
    return hashlib.sha256("".join([_code(), *of]).encode()).hexdigest()[:16]


@functools.cache
def _code() -> str:
    files = [*(PACKAGE / "publishing").glob("*.py"), *PACKAGE.rglob("*page.py")]
    return "".join(map(digest_of, sorted(files)))

"""Pictures whose text can be read wherever they stand.

A narrow page shows the form of a figure that was drawn for it. One that has none scrolls in a box, as wide as its
smallest text needs; one that only leads to its figure is without text.
"""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

from PIL import Image

from ..publishing.compact import compact
from ..publishing.publish import narrow_file
from ..publishing.style import NARROW, SMALLEST

LEAST = 9.0  # CSS pixels of the smallest text
POINTS = 72  # to an inch
ON_PHONES = "screen and (max-width: 768px)"  # as in the style sheet
_SIZE = re.compile(r"font(?:-size)?: (?:[a-z0-9]+ )*?([0-9.]+)px|font-size=\"([0-9.]+)\"")
_IMAGE = re.compile(r'<img (?=[^>]*src="((?:\.\./)*)(_images/[^"]+\.(?:svg|png))")[^>]*?/?>')
_TEXT = re.compile(r"<text\b.*?</text>|<metadata>.*?</metadata>", re.DOTALL)
_SIDES = {"Left": "Above", "Right": "Below", "left": "above", "right": "below"}  # where panels are in the other form
_SIDE = re.compile(r"\b(Left|Right)(?=: )|(?<=\()(left|right)(?=\))")


def width(picture: Path) -> int | None:
    """Pixels that a drawing needs; None of one without text."""
    if picture.suffix == ".png":
        return _of_bitmap(picture)
    text = picture.read_text(encoding="utf-8")
    box = re.search(r'viewBox="[-0-9.]+ [-0-9.]+ ([0-9.]+)', text)
    sizes = [float(in_style or alone) for in_style, alone in _SIZE.findall(text)]
    return math.ceil(float(box[1]) * LEAST / min(sizes)) if box and sizes else None


def _of_bitmap(picture: Path) -> int | None:
    """Our drawings say how many pixels an inch of them has, and are no narrower than a phone."""
    with Image.open(picture) as opened:
        inches = opened.width / float(opened.info.get("dpi", (math.inf,))[0])
    return math.ceil(inches * POINTS * LEAST / SMALLEST) if inches > NARROW - 0.1 else None


def place_narrow(book: Path, site: Path) -> None:
    """Put the narrow forms of the site's pictures beside them."""
    for picture in book.rglob(narrow_file("*")):
        if (site / "_images" / picture.name.replace(narrow_file(""), ".svg")).is_file():
            shutil.copyfile(picture, site / "_images" / picture.name)


def with_widths(page: str, site: Path, known: dict[str, int | None]) -> str:
    """A page whose pictures can be read on a phone, too, and whose words say where their panels are then.

    Args:
        known: what is known of pictures already, by their place; it is added to.
    """

    def needed(place: str) -> int | None:
        if place not in known:
            known[place] = width(site / place)
        return known[place]

    def boxed(image: re.Match[str]) -> str:
        up, place = image[1], image[2]
        if "small-figure" in image[0]:
            return image[0].replace(place, _without_text(site, place))
        pixels, narrow = needed(place), narrow_file(place.removesuffix(".svg"))
        if pixels is None or "style=" in image[0]:
            return image[0]
        if has_narrow := (site / narrow).is_file():
            pixels = needed(narrow)
        shown = f'{image[0][:5]}style="--readable: {pixels}px" {image[0][5:]}'
        if has_narrow:
            shown = f'<picture><source media="{ON_PHONES}" srcset="{up}{narrow}"/>{shown}</picture>'
        return f'<span class="figure-scroll">{shown}</span>'

    head, article, rest = page.partition("<article")
    rest = _IMAGE.sub(boxed, rest)
    return head + article + (_with_sides(rest) if "<picture>" in rest else rest)


def _without_text(site: Path, place: str) -> str:
    """A picture without its letters, which would be too small where it stands."""
    small = place.replace(".svg", "-small.svg")
    if not (site / small).is_file():
        text = (site / place).read_text(encoding="utf-8")
        (site / small).write_text(compact(_TEXT.sub("", text)), encoding="utf-8")
    return small


def _with_sides(page: str) -> str:
    """Words on panels beside each other, with those on panels below each other for where they are so."""

    def both(side: re.Match[str]) -> str:
        return f'<span class="is-wide">{side[0]}</span><span class="is-narrow">{_SIDES[side[0]]}</span>'

    return re.sub(r"(?<=>)[^<>]+(?=<)", lambda words: _SIDE.sub(both, words[0]), page)

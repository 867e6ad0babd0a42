"""How wide a picture has to be so that its smallest text can be read: a narrow page lets it scroll in a box."""

from __future__ import annotations

import math
import re
from pathlib import Path

from PIL import Image

from ..publishing.style import SMALLEST, WIDTH

LEAST = 9.0  # CSS pixels of the smallest text
POINTS = 72  # to an inch
_SIZE = re.compile(r"font(?:-size)?: (?:[a-z0-9]+ )*?([0-9.]+)px|font-size=\"([0-9.]+)\"")
_IMAGE = re.compile(r'<img (?=[^>]*src="((?:\.\./)*)(_images/[^"]+\.(?:svg|png))")[^>]*?/?>')


def width(picture: Path) -> int | None:
    """Pixels that a drawing needs; None of one without text."""
    if picture.suffix == ".png":
        return math.ceil(WIDTH * POINTS * LEAST / SMALLEST) if _drawn(picture) else None
    text = picture.read_text(encoding="utf-8")
    box = re.search(r'viewBox="[-0-9.]+ [-0-9.]+ ([0-9.]+)', text)
    sizes = [float(in_style or alone) for in_style, alone in _SIZE.findall(text)]
    return math.ceil(float(box[1]) * LEAST / min(sizes)) if box and sizes else None


def _drawn(picture: Path) -> bool:
    """Whether a bitmap has the width of our figures."""
    with Image.open(picture) as opened:
        return opened.width > WIDTH * POINTS


def with_widths(page: str, site: Path, known: dict[str, int | None]) -> str:
    """A page whose pictures stand in boxes that scroll, and say how wide they have to be.

    Args:
        known: what is known of pictures already, by their place; it is added to.
    """

    def boxed(image: re.Match[str]) -> str:
        if image[2] not in known:
            known[image[2]] = width(site / image[2])
        needed = known[image[2]]
        if needed is None or "small-figure" in image[0] or "style=" in image[0]:
            return image[0]
        return f'<span class="figure-scroll">{image[0][:5]}style="--readable: {needed}px" {image[0][5:]}</span>'

    head, article, rest = page.partition("<article")
    return head + article + _IMAGE.sub(boxed, rest)

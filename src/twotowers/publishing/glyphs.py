"""Texts from outside as a picture can show them: what its font lacks, or what no eye can see, is a box."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib import font_manager

BOX = "□"
LONGEST = 12  # letters of a label in a picture


def drawable(value: Any, names: Mapping[str, str]) -> Any:
    """A text, or all texts of a data frame or of JSON, its names included, as they can be drawn.

    Args:
        names: what is written for texts, or parts of them, that are too long (`short`).
    """
    if isinstance(value, str):
        for name, instead in names.items():
            value = value.replace(name, instead)
        return "".join(c if _has_glyph(c) else BOX for c in value)
    if isinstance(value, Mapping):
        return {drawable(name, names): drawable(part, names) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(drawable(part, names) for part in value)
    if isinstance(value, pd.DataFrame):
        texts = [name for name, kind in value.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
        shown = value.assign(**{str(name): value[name].map(lambda part: drawable(part, names)) for name in texts})
        return shown.rename(columns=lambda name: drawable(name, names))
    return value


def short(labels: Sequence[str]) -> dict[str, str]:
    """What is written for labels that are too long, so that they still differ."""
    long = [label for label in labels if len(label) > LONGEST]
    cut = [f"{label[: LONGEST - 1]}…" for label in long]
    numbers = [str(n) if cut.count(text) > 1 else "" for n, text in enumerate(cut, 1)]
    return {label: text + number for label, text, number in zip(long, cut, numbers, strict=True)}


@functools.cache
def _has_glyph(character: str) -> bool:
    if unicodedata.category(character) in ("Cc", "Cf"):
        return False
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return font.get_char_index(ord(character)) != 0

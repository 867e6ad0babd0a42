"""When two texts, or names of two categories, are the same in another spelling, and how such are named in a line."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from .written import cut, shown, writable

_MEANT = set("#%&@-")  # C# is not C, nor -5 a 5
_TYPED = {  # what programs write for what was typed
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u02bc"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f"), '"'),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-"),
}


def spelt_plainly(text: str) -> str:
    """A text without case, marks around it, the width of its spaces and the shape of its quotes and dashes.

    Marks alone stay what they are.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", shown(text)).casefold())
    plain = " ".join(folded.split())
    marks = {c for c in plain if unicodedata.category(c)[0] == "P"} - _MEANT
    return (plain.strip("".join(marks) + " ") or plain).translate(_TYPED)


def named_plainly(category: str) -> str:
    """A category's name as a number, if it is one, or else spelt plainly."""
    plain = spelt_plainly(category)
    try:
        return str(float(plain))
    except ValueError:
        return plain.replace("_", " ")


def named(names: Sequence[str], most: int = 5) -> str:
    """Names in quotes, in a line."""
    return listed([f"'{cut(writable(name))}'" for name in names], most)


def listed(parts: Sequence[str], most: int) -> str:
    """The first parts, with commas between them, and how many more there are."""
    more = f" and {len(parts) - most:,} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more

"""When two texts, or names of two categories, are the same in another spelling, and how such are named in a line."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import unicodedata
from collections.abc import Sequence

from .written import cut, shown, writable

_MEANT = set("#%&@-")  # C# is not C, nor -5 a 5
_TYPED = {  # what programs write for what was typed
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u02bc"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f"), '"'),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-"),
}
_FORMULA = re.compile(r'="[^"]*"|=[A-Z][A-Z0-9._]*\(.*\)', re.DOTALL)
_ESCAPED = re.compile(
    r"\\n|\\u[0-9a-fA-F]{4}|&(amp|lt|gt|quot|nbsp|apos|#\d+|#x[0-9a-fA-F]+);|<(br|p|b|i|div|span)\b[^<>]*>"
)


def spelt_plainly(text: str) -> str:
    """A text without case, marks around it, the width of its spaces and the shape of its quotes and dashes.

    Marks alone stay what they are.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", shown(text)).casefold())
    plain = " ".join(folded.split())
    marks = {c for c in set(plain) if unicodedata.category(c)[0] == "P"} - _MEANT
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


def computed(cell: str) -> str:
    """What a program has written in place of a plain text: a formula, or a list; empty for a plain text."""
    if _FORMULA.fullmatch(cell):
        return "a formula"
    if cell[:1] + cell[-1:] in ("[]", "{}"):
        for parse in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
                found = parse(cell)
                return "a list" if any(isinstance(part, str) for part in found) else ""
    return ""


def damaged(texts: Sequence[str]) -> str:
    """What perhaps happened to texts on their way, as sentences: lost or wrongly read characters, marks of a page."""
    kinds = {
        "have a character that was lost (\ufffd)": [text for text in texts if "\ufffd" in text],
        "have characters that were read in another encoding than they were written in": [*filter(_misread, texts)],
        "have marks of a page or program in them": [text for text in texts if _ESCAPED.search(text)],
    }
    return " ".join(f"Perhaps damaged: {len(own):,} {kind}: {named(own, 3)}." for kind, own in kinds.items() if own)


def _misread(text: str) -> bool:
    """Whether it is UTF-8 that was read as Windows-1252, as `caf\u00c3\u00a9`."""
    try:
        return text.encode("cp1252").decode("utf-8") != text
    except UnicodeError:
        return False

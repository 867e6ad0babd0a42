"""Markdown: tables, and texts from outside made harmless.

Names of models, files and categories, texts of a task, tokens, and records of other people's runs may hold anything.
Each of these functions shows a text as it is, in one kind of place.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

_SIGN = re.compile(r"(?<=[^\W_])(?:,|[-.'](?=[^\W_]))|([^\w␣ ]|_)")


def table_text(header: Sequence[object], rows: Iterable[Sequence[object]], align: Sequence[str] = ()) -> str:
    """A Markdown table; a bar within a cell does not end it.

    Args:
        align: `"right"` or `"left"` for each column; left where it is not given.
    """

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"

    marks = ["--:" if side == "right" else "---" for side in align] + ["---"] * (len(header) - len(align))
    return "\n".join([line(header), "|" + "|".join(marks) + "|", *map(line, rows)])


def stacked(table: str) -> str:
    """A table whose cells stand below each other where the page is narrow."""
    return f":::{{div}} ledger\n{table}\n:::"


def stacking(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The same of a header and rows; where cells stand below each other, each but the first says what it is."""
    named = [[str(first), *map(_named, header[1:], others)] for first, *others in rows]
    return stacked(table_text(header, named))


def _named(name: str, cell: object) -> str:
    return f"[{name}:]{{.on-phone}} {cell}" if str(cell) else ""


def plain(text: object) -> str:
    """A text on one line, in which signs that cannot be seen, or that turn the direction of others, are named."""
    return seen(" ".join(str(text).split()))


def seen(text: object) -> str:
    """A text whose signs that cannot be seen are named: a terminal obeys some, and some cannot be printed at all."""
    return "".join(f"[U+{ord(c):04X}]" if _unseen(c) else c for c in str(text))


def escape(text: object) -> str:
    """Within running Markdown: all signs as entities, but for spaces, and those within words that mean nothing."""
    return _SIGN.sub(lambda sign: f"&#{ord(sign[1])};" if sign[1] else sign[0], plain(text))


def code(text: object) -> str:
    """As code within a line; a backtick within it does not end it."""
    words = plain(text) or " "
    ticks = "`" * (_longest_ticks(words) + 1)
    inner = f" {words} " if words.startswith("`") or words.endswith("`") else words
    return f"{ticks}{inner}{ticks}"


def fenced(text: str, language: str = "text") -> str:
    """As lines of their own; no fence within them ends ours, and only line feeds begin a line."""
    fence = "`" * max(3, _longest_ticks(text) + 1)
    lines = "\n".join("".join(c if c == "\t" or not _unseen(c) else plain(c) for c in x) for x in text.splitlines())
    return f"{fence}{language}\n{lines}\n{fence}"


def option(text: object) -> str:
    """As the value of a directive's option, quoted."""
    return json.dumps(plain(text), ensure_ascii=False)


def _unseen(character: str) -> bool:
    """Whether it is a control, or a sign of format such as those that turn the direction of text."""
    return unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall(r"`+", text)), default=0)

"""Markdown: tables, and texts from outside made harmless."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table_text(header: Sequence[object], rows: Iterable[Sequence[object]], align: Sequence[str] = ()) -> str:
    """A Markdown table; a bar within a cell does not end it.

    Args:
        align: `"right"` or `"left"` for each column; left where it is not given.
    """

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"

    marks = ["--:" if side == "right" else "---" for side in align] + ["---"] * (len(header) - len(align))
    return "\n".join([line(header), "|" + "|".join(marks) + "|", *map(line, rows)])


def escape(word: str) -> str:
    """A token that Markdown and HTML leave as it is: all but letters, digits and the space sign as an entity."""
    return "".join(c if c.isalnum() or c == "␣" else f"&#{ord(c)};" for c in word)

"""Rows of a user's table, whatever it is written in: which columns are used, and what a name says of all its rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import TaskError
from .missing import is_missing
from .written import bare

COLUMNS = ("text", "label")  # and `split`, if it is there
NAMES_OF_HALVES = {"selection", "evaluation"}


@dataclass(frozen=True)
class Row:
    """One row as it is written, but for spaces around a cell; `number` is a file's line, elsewhere it counts from 1."""

    file: Path
    number: int
    text: str
    label: str
    split: str

    @property
    def place(self) -> str:
        return f"{self.file}, row {self.number}"

    def seen_from(self, other: Row) -> str:
        """How a message about `other` names this row."""
        return f"row {self.number}" if other.file == self.file else self.place


@dataclass(frozen=True)
class Table:
    """What was read: all rows, and the names of columns and of a folder's files that play no part."""

    rows: list[Row]
    unused: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


def together(tables: Sequence[Table], unread: tuple[str, ...] = ()) -> Table:
    """The rows of all tables, as one."""
    unused = dict.fromkeys(name for table in tables for name in table.unused)
    return Table([row for table in tables for row in table.rows], tuple(unused), unread)


def half_in(file: Path) -> str:
    """The half that a file is named for, as selection.csv or datasets' own selection-00000-of-00001.parquet."""
    name = re.sub(r"-\d+-of-\d+$", "", file.stem.casefold())
    return name if name in NAMES_OF_HALVES else ""


def as_named(table: Table, name: str) -> Table:
    """The rows of a file or folder; if it is named for a half, all are of that half.

    Raises:
        TaskError: a row says that it is of another.
    """
    if name not in NAMES_OF_HALVES:
        return table
    if wrong := next((row for row in table.rows if row.split not in ("", name)), None):
        raise TaskError(
            f"{wrong.place}, column 'split' is '{wrong.split}', but what it is in is named {name}; write the same, or "
            f"leave the column out."
        )
    return replace(table, rows=[replace(row, split=name) for row in table.rows])


def places_of(path: Path, names: Sequence[str], remedy: str) -> dict[str, int]:
    """Where the columns that are used stand among the names; spaces around a name and capitals do not matter.

    Raises:
        TaskError: one is missing, or is there twice.
    """
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        own = plain(name)
        if own in places:
            raise TaskError(
                f"{path} has the column '{own}' twice ('{names[places[own]]}' and '{name}'); keep one of them."
            )
        if own in (*COLUMNS, "split"):
            places[own] = place
    missing = [f"'{name}'" for name in sorted(COLUMNS) if name not in places]
    if missing:
        found = f" but {', '.join(repr(name[:40]) for name in names[:5])}" if names else ""
        raise TaskError(f"{path} has no column {' and no column '.join(missing)}{found}; {remedy}.")
    return places


def unused_of(names: Sequence[str], places: dict[str, int]) -> tuple[str, ...]:
    """The names of columns that are not at these places."""
    return tuple(bare(name) or "without a name" for i, name in enumerate(names) if i not in places.values())


def plain(name: str) -> str:
    """A column's name without spaces around it and capitals."""
    return bare(name).casefold()


def row_of(path: Path, number: int, places: dict[str, int], cells: Sequence[object]) -> Row:
    """A row from its cells, of which those at these places are used.

    Raises:
        TaskError: one of them holds no plain text.
    """
    own = {name: _cell(path, number, name, cells[place]) for name, place in places.items()}
    split = own.get("split", "").casefold()
    return Row(path, number, own["text"], own["label"], "" if is_missing(split) else split)


def _cell(path: Path, number: int, name: str, value: object) -> str:
    if isinstance(value, (list, tuple, dict, bytes)):
        raise TaskError(f"{path}, row {number}, column '{name}' holds no plain text; give one text in each row.")
    return "" if value is None else bare(str(value))

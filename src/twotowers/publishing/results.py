"""Tables of results at full precision: written as CSV, and read back exactly as they were."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api import types

Kinds = Mapping[str, str]  # column -> "int", "float", "bool" or "text"; with "?" behind it where values are missing
_READ: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": lambda cell: cell == "True", "text": str}


def write_table(table: pd.DataFrame, path: Path) -> dict[str, str]:
    """Write a table without its index; floats have as many digits as they need to be read back as they were.

    Returns:
        the kind of each column, which `read_table` needs.

    Raises:
        TypeError: a column holds neither numbers nor texts.
    """
    kinds = {str(name): _kind(table[name]) for name in table.columns}
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = {str(name): [_cell(value) for value in table[name]] for name in table.columns}
    broken = any("\r" in cell for cell in (*kinds, *(cell for own in cells.values() for cell in own)))
    with path.open("w", encoding="utf-8", newline="") as file:
        # a carriage return by itself would be read as the end of a row, and is not quoted unless all is
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL if broken else csv.QUOTE_MINIMAL)
        writer.writerow(kinds)
        writer.writerows(zip(*cells.values(), strict=True))
    return kinds


def read_table(path: Path, kinds: Kinds) -> pd.DataFrame:
    """The table that `write_table` has written, with numpy's usual types.

    Raises:
        ValueError: the file holds another table.
    """
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file) or [[]]
    if header != list(kinds):
        raise ValueError(f"{path.name} has other columns than were written")
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)
    table = {name: _column(cells, kinds[name]) for name, cells in zip(header, columns, strict=True)}
    return pd.DataFrame(table, columns=header)


def _kind(column: pd.Series) -> str:
    if types.is_bool_dtype(column):
        return "bool"
    if types.is_integer_dtype(column):
        return "int"
    if types.is_float_dtype(column):
        return "float"
    present = column[column.notna()]
    missing = "?" if len(present) < len(column) else ""
    for kind, wanted in (("bool", bool), ("text", str)):
        if all(isinstance(value, wanted) for value in present):
            return kind + missing
    raise TypeError(f"column '{column.name}' holds neither numbers nor texts")


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    return repr(value.item() if hasattr(value, "item") else value)


def _column(cells: Any, kind: str) -> pd.Series:
    read, missing = _READ[kind.removesuffix("?")], kind.endswith("?")
    if kind == "float":
        return pd.Series([float(cell) if cell else float("nan") for cell in cells], dtype="float64")
    if missing:
        return pd.Series([read(cell) if cell else None for cell in cells], dtype=None if kind == "text?" else object)
    dtype: Any = {"int": "int64", "bool": "bool", "text": "str"}[kind]
    return pd.Series([read(cell) for cell in cells], dtype=dtype)

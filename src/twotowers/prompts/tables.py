"""A user's own texts: rows of a CSV or Parquet file, of a folder of them, or of a folder saved by `datasets`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TaskError
from ..hub import datasets_library, first_line, quiet

COLUMNS = ("text", "label")  # and `split`, if it is there
WANTED = "a CSV file with the columns text,label"


@dataclass(frozen=True)
class Row:
    """One row as it is written, but for spaces around a cell; `number` is a CSV's line, elsewhere it counts from 1."""

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


def read(path: Path) -> list[Row]:
    """All rows of a file or folder.

    Raises:
        TaskError: it is not there, cannot be read, or lacks a column; the message names file, row and column.
    """
    if not path.is_dir():
        return _file(path)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _saved(path)
    files = sorted([*path.glob("*.csv"), *path.glob("*.parquet")])
    if not files:
        raise TaskError(
            f"The folder {path} has no *.csv or *.parquet file and was not saved by datasets; give such a folder or "
            f"{WANTED}."
        )
    return [row for file in files for row in _file(file)]


def _file(path: Path) -> list[Row]:
    return _parquet(path) if path.suffix == ".parquet" else _csv(path)


def _csv(path: Path) -> list[Row]:
    """Rows of a CSV file with the line number on which each one ends (the header is line 1)."""
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise TaskError(f"There is no file {path}; give {WANTED}.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise TaskError(f"{path}, row {line} is not UTF-8; save the file as UTF-8.") from None
    except OSError as error:
        raise TaskError(f"{path} cannot be read ({error.strerror}); give a readable CSV file.") from None
    reader = csv.DictReader(io.StringIO(content, newline=""), restval="")
    rows = []
    try:
        _require_columns(path, reader.fieldnames or (), "name them in row 1")
        for row in reader:
            if None in row:  # more fields than columns: an unquoted comma has moved the label
                raise TaskError(
                    f"{path}, row {reader.line_num} has more fields than columns; put quotes around a text that "
                    f"has a comma."
                )
            rows.append(_row(path, reader.line_num, row))
    except csv.Error as error:
        raise TaskError(f"{path}, row {reader.line_num + 1} cannot be read ({error}); mend the row.") from None
    return rows


def _parquet(path: Path) -> list[Row]:
    datasets = datasets_library(f"The file {path}")
    import pyarrow.parquet  # comes with datasets

    try:
        table = datasets.Dataset(datasets.table.InMemoryTable(pyarrow.parquet.read_table(path)))
    except Exception as error:  # a damaged file may raise anything
        raise TaskError(f"{path} cannot be read ({first_line(error)}); write it again, or give {WANTED}.") from None
    return _of_dataset(path, table)


def _saved(path: Path) -> list[Row]:
    """Rows of a folder that `save_to_disk` has written, with one split or with the two halves of a task."""
    datasets = datasets_library(f"The folder {path}")
    try:
        with quiet(datasets):
            saved = datasets.load_from_disk(str(path))
    except Exception as error:  # as above
        raise TaskError(f"{path} cannot be read ({first_line(error)}); save it again, or give {WANTED}.") from None
    if isinstance(saved, datasets.Dataset):
        return _of_dataset(path, saved)
    if len(saved) == 1:
        return _of_dataset(path, next(iter(saved.values())))
    if set(saved) != {"selection", "evaluation"}:
        raise TaskError(
            f"{path} has the splits {', '.join(saved)}; give the folder of one of them, as {path / next(iter(saved))}, "
            f"or save two under the names selection and evaluation."
        )
    return [row for split, table in saved.items() for row in _of_dataset(path / split, table, split)]


def _of_dataset(path: Path, table: Any, split: str = "") -> list[Row]:
    """Rows of a `datasets.Dataset`; numbered labels get their names, if it knows them."""
    _require_columns(path, table.column_names, "rename its columns")
    name_of = getattr(table.features["label"], "int2str", None)
    rows = []
    for number, row in enumerate(table.select_columns([*COLUMNS, *({"split"} & set(table.column_names))]), start=1):
        if name_of is not None and row["label"] is not None:
            row["label"] = name_of(row["label"]) if row["label"] >= 0 else ""
        rows.append(_row(path, number, row | ({"split": split} if split else {})))
    return rows


def _require_columns(path: Path, names: Sequence[str], remedy: str) -> None:
    missing = sorted(set(COLUMNS) - set(names))
    if missing:
        listed = " and no column ".join(f"'{name}'" for name in missing)
        raise TaskError(f"{path} has no column {listed}; {remedy}.")


def _row(path: Path, number: int, cells: dict[str, Any]) -> Row:
    text, label, split = (_cell(cells.get(name)) for name in (*COLUMNS, "split"))
    return Row(path, number, text, label, split)


def _cell(value: object) -> str:
    return "" if value is None else str(value).strip()

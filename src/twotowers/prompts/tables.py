"""A user's own texts: rows of a CSV, JSON or Parquet file, of a folder of them, or of one saved by `datasets`."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TaskError
from ..hub import datasets_library, first_line, quiet

COLUMNS = ("text", "label")  # and `split`, if it is there
WANTED = "a CSV file with the columns text,label"
SEPARATORS = ",;\t|"
JSON = (".json", ".jsonl", ".ndjson")
READ = (".csv", ".tsv", ".tab", ".txt", *JSON, ".parquet")
MISSING = frozenset(["", "na", "n/a", "#n/a", "#na", "n.a.", "<na>", "nan", "-nan", "null", "#null!", "none", "nil"])

_COMPRESSED = "compressed; unpack it"
_SHEET = "a spreadsheet; save it there as CSV (UTF-8)"
_PICKLE = "a pickle, which may run code and is never opened; write it as CSV"
NOT_READ = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zip", ".zst", ".7z", ".tar", ".tgz"), _COMPRESSED),
    **dict.fromkeys((".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers"), _SHEET),
    **dict.fromkeys((".pkl", ".pickle", ".joblib", ".pt", ".npy", ".npz"), _PICKLE),
    **dict.fromkeys((".feather", ".arrow", ".h5", ".db", ".sqlite"), "no text file; write it as CSV"),
}
_FIRST_BYTES = {
    b"\x1f\x8b": _COMPRESSED,
    b"BZh": _COMPRESSED,
    b"\xfd7zXZ": _COMPRESSED,
    b"PK\x03\x04": "compressed, or a spreadsheet; unpack it, or save it as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": _SHEET,
    b"\x80": _PICKLE,
    b"PAR1": "a Parquet file; name it so (.parquet)",
}


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


def is_path(name: str) -> bool:
    """Whether a task's name can only be meant as a file or folder."""
    return Path(name).suffix.lower() in (*READ, *NOT_READ) or Path(name).exists()


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value: it is empty, or says so in the way of some program (NA, null)."""
    return cell.casefold() in MISSING


def read(path: Path) -> Table:
    """All rows of a file or folder.

    Raises:
        TaskError: it is not there, cannot be read, or lacks a column; the message names file, row and column.
    """
    if not path.is_dir():
        return _file(path)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _saved(path)
    there = sorted(path.iterdir())
    files = [file for file in there if file.suffix.lower() in READ and file.is_file() and file.name[0] != "."]
    unread = tuple(file.name for file in there if file not in files)
    if not files:
        found = f" (there is {', '.join(unread[:3])})" if unread else ""
        raise TaskError(
            f"The folder {path} has no *.csv or *.parquet file{found} and was not saved by datasets; give such a "
            f"folder or {WANTED}."
        )
    return _together([_file(file) for file in files], unread)


def _together(tables: Sequence[Table], unread: tuple[str, ...] = ()) -> Table:
    unused = dict.fromkeys(name for table in tables for name in table.unused)
    return Table([row for table in tables for row in table.rows], tuple(unused), unread)


def _file(path: Path) -> Table:
    ending = path.suffix.lower()
    if ending in NOT_READ and path.is_file():
        raise TaskError(f"{path} is {NOT_READ[ending]}, or give {WANTED}.")
    if ending == ".parquet":
        return _parquet(path)
    return _json(path, _content(path)) if ending in JSON else _csv(path, _content(path))


def _content(path: Path) -> str:
    """The text of a file, without a byte order mark."""
    try:
        if path.exists() and not path.is_file():
            raise TaskError(f"{path} is no file; give {WANTED}.")
        content = path.read_bytes()
        for start, what in _FIRST_BYTES.items():
            if content.startswith(start):
                raise TaskError(f"{path} is {what}, or give {WANTED}.")
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise TaskError(f"There is no file {path}; give {WANTED}.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise TaskError(f"{path}, row {line} is not UTF-8; save the file as UTF-8.") from None
    except OSError as error:
        raise TaskError(f"{path} cannot be read ({error.strerror}); give a readable CSV file.") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise TaskError(f"{path}, row {line} holds a zero byte, so it is no text in UTF-8; save the file as UTF-8.")
    return text


def _csv(path: Path, content: str) -> Table:
    """Rows of a CSV file with the line on which each one ends; its separator is the one that its header has."""
    told = re.match(r'"?sep=([^\w"\r\n ])"?[,;\t]*(\r\n|\r|\n|$)', content, re.IGNORECASE)  # Excel's own way
    lines = content[told.end() :] if told else content
    records = _records(path, lines, told[1] if told else _separator(lines), before=1 if told else 0)
    _, _, header = next(records, (1, 1, []))
    names = header[: max((i for i, name in enumerate(header, 1) if name.strip()), default=0)]
    places = _places(path, names, "name them in row 1")
    rows = []
    for begun, ended, cells in records:
        if any(cell.strip() for cell in cells[len(names) :]):  # an unquoted comma has moved the label
            raise TaskError(
                f"{path}, row {ended} has more fields than columns; put quotes around a text that has a comma."
            )
        row = _row(path, ended, places, cells + [""] * (len(names) - len(cells)))
        if ended > begun and ("\n" in row.text + row.label or "\r" in row.text + row.label):
            raise TaskError(
                f"{path}, row {ended}, column 'text' or 'label' has a line break, in quotes that open in row {begun}; "
                f"put each text on one line, or close the quote there."
            )
        rows.append(row)
    return Table(rows, _unused(names, places))


def _separator(content: str) -> str:
    """What stands between the columns of the header; a comma if nothing gives the columns that are needed."""
    header: str = next((line for line in content.splitlines() if line.strip()), "")[: csv.field_size_limit()]
    for separator in SEPARATORS:
        names = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
        if set(COLUMNS) <= set(map(_plain, names)):
            return separator
    return ","


def _records(path: Path, content: str, separator: str, before: int) -> Iterator[tuple[int, int, list[str]]]:
    """The records of a CSV text that are no blank line: first line, last line, cells. `before` lines stand above it."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    begun = before + 1
    try:
        for cells in reader:
            ended = before + reader.line_num
            if cells:
                yield begun, ended, cells
            begun = ended + 1
    except csv.Error as error:
        # Only a quote carries a record over the end of a line, and it opens on the record's first.
        quoted = "expected after" in str(error) or "end of data" in str(error) or before + reader.line_num > begun
        problem, remedy = f"cannot be read ({error})", "mend the row"
        if quoted:
            problem = "has a quote that opens there and does not close at the end of its field"
            remedy = "close it, and write a quote within a quoted text twice"
        raise TaskError(f"{path}, row {begun} {problem}; {remedy}.") from None


def _json(path: Path, content: str) -> Table:
    """Rows of a JSON list of objects, or of one object a line."""
    found: list[tuple[int, Any]] = []
    number = 0
    try:
        whole = _parsed(content)
        found = list(enumerate(whole if isinstance(whole, list) else [whole], start=1))
    except ValueError:
        try:
            for number, line in enumerate(content.split("\n"), start=1):
                if line.strip():
                    found.append((number, _parsed(line)))
        except (ValueError, RecursionError) as error:
            raise TaskError(
                f"{path}, row {number} is no JSON ({first_line(error)}); give a list of objects, or one object a line."
            ) from None
    except RecursionError:
        raise TaskError(f"{path} is too deep to be read; give a list of objects with text and label.") from None
    for number, pairs in found:
        if not isinstance(pairs, tuple) or len(dict(pairs)) < len(pairs):
            raise TaskError(f"{path}, row {number} is no object with each name once; write text and label of each row.")
    names = list(dict.fromkeys(name for _, pairs in found for name, _ in pairs))
    places = _places(path, names, "give them in every object")
    cells = ((number, dict(pairs)) for number, pairs in found)
    rows = [_row(path, number, places, [own.get(name) for name in names]) for number, own in cells]
    return Table(rows, _unused(names, places))


def _parsed(content: str) -> Any:
    """JSON with numbers as they are written, and objects as tuples of pairs, so that no name gets lost."""
    return json.loads(content, object_pairs_hook=tuple, parse_int=str, parse_float=str, parse_constant=str)


def _parquet(path: Path) -> Table:
    datasets = datasets_library(f"The file {path}")
    import pyarrow.parquet  # comes with datasets

    try:
        table = datasets.Dataset(datasets.table.InMemoryTable(pyarrow.parquet.read_table(path)))
    except Exception as error:  # a damaged file may raise anything
        raise TaskError(f"{path} cannot be read ({first_line(error)}); write it again, or give {WANTED}.") from None
    return _of_dataset(path, table)


def _saved(path: Path) -> Table:
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
    return _together([_of_dataset(path / split, table, split) for split, table in saved.items()])


def _of_dataset(path: Path, table: Any, split: str = "") -> Table:
    """Rows of a `datasets.Dataset`; numbered labels get their names, if it knows them."""
    names = list(table.column_names)
    places = _places(path, names, "rename its columns")
    used = [names[place] for place in places.values()]
    name_of = getattr(table.features[names[places["label"]]], "int2str", None)
    rows = []
    for number, row in enumerate(table.select_columns(used), start=1):
        cells = dict(zip(places, (row[name] for name in used), strict=True))
        if name_of is not None and cells["label"] is not None:
            cells["label"] = name_of(cells["label"]) if cells["label"] >= 0 else ""
        cells |= {"split": split} if split else {}
        rows.append(_row(path, number, {name: i for i, name in enumerate(cells)}, list(cells.values())))
    return Table(rows, _unused(names, places))


def _places(path: Path, names: Sequence[str], remedy: str) -> dict[str, int]:
    """Where the columns that are used stand among the names; spaces around a name and capitals do not matter.

    Raises:
        TaskError: one is missing, or is there twice.
    """
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        own = _plain(name)
        if own in places:
            raise TaskError(
                f"{path} has the column '{own}' twice ('{names[places[own]]}' and '{name}'); keep one of them."
            )
        if own in (*COLUMNS, "split"):
            places[own] = place
    missing = [f"'{name}'" for name in sorted(COLUMNS) if name not in places]
    if missing:
        found = f" but {', '.join(repr(name[:40]) for name in names[:5])}" if names else ""
        raise TaskError(
            f"{path} has no column {' and no column '.join(missing)}{found}; {remedy}, with a comma, semicolon or tab "
            f"between columns."
        )
    return places


def _unused(names: Sequence[str], places: dict[str, int]) -> tuple[str, ...]:
    return tuple(name.strip() or "without a name" for i, name in enumerate(names) if i not in places.values())


def _plain(name: str) -> str:
    return name.strip(" \t\ufeff\u00a0").casefold()


def _row(path: Path, number: int, places: dict[str, int], cells: Sequence[object]) -> Row:
    own = {name: _cell(path, number, name, cells[place]) for name, place in places.items()}
    split = own.get("split", "").casefold()
    return Row(path, number, own["text"], own["label"], "" if is_missing(split) else split)


def _cell(path: Path, number: int, name: str, value: object) -> str:
    if isinstance(value, (list, tuple, dict, bytes)):
        raise TaskError(f"{path}, row {number}, column '{name}' holds no plain text; give one text in each row.")
    return "" if value is None else str(value).strip()

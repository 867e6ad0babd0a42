"""A user's own texts: rows of a CSV, JSON or Parquet file, of a folder of them, or of one saved by `datasets`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..arguments import unseen
from ..errors import TaskError
from .objects import lines_of_json, objects
from .rows import COLUMNS, Table, as_named, half_in, places_of, plain, row_of, together, unused_of
from .saved import parquet, saved_folder
from .spelling import named
from .written import JSON, NOT_READ, READ, WANTED, content, require_inside, writable

SEPARATORS = ",;\t|"
_LONGEST_HEADER = 1000  # characters in which another separator is looked for
_RULE = re.compile(r":?[-=]{3,}:?")  # what is drawn under the names of columns


def read(path: Path) -> Table:
    """All rows of a file or folder.

    Raises:
        TaskError: it is not there, cannot be read, or lacks a column; the message names file, row and column.
    """
    if found := unseen(path.name):
        raise TaskError(f"The name of {writable(str(path))} has {found} in it, which no page can show; rename it.")
    if not path.is_dir():
        return _file(path)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return saved_folder(path)
    there = sorted(path.iterdir())
    files = [file for file in there if file.suffix.lower() in READ and file.is_file() and file.name[0] != "."]
    for file in files:
        require_inside(path, file)
    unread = tuple(file.name for file in there if file not in files)
    if not files:
        found = f" (there is {', '.join(unread[:3])})" if unread else ""
        raise TaskError(
            f"The folder {path} has no *.csv, *.jsonl or *.parquet file{found} and was not saved by datasets; give "
            f"such a folder or {WANTED}."
        )
    halves = [half_in(file) for file in files]
    if any(halves) and not all(halves):
        one, other = (
            next(file.name for file, half in zip(files, halves, strict=True) if bool(half) == is_named)
            for is_named in (True, False)
        )
        raise TaskError(
            f"The folder {path} has files that are named for a half, as {one}, and others, as {other}; name all "
            f"of them so, or none."
        )
    return together([as_named(_file(file), half) for file, half in zip(files, halves, strict=True)], unread)


def _file(path: Path) -> Table:
    ending = path.suffix.lower()
    if ending in NOT_READ and path.is_file():
        raise TaskError(f"{path} is {NOT_READ[ending]}, or give {WANTED}.")
    if ending == ".parquet":
        return parquet(path)
    return _json(path, content(path)) if ending in JSON else _csv(path, content(path))


def _csv(path: Path, text: str) -> Table:
    """Rows of a CSV file with the line on which each one ends; its separator is the one that its header has."""
    if (in_lines := lines_of_json(text)) is not None:
        named = ".jsonl" if in_lines else ".json"
        raise TaskError(f"{path} is JSON; name it so ({named}), or give {WANTED}.")
    told = re.match(r'"?sep=([^\w"\r\n ])"?[,;\t]*(\r\n|\r|\n|$)', text, re.IGNORECASE)  # Excel's own way
    lines = text[told.end() :] if told else text
    separator = told[1] if told else _separator(path, lines)
    records = _records(path, lines, separator, before=1 if told else 0)
    _, _, header = next(records, (1, 1, []))
    names = header[: max((i for i, name in enumerate(header, 1) if name.strip()), default=0)]
    places = places_of(path, names, _how_to_name(names, told[1] if told else None))
    rows, apart = [], False
    for begun, ended, cells in records:
        apart = apart or len(cells) > 1
        if any(cell.strip() for cell in cells[len(names) :]):  # an unquoted comma has moved the label
            raise TaskError(
                f"{path}, row {ended} has more fields than columns; name every column in row 1, and put double "
                f"quotes around a text that has {separator!r} in it."
            )
        row = row_of(path, ended, places, cells + [""] * (len(names) - len(cells)))
        if (row.text.casefold(), row.label.casefold()) == COLUMNS:
            raise TaskError(f"{path}, row {ended} names the columns again, as row 1 does; remove it there.")
        if _RULE.fullmatch(row.text) and _RULE.fullmatch(row.label):
            raise TaskError(f"{path}, row {ended} is a line drawn under the names of the columns; remove it there.")
        if apart and len(cells) == 1 and (other := _separates(cells[0], len(names), separator)):
            raise TaskError(
                f"{path}, row {ended} has {other!r} between its columns where row 1 has {separator!r}; write the same "
                f"between the columns of every row."
            )
        if ended > begun and ("\n" in row.text + row.label or "\r" in row.text + row.label):
            raise TaskError(
                f"{path}, row {ended}, column 'text' or 'label' has a line break, in quotes that open in row {begun}; "
                f"put each text on one line, or close the quote there."
            )
        rows.append(row)
    if rows and not apart:
        raise TaskError(
            f"{path} has {separator!r} between the columns of its first row and in no other; write the same between "
            f"the columns of every row."
        )
    return Table(rows, unused_of(names, places))


def _separator(path: Path, content: str) -> str:
    """What stands between the columns of the header; a comma if nothing gives the columns that are needed.

    Raises:
        TaskError: it is a sign that separates no columns here.
    """
    header = _header(content)[:_LONGEST_HEADER]
    if found := next(_separators(header), ""):
        return found
    for sign in re.split(r"[\w\"]+", header) if '"' in header else ():  # R's is a space
        names = header.split(None if sign.isspace() else sign) if sign and sign not in SEPARATORS else []
        if set(COLUMNS) <= {plain(name.strip('"')) for name in names}:
            raise TaskError(
                f"{path} has {sign!r} between the columns of its first row; write a comma, semicolon or tab between "
                f"the columns of every row."
            )
    return ","


def _header(content: str) -> str:
    """The first line that is not blank, as far as it can be one of names."""
    return next((line for line in content.splitlines() if line.strip()), "")[: csv.field_size_limit()]


def _separates(row: str, number: int, separator: str) -> str:
    """Another separator that makes a row of one cell one of so many; empty if there is none."""
    others = (other for other in SEPARATORS if other != separator)
    return next((other for other in others if len(row.split(other)) == number and row.strip(other).strip()), "")


def _separators(header: str) -> Iterator[str]:
    """Those that give the columns that are needed."""
    for separator in SEPARATORS:
        names = next(csv.reader([header], delimiter=separator, skipinitialspace=True), [])
        if set(COLUMNS) <= set(map(plain, names)):
            yield separator


def _how_to_name(names: Sequence[str], told: str | None) -> str:
    """What is to be done where a header lacks a column.

    Args:
        told: what the file's own first line says that stands between columns.
    """
    if len(names) == 1 and any(_separators(names[0])):
        if told is not None:
            return f"its first line says sep={told}, so write that between columns, or remove that line"
        return "take away the quotes around whole rows"
    if {f"'{name}'" for name in COLUMNS} <= set(map(plain, names)):
        return "write double quotes around them, or none"
    return "name them in row 1, with a comma, semicolon or tab between columns"


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


def _json(path: Path, text: str) -> Table:
    """Rows of a JSON list of objects, or of one object a line."""
    if any(_separators(_header(text))):
        raise TaskError(f"{path} is a CSV table, no JSON; name it so (.csv).")
    found = objects(path, text)
    names = list(dict.fromkeys(name for _, row in found for name in row))
    within = [name for name, value in found[0][1].items() if _is_rows(value)] if len(found) == 1 else []
    remedy = f"give the list under '{within[0]}' by itself" if within else "give them in every object"
    if len(within) > 1:
        remedy = f"make one list of those under {named(within)}"
    places = places_of(path, names, remedy)
    rows = [row_of(path, number, places, [row.get(name) for name in names]) for number, row in found]
    return Table(rows, unused_of(names, places))


def _is_rows(value: object) -> bool:
    """Whether a value of an object is a list of objects that have the columns."""
    rows = value if isinstance(value, list) else []
    return bool(rows) and all(
        isinstance(row, tuple) and set(COLUMNS) <= {plain(name) for name, _ in row} for row in rows
    )

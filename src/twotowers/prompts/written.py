"""What a user's file is, by its name and first bytes, and its text; which characters may be in it, and which show."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

from ..errors import TaskError

WANTED = "a CSV file with the columns text,label"
JSON = (".json", ".jsonl", ".ndjson")
READ = (".csv", ".tsv", ".tab", ".txt", *JSON, ".parquet")

_COMPRESSED = "compressed; unpack it"
_SHEET = "a spreadsheet; save it there as CSV (UTF-8)"
_PICKLE = "a pickle, which may run code and is never opened; write it as CSV"
_NO_TEXT = "no text file; write it as CSV"
NOT_READ = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zip", ".zst", ".7z", ".tar", ".tgz", ".lz4", ".br", ".rar"), _COMPRESSED),
    **dict.fromkeys((".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".fods", ".numbers", ".gnumeric"), _SHEET),
    **dict.fromkeys((".pkl", ".pickle", ".joblib", ".pt", ".npy", ".npz"), _PICKLE),
    **dict.fromkeys((".feather", ".arrow", ".h5", ".db", ".sqlite", ".orc", ".avro", ".rds", ".dta", ".sav"), _NO_TEXT),
    **dict.fromkeys((".pdf", ".doc", ".docx", ".odt"), _NO_TEXT),
}
_FIRST_BYTES = {
    b"\x1f\x8b": _COMPRESSED,
    b"BZh": _COMPRESSED,
    b"\xfd7zXZ": _COMPRESSED,
    b"(\xb5/\xfd": _COMPRESSED,
    b"7z\xbc\xaf": _COMPRESSED,
    b"PK\x05\x06": _COMPRESSED,
    b"Rar!": _COMPRESSED,
    b"\x04\x22M\x18": _COMPRESSED,
    b"PK\x03\x04": "compressed, or a spreadsheet; unpack it, or save it as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": _SHEET,
    b"\x80": _PICKLE,
    b"PAR1": "a Parquet file; name it so (.parquet)",
    b"ARROW1": _NO_TEXT,
    b"SQLite format 3": _NO_TEXT,
    b"%PDF-": _NO_TEXT,
    b"\x89PNG": _NO_TEXT,
    b"version https://git-lfs": "a pointer of git-lfs, so run: git lfs pull",
}
_IN_SHEETS = (b"xl/workbook", b"opendocument.spreadsheet")  # names in the archives that spreadsheets are
_WIDE = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # as Excel saves "Unicode text"
_LONGEST_START = 1000  # bytes that are looked at to say what a file is
_CONTROLS = frozenset({*range(9), *range(14, 32)})  # those that no text has
_MERGING = re.compile(r"^(<<<<<<<|>>>>>>>) ", re.MULTILINE)
_MARKUP = ("<!doctype", "<html", "<?xml", "<svg", "{\\rtf")
_EMPTY = "".join(map(chr, (0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF)))
_AROUND = _EMPTY + "".join(c for c in map(chr, range(0x3001)) if c.isspace())
# Controls, but for tabs and ends of lines; halves of characters; what is no character.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
# What a page shows nothing of, by Unicode (Default_Ignorable_Code_Point), and the empty sign of Braille; but a black
# flag and what follows it are one sign: the flag of a region.
_SHOWS_NOTHING = re.compile(
    "(\U0001f3f4[\U000e0020-\U000e007f]+)|"
    f"[{_EMPTY}\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def content(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark; without that mark.

    Raises:
        TaskError: it is not there, cannot be read, or is no such text; the message says what it is instead.
    """
    try:
        if path.exists() and not path.is_file():
            raise TaskError(f"{path} is no file; give {WANTED}.")
        found = path.read_bytes()
    except FileNotFoundError:
        raise TaskError(f"There is no file {path}; give {WANTED}.") from None
    except OSError as error:
        raise TaskError(f"{path} cannot be read ({error.strerror}); give a readable CSV file.") from None
    if what := _other_than_text(found):
        raise TaskError(f"{path} is {what}, or give {WANTED}.")
    text = _decoded(path, found)
    if merging := _MERGING.search(text):
        raise TaskError(
            f"{path}, row {_row(text[: merging.start()])} is a mark of git between two versions that it could not "
            f"merge; keep one of them."
        )
    if text[:_LONGEST_START].lstrip().lower().startswith(_MARKUP):
        raise TaskError(f"{path} is a page or document, no table; fetch the table itself, or give {WANTED}.")
    if "\0" in text:
        raise TaskError(
            f"{path}, row {_row(text[: text.index(chr(0))])} holds a zero byte, so it is no text in UTF-8; save the "
            f"file as UTF-8."
        )
    return text


def _other_than_text(found: bytes) -> str:
    """What a file is by its first bytes, and what to do; empty if it may be text."""
    if found.startswith(b"PK\x03\x04") and any(name in found for name in _IN_SHEETS):
        return _SHEET
    for start, what in _FIRST_BYTES.items():
        if found.startswith(start):
            return what
    begin = found[:_LONGEST_START]
    if begin[:2] in _WIDE or begin[:4] == codecs.BOM_UTF32_BE or not _CONTROLS & set(begin):
        return ""
    zeros = [begin[i::2].count(0) for i in (0, 1)]  # Latin letters have one in every second place
    if min(zeros) == 0 and max(zeros) > len(begin) / 4:
        return "UTF-16 without the mark that says so (every second one is a zero byte); save it as UTF-8"
    first_line = re.split(rb"[\r\n]", begin, maxsplit=1)[0]
    return _NO_TEXT if _CONTROLS & set(first_line) or not _is_utf_8(found) else ""


def _is_utf_8(found: bytes) -> bool:
    try:
        found.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _decoded(path: Path, found: bytes) -> str:
    encoding = _WIDE.get(found[:2], "utf-8-sig")
    if found[:4] in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        raise TaskError(f"{path}, row 1 is not UTF-8, but UTF-32; save the file as UTF-8.")
    try:
        return found.decode(encoding)
    except UnicodeDecodeError as error:
        whole = found[: error.start].decode(encoding, "ignore")
        name = "UTF-8" if encoding == "utf-8-sig" else "UTF-16, as it begins"
        raise TaskError(
            f"{path}, row {_row(whole)} is not {name}, and other encodings (Latin-1, Windows-1252) cannot be told "
            f"apart; save the file as UTF-8."
        ) from None


def _row(before: str) -> int:
    """The line that follows a text, however its lines end."""
    return before.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1


def bare(text: str) -> str:
    """A text without spaces around it, and without the characters around it that show nothing."""
    return text.strip(_AROUND)


def shown(text: str) -> str:
    """A text without the characters that show nothing, wherever they stand."""
    return _SHOWS_NOTHING.sub(lambda found: found[1] or "", text)


def cut(text: str, most: int = 80) -> str:
    """A text as a message shows it: no longer than one can read."""
    return text if len(text) <= most else f"{text[:most]}…"


def unwritable(text: str) -> str:
    """The first character of a text that no page or picture can hold, by its number, as U+0007; empty if there is none.

    Line breaks count elsewhere.
    """
    found = _UNWRITABLE.search(text)
    return f"U+{ord(found[0]):04X}" if found else ""


def writable(name: str) -> str:
    """A name with question marks for what `unwritable` finds."""
    return _UNWRITABLE.sub("?", name)


def is_path(name: str) -> bool:
    """Whether a task's name can only be meant as a file or folder."""
    if not name or "\0" in name:
        return False
    try:
        return Path(name).exists() or Path(name).suffix.lower() in (*READ, *NOT_READ)
    except OSError:  # too long, say
        return False


def require_inside(folder: Path, file: Path) -> None:
    """Refuse a file that a folder says it has, but that lies elsewhere: the folder may be a stranger's.

    Raises:
        TaskError: it does, by a link or by its name.
    """
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
        raise TaskError(f"{file} leads out of its folder; copy there what it leads to, or remove it.")

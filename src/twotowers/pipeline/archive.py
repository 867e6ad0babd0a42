"""Read the archive of a run that somebody else has made: every file of it in memory, or a refusal.

Nothing is unpacked here, and no header is believed: names, kinds, sizes and sums are looked at one by one.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from ..errors import UserError

LARGEST = 64 * 2**20  # bytes of an archive; a run of the default model has 3 MiB
MOST_BYTES = 128 * 2**20  # of all its files together, unpacked
MOST_FILES = 2000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
LONGEST = 200  # letters of a name

_END, _END_64, _FIRST = b"PK\5\6", b"PK\6\7", b"PK\3\4"  # how the parts of a zip begin
_END_SIZE, _LOCATOR_SIZE, _ENTRY_SIZE = 22, 20, 46


class ArchiveError(UserError):
    """An archive that is not the whole, harmless run that `twotowers export` writes."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"This archive is refused: {why}; nothing of it was kept. Ask whoever handed it in for one that twotowers "
            f"export has written."
        )


class NoFileError(UserError):
    """A path that leads to no file."""


def read_archive(file: Path) -> dict[str, bytes]:
    """The files of an archive, by their names, in its order.

    Raises:
        NoFileError: there is no file.
        ArchiveError: it is no zip, or one that `twotowers export` would not write.
    """
    if not file.is_file():
        what = "a folder" if file.is_dir() else "no file" if file.exists() else "not there"
        raise NoFileError(f"{str(file)!r} is {what}; name the archive of a run, as twotowers export writes it.")
    _require_small(file)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _require_plain(entries)
            return _read(archive, entries)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ArchiveError(f"it cannot be read ({error})") from error


def _require_small(file: Path) -> None:
    """Look at both ends of the file: `zipfile` reads the whole list of files, however long, before one can ask."""
    size = file.stat().st_size
    if size > LARGEST:
        raise ArchiveError(f"it has {size} bytes, more than {LARGEST}")
    with file.open("rb") as opened:
        first = opened.read(4)
        opened.seek(max(0, size - _END_SIZE - _LOCATOR_SIZE))
        last = opened.read()
    end = last[-_END_SIZE:]
    if first != _FIRST or len(end) < _END_SIZE or not end.startswith(_END):
        raise ArchiveError("it is not a zip file, or something stands before or behind it")
    files, length = struct.unpack("<HL", end[10:16])
    if last.startswith(_END_64) or files > MOST_FILES or length > MOST_FILES * (_ENTRY_SIZE + LONGEST):
        raise ArchiveError(f"it lists more than {MOST_FILES} files")


def _require_plain(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MOST_FILES:
        raise ArchiveError(f"it lists more than {MOST_FILES} files")
    seen = set[str]()
    for entry in entries:
        name, mode = entry.filename, entry.external_attr >> 16
        shown = ascii(entry.orig_filename[:LONGEST])
        if entry.orig_filename != name or len(name) > LONGEST or not NAME.fullmatch(name):
            raise ArchiveError(f"it has a file named {shown}, which is no name of a run's file")
        if name.lower() in seen:
            raise ArchiveError(f"{shown} is in it twice, or in two spellings")
        seen.add(name.lower())
        if (stat.S_IFMT(mode) and not stat.S_ISREG(mode)) or entry.is_dir():
            raise ArchiveError(f"{shown} is a link, a folder or a device, not a file")
        if entry.flag_bits & 0x1:
            raise ArchiveError(f"{shown} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveError(f"{shown} is packed in an unusual way")


def _read(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> dict[str, bytes]:
    """Unpack, and stop at the limit, whatever sizes the list names; `zipfile` compares the check sums."""
    found, left = dict[str, bytes](), MOST_BYTES
    for entry in entries:
        with archive.open(entry) as opened:
            found[entry.filename] = opened.read(left + 1)
            left -= len(found[entry.filename])
            if left < 0:
                raise ArchiveError(f"unpacked it has more than {MOST_BYTES} bytes")
            opened.read(1)  # at the end `zipfile` compares the check sum
    return found

"""Several processes at one folder: locks that say that they are waited for, and temporary things that say whose."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

LEFT_AFTER = 7 * 24 * 3600.0  # seconds after which another machine's temporary folder counts as left behind


@contextlib.contextmanager
def locked(
    file: Path, *, waits: Callable[[], object] = lambda: None, given_up: Callable[[], bool] | None = None
) -> Iterator[None]:
    """Hold a lock, which is released when its process ends, however that ends.

    Args:
        waits: called once if another process has it.
        given_up: asked now and then while it is waited for.

    Raises:
        filelock.Timeout: it was given up.
        OSError: it cannot be written.
    """
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waits()
        lock.acquire(cancel_check=given_up)
    try:
        yield
    finally:
        lock.release()


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file: it is there whole, also after a power cut, or as it was before.

    Raises:
        OSError: it cannot be written; names the file, as the system does not when a disk is full.
    """
    temporary = file.with_name(f"{own_prefix()}{file.name}")
    try:
        with temporary.open("wb") as opened:
            opened.write(content.encode() if isinstance(content, str) else content)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(file)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def own_prefix() -> str:
    """How the names of temporary things of this process begin."""
    return f".tmp-{socket.gethostname()}-{os.getpid()}-"


@contextlib.contextmanager
def own_folder(parent: Path, what: str) -> Iterator[Path]:
    """A temporary folder of this process, removed in the end; what killed processes have left there goes first."""
    parent.mkdir(parents=True, exist_ok=True)
    clear_left_behind(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{own_prefix()}{what}-", dir=parent))
    try:
        yield folder
    finally:
        remove(folder)


def clear_left_behind(folder: Path) -> None:
    """Remove temporary things whose process is gone."""
    for left in folder.glob(".tmp-*"):
        if not in_use(left):
            remove(left)


def in_use(temporary: Path) -> bool:
    """Whether a temporary file or folder belongs to a run that still goes on, perhaps on another machine."""
    if not temporary.name.startswith(f".tmp-{socket.gethostname()}-"):
        try:
            return time.time() - temporary.stat().st_mtime < LEFT_AFTER and temporary.name.count("-") > 2
        except FileNotFoundError:
            return False
    number = temporary.name.removeprefix(f".tmp-{socket.gethostname()}-").split("-")[0]
    return number.isdecimal() and psutil.pid_exists(int(number))


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, as far as that can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

"""The process of the command: how it is stopped from outside, and how it ends.

Whatever stops it comes as one exception, at whichever moment, so that everything on the way out is put away. Imports
nothing but what Python has loaded anyway: the sooner it listens, the fewer moments are left in which Python itself
would answer, with a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

AGAIN = 2.0  # seconds after which another signal counts as another wish: some senders send theirs twice
ROOM = 1200 * 2**20  # bytes of addresses: with 1,152 MiB scipy, torch or OpenMP failed to load, with 1,200 none
CLOSED = 128 + 13  # exit status of a program whose reader is gone, by the number of SIGPIPE, which Windows lacks
ENDING = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has two of them


FOLDERS = ("TWOTOWERS_CACHE", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR", "IPYTHONDIR", "TMPDIR")


def settle_environment() -> None:
    """What the environment says holds in every process that is started from here, in whatever folder it works."""
    os.environ.pop("MPLBACKEND", None)  # no window is opened, and a name that is none stops matplotlib
    os.environ.pop("SOURCE_DATE_EPOCH", None)  # nothing of ours has that day, and one that is none stops numpy
    for name in FOLDERS:
        if value := os.environ.get(name):
            try:  # noqa: SIM105 - contextlib is not loaded yet
                os.environ[name] = os.path.abspath(os.path.expanduser(value))
            except FileNotFoundError:  # `require_place` says it, when somebody listens
                pass


class Stopped(KeyboardInterrupt):
    """The process was told to end; `status` is what it ends with."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Listener:
    """Turns signals into `Stopped`. Libraries that are stopped while they load may swallow it, or raise another error.

    Attributes:
        stopped: the first that came.
    """

    def __init__(self) -> None:
        self.stopped: Stopped | None = None
        self._heard: list[signal.Signals] = []
        self._last = 0.0
        self._unraisable = sys.unraisablehook

    def listen(self) -> None:
        """Take the place of what would end the process without a word; a signal that is ignored stays so."""
        for number in (signal.Signals[name] for name in ENDING if hasattr(signal, name)):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, self._stop)
                self._heard.append(number)
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._dropped

    def end(self) -> None:
        """What comes now comes too late: all is done and said, and Python puts away its modules."""
        for number in self._heard:
            signal.signal(number, signal.SIG_IGN)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        again = self.stopped is not None and time.monotonic() - self._last < AGAIN
        self._last = time.monotonic()
        self.stopped = self.stopped or Stopped(number)
        if not again:
            raise self.stopped

    def _dropped(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Raise it again where Python drops what is raised, as while it removes an object: only a moment later."""
        if self.stopped is None or unraisable.exc_value is not self.stopped:
            self._unraisable(unraisable)
            return
        import threading

        self._last = -AGAIN  # it is no other wish, but the same
        threading.Timer(0.01, os.kill, (os.getpid(), self.stopped.status - 128)).start()


def require_room() -> None:
    """Raise `MemoryError` where this process may not even hold the libraries: some of them hang while they load."""
    import psutil

    if hasattr(psutil.Process, "rlimit"):  # which not every system has
        limit, _ = psutil.Process().rlimit(psutil.RLIMIT_AS)
        if 0 <= limit < ROOM:  # below zero there is none
            raise MemoryError


def require_place() -> None:
    """Raise `FileNotFoundError` where the working folder is gone: libraries that load there end the process."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, "The working folder is gone; repeat this in another one.") from None


def end_with(parent: int) -> None:
    """This process, which another one has begun, ends as soon as that one has, however it ended."""
    import threading

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def as_process(command: Callable[[], int], told: Callable[[BaseException], int]) -> NoReturn:
    """Do what is asked of a process, whose streams may be closed, and end it.

    Args:
        told: says what went wrong, and gives the exit status.
    """
    for name in ("stdout", "stderr"):  # closed before we began: what would be written is nobody's
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open to the end
    listener = Listener()
    try:
        try:
            listener.listen()
            status = _flushed(command)
        except BaseException as error:
            status = _status(listener.stopped or error, told)
    except Stopped as stopped:  # while it was said what went wrong
        status = stopped.status
    if listener.stopped is None:
        listener.end()
        sys.exit(status)
    os._exit(status)  # nothing is waited for any more: what is left is put away, and what was started ends itself


def _flushed(command: Callable[[], int]) -> int:
    """The exit status of a command whose words have arrived, also where it ends by itself, as after `--help`."""
    try:
        status = command()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence(sys.stdout)
        raise OSError(error.errno, error.strerror, "standard output") from error
    return status


def _status(error: BaseException, told: Callable[[BaseException], int]) -> int:
    if isinstance(error, BrokenPipeError):
        silence(sys.stdout, sys.stderr)
        return CLOSED
    try:
        return told(error)
    except BrokenPipeError:
        silence(sys.stderr)
        return CLOSED


def silence(*streams: Any) -> None:
    """What is still to be written goes nowhere, so that Python does not complain of it at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())

"""Drawing side by side: in processes, since one process draws one figure at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ..errors import UserError

LOOK = 0.2  # seconds between two looks whether a result is still waited for


class ProcessError(UserError):
    """A process that drew figures was ended from outside."""


class Processes:
    """Calls functions, from as many threads at once as there are processes, each call in one of them.

    Args:
        pool: None for this very process.
    """

    def __init__(self, pool: ProcessPoolExecutor | None) -> None:
        self._pool, self._ended = pool, threading.Event()

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """What a function of some module gives.

        Raises:
            ProcessError: its process was ended, as where memory is short, or nobody waits any more.
        """
        if self._pool is None:
            return function(*given)
        try:
            made = self._pool.submit(function, *given)
            while not wait([made], LOOK).done:
                if self._ended.is_set():
                    raise ProcessError("It was stopped while figures were drawn; repeat the command.")
            return made.result()
        except BrokenProcessPool:
            raise ProcessError(
                "A process that drew figures was ended, perhaps for want of memory; repeat the command."
            ) from None

    def end(self) -> None:
        """Nobody waits any more for what they do; it is to be called from another thread."""
        self._ended.set()


@contextlib.contextmanager
def processes(at_once: int) -> Iterator[Processes]:
    """So many processes; with less than two, this one."""
    if at_once < 2:
        yield Processes(None)
        return
    pool = ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), _end_with_parent)
    try:
        with _uninterrupted():
            pool.submit(int)  # begins them all
        yield Processes(pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # what is still drawn is of no use, and ends with this process


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that begin meanwhile leave it to this one to answer an interruption, which a terminal tells to all."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Of a process that draws: it ends when the one that began it does, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()

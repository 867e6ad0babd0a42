"""Drawing side by side: in processes, since one process draws one figure at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ..errors import UserError

Call = Callable[..., Any]  # of a function of some module, with what it is given


class ProcessError(UserError):
    """A process that drew figures was ended from outside."""


@contextlib.contextmanager
def processes(at_once: int) -> Iterator[Call]:
    """What calls functions, from as many threads at once, each call in a process; with less than two, in this one.

    Raises:
        ProcessError: such a process was ended, as where memory is short.
    """
    if at_once < 2:
        yield lambda function, *given: function(*given)
        return
    with ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), _end_with_parent) as pool:

        def call(function: Call, *given: Any) -> Any:
            try:
                return pool.submit(function, *given).result()
            except BrokenProcessPool:
                raise ProcessError(
                    "A process that drew figures was ended, perhaps for want of memory; repeat the command."
                ) from None

        with _uninterrupted():
            pool.submit(int)  # begins them all
        yield call


def end_processes() -> None:
    """Nobody waits any more for what they do."""
    for process in multiprocessing.active_children():
        process.kill()


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

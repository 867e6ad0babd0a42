"""Work beside this process: figures, of which one process draws one at a time, and what is measured alone.

Each is a Python of its own in a session of its own, so that an interruption by a terminal is answered once, here. It
takes functions and what they are given from its standard input, and gives results, or errors, to its standard output.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from .errors import UserError
from .process import end_with

_SERVE = "from twotowers.processes import serve; serve(PARENT)"
Worker = subprocess.Popen[bytes]


class ProcessError(UserError):
    """A process that worked for this one was ended."""


class Processes:
    """Calls functions, from as many threads at once as there are processes, each call in one of them.

    They begin when they are needed.

    Args:
        number: with less than two, it is this very process that calls.
    """

    def __init__(self, number: int) -> None:
        self.workers, self._idle = list[Worker](), queue.SimpleQueue[Worker | None]()
        for _ in range(number if number > 1 else 0):
            self._idle.put(None)
        self.number, self._ended = max(1, number), False

    def enough_for(self, pieces: int, few: int) -> Processes:
        """These, or this very process if there are so few pieces of work that beginning others takes longer."""
        return self if pieces > few else Processes(1)

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """What a function of some module gives.

        Raises:
            ProcessError: its process was ended, as where memory is short, or because nobody waits any more.
        """
        if self.number == 1:
            return function(*given)
        worker = self._idle.get() or self._begin()
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            pickle.dump((function, given), worker.stdin)
            worker.stdin.flush()
            result, error = pickle.load(worker.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise ProcessError(
                "A process that worked for this one was ended, perhaps for want of memory; repeat the command."
            ) from None
        finally:
            self._idle.put(worker)
        if error is not None:
            raise error
        return result

    def _begin(self) -> Worker:
        command = [sys.executable, "-P", "-c", _SERVE.replace("PARENT", str(os.getpid()))]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
        self.workers.append(worker := subprocess.Popen(command, **pipes))
        if self._ended:  # while it began
            worker.kill()
        return worker

    def end(self) -> None:
        """Nobody waits any more for what they do."""
        self._ended = True
        for worker in list(self.workers):
            worker.kill()


@contextlib.contextmanager
def processes(at_once: int) -> Iterator[Processes]:
    """So many processes, which are gone afterwards."""
    made = Processes(at_once)
    try:
        yield made
    finally:
        made.end()
        for worker in made.workers:
            worker.communicate()


def serve(parent: int) -> None:
    """Of such a process: do what is asked, until nobody asks any more or the one that began it has ended."""
    end_with(parent)
    asked, given_back = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed meanwhile is no result
    while True:
        try:
            function, given = pickle.load(asked)
        except EOFError:
            return
        try:
            answer: tuple[Any, BaseException | None] = function(*given), None
        except BaseException as error:  # it is the caller's
            answer = None, error
        given_back.write(pickle.dumps(answer))
        given_back.flush()

"""Drawing side by side: in processes, since one process draws one figure at a time.

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

from ..errors import UserError
from ..process import end_with

_SERVE = "from twotowers.pipeline.processes import serve; serve(PARENT)"
Worker = subprocess.Popen[bytes]


class ProcessError(UserError):
    """A process that drew figures was ended."""


class Processes:
    """Calls functions, from as many threads at once as there are processes, each call in one of them.

    Args:
        workers: none for this very process.
    """

    def __init__(self, workers: list[Worker]) -> None:
        self._workers, self._idle = workers, queue.SimpleQueue[Worker]()
        for worker in workers:
            self._idle.put(worker)

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """What a function of some module gives.

        Raises:
            ProcessError: its process was ended, as where memory is short, or because nobody waits any more.
        """
        if not self._workers:
            return function(*given)
        worker = self._idle.get()
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            pickle.dump((function, given), worker.stdin)
            worker.stdin.flush()
            result, error = pickle.load(worker.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise ProcessError(
                "A process that drew figures was ended, perhaps for want of memory; repeat the command."
            ) from None
        finally:
            self._idle.put(worker)
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        """Nobody waits any more for what they do."""
        for worker in self._workers:
            worker.kill()


@contextlib.contextmanager
def processes(at_once: int) -> Iterator[Processes]:
    """So many processes; with less than two, this one."""
    command = [sys.executable, "-P", "-c", _SERVE.replace("PARENT", str(os.getpid()))]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
    with contextlib.ExitStack() as stack:
        workers = list[Worker]()
        for _ in range(at_once if at_once > 1 else 0):
            workers.append(stack.enter_context(subprocess.Popen(command, **pipes)))
            stack.callback(workers[-1].kill)  # before it is waited for
        yield Processes(workers)


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

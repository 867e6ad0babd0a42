"""Do several pieces of work side by side, in threads, each after those that it needs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
TICK = 0.5  # seconds between two looks at what is running


def side_by_side(
    names: Sequence[K],
    needs: Mapping[K, Iterable[K]],
    jobs: int,
    work: Callable[[K], T],
    *,
    look: Callable[[], None],
    end: Callable[[], None],
) -> dict[K, T]:
    """Call `work` once for every name, at most `jobs` at a time, earlier names first.

    If one fails, nothing more begins, what is running is finished, and the first failure is raised.

    Args:
        needs: names that must be done before; those that are not in `names` count as done.
        look: called now and then while work is running.
        end: called when the caller is interrupted; it must make all running work stop.
    """
    waiting, running, done = list(names), dict[Future[T], K](), dict[K, T]()
    failure: BaseException | None = None
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while running or waiting:
                for name in list(waiting):
                    ahead = {*waiting, *running.values()} & set(needs.get(name, ()))
                    if len(running) < jobs and not ahead:
                        waiting.remove(name)
                        running[pool.submit(work, name)] = name
                finished, _ = wait(running, timeout=TICK, return_when=FIRST_COMPLETED)
                for job in finished:
                    name = running.pop(job)
                    error = job.exception()
                    if error is None:
                        done[name] = job.result()
                    else:
                        failure, waiting = failure or error, []
                look()
        except BaseException:
            end()
            raise
    if failure is not None:
        raise failure
    return {name: done[name] for name in names}

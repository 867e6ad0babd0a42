"""Hand the chapters of several models to a scheduler: a job for each chapter of each model.

Jobs of a model share its run folder; one that reads what another writes waits for that one.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..chapters.registry import CHAPTERS, needs, with_needed
from ..errors import UnknownNameError, UserError
from ..publishing.run_folder import project_root
from .run import Outcome, prepare, run
from .schedule import side_by_side

CLUSTERS = ("slurm", "local")
MINUTES = 24 * 60  # of a job, unless options of sbatch say `time`: submitit's own five end most chapters
FOLDERS = ("TWOTOWERS_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE")  # where models are, and whether to ask
Piece = tuple[str, str]  # a model and a chapter


@dataclass(frozen=True)
class Job:
    """One job, and those that have to end well before it starts.

    Attributes:
        name: its number, as the scheduler gives it.
        waits_for: chapters of the same model, with the numbers of their jobs.
    """

    name: str
    model: str
    chapter: str
    waits_for: Mapping[str, str]


class SchedulerError(UserError):
    """A scheduler that is not installed or cannot be reached, or a job that failed."""


def submit(
    models: Sequence[str],
    cluster: str,
    options: Mapping[str, str] | None = None,
    *,
    chapters: Sequence[str] = CHAPTERS,
    jobs: int | None = None,
    force: bool = False,
    replace: bool = False,
    **arguments: Any,
) -> tuple[list[Job], list[Outcome]]:
    """Start one job a model and chapter; each does what `pipeline.run` does, in the same run folders.

    Args:
        cluster: `"slurm"` submits and returns at once; `"local"` uses processes of this machine and waits for them.
        options: of sbatch, by their long names, such as `partition` or `gres`.
        jobs: how many jobs `"local"` runs at a time, one by default; Slurm knows itself.
        force, replace, arguments: as for `pipeline.run`: task, scale, seed and loading.

    Returns:
        the jobs, and what was done (only for `"local"`). With Slurm the end of a job that fails or is cancelled ends
        those that wait for it.

    Raises:
        UserError: as `pipeline.run`, before anything is submitted; or a scheduler that does not take the jobs.
    """
    if cluster not in CLUSTERS:
        raise UnknownNameError("scheduler", cluster, CLUSTERS)
    try:
        import submitit
    except ImportError:
        raise SchedulerError("submitit is not installed; run: python -m pip install -e '.[cluster]'") from None
    runs = project_root() / "book" / "runs"
    pieces, before = list[Piece](), dict[Piece, list[Piece]]()
    for model in models:
        prepared = prepare(model, arguments["task"], arguments["scale"], arguments["seed"], arguments["loading"])
        try:
            prepared.begin(replace=replace)
            if force:
                prepared.ask_again(chapters)
        finally:
            prepared.run.leave()  # the jobs come by themselves
        for chapter in with_needed(chapters):
            pieces.append((model, chapter))
            before[model, chapter] = [(model, other) for other in sorted(needs(chapter))]
    executor = _executor(submitit, runs / ".jobs", cluster)
    started: dict[Piece, Any] = {}

    def start(piece: Piece) -> Any:
        if cluster == "slurm":
            ahead = ":".join(started[other].job_id for other in before[piece] if other in started)
            waits = {"dependency": f"afterok:{ahead}", "kill_on_invalid_dep": "yes"} if ahead else {}
            executor.update_parameters(slurm_additional_parameters={**dict(options or {}), **waits})
        model, chapter = piece
        with unheard() if cluster == "local" else contextlib.nullcontext():
            started[piece] = executor.submit(run, model, chapters=[chapter], **arguments)
        return started[piece]

    def start_and_wait(piece: Piece) -> list[Outcome]:
        failure = start(piece).exception()
        if failure is not None:
            last = str(failure).strip().splitlines()[-1:] or [type(failure).__name__]
            raise SchedulerError(f"The job of {' '.join(piece)} failed ({last[0]}); its log is in {runs / '.jobs'}.")
        done: list[Outcome] = started[piece].result()
        return done

    def cancel() -> None:
        for job in started.values():
            job.cancel(check=False)

    results: dict[Piece, list[Outcome]] = {}
    try:
        if cluster == "slurm":
            for piece in pieces:
                start(piece)
        else:
            results = side_by_side(pieces, before, jobs or 1, start_and_wait, look=lambda: None, end=cancel)
    except (OSError, RuntimeError) as error:
        raise _refused(cluster, error) from error
    made = [
        Job(started[piece].job_id, *piece, {other[1]: started[other].job_id for other in before[piece]})
        for piece in pieces
    ]
    return made, [outcome for done in results.values() for outcome in done]


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Processes that are started meanwhile have no standard error: submitit's own tell every cancelling there.

    What the jobs say is in their logs.
    """
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def listed(jobs: Sequence[Job]) -> str:
    """Jobs as text, a line each, with what each waits for: a reader sees what a failure takes along."""
    rows = [("job", "model", "chapter", "after")]
    for job in jobs:
        rows.append((job.name, job.model, job.chapter, ", ".join(f"{c} ({n})" for c, n in job.waits_for.items())))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]).rstrip() for row in rows
    )


def _executor(submitit: Any, folder: Any, cluster: str) -> Any:
    try:
        executor = submitit.AutoExecutor(folder=str(folder), cluster=cluster)
    except (OSError, RuntimeError) as error:
        raise _refused(cluster, error) from error
    executor.update_parameters(timeout_min=MINUTES)
    if cluster == "slurm":
        executor.update_parameters(name="twotowers", slurm_setup=_setup())
    return executor


def _setup() -> list[str]:
    """Lines of a job's script: folders of caches go along, also where the environment does not (`--export=NONE`)."""
    set_here = {name: os.environ[name] for name in FOLDERS if name in os.environ}
    return ["export SLURM_EXPORT_ENV=ALL", *(f"export {name}={shlex.quote(value)}" for name, value in set_here.items())]


def _refused(cluster: str, error: Exception) -> SchedulerError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return SchedulerError(f"{cluster} does not take the jobs ({first}); run them here, without --submit.")

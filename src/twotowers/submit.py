"""Hand the runs of several models to a scheduler, a job each: they share no files, so they may run side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import UnknownNameError, UserError
from .pipeline import Outcome, project_root, run

CLUSTERS = ("slurm", "local")


class SchedulerError(UserError):
    """A scheduler that is not installed or cannot be reached."""


def submit(
    models: Sequence[str], cluster: str, options: Mapping[str, str] | None = None, **arguments: Any
) -> tuple[list[str], list[Outcome]]:
    """Start one job a model; each does what `pipeline.run` does, in the same run folders.

    Args:
        cluster: `"slurm"` submits and returns at once; `"local"` uses processes of this machine and waits for them.
        options: of sbatch, by their long names, such as `partition` or `gres`.
        arguments: as for `pipeline.run`.

    Returns:
        the jobs' ids, and what was done (only for `"local"`).

    Raises:
        UnknownNameError, SchedulerError: with what to do about it.
    """
    if cluster not in CLUSTERS:
        raise UnknownNameError("scheduler", cluster, CLUSTERS)
    try:
        import submitit
    except ImportError:
        raise SchedulerError("submitit is not installed; run: python -m pip install -e '.[cluster]'") from None
    folder = project_root() / "book" / "runs" / ".jobs"
    try:
        executor = submitit.AutoExecutor(folder=str(folder), cluster=cluster)
        if cluster == "slurm":
            executor.update_parameters(slurm_additional_parameters=dict(options or {}), name="twotowers")
        else:
            executor.update_parameters(timeout_min=60 * 24)
        jobs = [executor.submit(run, model, **arguments) for model in models]
    except (OSError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise SchedulerError(f"{cluster} does not take the jobs ({first}); run them here, without --submit.") from error
    done: list[Outcome] = []
    if cluster == "local":
        for model, job in zip(models, jobs, strict=True):
            if (failure := job.exception()) is not None:
                last = str(failure).strip().splitlines()[-1:] or [type(failure).__name__]
                raise SchedulerError(f"The job of {model} failed ({last[0]}); its log is in {folder}.")
            done += job.result()
    return [job.job_id for job in jobs], done

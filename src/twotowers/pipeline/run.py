"""Run chapters through papermill, each into the model's run folder, and only when something has changed.

A chapter is executed in a temporary folder beside its destination and moved there when it is complete, so an
interrupted run leaves what was finished before, and nothing half-written.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from ..chapters.registry import CHAPTERS, NEEDS, READS
from ..errors import RunFolderError, UnknownNameError
from ..models.model import Model
from ..models.registry import REGISTRY
from ..prompts.tasks import load_task, portable
from ..publishing.run_folder import (
    folder_error,
    move,
    own_prefix,
    project_root,
    read_record,
    require_writable,
    update_record,
)
from ..study import Study, find_scale, open_study
from ..tracing.check import require
from .freshness import code_digests, digest_of, entry_of, source_of, up_to_date
from .kernels import Kernels, execute
from .lengths import require_fit
from .progress import Progress
from .schedule import side_by_side

MOST_JOBS = 4  # no more chapters than that can run before others must have been


@dataclass(frozen=True)
class Outcome:
    """One line of the summary at the end of a run."""

    model: str
    chapter: str
    state: str
    seconds: float
    figures: int


def chapters_run(key: str) -> int:
    """How many chapters of a model have been run in this checkout; 0 outside of one."""
    try:
        folder = project_root() / "book" / "runs" / key
    except RunFolderError:
        return 0
    return sum((folder / f"{chapter}.ipynb").is_file() for chapter in CHAPTERS)


def run(
    model: str,
    *,
    chapters: Sequence[str] = CHAPTERS,
    task: str = "words",
    scale: str = "book",
    seed: int = 0,
    force: bool = False,
    jobs: int | None = None,
) -> list[Outcome]:
    """Bring the chapters of one model up to date and return what was done.

    Everything that can be known without weights is checked first: names, task, labels, prompts, run folder.

    Args:
        jobs: chapters that run side by side, each with a model of its own; by default `jobs_that_fit`.

    Raises:
        UserError: something asked for is not possible; nothing has been written.
        ChapterError: a chapter stopped with an error that is ours.
    """
    _require_known(chapters)
    model, task, study = prepare(model, task, scale, seed)
    root = project_root()
    folder, progress = root / "book" / "runs" / study.model.key, Progress(f"{study.model.key}: ")
    try:
        require_writable(folder)
        record = read_record(folder)
        names = in_order(chapters, folder)
        entries = {name: record["chapters"].get(name, {}) for name in names}
        current = (up_to_date(folder, entries[name], digest_of(root, name, study, folder), name) for name in names)
        if force or not all(current):
            _check(study, folder, record, progress)
    except BaseException:
        with contextlib.suppress(OSError):  # a model that cannot be run leaves no empty folder
            folder.rmdir()
            folder.parent.rmdir()
        raise
    parameters = {"model": model, "task": task, "scale": scale, "seed": seed}
    jobs = min(jobs or jobs_that_fit(study.model), len(names))
    threads = None if jobs == 1 else max(1, _cores() // jobs)
    kernels = Kernels()

    def bring_up_to_date(name: str) -> Outcome:
        digest = digest_of(root, name, study, folder)  # now: it covers what earlier chapters have just written
        entry, state = read_record(folder)["chapters"].get(name, {}), "up to date"
        if force or not up_to_date(folder, entry, digest, name):
            progress.say(f"[{names.index(name) + 1}/{len(names)}] {study.model.key}: {name}")
            figures, seconds = _execute(root, folder, name, parameters, kernels, progress, threads)
            entry, state = entry_of(digest, seconds, figures, study), "run"
            update_record(folder, lambda record: record["chapters"].update({name: entry}))
        return Outcome(study.model.key, name, state, entry["seconds"], len(entry["figures"]))

    # With several jobs the chapter that most others wait for begins first.
    order = names if jobs == 1 else sorted(names, key=lambda name: name != "knockout")
    try:
        done = side_by_side(order, NEEDS, jobs, bring_up_to_date, look=progress.show, end=kernels.end)
    finally:
        progress.clear()
    return [done[name] for name in names]


def prepare(model: str, task: str, scale: str, seed: int) -> tuple[str, str, Study]:
    """Model and task as a chapter may name them from its own folder, and their study; loads no weights.

    Raises:
        UserError: names, labels, lengths or lists that are not possible.
    """
    find_scale(scale)
    task = portable(task)
    load_task(task)  # before a model is looked for, which may take longer
    model = str(Path(model).resolve()) if model not in REGISTRY and Path(model).is_dir() else model
    study = open_study(model, task, scale, seed)
    require_fit(study)
    return model, task, study


def in_order(chapters: Sequence[str], folder: Path) -> list[str]:
    """The chapters in the order of the book, with the knock-out chapter if one needs its heads and lacks them.

    Raises:
        UnknownNameError: a chapter that does not exist.
    """
    _require_known(chapters)
    needed = any(READS.get(name) == "heads.json" for name in chapters) and not (folder / "heads.json").is_file()
    return [name for name in CHAPTERS if name in chapters or (name == "knockout" and needed)]


def _require_known(chapters: Sequence[str]) -> None:
    for name in chapters:
        if name not in CHAPTERS:
            raise UnknownNameError("chapter", name, CHAPTERS)


def jobs_that_fit(model: Model) -> int:
    """How many chapters may run side by side: one on a GPU or a server, else as many as there are cores and memory for.

    A chapter holds the weights twice, the second time packed, and activations beside them.
    """
    if torch.cuda.is_available() or model.remote:
        return 1
    each = 3 * model.weight_bytes + 2**30
    return max(1, min(MOST_JOBS, _cores(), psutil.virtual_memory().available // each))


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(study: Study, folder: Path, record: dict[str, Any], progress: Progress) -> None:
    """Measure the identities on this model, once for these weights and this code; refuse one that fails."""
    code = "".join(code_digests(lambda wing: wing in ("models", "prompts", "tracing")))
    facts = study.model.provenance()
    digest = hashlib.sha256((json.dumps(facts, sort_keys=True) + code).encode()).hexdigest()
    if record["check"].get("digest") == digest:
        return
    progress.say(f"{study.model.key}: checking the identities")
    table = require(study.model)
    checked = {"digest": digest, "identities": json.loads(table.to_json(orient="records"))}
    update_record(folder, lambda record: record.update(model=facts, check=checked))
    study.model.forget_weights()  # the chapters load their own
    gc.collect()


def _execute(
    root: Path,
    folder: Path,
    chapter: str,
    parameters: Mapping[str, Any],
    kernels: Kernels,
    progress: Progress,
    threads: int | None,
) -> tuple[list[str], float]:
    """Execute one chapter in a temporary folder and move its files into place; its figure ids, and the seconds."""
    begun = time.monotonic()
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f"{own_prefix()}{chapter}-", dir=folder))
        try:
            execute(source_of(root, chapter), parameters, temporary, kernels, progress.begin(chapter), threads=threads)
            return move(temporary, folder, chapter), time.monotonic() - begun
        finally:
            progress.end(chapter)
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise folder_error(folder, error) from error

"""Run chapters through papermill, each into the model's run folder, and only when something has changed.

A chapter is executed in a temporary folder beside its destination and moved there when it is complete, so an
interrupted run leaves what was finished before, and nothing half-written.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from filelock import FileLock

from .check import require
from .errors import RunFolderError, UnknownNameError
from .lengths import require_fit
from .models import Model
from .notebooks import Kernels, execute
from .progress import Progress
from .registry import REGISTRY
from .schedule import side_by_side
from .study import Study, find_scale, open_study
from .tasks import load_task, portable

CHAPTERS = ("task", "locate", "knockout", "shallow", "values", "towers", "imbalance", "order", "claims")
# What a chapter reads of the run folder: heads.json is written by the knock-out chapter, claims by most.
READS = dict.fromkeys(("values", "towers", "imbalance", "order"), "heads.json") | {"claims": "claims/*.json"}
NEEDS = {"claims": CHAPTERS[:-1]} | {name: ("knockout",) for name, file in READS.items() if file == "heads.json"}
ENDINGS = ("svg", "png", "csv", "json")  # the files of a figure
# Rooms that no result of a chapter depends on: the command, the benchmark, the training of the toy.
OUTSIDE = {
    f"{room}.py"
    for room in (
        "bench", "bench_page", "cli", "figures_bench", "figures_toy", "floor", "measure", "notebooks", "peers",
        "pipeline", "progress", "schedule", "shapes", "site", "submit", "toy", "toy_data", "toy_page",
    )
}  # fmt: skip
MOST_JOBS = 4  # no more chapters than that can run before others must have been
LEFT_AFTER = 7 * 24 * 3600.0  # seconds after which another machine's temporary folder counts as left behind


@dataclass(frozen=True)
class Outcome:
    """One line of the summary at the end of a run."""

    model: str
    chapter: str
    state: str
    seconds: float
    figures: int


def project_root() -> Path:
    """The checkout that holds the book: around the working folder, else the one this package is installed from.

    Raises:
        RunFolderError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[2]):
        if (folder / "book" / "chapters").is_dir() and (folder / "_config.yml").is_file():
            return folder
    raise RunFolderError("There is no book here; run the command inside a clone of Two Towers.")


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
        _require_writable(folder)
        record = _read_record(folder)
        names = in_order(chapters, folder)
        entries = {name: record["chapters"].get(name, {}) for name in names}
        current = (_up_to_date(folder, entries[name], _digest(root, name, study, folder), name) for name in names)
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
        digest = _digest(root, name, study, folder)  # now: it covers what earlier chapters have just written
        entry, state = _read_record(folder)["chapters"].get(name, {}), "up to date"
        if force or not _up_to_date(folder, entry, digest, name):
            progress.say(f"[{names.index(name) + 1}/{len(names)}] {study.model.key}: {name}")
            figures, seconds = _execute(root, folder, name, parameters, kernels, progress, threads)
            entry, state = _entry(digest, seconds, figures, study), "run"
            _update_record(folder, lambda record: record["chapters"].update({name: entry}))
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


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b" ")
        for left in folder.glob(".tmp-*"):
            if not _in_use(left):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)
    except OSError as error:
        raise _folder_error(folder, error) from error


def _own_prefix() -> str:
    """How the names of temporary things of this process begin."""
    return f".tmp-{socket.gethostname()}-{os.getpid()}-"


def _in_use(temporary: Path) -> bool:
    """Whether a temporary file or folder belongs to a run that still goes on, perhaps on another machine."""
    if not temporary.name.startswith(f".tmp-{socket.gethostname()}-"):
        return time.time() - temporary.stat().st_mtime < LEFT_AFTER and temporary.name.count("-") > 2
    number = temporary.name.removeprefix(f".tmp-{socket.gethostname()}-").split("-")[0]
    return number.isdecimal() and psutil.pid_exists(int(number))


def _folder_error(folder: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"The run folder {folder} cannot be written ({error.strerror}); free space there or make it writable."
    )


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {}
    return {"model": {}, "check": {}, "chapters": {}} | record


def _update_record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Read the record, change it and write it; other chapters, here or on other machines, wait for their turn."""
    temporary = folder / f"{_own_prefix()}run.json"
    try:
        with FileLock(folder.parent / f".{folder.name}.lock"):
            record = _read_record(folder)
            change(record)
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            temporary.replace(folder / "run.json")
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _folder_error(folder, error) from error


def _entry(digest: str, seconds: float, figures: Sequence[str], study: Study) -> dict[str, Any]:
    """What the record says of a chapter."""
    return {
        "digest": digest,
        "seconds": round(seconds, 1),
        "figures": list(figures),
        "scale": study.scale.name,
        "task": study.task.name,
        "seed": study.seed,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _digest(root: Path, chapter: str, study: Study, folder: Path) -> str:
    """What decides whether a chapter is up to date: its text, parameters, model, data, our code, and what it reads."""
    package = Path(__file__).parent
    read = sorted(folder.glob(READS[chapter])) if chapter in READS else []
    sources = [_source(root, chapter), *sorted(package.glob("*.py")), *read]
    code = [hashlib.sha256(f.read_bytes()).hexdigest() for f in sources if f.name not in OUTSIDE]
    facts = [code, study.model.provenance(), study.task.digest, repr(study.scale), study.seed]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _source(root: Path, chapter: str) -> Path:
    return root / "book" / "chapters" / f"{chapter}.md"


def _up_to_date(folder: Path, entry: Mapping[str, Any], digest: str, chapter: str) -> bool:
    figures = [folder / "figures" / f"{f}.{ending}" for f in entry.get("figures", ()) for ending in ENDINGS]
    files = [folder / f"{chapter}.ipynb", *figures]
    return entry.get("digest") == digest and all(file.is_file() for file in files)


def _check(study: Study, folder: Path, record: dict[str, Any], progress: Progress) -> None:
    """Measure the identities on this model, once for these weights and this code; refuse one that fails."""
    package = Path(__file__).parent
    rooms = (
        "architecture", "families", "linear", "quantised", "trace", "interventions", "prompts", "packing", "project",
        "check", "models",
    )  # fmt: skip
    code = "".join(hashlib.sha256((package / f"{room}.py").read_bytes()).hexdigest() for room in rooms)
    facts = study.model.provenance()
    digest = hashlib.sha256((json.dumps(facts, sort_keys=True) + code).encode()).hexdigest()
    if record["check"].get("digest") == digest:
        return
    progress.say(f"{study.model.key}: checking the identities")
    table = require(study.model)
    checked = {"digest": digest, "identities": json.loads(table.to_json(orient="records"))}
    _update_record(folder, lambda record: record.update(model=facts, check=checked))
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
        temporary = Path(tempfile.mkdtemp(prefix=f"{_own_prefix()}{chapter}-", dir=folder))
        try:
            execute(_source(root, chapter), parameters, temporary, kernels, progress.begin(chapter), threads=threads)
            return _move(temporary, folder, chapter), time.monotonic() - begun
        finally:
            progress.end(chapter)
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise _folder_error(folder, error) from error


def _move(temporary: Path, folder: Path, chapter: str) -> list[str]:
    """Move figures, claims and heads, and last the chapter that shows them."""
    notebook, written = temporary / f"{chapter}.ipynb", []
    for file in sorted(temporary.rglob("*")):
        if file.is_file() and file != notebook:
            target = folder / file.relative_to(temporary)
            target.parent.mkdir(exist_ok=True)
            file.replace(target)
            written.append(target)
    notebook.replace(folder / notebook.name)
    return sorted({file.stem for file in written if file.parent.name == "figures"})

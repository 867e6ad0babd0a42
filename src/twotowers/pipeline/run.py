"""Bring the chapters of one run up to date: those that were asked for, and those that they need.

A chapter is executed in a workplace and moved into its run's folder when it is complete, so an interrupted run leaves
what was finished before, and nothing half-written. If only its look has changed, it is drawn anew instead.
"""

from __future__ import annotations

import datetime
import gc
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..chapters.chapter import keep_parts
from ..chapters.registry import CHAPTERS, files_read, needs, with_needed
from ..errors import OtherRunError
from ..models.files import is_local
from ..models.loading import Loading
from ..models.memory import machine_memory
from ..models.model import Model
from ..models.registry import REGISTRY
from ..models.server import Traffic
from ..processes import Processes, processes
from ..prompts.tasks import portable
from ..publishing.crowd import remove
from ..publishing.markdown import seen
from ..publishing.provenance import revision_of, run_facts, run_name
from ..publishing.run_folder import RunFolder, project_root
from ..study import Study, find_scale, open_study
from ..tracing.check import require
from .contributed import contribution_in
from .freshness import DONE, LOOK, check_digest, made_of, state, text_of
from .kernels import Kernels, execute
from .lengths import require_fit
from .machine import cores, machine
from .progress import Progress
from .redraw import redraw
from .schedule import side_by_side

SEEDS = ".seeds"  # the folder, beside the runs, of the same runs with other seeds
MOST_JOBS = 4  # no more chapters than that can run before others must have been


@dataclass(frozen=True)
class Outcome:
    """One line of the summary at the end of a run: `state` is "run", "drawn anew" or "up to date"."""

    run: str
    chapter: str
    state: str
    seconds: float
    figures: int
    traffic: Traffic = field(default_factory=Traffic, compare=False)


def run(
    model: str,
    *,
    chapters: Sequence[str] = CHAPTERS,
    task: str = "words",
    scale: str = "book",
    seed: int = 0,
    loading: Loading | None = None,
    force: bool = False,
    replace: bool = False,
    jobs: int | None = None,
    beside: bool = False,
) -> list[Outcome]:
    """Bring chapters of one run up to date, those that they need first, and return what was done.

    Everything that can be known without weights is checked first: names, task, labels, prompts, run folder.

    Args:
        force: the chapters that were asked for are executed, whatever their state.
        replace: a run of another scale or seed makes way for this one, as a whole.
        jobs: chapters that run side by side, each with a model of its own; by default `jobs_that_fit`.
        beside: as for `prepare`.

    Raises:
        UserError: something asked for is not possible; nothing has been written.
        ChapterError: a chapter stopped with an error that is ours.
    """
    names = with_needed(chapters)
    prepared = prepare(model, task, scale, seed, loading or Loading(), beside=beside)
    progress, kernels = Progress(f"{prepared.name}: "), Kernels()
    try:
        prepared.begin(replace=replace)
        if force:
            prepared.ask_again(chapters)
        states = [prepared.state(name).name for name in names]
        if any(found not in (DONE, LOOK) for found in states):
            prepared.check(progress)
        jobs = min(jobs or jobs_that_fit(prepared.study.model), len(names))
        with processes(min(jobs, states.count(LOOK))) as drawing:

            def end() -> None:
                kernels.end()
                drawing.end()

            done = side_by_side(
                names if jobs == 1 else sorted(names, key=lambda name: name != "knockout"),  # most others wait for it
                {name: needs(name) for name in names},
                jobs,
                lambda name: prepared.bring_up_to_date(name, names, progress, kernels, jobs, drawing),
                look=progress.show,
                end=end,
            )
    finally:
        progress.clear()
        prepared.run.leave()
    return [done[name] for name in names]


@dataclass(frozen=True)
class Prepared:
    """A run whose names, texts and lengths have been checked; its weights are not loaded.

    Attributes:
        parameters: of its chapters, as they may be named from another working folder.
    """

    root: Path
    study: Study
    run: RunFolder
    parameters: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What messages call the run; with its seed where it stands beside another one of that name."""
        return f"{self.run.name}, seed {self.study.seed}" if SEEDS in self.run.path.parts else self.run.name

    def begin(self, *, replace: bool = False) -> None:
        """Take the run's folder for this scale and seed.

        Raises:
            RunFolderError: it cannot be written.
            OtherRunError: it holds another scale or seed, or was contributed, and is not to be replaced.
        """
        before, facts = self.run.record_or_empty(), run_facts(self.study)
        other = [name for name in ("scale", "seed") if before["chapters"] and before["run"].get(name) != facts[name]]
        was = ", ".join(f"{name} {before['run'].get(name)}" for name in other)
        made = contribution_in(before)
        if made and not replace:
            raise OtherRunError(
                f"The run {self.run.name} was contributed {made.by_whom}; to have one of your own in its place, as a "
                f"whole, add --replace to the command."
            )
        if other and not replace:
            raise OtherRunError(
                f"The run {self.run.name} was made with {was}; to replace the whole run, add --replace to the command, "
                f"or repeat it with what it was made with."
            )
        self.run.require_writable()
        if made:  # nothing of it may count as ours, whatever it is of
            self.run.update(lambda record: record.update(run={}))
        self.run.begin(facts)
        if made:
            print(f"{self.name}: the run that was contributed {seen(made.by_whom)} makes way for this one", flush=True)
        elif other:
            print(f"{self.name}: the run of {seen(was)} makes way for this one", flush=True)
        places = {
            name: self.parameters[name] for name in ("model", "task") if Path(self.parameters[name]).is_absolute()
        }
        if places:
            self.run.remember_sources(**places)

    def ask_again(self, chapters: Sequence[str]) -> None:
        """Mark chapters to be done again, whatever their state; the marks outlive an interruption."""

        def mark(record: dict[str, Any]) -> None:
            for name in chapters:
                if name in record["chapters"]:
                    record["chapters"][name]["redo"] = True

        self.run.update(mark)
        for name in chapters:
            remove(self.run.parts(name))

    def made_of(self, chapter: str) -> dict[str, Any]:
        return made_of(self.root, chapter, self.study, self.run)

    def state(self, chapter: str) -> Any:
        return state(self.run, chapter, self.made_of(chapter))

    def check(self, progress: Progress) -> None:
        """Measure the identities on this model, once for these weights and this code; refuse one that fails."""
        digest = check_digest(self.study)
        if self.run.record_or_empty()["check"].get("digest") == digest:
            return
        progress.say(f"{self.name}: checking the identities")
        table = require(self.study.model, self.study.evaluation[0].words[:2])
        identities = json.loads(table.to_json(orient="records"))
        self.run.update(lambda record: record.update(check={"digest": digest, "identities": identities}))
        self.study.model.forget_weights()  # the chapters load their own
        gc.collect()

    def bring_up_to_date(
        self, name: str, names: Sequence[str], progress: Progress, kernels: Kernels, jobs: int, drawing: Processes
    ) -> Outcome:
        """Execute a chapter, or draw it anew, if it needs that; another process that does so is waited for."""

        def waits() -> None:
            progress.say(f"{self.name}: {name} is being made by another command, which is waited for")

        with self.run.lock(name, waits=waits, given_up=lambda: kernels.ended):
            found = self.state(name)  # now: it covers what earlier chapters have just written
            if found.name == DONE:
                return self._outcome(name, "up to date")
            of = f"[{names.index(name) + 1}/{len(names)}] {self.name}: {name}"
            begun, entry, text = time.monotonic(), self.run.entry(name), text_of(self.root, name)
            with self.run.workplace(name) as workplace:
                revision = revision_of(self.study.model)
                if found.name == LOOK and drawing.call(redraw, text, self.run, name, workplace, entry, revision):
                    progress.say(f"{of} (drawn anew: {'; '.join(found.reasons)})")
                    self.run.commit(name, workplace, entry | {"made_of": self.made_of(name)})
                    return self._outcome(name, "drawn anew")
                progress.say(of + (f" ({'; '.join(found.reasons)})" if found.reasons else ""))
                made = self.made_of(name)
                keep_parts(workplace, self.run.parts(name), made["results"])
                self.execute(name, workplace, progress, kernels, jobs)
                traffic = Traffic.noted(workplace / ".traffic")
                seconds = round(time.monotonic() - begun, 1)
                date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                cost = {"peak_memory": kernels.peaks.get(workplace), "jobs": jobs, "machine": machine()}
                self.run.commit(name, workplace, {"made_of": made, "seconds": seconds, "date": date, "cost": cost})
                return self._outcome(name, "run", traffic)

    def execute(self, name: str, workplace: Path, progress: Progress, kernels: Kernels, jobs: int) -> None:
        """Execute a chapter in a workplace within the run's folder, where it leaves its files.

        Args:
            jobs: chapters that run at the same time.
        """
        reads = {file: digest for file in files_read(name) if (digest := self.run.digest_in_record(file))}
        # Twice as many threads as cores: where a chapter waits for another, the one that runs has the whole machine.
        threads = None if jobs == 1 else max(1, min(cores(), 2 * cores() // jobs))
        stream = progress.begin(name)
        try:
            parameters = dict(self.parameters) | {"folder": str(workplace), "reads": reads}
            text, labels = text_of(self.root, name), self.study.task.classes
            execute(text, parameters, workplace, kernels, stream, threads=threads, labels=labels)
        finally:
            progress.end(name)

    def _outcome(self, name: str, state: str, traffic: Traffic | None = None) -> Outcome:
        entry = self.run.entry(name)
        figures = sum(file.endswith(".svg") for file in entry["files"])
        return Outcome(self.name, name, state, entry["seconds"], figures, traffic or Traffic())


def prepare(model: str, task: str, scale: str, seed: int, loading: Loading, *, beside: bool = False) -> Prepared:
    """A run whose names, task, labels and lengths are possible; loads no weights, writes nothing.

    Args:
        beside: not the run itself, but the same with this seed beside it, which is not published.

    Raises:
        UserError: names, labels, lengths or lists that are not possible.
    """
    root = project_root()
    find_scale(scale)
    task = portable(task)
    model = str(Path(model).resolve()) if model not in REGISTRY and is_local(model) else model
    study = open_study(model, task, scale, seed, loading)
    require_fit(study)
    runs = root / "book" / "runs"
    run = RunFolder((runs / SEEDS / str(seed) if beside else runs) / run_name(study))
    parameters = {"model": model, "task": task, "scale": scale, "seed": seed, "loading": loading.given()}
    return Prepared(root, study, run, parameters)


def jobs_that_fit(model: Model) -> int:
    """How many chapters may run side by side: one on a GPU or a server, else what cores and memory allow."""
    if torch.cuda.is_available() or model.remote:
        return 1
    each = chapter_memory(model.weight_bytes)
    return max(1, min(MOST_JOBS, cores(), machine_memory() // each))


def chapter_memory(weights: int) -> int:
    """Bytes that a chapter may need: the weights twice, the second time packed, and activations beside them."""
    return 3 * weights + 2**30

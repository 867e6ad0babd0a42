"""What a run takes: measured, from the records of runs, and estimated for the paper's models that nobody has handed in.

An estimate stands on the largest model that was run here whole at the usual scale: its time, as often as the other
model has more weights. Overheads are scaled with it, and what grows faster than the weights, the number of heads, is
not; so it says whether to plan for minutes, hours or days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..chapters.registry import CHAPTERS
from ..models.registry import REGISTRY, Entry
from ..paper import PAPER_MODELS
from ..publishing.markdown import escape, stacking
from ..publishing.wording import counted
from .pages import Published
from .run import chapter_memory

SCALE = "book"
FURTHEST = 1000  # times the weights of the model that was measured: beyond it nothing is estimated
UNKNOWN = "not recorded"
GIB = 2**30


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        seconds: of its chapters, added up; `memory`: the most bytes that one chapter held; None where nobody measured.
        disk: bytes of the run's files.
        machines: in words, empty where that was not recorded.
        parameters: of the model's weights; None of one that is not in the registry.
    """

    title: str
    scale: str
    chapters: int
    seconds: float
    memory: int | None
    disk: int
    machines: tuple[str, ...]
    parameters: int | None
    contributed: bool


def cost_of(own: Published) -> Cost:
    """What a run took, as its record and its files say."""
    record = own.run.record()
    entries = [record["chapters"][name] for name in own.chapters]
    costs = [entry["cost"] for entry in entries if "cost" in entry]
    memory = [cost["peak_memory"] for cost in costs if cost["peak_memory"] is not None]
    files = [own.run.path / file for entry in entries for file in entry["files"]]
    known = REGISTRY.get(record["run"].get("model", "")) if record["run"].get("kind") == "registry" else None
    return Cost(
        title=own.title,
        scale=str(record["run"].get("scale", "")),
        chapters=len(own.chapters),
        seconds=float(sum(entry["seconds"] for entry in entries)),
        memory=max(memory, default=None) if len(memory) == len(entries) else None,
        disk=sum(file.stat().st_size for file in files if file.is_file()),
        machines=tuple(dict.fromkeys(_machine(cost["machine"]) for cost in costs)),
        parameters=known.parameters if known else None,
        contributed=own.contributed is not None,
    )


def measured(runs: Sequence[Published]) -> str:
    """What each run took, as a Markdown table."""
    head = ["run", "scale", "chapters", "time", "memory of a chapter, at most", "disk", "machine"]
    rows = [
        (
            escape(cost.title),
            cost.scale,
            cost.chapters,
            duration(cost.seconds),
            UNKNOWN if cost.memory is None else size(cost.memory),
            size(cost.disk),
            escape("; ".join(cost.machines)) or UNKNOWN,
        )
        for cost in map(cost_of, runs)
    ]
    return stacking(head, rows)


def registry() -> str:
    """The models that have a key, as a Markdown table."""
    head = ["key", "weights", "memory", "source", "licence", "template"]
    rows = [
        (
            f"`{entry.key}`",
            in_words(entry.parameters),
            f"{size(entry.memory)} ({entry.dtype})",
            f"`{entry.source}`",
            entry.licensed,
            entry.template,
        )
        for entry in REGISTRY.values()
    ]
    return stacking(head, rows)


def in_words(number: int) -> str:
    """A large number in three digits and a word."""
    unit, word = next(
        own for own in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand"), (1, "")) if number >= own[0]
    )
    return f"{number / unit:.3g} {word}".strip()


def of_the_paper(runs: Sequence[Published]) -> str:
    """The models of the paper: the ledgers of those that have a run, and what it takes to make the others'."""
    basis = basis_of([cost_of(own) for own in runs])
    head = ["model of the paper", "run", "memory for a chapter", "time", "how"]
    rows = [_row(REGISTRY[key], name, runs, basis) for key, name in PAPER_MODELS.items()]
    return f"{stacking(head, rows)}\n\n{_said(basis)}"


def basis_of(costs: Sequence[Cost]) -> Cost | None:
    """The largest model of the registry that was run here, whole and at the usual scale."""
    whole = [cost for cost in costs if cost.parameters and cost.scale == SCALE and cost.chapters == len(CHAPTERS)]
    own = [cost for cost in whole if not cost.contributed]
    return max(own, key=lambda cost: cost.parameters or 0, default=None)


def estimate(parameters: int, basis: Cost | None) -> float | None:
    """Seconds of a run at the usual scale; None where nothing near enough was measured."""
    if basis is None or not basis.parameters or parameters > FURTHEST * basis.parameters:
        return None
    return basis.seconds * parameters / basis.parameters


def duration(seconds: float | int) -> str:
    """Seconds, minutes, hours or days, with two digits."""
    for unit, length, least in (("days", 86400.0, 2), ("hours", 3600.0, 2), ("minutes", 60.0, 2)):
        if seconds >= least * length:
            return f"{float(f'{seconds / length:.2g}'):g} {unit}"
    return f"{seconds:.0f} seconds"


def size(number: int) -> str:
    """Bytes in MiB or GiB."""
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / 2**20:.1f} MiB"


def _row(entry: Entry, name: str, runs: Sequence[Published], basis: Cost | None) -> tuple[str, ...]:
    there = [own for own in runs if own.run.record()["run"].get("model") == entry.key and "claims" in own.chapters]
    said = f"{name} (`{entry.key}`)"
    if there:
        links = " · ".join(f"[{escape(own.title)}](runs/{own.name}/claims.ipynb)" for own in there)
        took = "; ".join(duration(cost_of(own).seconds) for own in there)
        return said, links, "", took, ""
    seconds = estimate(entry.parameters, basis)
    how = f"`twotowers run --model {entry.key}`, then `twotowers export {entry.key}`"
    memory = f"about {size(chapter_memory(entry.memory))} ({entry.dtype})"
    return said, "none yet", memory, f"about {duration(seconds)}" if seconds else "not estimated", how


def _said(basis: Cost | None) -> str:
    """What the estimates stand on."""
    memory = "Memory is what the command allows for a chapter when it decides how many run side by side."
    handed = "A run is given to others {ref}`as one file <rerun-hand-in>`."
    if basis is None or basis.parameters is None:
        return f"{memory} Time is not estimated: no whole run of scale {SCALE} was measured here. {handed}"
    where = f" on {escape('; '.join(basis.machines))}" if basis.machines else ""
    return (
        f"{memory} Time is estimated from {escape(basis.title)}, whose {counted(basis.chapters, 'chapter')} took "
        f"{duration(basis.seconds)}{where}, in proportion to the number of weights, so for the same machine; nothing "
        f"is estimated for a model with more than {FURTHEST:,} times as many. {handed}"
    )


def _machine(facts: Mapping[str, Any]) -> str:
    gpu = f", {facts['gpu']}" if facts.get("gpu") else ""
    return f"{facts['processor']}, {counted(int(facts['cores']), 'core')}, {size(facts['memory'])}{gpu}"

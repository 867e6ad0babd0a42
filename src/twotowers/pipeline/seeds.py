"""The same run with other seeds, that is other words, pairs and orders: how verdicts fall and which heads are chosen.

Each has a folder of its own beside the published runs, `book/runs/.seeds/<seed>/<run>`, and is resumed and redone like
any run; only its ledger and heads are shown, on the pages of the run that it belongs to.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..chapters.registry import CHAPTERS, files_read
from ..errors import UserError
from ..paper import CLAIMS
from ..publishing.ledger import ledger
from ..publishing.run_folder import RunFolder, handed_file
from . import run as running
from .run import SEEDS, Outcome

COLUMNS = {"claim": "text", "verdict": "text", "mean": "float", "low": "float", "high": "float"}
KINDS = {"seed": "int", **COLUMNS}
HEADS = "heads"  # as the knock-out chapter hands them on
JUDGING = [name for name in CHAPTERS if any(claim.chapter == name for claim in CLAIMS.values())]


@dataclass(frozen=True)
class Seed:
    """What one seed gives: its ledger, in the columns `COLUMNS`, and the heads that were chosen, by name."""

    ledger: pd.DataFrame
    heads: Mapping[str, Any]


def run_seeds(model: str, number: int, *, seed: int = 0, **arguments: Any) -> list[Outcome]:
    """As `pipeline.run.run`, then the chapters that judge with other seeds, the lowest, so many in all.

    Raises:
        UserError: as `run`.
    """
    others = [other for other in range(number) if other != seed][: number - 1]
    done = running.run(model, seed=seed, **arguments)
    for other in others:
        done += running.run(model, seed=other, beside=True, **arguments | {"chapters": JUDGING})
    return done


def measured(run: RunFolder) -> dict[int, Seed]:
    """What a run gives and, of the same made beside it with other seeds by the same code, what those give, by seed.

    A run that is damaged or not complete is left out.
    """
    found = {}
    for one in (run, *_beside(run)):
        try:
            record = one.record()
            if one is run or _alike(run.record(), record):
                found[int(record["run"]["seed"])] = given(one)
        except (UserError, KeyError, ValueError):
            continue
    return dict(sorted(found.items()))


def given(run: RunFolder) -> Seed:
    """What a run gives with its seed.

    Raises:
        DamagedRunError: it hands on no heads, or something is not what was made.
    """
    file = handed_file(HEADS)
    heads = json.loads(run.read(file, run.digest_in_record(file)))["value"]
    return Seed(ledger(run.path)[list(COLUMNS)], heads)


def times_chosen(heads: Mapping[int, Mapping[str, Any]]) -> str:
    """How often each in-context head was chosen, in words; nothing of a single seed.

    Args:
        heads: of each seed, as they are handed on.
    """
    if len(heads) < 2:
        return ""
    times = Counter(f"{layer}.{head}" for own in heads.values() for layer, head in own["all"])
    often = ", ".join(f"{head} {number}" for head, number in times.most_common())
    return f"Times a head is chosen, of {len(heads)} seeds ({', '.join(map(str, heads))}): {often}."


def _beside(run: RunFolder) -> Iterator[RunFolder]:
    for path in sorted((run.path.parent / SEEDS).glob(f"*/{run.name}/run.json")):
        yield RunFolder(path.parent)


def _alike(record: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs differ in their seed alone, and all that judges is there."""
    return _facts(record) == _facts(other) and all(
        name in other["chapters"] and _made(record, name) == _made(other, name) for name in JUDGING
    )


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record["run"].items() if name != "seed"}


def _made(record: Mapping[str, Any], chapter: str) -> dict[str, Any]:
    """What decides a chapter's results but for the seed, and for what it reads of chapters that it decides, too."""
    made = record["chapters"][chapter]["made_of"]["results"]
    decided = {"the seed", *(f"{file}, which it reads," for file in files_read(chapter))}
    return {name: value for name, value in made.items() if name not in decided}

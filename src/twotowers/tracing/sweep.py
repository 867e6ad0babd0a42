"""A sweep: the same measure of every prompt set, part by part; what was measured before an interruption is kept.

Parts are those of the model that is measured (`Model.parts`), so that no chapter need know of them. Every loop over
forwards is one of these, so that none begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd
from tqdm import tqdm

from ..models.model import Model
from ..models.parts import Tables, part_name
from ..prompts.packing import Batch
from ..prompts.sets import PromptSet
from .answers import require_finite
from .capture import TOKEN_BUDGET, Capture, capture, numbered

OfBatch = Callable[[list[PromptSet], int, Batch], Tables]  # of its sets, the number of the first of them, and itself
OfCapture = Callable[[list[PromptSet], int, Batch, Capture], list[pd.DataFrame]]


def sweep(
    model: Model,
    sets: Sequence[PromptSet],
    title: str,
    asked: Any,
    measure: Callable[[int, PromptSet], pd.DataFrame],
    *,
    numbers: Sequence[int] | None = None,
) -> list[pd.DataFrame]:
    """What each set gives, in order; a bar shows progress.

    Args:
        title: of the bar, and of the measure: no other has it.
        asked: everything but the model and the set that decides what `measure` gives, see `part_name`.
        measure: rows of one set, from its number and the set; of other sets it knows nothing.
        numbers: of the sets; by default 0, 1, ...
    """
    numbered_sets = list(zip(range(len(sets)) if numbers is None else numbers, sets, strict=True))
    whole, tables = part_name(title, asked), list[pd.DataFrame]()
    for number, s in tqdm(numbered_sets, desc=title, unit="set", delay=2, leave=False):
        tables += part(model, whole, number, [s], partial(_alone, measure, number, s))
    return tables


def sweep_batches(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    title: str,
    asked: Any,
    measure: OfBatch,
    *,
    budget: int = TOKEN_BUDGET,
) -> list[Tables]:
    """As `sweep`, many sets at a time: what each batch gives, tables or arrays, as many as `measure` makes.

    Args:
        budget: tokens of one forward; one set is never divided.
    """
    whole = part_name(title, asked)
    return [
        part(model, whole, first, members, partial(measure, members, first, batch))
        for members, first, batch in numbered(model, prompt_sets, title, budget)
    ]


def sweep_captures(
    model: Model, prompt_sets: PromptSet | Sequence[PromptSet], title: str, asked: Any, measure: OfCapture
) -> pd.DataFrame:
    """As `sweep_batches`, from one forward of each batch, its patterns and inputs, too: all rows in one table."""

    def of_batch(members: list[PromptSet], first: int, batch: Batch) -> Tables:
        captured = capture(model, batch, pattern=True, inputs=True)
        require_finite(captured.answers.labels, captured.answers.log_norm)
        return (pd.concat(measure(members, first, batch, captured), ignore_index=True),)

    found = sweep_batches(model, prompt_sets, title, asked, of_batch)
    return pd.concat([table for (table,) in found], ignore_index=True)


def _alone(measure: Callable[[int, PromptSet], pd.DataFrame], number: int, s: PromptSet) -> Tables:
    return (measure(number, s),)


def part(model: Model, whole: str, number: int, sets: Sequence[PromptSet], measure: Callable[[], Tables]) -> Tables:
    """What some sets give together, measured now or before an interruption.

    Args:
        whole: `part_name` of the measure and of all that was asked of it.
        number: of the first of the sets.
    """
    name = part_name(whole, number, list(sets))
    found = model.parts.find(name)
    if found is None:
        found = measure()
        model.parts.keep(name, found)
    return found

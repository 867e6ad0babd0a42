"""A sweep: the same measure of every prompt set, a part a set; what was measured before an interruption is kept.

Parts are those of the model that is measured (`Model.parts`), so that no chapter need know of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd
from tqdm import tqdm

from ..models.model import Model
from ..models.parts import Tables, part_name
from ..prompts.sets import PromptSet


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
    numbered = list(zip(range(len(sets)) if numbers is None else numbers, sets, strict=True))
    whole, tables = part_name(title, asked), list[pd.DataFrame]()
    for number, s in tqdm(numbered, desc=title, unit="set", delay=2, leave=False):
        tables += part(model, whole, number, [s], partial(_alone, measure, number, s))
    return tables


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

"""The sweep: what every prompt answers without each group of heads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
import torch
from tqdm import tqdm

from ..errors import MemoryLimitError, out_of_memory
from ..models.model import Model
from ..models.parts import Tables, part_name
from ..prompts.packing import Batch, pack
from ..prompts.sets import PromptSet, as_sets
from .ablation import ablate
from .answers import Answers, outcome_table, outcome_tables
from .capture import TOKEN_BUDGET, answers, remember
from .heads import Head, Heads, as_heads
from .sweep import part, sweep_batches


def outcomes(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    groups: Sequence[Heads],
    *,
    budget: int = TOKEN_BUDGET,
) -> pd.DataFrame:
    """Answer every prompt once for each group of heads, zeroed together; an empty group is the intact model.

    Args:
        budget: tokens of one forward; it changes speed and memory, never a result.

    Returns:
        a row per group and prompt: `group, set, query, label, accuracy, accuracy_two_way, margin`, where the
        accuracies are 0 or 1 and `label` is the gold label. The margin is the gold label's logit minus the other's, and
        of more than two labels minus the mean of all others; `accuracy_two_way` says whether the gold label beats all
        others, of which there is one, or more.
    """
    sets = as_sets(model, prompt_sets)
    members = [as_heads(model, group) for group in groups]
    if not any(members):
        return _intact(model, sets, len(members))
    lowest = [min((layer for layer, _ in group), default=-1) for group in members]
    ordered = sorted((number for number, group in enumerate(members) if group), key=lowest.__getitem__)
    layers_to_run = sum(model.arch.n_layers - lowest[number] for number in ordered)
    whole, tables = part_name("knock-out", members), list[pd.DataFrame]()
    with tqdm(total=len(sets) * layers_to_run, desc="knock-out", unit="layer", delay=2, leave=False) as bar:

        def of_set(index: int, s: PromptSet) -> Tables:
            nonlocal budget
            batch = pack([s], model.pad_id)
            unchanged, intact = remember(model, batch)
            answered = {number: unchanged for number, group in enumerate(members) if not group}
            done = 0
            while done < len(ordered):
                chosen = ordered[done : done + max(1, budget // batch.input_ids.shape[1])]
                start = intact.entering(lowest[chosen[0]]) if intact else ()
                zero = _zero_mask(model, [members[number] for number in chosen])
                try:
                    rows = ablate(model, batch, zero, *start)
                except Exception as error:
                    budget = _halved(error, len(chosen)) * batch.input_ids.shape[1]
                    continue
                answered |= _by_row(rows, chosen)
                bar.update(sum(model.arch.n_layers - lowest[number] for number in chosen))
                done += len(chosen)
            rows_of = [outcome_table(answered[number], s, number, index) for number in range(len(members))]
            return (pd.concat(rows_of, ignore_index=True),)

        for index, s in enumerate(sets):
            tables += part(model, whole, index, [s], partial(of_set, index, s))
            bar.update((index + 1) * layers_to_run - bar.n)  # what was measured before an interruption, too
    return pd.concat(tables, ignore_index=True)


def _intact(model: Model, sets: Sequence[PromptSet], n_groups: int) -> pd.DataFrame:
    """As `outcomes`, for groups that are all empty: many sets in one forward."""

    def of_batch(members: list[PromptSet], first: int, batch: Batch) -> Tables:
        return (pd.concat(outcome_tables(answers(model, batch), members, first), ignore_index=True),)

    table = pd.concat([rows for (rows,) in sweep_batches(model, sets, "answers", None, of_batch)], ignore_index=True)
    return pd.concat([table.assign(group=number) for number in range(n_groups)], ignore_index=True)


def _halved(error: Exception, rows: int) -> int:
    """Half as many rows, if memory ran out; raises the error again if it is another, or nothing is left to halve."""
    if not out_of_memory(error):
        raise error
    if rows == 1:
        raise MemoryLimitError(
            "There is too little memory for one prompt set; use fewer queries or shots a set, or a smaller dtype."
        ) from error
    return rows // 2


def _zero_mask(model: Model, groups: Sequence[Sequence[Head]]) -> torch.Tensor:
    zero = torch.zeros(len(groups), model.arch.n_layers, model.arch.n_heads, dtype=torch.bool)
    for row, group in enumerate(groups):
        for layer, head in group:
            zero[row, layer, head] = True
    return zero


def _by_row(rows: Answers, numbers: Sequence[int]) -> dict[int, Answers]:
    parts = (x.chunk(len(numbers)) for x in (rows.labels, rows.log_norm, rows.best))
    return {number: Answers(*part) for number, *part in zip(numbers, *parts, strict=True)}

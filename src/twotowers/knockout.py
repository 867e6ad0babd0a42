"""Knock-out: what the model still answers when heads are zeroed, exactly, at every position.

Zeroing a head's z equals zeroing its slice of W_O (method page, equation eq-knockout). Each prompt set is one packed
row; choices of heads that start at the same layer become rows of one forward, which starts at that layer
from the intact model's residual.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .errors import UserError
from .models import Model
from .prompts import Batch, PromptSet, pack
from .trace import TOKEN_BUDGET, Answers, ablate, capture

Head = tuple[int, int]  # layer and head, both from 0


class HeadError(UserError):
    """A head that the model does not have."""


def knockout(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    heads: Literal["each"] | Sequence[Head] = "each",
) -> pd.DataFrame:
    """Accuracy and margin with heads zeroed, over all prompts of all sets.

    Args:
        heads: `"each"` zeroes every head by itself, a row each; a list of (layer, head) pairs zeroes them
            together, one row; the empty list gives the intact model.

    Returns:
        `layer, head` (only for `"each"`), `accuracy` (the label is the most probable token of the vocabulary),
        `accuracy_two_way` (it beats the other label) and `margin` (mean of its logit minus the other label's).

    Raises:
        HeadError: a head that the model does not have.
    """
    each = isinstance(heads, str)
    groups = [[head] for head in every_head(model)] if each else [list(heads)]
    result = outcomes(model, prompt_sets, groups)
    means = result.groupby("group")[["accuracy", "accuracy_two_way", "margin"]].mean().reset_index(drop=True)
    if each:
        means.insert(0, "layer", [layer for layer, _ in every_head(model)])
        means.insert(1, "head", [head for _, head in every_head(model)])
    return means


def every_head(model: Model) -> list[Head]:
    return [(layer, head) for layer in range(model.arch.n_layers) for head in range(model.arch.n_heads)]


def outcomes(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    groups: Sequence[Sequence[Head]],
    *,
    budget: int = TOKEN_BUDGET,
) -> pd.DataFrame:
    """Answer every prompt once for each group of heads, zeroed together; an empty group is the intact model.

    Args:
        budget: tokens of one forward; it changes speed and memory, never a result.

    Returns:
        a row per group and prompt: `group, set, query, label, accuracy, accuracy_two_way, margin`, where the
        accuracies are 0 or 1 and `label` is the gold label.
    """
    sets = [prompt_sets] if isinstance(prompt_sets, PromptSet) else list(prompt_sets)
    known = set(every_head(model))
    for head in (head for group in groups for head in group):
        if tuple(head) not in known:
            raise HeadError(
                f"{model.name} has no head {tuple(head)}: layers are 0 to {model.arch.n_layers - 1} and heads 0 to "
                f"{model.arch.n_heads - 1}."
            )
    starts: dict[int, list[int]] = defaultdict(list)  # lowest layer of a group -> groups
    for number, group in enumerate(groups):
        if group:
            starts[min(layer for layer, _ in group)].append(number)
    layers_to_run = sum((model.arch.n_layers - start) * len(members) for start, members in starts.items())
    tables = []
    with tqdm(total=len(sets) * layers_to_run, desc="knock-out", unit="layer", delay=2, leave=False) as bar:
        for index, s in enumerate(sets):
            batch = pack([s], model.pad_id)
            intact = capture(model, batch, inputs=True)
            assert intact.inputs is not None
            answered = {number: intact.answers for number, group in enumerate(groups) if not group}
            for start, members in sorted(starts.items()):
                step = max(1, budget // batch.input_ids.shape[1])
                for first in range(0, len(members), step):
                    chosen = members[first : first + step]
                    zero = _zero_mask(model, [groups[number] for number in chosen])
                    rows = ablate(model, batch, zero, intact.inputs[start, 0], start)
                    answered |= _by_row(rows, chosen)
                    bar.update((model.arch.n_layers - start) * len(chosen))
            tables += [_table(answered[number], batch, s, number, index) for number in range(len(groups))]
    return pd.concat(tables, ignore_index=True)


def rank_heads(each: pd.DataFrame, intact: pd.DataFrame) -> pd.DataFrame:
    """Heads of `knockout(..., "each")` by harm: accuracy lost, ties broken by margin lost; worst first.

    Adds `accuracy_drop` and `margin_drop`, relative to the intact model's row.
    """
    drops = {f"{name}_drop": intact[name].iloc[0] - each[name] for name in ("accuracy", "margin")}
    return each.assign(**drops).sort_values(
        ["accuracy_drop", "margin_drop", "layer", "head"], ascending=[False, False, True, True], ignore_index=True
    )


def random_heads(heads: Sequence[Head], n_heads: int, rng: np.random.Generator) -> list[Head]:
    """A control for `heads`: as many others of the same layers, drawn at random.

    Where a layer has fewer others than are needed, all others of that layer are taken.
    """
    control: list[Head] = []
    for layer in sorted({layer for layer, _ in heads}):
        taken = {head for own, head in heads if own == layer}
        others = [head for head in range(n_heads) if head not in taken]
        drawn = rng.choice(others, size=min(len(taken), len(others)), replace=False)
        control += [(layer, int(head)) for head in sorted(drawn)]
    return control


def in_context_heads(
    each: pd.DataFrame, located: pd.DataFrame, label: str, *, n_layers: int, top: int = 10
) -> list[Head]:
    """Heads of the deep half in the top of both lists for one gold label: *foo-heads* for " foo".

    Args:
        each: one row a head with `layer, head, accuracy_drop, margin_drop` on the prompts of that gold label.
        located: `Located.heads`.

    Returns:
        the heads in both lists, by log-increase, largest first.
    """
    deep = each["layer"] >= n_layers / 2
    harmful = each[deep].nlargest(top, ["accuracy_drop", "margin_drop"])
    raising = located[(located["label"] == label) & (located["layer"] >= n_layers / 2)]
    raising = raising.nlargest(top, "log_increase")
    both = raising.merge(harmful[["layer", "head"]], on=["layer", "head"])
    return [(int(layer), int(head)) for layer, head in zip(both["layer"], both["head"], strict=True)]


def _zero_mask(model: Model, groups: Sequence[Sequence[Head]]) -> torch.Tensor:
    zero = torch.zeros(len(groups), model.arch.n_layers, model.arch.n_heads, dtype=torch.bool)
    for row, group in enumerate(groups):
        for layer, head in group:
            zero[row, layer, head] = True
    return zero


def _by_row(rows: Answers, numbers: Sequence[int]) -> dict[int, Answers]:
    parts = (x.chunk(len(numbers)) for x in (rows.labels, rows.log_norm, rows.best))
    return {number: Answers(*part) for number, *part in zip(numbers, *parts, strict=True)}


def _table(answers: Answers, batch: Batch, s: PromptSet, group: int, index: int) -> pd.DataFrame:
    prompts = torch.arange(len(batch.gold))
    gold, other = answers.labels[prompts, batch.gold], answers.labels[prompts, 1 - batch.gold]
    correct = answers.best == batch.label_ids[prompts, batch.gold]
    return pd.DataFrame(
        {
            "group": group,
            "set": index,
            "query": prompts.numpy(),
            "label": [label for _, label in s.queries],
            "accuracy": correct.double().numpy(),
            "accuracy_two_way": (gold > other).double().numpy(),
            "margin": (gold - other).double().numpy(),
        }
    )

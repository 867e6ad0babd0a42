"""Knock-out: what the model still answers when heads are zeroed, exactly, at every position.

Zeroing a head's z equals zeroing its slice of W_O (method page, equation eq-knockout). Each prompt set is one packed
row; choices of heads that start at the same layer become rows of one forward, which starts at that layer
from the intact model's residual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from ...models.model import Model
from ...models.surroundings import undisturbed
from ...prompts.sets import PromptSet
from ...statistics import summarise
from ...tracing.heads import Head, Heads, as_heads, every_head, random_heads
from ...tracing.outcomes import outcomes

ONE_PERCENT = 0.01  # of all heads: as many as the paper removes


@undisturbed
def knockout(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    heads: Literal["each"] | Heads = "each",
) -> pd.DataFrame:
    """Accuracy and margin with heads zeroed, over all prompts of all sets.

    Args:
        heads: `"each"` zeroes every head by itself, a row each; a list of (layer, head) pairs zeroes them
            together, one row; the empty list gives the intact model.

    Returns:
        `layer, head` (only for `"each"`), `accuracy` (the label is the most probable token of the vocabulary),
        `accuracy_two_way` (it beats the other label, or all others) and `margin` (mean of its logit minus the other
        label's, or minus the mean of all others).

    Raises:
        HeadError: a head that the model does not have.
    """
    each = isinstance(heads, str) and heads == "each"
    groups = [[head] for head in every_head(model)] if each else [as_heads(model, heads)]
    result = outcomes(model, prompt_sets, groups)
    means = result.groupby("group")[["accuracy", "accuracy_two_way", "margin"]].mean().reset_index(drop=True)
    if each:
        means.insert(0, "layer", [layer for layer, _ in every_head(model)])
        means.insert(1, "head", [head for _, head in every_head(model)])
    return means


def sweep(
    model: Model, prompt_sets: PromptSet | Sequence[PromptSet], heads: Sequence[Head] | None = None
) -> pd.DataFrame:
    """Every head (or each of `heads`) by itself, and the intact model: rows of `outcomes` with `layer, head` (-1, -1 if
    intact)."""
    each = [(-1, -1), *(every_head(model) if heads is None else heads)]
    result = outcomes(model, prompt_sets, [[], *([head] for head in each[1:])])
    layers, numbers = np.array(each).T
    return result.assign(layer=layers[result["group"]], head=numbers[result["group"]])


def rank_heads(swept: pd.DataFrame, label: str | None = None) -> pd.DataFrame:
    """Heads by harm, worst first: by margin lost, then accuracy lost, on prompts of one gold label or of all.

    The margin comes first because accuracy moves in steps of one prompt, and most heads tie.

    Args:
        swept: result of `sweep`.

    Returns:
        `layer, head, accuracy_drop, margin_drop`: intact minus knocked out, means over prompts.
    """
    part = swept if label is None else swept[swept["label"] == label]
    means = part.groupby(["layer", "head"])[["accuracy", "margin"]].mean()
    drops = means.loc[(-1, -1)] - means.drop(index=(-1, -1))
    drops = drops.rename(columns={"accuracy": "accuracy_drop", "margin": "margin_drop"}).reset_index()
    return drops.sort_values(["margin_drop", "accuracy_drop"], ascending=False, ignore_index=True)


def top_number(n_heads: int, share: float = ONE_PERCENT) -> int:
    """How many heads a share of all is: at least one, and no more than there are."""
    return min(n_heads, max(1, round(share * n_heads)))


def with_top(ranked: pd.DataFrame) -> pd.DataFrame:
    """A ranking of heads with the column `top`: whether a head is among the first 1 %."""
    return ranked.assign(top=np.arange(len(ranked)) < top_number(len(ranked)))


def doses(n_heads: int) -> list[int]:
    """How many heads to remove in a dose curve: about 0.5, 1, 2, 4 and 8 % of all, at least one."""
    return sorted({top_number(n_heads, share) for share in (0.005, ONE_PERCENT, 0.02, 0.04, 0.08)} - {0})


def dose(
    model: Model, prompt_sets: Sequence[PromptSet], ranked: Sequence[Head], *, draws: int, seed: int = 0
) -> pd.DataFrame:
    """Remove the first heads of a ranking together, and as many random heads of the same layers.

    Returns:
        rows of `outcomes` with `removed` (number of heads; 0 for the intact model), `kind` (`top` or `random`),
        `draw`, and `zeroed`: the heads that were removed indeed, fewer if the layers have too few others.
    """
    rng = np.random.default_rng([seed, 1])
    choices: list[tuple[int, str, int, list[Head]]] = [(0, kind, 0, []) for kind in ("top", "random")]
    for n in sorted({min(n, len(ranked)) for n in doses(model.arch.n_layers * model.arch.n_heads)} - {0}):
        top = list(ranked[:n])
        choices.append((n, "top", 0, top))
        choices += [(n, "random", i, random_heads(top, model.arch.n_heads, rng)) for i in range(draws)]
    result = outcomes(model, prompt_sets, [heads for *_, heads in choices])
    keys = pd.DataFrame([choice[:3] for choice in choices], columns=["removed", "kind", "draw"])
    return result.join(keys.assign(zeroed=[len(heads) for *_, heads in choices]), on="group")


def dose_curve(removed: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by heads removed, from a `dose` table.

    Returns:
        `removed, kind, label, mean, low, high`, with `zeroed` as in `dose` and `overall`, the accuracy on the prompts
        of all labels.
    """
    keys = ["removed", "kind"]
    curve = summarise(removed, [*keys, "label"], "accuracy")
    pooled = removed.groupby(keys, as_index=False).agg(zeroed=("zeroed", "max"), overall=("accuracy", "mean"))
    return curve.merge(pooled, on=keys)

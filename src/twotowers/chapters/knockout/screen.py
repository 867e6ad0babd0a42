"""Screen, then verify: a first-order estimate of what every head is worth, and exact knock-out of the highest only.

The estimate costs one forward and one backward pass for all heads together (`trace.attributions`). It is no result: it
says which heads to knock out exactly, and `recall` says how many of the truly worst heads it finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch

from ...arguments import require_between
from ...models.model import Model
from ...models.parts import Tables
from ...models.surroundings import undisturbed
from ...prompts.packing import Batch
from ...prompts.sets import PromptSet, as_sets
from ...tracing.ablation import attributions
from ...tracing.answers import require_finite
from ...tracing.heads import Head, pairs
from ...tracing.sweep import sweep_batches
from .knockout import rank_heads, sweep

SHARE = 0.05  # of all heads that is worth an exact knock-out
WORST = 0.01  # of all heads that is to be found
TOKENS = 1024  # of a forward: a backward pass keeps every activation


@undisturbed
def screen(model: Model, prompt_sets: PromptSet | Sequence[PromptSet]) -> pd.DataFrame:
    """Estimated margin that is lost without each head, worst first.

    Returns:
        `layer, head, margin_drop` (logits; the first-order estimate, mean over the prompts of all sets).
    """
    sets = as_sets(model, prompt_sets)
    weights = np.array([len(s.prompts) for s in sets], dtype=float)

    def of_batch(members: list[PromptSet], first: int, batch: Batch) -> Tables:
        return (attributions(model, batch).numpy(),)

    found = sweep_batches(model, sets, "screen", None, of_batch, budget=TOKENS)
    estimates = np.concatenate([array for (array,) in found], axis=2)
    require_finite(torch.from_numpy(estimates))
    mean = estimates @ (weights / weights.sum())
    layer, head = np.indices(mean.shape).reshape(2, -1)
    table = pd.DataFrame({"layer": layer, "head": head, "margin_drop": mean.ravel()})
    return table.sort_values("margin_drop", ascending=False, ignore_index=True)


def highest(screened: pd.DataFrame, share: float = SHARE) -> list[Head]:
    """The heads with the highest estimates: a share of all, at least one."""
    return pairs(screened, max(1, round(share * len(screened))))


def recall(screened: pd.DataFrame, ranked: pd.DataFrame, worst: float = WORST, share: float = SHARE) -> float:
    """How many of the truly worst heads are among the highest estimates, as a share.

    Args:
        ranked: result of `knockout.rank_heads` for the same prompts.
    """
    true = pairs(ranked, max(1, round(worst * len(ranked))))
    return len({*true} & {*highest(screened, share)}) / len(true)


@undisturbed
def verify(model: Model, prompt_sets: PromptSet | Iterable[PromptSet], share: float = SHARE) -> pd.DataFrame:
    """Screen all heads, then knock out the highest exactly, each by itself.

    Returns:
        a row per verified head, worst first: `layer, head, margin_drop` (exact), `accuracy_drop`, and `estimate` (what
        the screen said of `margin_drop`).
    """
    require_between("share", share, 0, 1, open_below=True)
    sets = as_sets(model, prompt_sets)
    screened = screen(model, sets)
    ranked = rank_heads(sweep(model, sets, highest(screened, share)))
    return ranked.merge(screened.rename(columns={"margin_drop": "estimate"}), on=["layer", "head"])

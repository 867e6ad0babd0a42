"""What the in-context heads write straight into the margin, of all that deep attention writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from ...models.model import Model
from ...models.parts import Tables
from ...prompts.packing import Batch
from ...prompts.sets import PromptSet
from ...statistics import estimate
from ...tracing.capture import capture
from ...tracing.direct_margin import direct_margin, share_of_margin
from ...tracing.heads import Head, as_heads, deep_heads, is_deep
from ...tracing.sweep import sweep_batches

OWN, DEEP, SHARE = "own", "deep", "share"  # what the heads write, what deep attention writes, and the share of it


def written_directly(model: Model, sets: Sequence[PromptSet], heads: Sequence[Head]) -> pd.DataFrame:
    """Direct margin of some heads together, and of all attention in the deep half: `set, own, deep`, a row per prompt.

    Logits (method page, equation eq-direct-margin); output biases belong to no head but to `deep`.
    """
    heads = as_heads(model, heads)
    deep = torch.tensor([is_deep(layer, model.arch.n_layers) for layer in range(model.arch.n_layers)])

    def of_batch(members: list[PromptSet], first: int, batch: Batch) -> Tables:
        direct = direct_margin(model.arch, capture(model, batch), batch)
        own = sum((direct.heads[layer, head] for layer, head in heads), torch.zeros(len(batch.gold)))
        table = pd.DataFrame({"set": [first + i for i, s in enumerate(members) for _ in s.queries]})
        return (table.assign(own=own.double().numpy(), deep=direct.attention[deep].sum(0).double().numpy()),)

    found = sweep_batches(model, sets, "direct margin", heads, of_batch)
    return pd.concat([table for (table,) in found], ignore_index=True)


def direct_summary(written: pd.DataFrame) -> pd.DataFrame:
    """Means with intervals over sets: `what, mean, low, high`; the share is of the mean that deep attention writes."""
    columns = {name: written[name] for name in (OWN, DEEP)} | {SHARE: share_of_margin(written[OWN], written[DEEP])}
    estimates = {name: estimate(column, written["set"]) for name, column in columns.items()}
    rows: list[tuple[Any, ...]] = [(name, e.mean, e.low, e.high) for name, e in estimates.items()]
    return pd.DataFrame(rows, columns=["what", "mean", "low", "high"])


def share_of_heads(model: Model, heads: Sequence[Head]) -> float:
    """How large a part of all deep heads some of them are, 0 to 1."""
    deep = set(deep_heads(model))
    return len(deep & set(heads)) / len(deep)

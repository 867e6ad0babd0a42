"""Which layers write the margin: its additive decomposition, by layer and by half of the layers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ...statistics import estimate, summarise
from ...tracing.direct_margin import share_of_margin
from ...tracing.heads import is_deep
from .locate import COMPONENTS, Located

MARGIN, EMBEDDING, SHALLOW, DEEP, MLPS = "margin", "embedding", "shallow attention", "deep attention", "MLPs"
APART, SHARE = "deep minus shallow", "share of the margin"  # of attention; and that as a share of the mean margin


def margin_by_layer(located: Located) -> pd.DataFrame:
    """What attention and MLP of each layer write straight into the margin: `layer, component, mean, low, high`, logits.

    Means and intervals over all prompts, attention first.
    """
    parts = zip(COMPONENTS, (located.direct.attention, located.direct.mlp), strict=True)
    tables = []
    for component, written in parts:
        layer, prompt = np.indices(written.shape).reshape(2, -1)
        table = pd.DataFrame({"layer": layer, "set": np.array(located.set_index)[prompt]})
        tables.append(table.assign(component=component, direct=written.double().numpy().ravel()))
    return summarise(pd.concat(tables, ignore_index=True), ["layer", "component"], "direct").sort_values(
        ["component", "layer"], ignore_index=True
    )


def margin_sums(located: Located) -> pd.DataFrame:
    """A row per prompt: `set`, its margin, what the embedding, the attention of each half of the layers and all MLPs
    write straight into it (logits), deep minus shallow attention, and that as a share of the mean margin."""
    direct = located.direct
    attention = direct.attention.double()
    deep = torch.tensor([is_deep(layer, len(attention)) for layer in range(len(attention))])
    sums = {
        MARGIN: direct.margin,
        EMBEDDING: direct.embedding,
        SHALLOW: attention[~deep].sum(0),
        DEEP: attention[deep].sum(0),
        MLPS: direct.mlp.double().sum(0),
    }
    table = pd.DataFrame({"set": located.set_index, **{name: x.double().numpy() for name, x in sums.items()}})
    table[APART] = table[DEEP] - table[SHALLOW]
    return table.assign(**{SHARE: share_of_margin(table[APART], table[MARGIN])})


def margin_totals(sums: pd.DataFrame) -> pd.DataFrame:
    """Means of the columns of `margin_sums` with their intervals: `component, mean, low, high`."""
    estimates = {str(part): estimate(sums[part], sums["set"]) for part in sums.columns.drop("set")}
    rows = [(part, e.mean, e.low, e.high) for part, e in estimates.items()]
    return pd.DataFrame(rows, columns=["component", "mean", "low", "high"])


def margin_effect(sums: pd.DataFrame) -> pd.DataFrame:
    """C3: deep minus shallow attention as a share of the mean margin, a row per prompt of `margin_sums`."""
    return sums[["set", SHARE]].set_axis(["set", "effect"], axis=1)

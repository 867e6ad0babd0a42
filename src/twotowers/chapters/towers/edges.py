"""All deep heads at once: attention by class, and whether weight and label moved go together; heads against groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import rankdata

from ...models.model import Model
from ...prompts.sets import PromptSet
from ...tracing.heads import HEAD, Head, deep_heads, is_in, pairs
from ...tracing.label_edges import LabelEdges, label_edges
from ...tracing.sweep import sweep

DRAWS = 2000  # random groups, which cost nothing once all heads are read


def edge_effects(model: Model, sets: Sequence[PromptSet]) -> pd.DataFrame:
    """What each deep head does at the label positions, means over the prompts of a set.

    Returns:
        a row per set and head: `set, layer, head`; `attention`, to label positions of the query's class minus to the
        others, each summed, and of more than two classes minus the mean of the others; `agreement`, Spearman's rank
        correlation, over the label positions of a prompt, of weight and of what the position moves towards its own
        label by the gradient of the whole model (nan where one of them does not vary).
    """
    heads = deep_heads(model)

    def of_set(number: int, s: PromptSet) -> pd.DataFrame:
        return _of_set(label_edges(model, s, number), heads)

    return pd.concat(sweep(model, sets, "edge effects", heads, of_set), ignore_index=True)


def _of_set(edges: LabelEdges, heads: Sequence[Head]) -> pd.DataFrame:
    frame, (layer, head) = edges.frame, zip(*heads, strict=True)
    n = frame["prompt"].nunique()
    share = torch.tensor(np.where(frame["same"], 1.0, -1.0 / (frame["label"].nunique() - 1)))[:, None]
    weight = edges.weight[list(layer), :, list(head)].T.double()  # [R, heads]
    moved = edges.own[list(layer), :, list(head)].T.double()  # towards the position's own label
    by_prompt = [x.reshape(n, -1, len(heads)).numpy() for x in (weight, moved)]  # [N, positions, heads]
    attention = (weight * share).reshape(n, -1, len(heads)).sum(1).mean(0).numpy()
    agreement = rank_correlation(*by_prompt)
    known = ~np.isnan(agreement)
    mean = np.where(known.any(0), np.where(known, agreement, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)
    table = pd.DataFrame(heads, columns=HEAD).assign(attention=attention, agreement=mean)
    table.insert(0, "set", frame["set"].iloc[0])
    return table


def rank_correlation(a: Float[np.ndarray, "N P h"], b: Float[np.ndarray, "N P h"]) -> Float[np.ndarray, "N h"]:
    """Spearman's correlation along the middle axis; nan where one side does not vary."""
    a, b = (rankdata(x, axis=1) - (x.shape[1] + 1) / 2 for x in (a, b))
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), size, out=np.full(size.shape, np.nan), where=size > 0)


@dataclass(frozen=True)
class Contrast:
    """An effect of some heads, mean over them, beside all other deep heads and random groups of as many.

    Attributes:
        effects, beside: `set, effect`, of the heads, and of the heads minus the mean over all others.
        random: the effect of each random group of deep heads, mean over sets.
        others: mean over all other deep heads; nan if there are none.
    """

    effects: pd.DataFrame
    beside: pd.DataFrame
    random: list[float]
    others: float

    @property
    def share(self) -> float:
        """Of random groups that do as well, the heads' own counted; nan if there is nothing to compare."""
        mean = self.effects["effect"].mean()
        if not self.random or np.isnan(mean):
            return float("nan")
        return (1 + sum(x >= mean for x in self.random)) / (1 + len(self.random))


def contrast(table: pd.DataFrame, column: str, heads: Sequence[Head], *, seed: int = 0) -> Contrast:
    """A column of `edge_effects`, or of another table of `set, layer, head`, for some heads beside the others."""
    wide = table.pivot_table(index="set", columns=HEAD, values=column, dropna=False)
    own = wide[[h for h in wide.columns if h in set(heads)]]
    others = wide[[h for h in wide.columns if h not in set(heads)]]
    effects, average = own.mean(axis=1), others.mean(axis=1)
    means, rng = wide.mean().dropna().to_numpy(), np.random.default_rng([seed, 17])
    size = min(len(own.columns), len(means))
    drawn = [float(rng.choice(means, size=size, replace=False).mean()) for _ in range(DRAWS)] if size else []
    return Contrast(_named(effects), _named(effects - average), drawn, float(average.mean()))


def fold_means(table: pd.DataFrame, column: str, folds: Sequence[Sequence[Head]]) -> list[float]:
    """The effect of `contrast` for heads as each fold of the selection sets would choose them, means over sets."""
    return [float(table[is_in(table, heads)].groupby("set")[column].mean().mean()) for heads in folds]


def _named(effects: pd.Series) -> pd.DataFrame:
    return effects.rename("effect").reset_index()


def words(table: pd.DataFrame, column: str, heads: Sequence[Head], made: Contrast) -> dict[str, Any]:
    """What a page says of a contrast: `own`, the mean of each head by layer.head, `others` and `share`."""
    means = table[is_in(table, heads)].groupby(HEAD)[[column]].mean().reset_index()
    names = [f"{layer}.{head}" for layer, head in pairs(means)]
    own = dict(zip(names, means[column].astype(float), strict=True))
    return {"own": own, "others": made.others, "share": made.share}

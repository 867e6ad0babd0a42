"""Queries and keys of one head as points of a plane, whose dot products approximate their scores."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ...models.model import Model
from ...prompts.packing import pack
from ...prompts.sets import PromptSet
from ...tracing.answers import require_finite
from ...tracing.capture import capture
from ...tracing.heads import Head
from ...tracing.labels import at_labels, label_positions, weights
from .reading import query_and_key


def plane(model: Model, s: PromptSet, head: Head, *, arrows: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Queries and keys of one head and one demonstration set in two dimensions, and whom each query attends to.

    The dot product of a query and a key approximates their score, without rotation by position: see `biplot`.
    Keys are those of the first prompt; where prompts share their prefix, all prompts have the same.

    Returns:
        points: `layer, head, kind` (query or key), `text, label, x, y, share` (of the scores' variance that is shown);
        arrows: `layer, head, query, demonstration, weight, x, y, to_x, to_y` for each query's largest weights.
    """
    layer, number = head
    batch = pack([s], model.pad_id)
    captured, frame = capture(model, batch, pattern=True, inputs=True), label_positions([s])
    require_finite(captured.answers.labels, captured.answers.log_norm)
    at = at_labels(captured, batch, frame, layer)[: len(s.demonstrations)]
    q, k = query_and_key(model.arch, layer, number, captured.resid_pre[layer], at)
    queries, keys, share = biplot(q @ k.T * model.arch.score_scale(layer))
    kinds = ["query"] * len(s.queries) + ["key"] * len(s.demonstrations)
    points = pd.DataFrame([*s.queries, *s.demonstrations], columns=["text", "label"])
    points[["x", "y"]] = torch.cat([queries, keys]).double().numpy()
    points = points.assign(layer=layer, head=number, kind=kinds, share=share)
    weighted = frame.assign(weight=weights(captured, frame, layer, number).double().numpy())
    best = weighted.sort_values("weight", ascending=False).groupby("query").head(arrows).sort_values("query")
    tails, tips = points.iloc[best["query"]], points.iloc[len(s.queries) + best["demonstration"]]
    places = {"x": tails["x"], "y": tails["y"], "to_x": tips["x"], "to_y": tips["y"]}
    chosen = best[["query", "demonstration", "weight"]].assign(layer=layer, head=number)
    chosen = chosen.assign(**{name: column.to_numpy() for name, column in places.items()})
    return points, chosen.reset_index(drop=True)


def planes(model: Model, s: PromptSet, heads: Sequence[Head], *, arrows: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Points and arrows of `plane` for some heads, each once."""
    drawn = [plane(model, s, head, arrows=arrows) for head in dict.fromkeys(heads)]
    points, chosen = (pd.concat(parts, ignore_index=True) for parts in zip(*drawn, strict=True))
    return points, chosen


def biplot(scores: Float[Tensor, "N R"]) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "R 2"], float]:
    """Coordinates of rows and columns whose dot products are the best approximation of rank 2 of the scores.

    Each row's mean is taken off first: the softmax ignores it.

    Returns:
        coordinates of rows and of columns, with the same spread, and the share of the centred scores' squares that
        they reproduce.
    """
    centred = scores - scores.mean(1, keepdim=True)
    u, s, vh = torch.linalg.svd(centred, full_matrices=False)
    kept = s.new_zeros(2)
    kept[: min(2, len(s))] = s[:2]
    rows, columns = (scores.new_zeros(n, 2) for n in scores.shape)
    rows[:, : len(s)], columns[:, : len(s)] = u[:, :2], vh[:2].T
    balance = (
        len(rows) / len(columns)
    ) ** 0.25  # singular vectors have unit length, however many points they spread over
    share = float(kept.square().sum() / s.square().sum().clamp(min=1e-30))
    return rows * kept.sqrt() * balance, columns * kept.sqrt() / balance, share

"""Label positions: where they are, and what a forward has there."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..models.architecture import Architecture
from ..prompts.packing import Batch
from ..prompts.sets import PromptSet
from .capture import Capture
from .projection import values_of


def label_positions(sets: Sequence[PromptSet], first: int = 0) -> pd.DataFrame:
    """A row per prompt and demonstration, in the order of the packed prompts.

    Args:
        first: number of the first set, if these continue a longer list.

    Returns:
        `prompt` (its number among these), `set, query, gold, demonstration, label, same`, `position` of the label
        in the prompt, and its `token`.
    """
    rows: list[tuple[object, ...]] = []
    prompt = 0
    for number, s in enumerate(sets, start=first):
        tokens = dict(zip(s.labels, s.label_ids, strict=True))
        for query, (p, (_, gold)) in enumerate(zip(s.prompts, s.queries, strict=True)):
            for i, (position, (_, label)) in enumerate(zip(p.label_positions, s.demonstrations, strict=True)):
                rows.append((prompt, number, query, gold, i, label, label == gold, position, tokens[label]))
            prompt += 1
    names = ["prompt", "set", "query", "gold", "demonstration", "label", "same", "position", "token"]
    return pd.DataFrame(rows, columns=names)


def at_labels(captured: Capture, batch: Batch, frame: pd.DataFrame, layer: int) -> Float[Tensor, "R d"]:
    """Residual entering a layer at every label position."""
    assert captured.inputs is not None
    prompt, position = (torch.tensor(frame[name].to_numpy()) for name in ("prompt", "position"))
    return captured.inputs[layer][batch.row[prompt], batch.index[prompt, position]]


def values_at_labels(
    arch: Architecture, captured: Capture, batch: Batch, frame: pd.DataFrame, layer: int, heads: Sequence[int]
) -> Float[Tensor, "R h d_h"]:
    """Value of every label position for some heads of a layer, not weighted."""
    prompt, position = (torch.tensor(frame[name].to_numpy()) for name in ("prompt", "position"))
    return values_of(arch, captured, layer, heads)[batch.row[prompt], batch.index[prompt, position]]


def weights(captured: Capture, frame: pd.DataFrame, layer: int, head: int) -> Float[Tensor, " R"]:
    """Attention of the last position to every label position."""
    assert captured.pattern is not None
    prompt, position = (torch.tensor(frame[name].to_numpy()) for name in ("prompt", "position"))
    return captured.pattern[layer][prompt, head, position]


def described(frame: pd.DataFrame, layer: int, head: int) -> pd.DataFrame:
    """The columns of `label_positions` that a reader of a result needs, for one head."""
    return frame[["set", "query", "gold", "demonstration", "label", "same"]].assign(layer=layer, head=head)


def position_kinds(sets: Sequence[PromptSet], batch: Batch) -> Int[Tensor, "N S"]:
    """Of each position of each prompt: the number of the label that it holds (of two, 0 or 1), or as many as there are
    labels if it holds another token, -1 if none."""
    kinds = torch.where(batch.index >= 0, batch.label_ids.shape[1], -1)
    prompts = [(s, prompt) for s in sets for prompt in s.prompts]
    for n, (s, prompt) in enumerate(prompts):
        for (_, label), position in zip(s.demonstrations, prompt.label_positions, strict=True):
            kinds[n, position] = s.labels.index(label)
    return kinds


def label_places(sets: Sequence[PromptSet], batch: Batch) -> tuple[Int[Tensor, "P 2"], list[int]]:
    """Row and packed position of every label, once however many queries share it, and which label it is."""
    kinds = position_kinds(sets, batch)
    is_label: Bool[Tensor, "N S"] = (kinds >= 0) & (kinds < batch.label_ids.shape[1])
    rows = batch.row[:, None].expand_as(kinds)
    found = torch.stack([rows[is_label], batch.index[is_label], kinds[is_label]], dim=1).unique(dim=0)
    return found[:, :2], found[:, 2].tolist()

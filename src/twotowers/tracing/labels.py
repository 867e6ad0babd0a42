"""Label positions: where they are, and what a forward has there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from ..models.model import Model
from ..prompts.packing import Batch
from ..prompts.sets import PromptSet, as_sets
from .answers import require_finite
from .capture import Capture, batches, capture


def label_positions(sets: Sequence[PromptSet], first: int = 0) -> pd.DataFrame:
    """A row per prompt and demonstration, in the order of the packed prompts.

    Args:
        first: number of the first set, if these continue a longer list.

    Returns:
        `prompt` (its number among these), `set, query, gold, demonstration, label, same`, `position` of the label
        token in the prompt, and `token, other`: tokens of its label and of the other one.
    """
    rows: list[tuple[object, ...]] = []
    prompt = 0
    for number, s in enumerate(sets, start=first):
        tokens = dict(zip(s.labels, s.label_ids, strict=True))
        for query, (p, (_, gold)) in enumerate(zip(s.prompts, s.queries, strict=True)):
            for i, (position, (_, label)) in enumerate(zip(p.label_positions, s.demonstrations, strict=True)):
                other = s.labels[1 - s.labels.index(label)]
                facts = (prompt, number, query, gold, i, label, label == gold)
                rows.append((*facts, position, tokens[label], tokens[other]))
            prompt += 1
    names = ["prompt", "set", "query", "gold", "demonstration", "label", "same", "position", "token", "other"]
    return pd.DataFrame(rows, columns=names)


def captures(
    model: Model, prompt_sets: PromptSet | Sequence[PromptSet], title: str
) -> Iterator[tuple[pd.DataFrame, Batch, Capture]]:
    """Batch by batch: the label positions of its prompts, the batch, and one forward of it."""
    sets = as_sets(prompt_sets)
    first = 0
    with tqdm(total=len(sets), desc=title, unit="set", delay=2, leave=False) as bar:
        for batch in batches(model, sets):
            size = len(batch.input_ids)
            frame = label_positions(sets[first : first + size], first)
            captured = capture(model, batch, pattern=True, inputs=True)
            require_finite(captured.answers.log_norm)
            yield frame, batch, captured
            first += size
            bar.update(size)


def at_labels(captured: Capture, batch: Batch, frame: pd.DataFrame, layer: int) -> Float[Tensor, "R d"]:
    """Residual entering a layer at every label position."""
    assert captured.inputs is not None
    prompt, position = (torch.tensor(frame[name].to_numpy()) for name in ("prompt", "position"))
    return captured.inputs[layer][batch.row[prompt], batch.index[prompt, position]]


def weights(captured: Capture, frame: pd.DataFrame, layer: int, head: int) -> Float[Tensor, " R"]:
    """Attention of the last position to every label position."""
    assert captured.pattern is not None
    prompt, position = (torch.tensor(frame[name].to_numpy()) for name in ("prompt", "position"))
    return captured.pattern[layer][prompt, head, position]


def described(frame: pd.DataFrame, layer: int, head: int) -> pd.DataFrame:
    """The columns of `label_positions` that a reader of a result needs, for one head."""
    return frame[["set", "query", "gold", "demonstration", "label", "same"]].assign(layer=layer, head=head)


def position_kinds(sets: Sequence[PromptSet], batch: Batch) -> Int[Tensor, "N S"]:
    """Of each position of each prompt: 0 or 1 if it holds the first or second label, 2 if another token, -1 if none."""
    kinds = torch.where(batch.index >= 0, 2, -1)
    prompts = [(s, prompt) for s in sets for prompt in s.prompts]
    for n, (s, prompt) in enumerate(prompts):
        for (_, label), position in zip(s.demonstrations, prompt.label_positions, strict=True):
            kinds[n, position] = s.labels.index(label)
    return kinds


def label_places(sets: Sequence[PromptSet], batch: Batch) -> tuple[Int[Tensor, "P 2"], list[int]]:
    """Row and packed position of every label, once however many queries share it, and which label it is."""
    kinds = position_kinds(sets, batch)
    is_label: Bool[Tensor, "N S"] = (kinds == 0) | (kinds == 1)
    rows = batch.row[:, None].expand_as(kinds)
    found = torch.stack([rows[is_label], batch.index[is_label], kinds[is_label]], dim=1).unique(dim=0)
    return found[:, :2], found[:, 2].tolist()

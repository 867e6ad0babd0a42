"""What each head does at each label position: weight, score and value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ...models.architecture import Architecture
from ...models.model import Model
from ...prompts.packing import Batch
from ...prompts.sets import PromptSet
from ...tracing.capture import Capture
from ...tracing.contrasts import mean_of_others
from ...tracing.heads import HEAD, Head, by_layer
from ...tracing.labels import at_labels, described, label_positions, values_at_labels, weights
from ...tracing.projection import carried_back, label_direction
from ...tracing.sweep import sweep_captures

PROMPT = [*HEAD, "set", "query", "gold"]  # one head in one prompt
BEFORE = "value_before"
CLASSES = {"same": "same class", "other": "other class"}  # columns of `attention_by_class`, in words


def read_heads(model: Model, prompt_sets: PromptSet | Sequence[PromptSet], heads: Sequence[Head]) -> pd.DataFrame:
    """What each head does at each label position, a row per head, prompt and demonstration.

    Returns:
        `layer, head, set, query, gold, demonstration, label, same`, then
        `weight`: pattern from the last position;
        `score`: q.k as it enters the softmax, scaled and rotated; `score_unrotated`: the same without any rotation,
        equal to `score` in families that embed positions instead (GPT-2: its position embedding is left in);
        `cosine` of the two residuals entering the layer, at the last and at the label position;
        `value`: logit minus of vo towards the position's own label, not weighted (equation eq-logit-minus): its logit
        minus the other label's, or minus the mean of all others;
        `value_before`, of more than two labels: the same towards the label before in their order.
    """

    def of_capture(members: list[PromptSet], first: int, batch: Batch, captured: Capture) -> list[pd.DataFrame]:
        frame = label_positions(members, first)
        return [_read_layer(model.arch, batch, captured, frame, *layer) for layer in by_layer(heads).items()]

    return sweep_captures(model, prompt_sets, "read heads", list(heads), of_capture)


def query_and_key(
    arch: Architecture, layer: int, head: int, last: Float[Tensor, "N d"], at: Float[Tensor, "R d"]
) -> tuple[Float[Tensor, "N d_h"], Float[Tensor, "R d_h"]]:
    """The two towers, not rotated: queries of the last positions and keys of others.

    Args:
        last, at: residuals entering the layer, at the last position of each prompt and at other positions.
    """
    return (
        arch.queries(layer, arch.norm_in(layer, last))[:, head],
        arch.keys(layer, arch.norm_in(layer, at))[:, head],
    )


def attention_by_class(table: pd.DataFrame) -> pd.DataFrame:
    """Attention summed over label positions of the query's class and of another one, from `read_heads`.

    Returns:
        `layer, head, set, query, gold, same, other`, weights between 0 and 1; of more than two classes `other` is the
        mean over the others, so that equal attention to all positions is equal attention to both.
    """
    others = (table.groupby("set")["label"].transform("nunique") - 1).clip(lower=1)
    split = table.assign(
        same=table["weight"].where(table["same"], 0), other=table["weight"].where(~table["same"], 0) / others
    )
    return split.groupby(PROMPT, as_index=False)[["same", "other"]].sum()


def attention_effects(classes: pd.DataFrame) -> pd.DataFrame:
    """C7 from `attention_by_class`: same-class minus other attention, summed over heads. `set, query, effect`."""
    total = classes.groupby(["set", "query"], as_index=False)[["same", "other"]].sum()
    return total.assign(effect=total["same"] - total["other"])[["set", "query", "effect"]]


def directions_of_labels(
    arch: Architecture, captured: Capture, batch: Batch, layer: int, heads: Sequence[int]
) -> Iterator[Float[Tensor, "N h d_h"]]:
    """For each label what a value of a head is multiplied with to give its logit minus the mean of all others."""
    k = batch.label_ids.shape[1]
    for label in range(k):
        towards = label_direction(arch, captured, batch, mean_of_others(torch.full_like(batch.gold, label), k))
        yield captured.scaled(layer, carried_back(arch, layer, heads, towards))


def _read_layer(
    arch: Architecture, batch: Batch, captured: Capture, frame: pd.DataFrame, layer: int, heads: Sequence[int]
) -> pd.DataFrame:
    """`read_heads` for some heads of one layer, from one capture."""
    prompt, position = (torch.tensor(frame[name].to_numpy()) for name in ("prompt", "position"))
    last, at = captured.resid_pre[layer], at_labels(captured, batch, frame, layer)
    ends = (batch.index >= 0).sum(1) - 1  # position of each prompt's last token
    cosine = torch.cosine_similarity(last[prompt], at, dim=-1)
    value = values_at_labels(arch, captured, batch, frame, layer, heads)
    number = (torch.tensor(frame["token"].to_numpy())[:, None] == batch.label_ids[prompt]).int().argmax(1)
    directions = torch.stack(list(directions_of_labels(arch, captured, batch, layer, heads)))
    minus, many = (value * directions[number, prompt]).sum(-1), len(directions) > 2  # [R, h]
    before = (value * directions[number - 1, prompt]).sum(-1) if many else -minus
    queries, keys = arch.queries(layer, arch.norm_in(layer, last)), arch.keys(layer, arch.norm_in(layer, at))
    parts = []
    for i, head in enumerate(heads):
        q, k = queries[:, head], keys[:, head]
        rotated = arch.rotate(layer, q[None], ends[None])[0, prompt] * arch.rotate(layer, k[None], position[None])[0]
        score = rotated.sum(-1) * arch.score_scale(layer)
        if (added := arch.added_to_scores(position)) is not None:
            score = score + added[head]
        columns = {
            "weight": weights(captured, frame, layer, head),
            "score": score,
            "score_unrotated": (q[prompt] * k).sum(-1) * arch.score_scale(layer),
            "cosine": cosine,
            "value": minus[:, i],
            **({BEFORE: before[:, i]} if many else {}),
        }
        own = described(frame, layer, head)
        parts.append(own.assign(**{name: column.double().numpy() for name, column in columns.items()}))
    return pd.concat(parts, ignore_index=True)

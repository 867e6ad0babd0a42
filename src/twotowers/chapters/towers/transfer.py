"""Transfer: does a label position that gets more attention hand over more of its label?

One position of one head is added to the residual stream by itself, and the log-probability of the label that stands
there is read before and after (method page, equation eq-log-increase-position).
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...models.architecture import Architecture
from ...models.model import Model
from ...prompts.packing import Batch
from ...prompts.sets import PromptSet
from ...prompts.variants import few_queries
from ...statistics import rank_agreement
from ...tracing.capture import Capture
from ...tracing.heads import Head, by_layer
from ...tracing.labels import described, label_positions, values_at_labels, weights
from ...tracing.projection import log_probability, project
from ...tracing.sweep import sweep_captures
from .reading import PROMPT

_ROWS = 64  # positions projected into the whole vocabulary at a time: more need more memory and are no faster


def transfer(model: Model, prompt_sets: PromptSet | Sequence[PromptSet], heads: Sequence[Head]) -> pd.DataFrame:
    """How much each label position raises its own label, beside the attention that it gets.

    Returns:
        `layer, head, set, query, gold, demonstration, label, same, weight` and `log_increase`: of the position's own
        label when pattern * vo of this position alone is added to resid_pre (equation eq-log-increase-position), in
        nats, softmax over the whole vocabulary.
    """

    def of_capture(members: list[PromptSet], first: int, batch: Batch, captured: Capture) -> list[pd.DataFrame]:
        parts, frame = [], label_positions(members, first)
        prompt, token = torch.tensor(frame["prompt"].to_numpy()), torch.tensor(frame["token"].to_numpy())
        final = captured.resid_pre[-1]
        for layer, numbers in by_layer(heads).items():
            value = values_at_labels(model.arch, captured, batch, frame, layer, numbers)
            base = project(model.arch, captured.resid_pre[layer], final)
            for i, head in enumerate(numbers):
                weight = weights(captured, frame, layer, head)
                z = weight[:, None] * value[:, i]
                z = z if captured.scale is None else z * captured.scale[layer][prompt, None]
                rise = position_increases(model.arch, layer, head, z, prompt, base, final, token)
                columns = {"weight": weight.numpy(), "log_increase": rise.numpy()}
                parts.append(described(frame, layer, head).assign(**columns))
        return parts

    return sweep_captures(model, prompt_sets, "transfer", list(heads), of_capture)


def one_of_each(prompt_sets: Sequence[PromptSet]) -> list[PromptSet]:
    """The prompt sets with one query of each label: every position needs the whole vocabulary."""
    return [few_queries(s) for s in prompt_sets]


def position_increases(
    arch: Architecture,
    layer: int,
    head: int,
    z: Float[Tensor, "R d_h"],
    prompt: Int[Tensor, " R"],
    base: Float[Tensor, "N V"],
    final: Float[Tensor, "N d"],
    token: Int[Tensor, " R"],
) -> Float[Tensor, " R"]:
    """Log-probability increase of `token` when one position's part of a head is added to the residual, in nats.

    Args:
        z: pattern * value of each position, before the output projection.
        prompt: which of the N prompts each position belongs to.
        base: projected resid_pre of each prompt; `final` its final residual, which sets the frozen scale.
    """
    in_words = arch.norm_shape(arch.w_o(layer)[head]) @ arch.w_u().T  # [d_h, V]: a head writes d_h dimensions only
    scale, log_norm = arch.norm_scale(final), arch.capped(base).logsumexp(-1)
    rises = []
    for rows in torch.arange(len(z)).split(_ROWS):
        own = prompt[rows]
        before = arch.capped(base[own, token[rows]]) - log_norm[own]
        logits = torch.addmm(base[own], z[rows] * scale[own], in_words)
        rises.append(log_probability(arch.capped(logits), token[rows]) - before)
    return torch.cat(rises)


def transfer_effects(table: pd.DataFrame) -> pd.DataFrame:
    """C8 from `transfer`: Spearman's correlation of weight and log-increase over label positions, per head and prompt.

    Returns:
        `layer, head, set, query, gold, effect`; nan where either is constant.
    """
    rows = [
        (*key, rank_agreement(part["weight"], part["log_increase"])) for key, part in table.groupby(PROMPT, sort=False)
    ]
    return pd.DataFrame(rows, columns=[*PROMPT, "effect"])

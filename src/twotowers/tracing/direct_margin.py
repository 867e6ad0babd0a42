"""The margin as a sum: what every part of the model writes straight into it.

With the final norm's scale frozen at a prompt's own final residual, its margin is the sum of what the embedding, the
attention and the MLP of each layer write, up to the biases of the logits, which belong to no part (method page,
equation eq-direct-margin).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..models.architecture import Architecture
from ..prompts.packing import Batch
from ..statistics import Values
from .capture import Capture
from .contrasts import differences, margin_against, mean_of_others
from .projection import carried_back, label_direction


@dataclass(frozen=True)
class DirectMargin:
    """Margins of N prompts, and the part of each that is written directly.

    Attributes:
        margin: the model's own, the gold label's logit minus the other's, or minus the mean of all others; where logits
            are capped, as it is before that, since parts add up there.
        embedding: what enters layer 0.
        attention, mlp: of each layer, biases included.
        heads: each by itself; those of a layer add up to `attention`, up to the output's bias.
    """

    margin: Float[Tensor, " N"]
    embedding: Float[Tensor, " N"]
    attention: Float[Tensor, "L N"]
    mlp: Float[Tensor, "L N"]
    heads: Float[Tensor, "L H N"]

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in the order in which they are written above; the last axis of each is that of the prompts."""
        return self.margin, self.embedding, self.attention, self.mlp, self.heads


def direct_margin(arch: Architecture, captured: Capture, batch: Batch) -> DirectMargin:
    """The margin of each prompt of a captured batch, part by part; logits."""
    gold, labels = batch.gold, captured.answers.labels
    towards = label_direction(arch, captured, batch, mean_of_others(gold, labels.shape[1]))

    def written(x: Float[Tensor, "*L N d"]) -> Float[Tensor, "*L N"]:
        return (arch.norm_shape(x) * towards).sum(-1)

    by_head = [
        (z * carried_back(arch, layer, range(arch.n_heads), towards)).sum(-1).T
        for layer, z in enumerate(captured.parts())
    ]
    uncapped = arch.logit_cap is None
    return DirectMargin(
        margin=margin_against(differences(labels, gold), gold) if uncapped else written(captured.resid_pre[-1]),
        embedding=written(captured.resid_pre[0]),
        attention=written(captured.attn_out),
        mlp=written(captured.mlp_out),
        heads=torch.stack(by_head),
    )


def share_of_margin(values: Values, margins: Values) -> np.ndarray:
    """Values, in logits, as shares of the mean of some margins; nan if that is not above zero: a share of nothing."""
    whole = float(np.mean(np.asarray(margins, dtype=float)))
    return np.asarray(values, dtype=float) / (whole if whole > 0 else np.nan)

"""Projection into the vocabulary: parts of a residual stream as logits, with the final norm's scale frozen.

With the scale frozen at a prompt's own final residual the projection is linear, so the projections of the
parts add up to the prompt's logits (method page, equation eq-projection).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .architecture import Architecture
from .linear import packed

PART = 4096  # tokens of the vocabulary whose logits are held at a time


def project(arch: Architecture, v: Float[Tensor, "N d"], final: Float[Tensor, "N d"]) -> Float[Tensor, "N V"]:
    """Logits of a part v of each prompt's residual, without the norm's and unembedding's biases.

    Args:
        v: a part of the residual stream at the last position.
        final: the final residual of the same prompts, which sets the frozen scale.
    """
    return (arch.norm_shape(v) * arch.norm_scale(final)) @ arch.w_u().T


class Vocabulary:
    """W_U in parts: log-probabilities without ever holding logits of the whole vocabulary.

    Every log-probability is as `log_probability(project(...))`.
    """

    def __init__(self, arch: Architecture) -> None:
        self.arch, self.w_u = arch, arch.w_u()
        self.parts = [packed(part) for part in self.w_u.split(PART)]

    def log_probabilities(
        self, v: Float[Tensor, "*p N d"], final: Float[Tensor, "N d"], token: Int[Tensor, " N"]
    ) -> Float[Tensor, "*p N"]:
        """Log-probability of one token a prompt from residuals v."""
        x = self.arch.norm_shape(v) * self.arch.norm_scale(final)
        norms = torch.stack([part(x).logsumexp(-1) for part in self.parts])
        return (x * self.w_u[token]).sum(-1) - norms.logsumexp(0)

    def of_heads(
        self,
        layer: int,
        base: Float[Tensor, "N d"],
        z: Float[Tensor, "N H d_h"],
        final: Float[Tensor, "N d"],
        token: Int[Tensor, " N"],
    ) -> Float[Tensor, "H N"]:
        """Log-probability of one token a prompt from `base + z[h] @ W_O[h]`, for every head of a layer.

        A head writes into d_h dimensions only: with more prompts than d_h, multiplying W_O into W_U first is cheaper.
        """
        arch = self.arch
        scale, w_o = arch.norm_scale(final), arch.norm_shape(arch.w_o(layer))
        x, z = arch.norm_shape(base) * scale, z.transpose(0, 1) * scale
        out = z @ w_o
        low_rank = len(base) > arch.d_head * arch.d_model / (arch.d_model - arch.d_head + 1)
        norms = []
        for part in self.parts:
            logits = z @ part(w_o) if low_rank else part(out)
            norms.append(logits.add_(part(x)).logsumexp(-1))
        return ((x + out) * self.w_u[token]).sum(-1) - torch.stack(norms).logsumexp(0)


def log_probability(logits: Float[Tensor, "N V"], token: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Log-probability of one token a prompt, softmax over the whole vocabulary; natural log."""
    return logits.gather(1, token[:, None]).squeeze(1) - logits.logsumexp(-1)

"""Projection into the vocabulary: parts of a residual stream as logits, with the final norm's scale frozen.

With the scale frozen at a prompt's own final residual the projection is linear, so the projections of the
parts add up to the prompt's logits (method page, equation eq-projection).
"""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float, Int
from torch import Tensor

from .architecture import Architecture


def project(arch: Architecture, v: Float[Tensor, "N d"], final: Float[Tensor, "N d"]) -> Float[Tensor, "N V"]:
    """Logits of a part v of each prompt's residual, without the norm's and unembedding's biases.

    Args:
        v: a part of the residual stream at the last position.
        final: the final residual of the same prompts, which sets the frozen scale.
    """
    return (arch.norm_shape(v) * arch.norm_scale(final)) @ arch.w_u().T


def project_heads(
    arch: Architecture, layer: int, z: Float[Tensor, "N H d_h"], final: Float[Tensor, "N d"]
) -> Iterator[Float[Tensor, "N V"]]:
    """Logits of each head's output `z @ W_O`, one head at a time, so that [N, H, V] never exists.

    A head writes into d_h dimensions only: with more prompts than d_h, multiplying W_O into W_U first is cheaper.
    """
    w_o, w_u, scale = arch.norm_shape(arch.w_o(layer)), arch.w_u(), arch.norm_scale(final)
    cheaper_first = len(z) > arch.d_head * arch.d_model / (arch.d_model - arch.d_head + 1)
    for head in range(arch.n_heads):
        if cheaper_first:
            yield (z[:, head] * scale) @ (w_o[head] @ w_u.T)
        else:
            yield (z[:, head] @ w_o[head] * scale) @ w_u.T


def log_probability(logits: Float[Tensor, "N V"], token: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Log-probability of one token a prompt, softmax over the whole vocabulary; natural log."""
    return logits.gather(1, token[:, None]).squeeze(1) - logits.logsumexp(-1)

"""Projection into the vocabulary: parts of a residual stream as logits, with the final norm's scale frozen.

With the scale frozen at a prompt's own final residual the projection is linear, so the projections of the
parts add up to the prompt's logits (method page, equation eq-projection).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .architecture import Architecture
from .linear import PackedLinear, packed

PART = 4096  # tokens of the vocabulary whose logits are held at a time


def project(arch: Architecture, v: Float[Tensor, "N d"], final: Float[Tensor, "N d"]) -> Float[Tensor, "N V"]:
    """Logits of a part v of each prompt's residual, without the norm's and unembedding's biases.

    Args:
        v: a part of the residual stream at the last position.
        final: the final residual of the same prompts, which sets the frozen scale.
    """
    return (arch.norm_shape(v) * arch.norm_scale(final)) @ arch.w_u().T


def log_probabilities(
    arch: Architecture,
    resid: Float[Tensor, "L1 N d"],
    attn_out: Float[Tensor, "L N d"],
    z: Float[Tensor, "L N H d_h"],
    token: Int[Tensor, " N"],
) -> tuple[Float[Tensor, "L1 N"], Float[Tensor, "L N"], Float[Tensor, "L H N"]]:
    """Log-probability of one token a prompt from the residual stream and from what is added to it; natural log.

    Every one is as `log_probability(project(...))`, but only some of the vocabulary's logits are held at a time, and
    W_U is packed part by part.

    Args:
        resid: residual stream at the last position before each layer, and the final one, whose scale is frozen.
        attn_out, z: what attention adds in each layer, and its heads before W_O.

    Returns:
        from `resid`; from `resid + attn_out`; and from `resid + z[h] @ W_O[h]` for every head.
    """
    scale, w_u = arch.norm_scale(resid[-1]), arch.w_u()
    stream = arch.norm_shape(torch.cat([resid, resid[:-1] + attn_out])) * scale
    z = z.transpose(1, 2) * scale
    # A head writes into d_h dimensions only: with many prompts, multiplying W_O into W_U first is cheaper.
    low_rank = len(token) > arch.d_head * arch.d_model / (arch.d_model - arch.d_head + 1)

    def w_o(layer: int) -> Float[Tensor, "H d_h d"]:
        return arch.norm_shape(arch.w_o(layer))

    # Of every part again, though it costs a little: what all heads of all layers write is too much to hold.
    def of_heads(layer: int, part: PackedLinear) -> Float[Tensor, "H N v"]:
        added = z[layer] @ part(w_o(layer)) if low_rank else part(z[layer] @ w_o(layer))
        return added.add_(part(stream[layer]))

    layers = range(arch.n_layers)
    norms, head_norms = [], []
    for weight in w_u.split(PART):
        part = packed(weight)
        norms.append(torch.stack([part(x).logsumexp(-1) for x in stream]))
        head_norms.append(torch.stack([of_heads(layer, part).logsumexp(-1) for layer in layers]))
    gold = w_u[token]
    of_stream = (stream * gold).sum(-1) - torch.stack(norms).logsumexp(0)
    head_gold = torch.stack([((stream[layer] + z[layer] @ w_o(layer)) * gold).sum(-1) for layer in layers])
    return *of_stream.split([len(resid), len(attn_out)]), head_gold - torch.stack(head_norms).logsumexp(0)


def log_probability(logits: Float[Tensor, "N V"], token: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Log-probability of one token a prompt, softmax over the whole vocabulary; natural log."""
    return logits.gather(1, token[:, None]).squeeze(1) - logits.logsumexp(-1)

"""Projection into the vocabulary: parts of a residual stream as logits, with the final norm's scale frozen.

With the scale frozen at a prompt's own final residual the projection is linear, so the projections of the
parts add up to the prompt's logits (method page, equation eq-projection).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..models.architecture import Architecture
from ..models.packed import PackedLinear, packed
from ..prompts.packing import Batch
from .capture import Capture


def increases(
    arch: Architecture, captured: Capture, token: Int[Tensor, " N"]
) -> tuple[Float[Tensor, "L 2 N"], Float[Tensor, "L H N"]]:
    """Log-probability increase of one token a prompt, by layer component and by head, from one capture."""
    with torch.no_grad():
        entering, between, heads = log_probabilities(
            arch, captured.resid_pre, captured.attn_out, captured.parts(), token
        )
    return torch.stack([between - entering[:-1], entering[1:] - between], dim=1), heads - entering[:-1, None]


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

    Every one is as `log_probability(capped(project(...)))`, but only some of the vocabulary's logits are held at a
    time, and W_U is packed part by part.

    Args:
        resid: residual stream at the last position before each layer, and the final one, whose scale is frozen.
        attn_out, z: what attention adds in each layer, and its heads before W_O, scaled (`Capture.parts`).

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
        norms.append(torch.stack([arch.capped(part(x)).logsumexp(-1) for x in stream]))
        head_norms.append(torch.stack([arch.capped(of_heads(layer, part)).logsumexp(-1) for layer in layers]))
    gold = w_u[token]
    of_stream = arch.capped((stream * gold).sum(-1)) - torch.stack(norms).logsumexp(0)
    head_gold = torch.stack([((stream[layer] + z[layer] @ w_o(layer)) * gold).sum(-1) for layer in layers])
    of_heads_gold = arch.capped(head_gold) - torch.stack(head_norms).logsumexp(0)
    return *of_stream.split([len(resid), len(attn_out)]), of_heads_gold


def log_probability(logits: Float[Tensor, "N V"], token: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Log-probability of one token a prompt, softmax over the whole vocabulary; natural log."""
    return logits.gather(1, token[:, None]).squeeze(1) - logits.logsumexp(-1)


def values_of(arch: Architecture, captured: Capture, layer: int, heads: Sequence[int]) -> Float[Tensor, "B T h d_h"]:
    """Value of every packed position for some heads of a layer, bias included: `vo` before the output matrix."""
    assert captured.inputs is not None
    weight, bias = arch.w_v(layer)
    heads = list(heads)
    return torch.einsum("btd,hde->bthe", arch.norm_in(layer, captured.inputs[layer]), weight[heads]) + bias[heads]


def label_direction(
    arch: Architecture, captured: Capture, batch: Batch, counts: Float[Tensor, "N k"] | None = None
) -> Float[Tensor, "N d"]:
    """M(x) is the product of `norm_shape(x)` with this: the labels' rows of W_U, each as it counts, scaled.

    Args:
        counts: of each label's logit, as `contrasts` gives them; left out, of two labels the second minus the first.
    """
    labels = arch.w_u()[batch.label_ids]
    if counts is None:
        counts = torch.tensor([-1.0, 1.0]).expand(len(labels), -1)
    return (counts.to(labels)[:, :, None] * labels).sum(1) * arch.norm_scale(captured.resid_pre[-1])


def carried_back(
    arch: Architecture, layer: int, heads: Sequence[int], towards: Float[Tensor, "N d"]
) -> Float[Tensor, "N h d_h"]:
    """A direction through each head's W_O, so that to project a value onto it costs d_h products and not d."""
    return torch.einsum("hed,nd->nhe", arch.norm_shape(arch.w_o(layer)[list(heads)]), towards)


def prompt_values(
    arch: Architecture, captured: Capture, batch: Batch, layer: int, heads: Sequence[int]
) -> Float[Tensor, "N S h d_h"]:
    """`values_of`, from packed to prompt coordinates; arbitrary beyond a prompt's end."""
    return values_of(arch, captured, layer, heads)[batch.row[:, None], batch.index.clamp(min=0)]


def written(
    arch: Architecture,
    captured: Capture,
    batch: Batch,
    layer: int,
    heads: Sequence[int],
    weights: Float[Tensor, "N h S"],
) -> Float[Tensor, "N d"]:
    """Sum of weights * vo over some heads of a layer and all positions; with the pattern's, what the heads write."""
    z = torch.einsum("nhs,nshe->nhe", weights, prompt_values(arch, captured, batch, layer, heads))
    z = captured.scaled(layer, z)
    return torch.einsum("nhe,hed->nd", z, arch.w_o(layer)[list(heads)])


def values_minus(
    arch: Architecture,
    captured: Capture,
    batch: Batch,
    layer: int,
    heads: Sequence[int],
    towards: Float[Tensor, "N d"],
) -> Float[Tensor, "N h S"]:
    """M(vo) of every position of every prompt; arbitrary beyond a prompt's end."""
    value = prompt_values(arch, captured, batch, layer, heads)
    direction = captured.scaled(layer, carried_back(arch, layer, heads, towards))
    return torch.einsum("nshe,nhe->nhs", value, direction)

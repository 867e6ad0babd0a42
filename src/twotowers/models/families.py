"""Where each model family keeps the pieces of the mathematics: one short `Family` entry per family, names only."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import FamilyError, UnknownNameError


def _rotate_halves(rotary: Any, x: Tensor, positions: Tensor) -> Tensor:
    """Dimension i turns with dimension i + half; dimensions beyond those that the module turns stay."""
    with torch.no_grad():
        cos, sin = (part.float().cpu() for part in rotary(x.to(rotary.inv_freq.device), positions))
    turned, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], dim=-1)
    first, second = turned.chunk(2, dim=-1)
    return torch.cat([turned * cos + torch.cat([-second, first], dim=-1) * sin, rest], dim=-1)


def _rotate_pairs(attention: Any, x: Tensor, positions: Tensor) -> Tensor:
    """GPT-J: dimension 2i turns with dimension 2i + 1, in the first `rotary_dim` dimensions."""
    table = attention.embed_positions.detach().float().cpu()[positions]
    sin, cos = (half.repeat_interleave(2, dim=-1) for half in table.chunk(2, dim=-1))
    turned, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], dim=-1)
    partner = torch.stack([-turned[..., 1::2], turned[..., ::2]], dim=-1).flatten(-2)
    return torch.cat([turned * cos + partner * sin, rest], dim=-1)


@dataclass(frozen=True)
class Family:
    """Names of the modules of one family. Paths inside a block are relative to it.

    Attributes:
        blocks, final_norm, unembed: paths from the model.
        attention, attention_norm, mlp: paths from a block.
        out_proj: path from the attention; its *input* is z, the heads side by side before W_O.
        norm: whether norms centre their input ("layer") or only rescale it ("rms").
        projections: paths from the attention to the projections to query, key and value; one if they are fused.
        fused: with one projection, the axis on which its output holds query, key and value once it is split into
            heads: -3 if the heads of one follow those of another, -2 if the three of one head lie side by side.
        rotary: path from the model to the module that gives the rotation of queries and keys; None if positions
            are embedded instead.
        positions: path from the model to the embedding of positions, if there is one.
        rotate: queries or keys [B, S, d_h] after the rotation by their positions [B, S], from that module.
        scale: what q.k is multiplied by before the softmax, from the attention module.
        returns_tuple: whether a block returns a tuple that begins with the residual, not the residual alone.
        query_norm, key_norm: paths from the attention to norms of each head's queries and keys, if it has them.
    """

    blocks: str
    final_norm: str
    attention: str
    attention_norm: str
    mlp: str
    out_proj: str
    norm: Literal["layer", "rms"]
    projections: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    fused: int = -3
    rotary: str | None = None
    positions: str | None = None
    rotate: Callable[[Any, Tensor, Tensor], Tensor] = _rotate_halves
    scale: Callable[[Any], float] = operator.attrgetter("scaling")
    returns_tuple: bool = False
    query_norm: str | None = None
    key_norm: str | None = None
    unembed: str = "lm_head"


LLAMA = Family(
    blocks="model.layers",
    final_norm="model.norm",
    attention="self_attn",
    attention_norm="input_layernorm",
    mlp="mlp",
    out_proj="o_proj",
    norm="rms",
    rotary="model.rotary_emb",
)

# Gemma 2 and 3 are not here: their norms behind attention and MLP rescale what the heads add up to, so heads are no
# linear parts of the residual.
FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        blocks="transformer.h",
        final_norm="transformer.ln_f",
        attention="attn",
        attention_norm="ln_1",
        mlp="mlp",
        out_proj="c_proj",
        norm="layer",
        projections=("c_attn",),
        positions="transformer.wpe",
    ),
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": replace(LLAMA, query_norm="q_norm", key_norm="k_norm"),
    "gptj": Family(
        blocks="transformer.h",
        final_norm="transformer.ln_f",
        attention="attn",
        attention_norm="ln_1",
        mlp="mlp",
        out_proj="out_proj",
        norm="layer",
        rotary="transformer.h.0.attn",
        rotate=_rotate_pairs,
        scale=lambda attention: 1 / attention.scale_attn,
        returns_tuple=True,
    ),
    "gpt_neox": Family(
        blocks="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        attention="attention",
        attention_norm="input_layernorm",
        mlp="mlp",
        out_proj="dense",
        norm="layer",
        projections=("query_key_value",),
        fused=-2,
        rotary="gpt_neox.rotary_emb",
    ),
}


def family_of(config: Any) -> Family:
    """The family of a transformers config.

    Raises:
        FamilyError: the package does not know it.
    """
    try:
        return FAMILIES[config.model_type]
    except KeyError:
        unknown = UnknownNameError("supported model family", config.model_type, FAMILIES)
        raise FamilyError(str(unknown)) from None

"""Where each model family keeps the pieces of the mathematics: z, W_O, W_V, norms and unembedding.

One short `Family` entry per family; everything else in the package speaks of `Architecture` only.
Weights are returned in the orientation of the formulas, so that a row vector is multiplied from the left
(`z @ W_O`), whatever the family stores, and as float32 on the CPU, where the analyses compute.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .errors import FamilyError, UnknownNameError
from .linear import PackedLinear


def submodule(root: Any, path: str) -> Any:
    """Follow a dotted path from a torch module or from its nnsight envoy."""
    return functools.reduce(getattr, path.split("."), root)


def weight_in_out(module: nn.Module) -> Float[Tensor, "d_in d_out"]:
    """The matrix W with output = input @ W + bias: GPT-2's Conv1D stores W, Linear stores its transpose.

    Raises:
        FamilyError: the module is neither, as in a quantised model, whose raw weight is not the matrix.
    """
    if isinstance(module, Conv1D):
        return module.weight
    if isinstance(module, nn.Linear) and type(module) in (nn.Linear, PackedLinear):
        return module.weight.T
    raise FamilyError(
        f"A {type(module).__name__} layer's weights cannot be read as a matrix; load the model without quantisation."
    )


def _plain(weight: Tensor) -> Tensor:
    """A weight as the mathematics uses it: float32, on the CPU, without gradient (no copy if it is so already)."""
    return weight.detach().float().cpu()


Projection = tuple[Tensor, Tensor | None]  # weight [d_model, n * d_head], heads side by side, and bias


def _fused_qkv(attention: Any) -> tuple[Projection, Projection, Projection]:
    """GPT-2 keeps query, key and value side by side in one matrix."""
    weights = weight_in_out(attention.c_attn).chunk(3, dim=1)
    biases = attention.c_attn.bias.chunk(3)
    return ((weights[0], biases[0]), (weights[1], biases[1]), (weights[2], biases[2]))


def _separate_qkv(attention: Any) -> tuple[Projection, Projection, Projection]:
    query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
    return (
        (weight_in_out(query), query.bias),
        (weight_in_out(key), key.bias),
        (weight_in_out(value), value.bias),
    )


def _fused_by_head(attention: Any) -> tuple[Projection, Projection, Projection]:
    """GPT-NeoX keeps query, key and value of one head side by side, then those of the next."""
    fused, size = attention.query_key_value, attention.head_size
    weight = weight_in_out(fused)
    weights = weight.unflatten(1, (-1, 3, size)).unbind(2)
    biases = [None] * 3 if fused.bias is None else fused.bias.unflatten(0, (-1, 3, size)).unbind(1)
    query, key, value = (
        (w.flatten(1), None if b is None else b.flatten()) for w, b in zip(weights, biases, strict=True)
    )
    return query, key, value


def _rotate_halves(rotary: Any, x: Tensor, positions: Tensor) -> Tensor:
    """Dimension i turns with dimension i + half; dimensions beyond those that the module turns stay."""
    with torch.no_grad():
        cos, sin = (part.float().cpu() for part in rotary(x.to(rotary.inv_freq.device), positions))
    turned, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], dim=-1)
    first, second = turned.chunk(2, dim=-1)
    return torch.cat([turned * cos + torch.cat([-second, first], dim=-1) * sin, rest], dim=-1)


def _rotate_pairs(attention: Any, x: Tensor, positions: Tensor) -> Tensor:
    """GPT-J: dimension 2i turns with dimension 2i + 1, in the first `rotary_dim` dimensions."""
    table = _plain(attention.embed_positions)[positions]
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
        qkv: weights and biases of query, key and value projection, from the attention module.
        rotary: path from the model to the module that gives the rotation of queries and keys; None if positions
            are embedded instead.
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
    qkv: Callable[[Any], tuple[Projection, Projection, Projection]]
    rotary: str | None = None
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
    qkv=_separate_qkv,
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
        qkv=_fused_qkv,
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
        qkv=_separate_qkv,
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
        qkv=_fused_by_head,
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


class Architecture:
    """Dimensions and weights of one loaded model, in the notation of the method page.

    Attributes:
        n_layers, n_heads, n_kv_heads, d_model, d_head, d_vocab: L, H, key-value heads, d, d_h, V.
    """

    def __init__(self, model: nn.Module) -> None:
        config: Any = model.config
        self.family = family_of(config)
        self.model = model
        self.n_layers: int = config.num_hidden_layers
        self.n_heads: int = config.num_attention_heads
        self.n_kv_heads: int = getattr(config, "num_key_value_heads", None) or self.n_heads
        self.d_model: int = config.hidden_size
        self.d_head: int = getattr(config, "head_dim", None) or self.d_model // self.n_heads
        self.d_vocab: int = config.vocab_size

    def attention(self, layer: int) -> Any:
        return submodule(submodule(self.model, self.family.blocks)[layer], self.family.attention)

    def out_proj(self, layer: int) -> Any:
        return submodule(self.attention(layer), self.family.out_proj)

    def w_o(self, layer: int) -> Float[Tensor, "H d_h d"]:
        """W_O of each head: `o[h] = z[h] @ w_o[h]`. The projection's bias belongs to no head."""
        weight = weight_in_out(self.out_proj(layer))
        return _plain(weight).reshape(self.n_heads, self.d_head, self.d_model)

    def b_o(self, layer: int) -> Float[Tensor, " d"]:
        """The output projection's bias; zeros if it has none."""
        bias = self.out_proj(layer).bias
        return torch.zeros(self.d_model) if bias is None else _plain(bias)

    def w_q(self, layer: int) -> tuple[Float[Tensor, "H d d_h"], Float[Tensor, "H d_h"]]:
        """W_Q and its bias for each head."""
        return self._per_head(self.family.qkv(self.attention(layer))[0], 1)

    def w_k(self, layer: int) -> tuple[Float[Tensor, "H d d_h"], Float[Tensor, "H d_h"]]:
        """W_K and its bias for each *query* head: head h reads key-value head h // (H / H_kv)."""
        return self._per_head(self.family.qkv(self.attention(layer))[1], self.n_heads // self.n_kv_heads)

    def w_v(self, layer: int) -> tuple[Float[Tensor, "H d d_h"], Float[Tensor, "H d_h"]]:
        """W_V and its bias for each *query* head, as `w_k`."""
        return self._per_head(self.family.qkv(self.attention(layer))[2], self.n_heads // self.n_kv_heads)

    def _per_head(self, projection: Projection, group: int) -> tuple[Tensor, Tensor]:
        """Split a projection into heads; each one serves `group` query heads in a row."""
        weight = _plain(projection[0])
        bias = weight.new_zeros(weight.shape[1]) if projection[1] is None else _plain(projection[1])
        weight = weight.reshape(self.d_model, -1, self.d_head).transpose(0, 1)
        return weight.repeat_interleave(group, 0), bias.reshape(-1, self.d_head).repeat_interleave(group, 0)

    def rotate(self, x: Float[Tensor, "*b S d_h"], positions: Int[Tensor, "*b S"]) -> Float[Tensor, "*b S d_h"]:
        """Queries or keys after the rotation by their positions; unchanged in families without rotation."""
        if self.family.rotary is None:
            return x
        rotary = submodule(self.model, self.family.rotary)
        flat = positions.reshape(-1, positions.shape[-1]).to(self.w_device)
        return self.family.rotate(rotary, x.reshape(len(flat), *x.shape[-2:]), flat).reshape(x.shape)

    def queries(self, layer: int, normed: Float[Tensor, "*b d"]) -> Float[Tensor, "*b H d_h"]:
        """Queries of every head, not rotated, from residuals behind the norm (`norm_in`)."""
        return self._heads_of(self.w_q(layer), normed, layer, self.family.query_norm)

    def keys(self, layer: int, normed: Float[Tensor, "*b d"]) -> Float[Tensor, "*b H d_h"]:
        """Keys for every *query* head, not rotated, from residuals behind the norm."""
        return self._heads_of(self.w_k(layer), normed, layer, self.family.key_norm)

    def _heads_of(self, weights: tuple[Tensor, Tensor], normed: Tensor, layer: int, norm: str | None) -> Tensor:
        weight, bias = weights
        x = torch.einsum("...d,hde->...he", normed, weight) + bias
        if norm is None:
            return x
        module = submodule(self.attention(layer), norm)
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon) * _plain(module.weight)

    def score_scale(self, layer: int) -> float:
        """What q.k is multiplied by before the softmax: 1 / sqrt(d_h), or what the family says."""
        return float(self.family.scale(self.attention(layer)))

    def norm_in(self, layer: int, entering: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The norm before attention, each vector at its own scale: what W_Q, W_K and W_V are multiplied with."""
        norm = self.attention_norm(layer)
        with torch.no_grad():
            return _plain(norm(entering.to(norm.weight.device, norm.weight.dtype)))

    @property
    def w_device(self) -> torch.device:
        return submodule(self.model, self.family.final_norm).weight.device

    def attention_norm(self, layer: int) -> Any:
        """The norm whose output the queries, keys and values of a layer are computed from."""
        return submodule(submodule(self.model, self.family.blocks)[layer], self.family.attention_norm)

    def w_u(self) -> Float[Tensor, "V d"]:
        """The unembedding W_U."""
        return _plain(submodule(self.model, self.family.unembed).weight)

    def logit_bias(self) -> Float[Tensor, " V"]:
        """What the logits hold beside the projected residual: the final norm's bias through W_U, if it has one."""
        norm, unembed = (submodule(self.model, path) for path in (self.family.final_norm, self.family.unembed))
        bias = torch.zeros(len(unembed.weight))
        if getattr(norm, "bias", None) is not None:
            bias = bias + self.w_u() @ _plain(norm.bias)
        return bias if unembed.bias is None else bias + _plain(unembed.bias)

    def norm_scale(self, final: Float[Tensor, "*b d"]) -> Float[Tensor, "*b 1"]:
        """The scale that the final norm gives to a prompt whose final residual is `final`.

        It is frozen per prompt: never use the scale of one prompt for a part of another.
        """
        norm = submodule(self.model, self.family.final_norm)
        if self.family.norm == "layer":
            return torch.rsqrt(final.var(-1, keepdim=True, unbiased=False) + norm.eps)
        return torch.rsqrt(final.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)

    def norm_shape(self, v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """What the final norm does to v beside its scale: centring (LayerNorm) and weight; linear in v.

        LayerNorm's bias is left out, since it belongs to no part of the residual (see `logit_bias`).
        """
        norm = submodule(self.model, self.family.final_norm)
        if self.family.norm == "layer":
            v = v - v.mean(-1, keepdim=True)
        return v * _plain(norm.weight)

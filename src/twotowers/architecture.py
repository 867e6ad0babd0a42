"""Where each model family keeps the pieces of the mathematics: z, W_O, W_V, norms and unembedding.

One short `Family` entry per family; everything else in the package speaks of `Architecture` only.
Weights are returned in the orientation of the formulas, so that a row vector is multiplied from the left
(`z @ W_O`), whatever the family stores, and as float32 on the CPU, where the analyses compute.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .errors import FamilyError, UnknownNameError


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
    if type(module) is nn.Linear:
        return module.weight.T
    raise FamilyError(
        f"A {type(module).__name__} layer's weights cannot be read as a matrix; load the model without quantisation."
    )


def _plain(weight: Tensor) -> Tensor:
    """A weight as the mathematics uses it: float32, on the CPU, without gradient (no copy if it is so already)."""
    return weight.detach().float().cpu()


def _gpt2_value(attention: Any) -> tuple[Tensor, Tensor | None]:
    """GPT-2 fuses query, key and value into one matrix; the value is its last third."""
    weight = weight_in_out(attention.c_attn)
    d_model = weight.shape[0]
    return weight[:, 2 * d_model :], attention.c_attn.bias[2 * d_model :]


def _separate_value(attention: Any) -> tuple[Tensor, Tensor | None]:
    return weight_in_out(attention.v_proj), attention.v_proj.bias


@dataclass(frozen=True)
class Family:
    """Names of the modules of one family. Paths inside a block are relative to it.

    Attributes:
        blocks, final_norm, unembed: paths from the model.
        attention, attention_norm, mlp: paths from a block.
        out_proj: path from the attention; its *input* is z, the heads side by side before W_O.
        norm: whether norms centre their input ("layer") or only rescale it ("rms").
        value: W_V of all key-value heads side by side, [d_model, n_kv_heads * d_head], and its bias if any.
    """

    blocks: str
    final_norm: str
    attention: str
    attention_norm: str
    mlp: str
    out_proj: str
    norm: Literal["layer", "rms"]
    value: Callable[[Any], tuple[Tensor, Tensor | None]]
    unembed: str = "lm_head"


FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        blocks="transformer.h",
        final_norm="transformer.ln_f",
        attention="attn",
        attention_norm="ln_1",
        mlp="mlp",
        out_proj="c_proj",
        norm="layer",
        value=_gpt2_value,
    ),
    "llama": Family(
        blocks="model.layers",
        final_norm="model.norm",
        attention="self_attn",
        attention_norm="input_layernorm",
        mlp="mlp",
        out_proj="o_proj",
        norm="rms",
        value=_separate_value,
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

    def w_v(self, layer: int) -> tuple[Float[Tensor, "H d d_h"], Float[Tensor, "H d_h"]]:
        """W_V and its bias for each *query* head: head h reads key-value head h // (H / H_kv)."""
        weight, bias = self.family.value(self.attention(layer))
        weight = _plain(weight)
        group = self.n_heads // self.n_kv_heads
        matrices = weight.reshape(self.d_model, self.n_kv_heads, self.d_head).transpose(0, 1)
        biases = weight.new_zeros(weight.shape[1]) if bias is None else _plain(bias)
        return (
            matrices.repeat_interleave(group, dim=0),
            biases.reshape(self.n_kv_heads, self.d_head).repeat_interleave(group, dim=0),
        )

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

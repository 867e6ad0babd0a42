"""The pieces of the mathematics in a loaded model: z, W_O, W_V, norms and unembedding.

`families` says where each family keeps them; everything else in the package speaks of `Architecture` only.
Weights are returned in the orientation of the formulas, so that a row vector is multiplied from the left
(`z @ W_O`), whatever the family stores, and as float32 on the CPU, where the analyses compute.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import FamilyError
from .families import family_of
from .packed import PackedLinear
from .parallel import whole
from .quantised import DequantisedLinear


def submodule(root: Any, path: str) -> Any:
    """Follow a dotted path from a torch module or from its nnsight envoy."""
    return functools.reduce(getattr, path.split("."), root)


def weight_in_out(module: nn.Module) -> Float[Tensor, "d_in d_out"]:
    """The matrix W with output = input @ W + bias: GPT-2's Conv1D stores W, Linear stores its transpose.

    Raises:
        FamilyError: the module is neither, nor dequantised: its raw weight need not be the matrix.
    """
    if isinstance(module, Conv1D):
        return module.weight
    if isinstance(module, DequantisedLinear):
        return module.weight.T
    if isinstance(module, nn.Linear) and type(module) in (nn.Linear, PackedLinear):
        return whole(module.weight).T
    raise FamilyError(
        f"A {type(module).__name__} layer's weights cannot be read as a matrix; load the model without quantisation."
    )


def _plain(weight: Tensor) -> Tensor:
    """A weight as the mathematics uses it: float32, on the CPU, without gradient (no copy if it is so already)."""
    return whole(weight.detach()).float().cpu()


Projection = tuple[Tensor, Tensor | None]  # weight [d_model, n * d_head], heads side by side, and bias
Fetch = Callable[[str, list[str]], list[Tensor]]  # a module's path and names of its tensors -> the tensors


class Architecture:
    """Dimensions and weights of one loaded model, in the notation of the method page.

    Args:
        model: the transformers model; with `fetch` its weights may be missing (on the meta device).
        fetch: gives the tensors of one module, which are asked for when they are first needed, and then kept.

    Attributes:
        n_layers, n_heads, n_kv_heads, d_model, d_head, d_vocab: L, H, key-value heads, d, d_h, V.
    """

    def __init__(self, model: nn.Module, fetch: Fetch | None = None) -> None:
        config: Any = model.config
        self._fetch = fetch
        self._fetched: set[str] = set()
        self.family = family_of(config)
        self.model = model
        self.n_layers: int = config.num_hidden_layers
        self.n_heads: int = config.num_attention_heads
        self.n_kv_heads: int = getattr(config, "num_key_value_heads", None) or self.n_heads
        self.d_model: int = config.hidden_size
        self.d_head: int = getattr(config, "head_dim", None) or self.d_model // self.n_heads
        self.d_vocab: int = config.vocab_size

    def block_path(self, layer: int, inside: str) -> str:
        """The path from the model to what lies in a block."""
        return f"{self.family.blocks}.{layer}.{inside}"

    def attention_path(self, layer: int, inside: str) -> str:
        return self.block_path(layer, f"{self.family.attention}.{inside}")

    def module(self, path: str) -> Any:
        """The module at a path, with its own weights, which are fetched first if the model is on a server.

        Raises:
            FamilyError: the server holds weights of another shape, as a quantised model's.
        """
        module = submodule(self.model, path)
        if self._fetch is not None and path not in self._fetched:
            own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
            fetched = self._fetch(path, list(own)) if own else []
            for (name, expected), tensor in zip(own.items(), fetched, strict=True):
                if tensor.shape != expected.shape or not tensor.is_floating_point():
                    raise FamilyError(f"The server's weights of {path} cannot be read as a matrix; they are quantised.")
                parameter = isinstance(expected, nn.Parameter)
                setattr(module, name, nn.Parameter(tensor, requires_grad=False) if parameter else tensor)
            self._fetched.add(path)
        return module

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, as the final norm has it."""
        return self.module(self.family.final_norm).weight.dtype

    def attention(self, layer: int) -> Any:
        return submodule(submodule(self.model, self.family.blocks)[layer], self.family.attention)

    def out_proj(self, layer: int) -> Any:
        return self.module(self.attention_path(layer, self.family.out_proj))

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
        return self._per_head(self._projection(layer, 0), 1)

    def w_k(self, layer: int) -> tuple[Float[Tensor, "H d d_h"], Float[Tensor, "H d_h"]]:
        """W_K and its bias for each *query* head: head h reads key-value head h // (H / H_kv)."""
        return self._per_head(self._projection(layer, 1), self.n_heads // self.n_kv_heads)

    def w_v(self, layer: int) -> tuple[Float[Tensor, "H d d_h"], Float[Tensor, "H d_h"]]:
        """W_V and its bias for each *query* head, as `w_k`."""
        return self._per_head(self._projection(layer, 2), self.n_heads // self.n_kv_heads)

    def _projection(self, layer: int, which: int) -> Projection:
        """Weight and bias of the projection to queries (0), keys (1) or values (2)."""
        paths = self.family.projections
        projection = self.module(self.attention_path(layer, paths[which % len(paths)]))
        weight, bias = weight_in_out(projection), projection.bias
        bias = None if bias is None else whole(bias)
        if len(paths) > 1:
            return weight, bias
        own = [
            x.unflatten(-1, self.fused_shape).select(self.family.fused, which).flatten(-2)
            for x in (weight, bias)
            if x is not None
        ]
        return own[0], None if bias is None else own[1]

    @property
    def fused_shape(self) -> list[int]:
        """Shape of the output of one projection to queries, keys and values: H, d_h, and 3 at the axis `fused`."""
        shape = [self.n_heads, self.d_head]
        shape.insert(3 + self.family.fused, 3)
        return shape

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
        rotary = self.module(self.family.rotary)
        flat = positions.reshape(-1, positions.shape[-1]).to(self.w_device)
        return self.family.rotate(rotary, x.reshape(len(flat), *x.shape[-2:]), flat).reshape(x.shape)

    def embedded_positions(self, positions: Int[Tensor, "*b S"]) -> Float[Tensor, "*b S d"]:
        """What the model adds to the token embedding for positions; zeros in families that rotate instead."""
        if self.family.positions is None:
            return torch.zeros(*positions.shape, self.d_model)
        return _plain(self.module(self.family.positions).weight)[positions.cpu()]

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
        module = self.module(self.attention_path(layer, norm))
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
        return self.module(self.family.final_norm).weight.device

    def attention_norm(self, layer: int) -> Any:
        """The norm whose output the queries, keys and values of a layer are computed from."""
        return self.module(self.block_path(layer, self.family.attention_norm))

    def w_u(self) -> Float[Tensor, "V d"]:
        """The unembedding W_U."""
        return _plain(self.module(self.family.unembed).weight)

    def logit_bias(self) -> Float[Tensor, " V"]:
        """What the logits hold beside the projected residual: the final norm's bias through W_U, if it has one."""
        norm, unembed = (self.module(path) for path in (self.family.final_norm, self.family.unembed))
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
        norm = self.module(self.family.final_norm)
        if self.family.norm == "layer":
            v = v - v.mean(-1, keepdim=True)
        return v * _plain(norm.weight)

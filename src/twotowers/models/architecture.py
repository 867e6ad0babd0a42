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
from .adapting import capped, multiplier
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
    if isinstance(module, nn.Linear) and (type(module) in (nn.Linear, PackedLinear) or _is_plain(module)):
        return whole(module.weight).T
    raise FamilyError(
        f"A {type(module).__name__} layer's weights cannot be read as a matrix; load the model without quantisation."
    )


def _is_plain(module: nn.Module) -> bool:
    """Falcon's layers are plain ones that round as its first code did; the class takes long to import."""
    return type(module).__name__ == "FalconLinear"


def _plain(weight: Tensor) -> Tensor:
    """A weight as the mathematics uses it: float32, on the CPU, without gradient (no copy if it is so already)."""
    return whole(weight.detach()).float().cpu()


def _times(weight: Tensor, factor: float) -> Tensor:
    """A weight times a factor; the weight itself, and no copy, if that is 1."""
    return weight if factor == 1 else weight * factor


def epsilon(norm: Any) -> float:
    """The constant of a norm, by the names that families have for it; OLMo's has none, and is torch's own."""
    found = getattr(norm, "variance_epsilon", None)
    return getattr(norm, "eps", 1e-5) if found is None else found


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
        self.d_model: int = config.hidden_size
        # of the matrices themselves: a configuration may have settings of other families, which its own ignores
        self.d_head: int = self._width(self.family.out_proj, 0) // self.n_heads
        groups = self._width(self.family.projections[-1], 1) // self.d_head
        self.n_kv_heads: int = groups if len(self.family.projections) > 1 else (groups - self.n_heads) // 2
        self.d_vocab: int = config.vocab_size

    def _width(self, path: str, side: int) -> int:
        """What a matrix of the first attention takes (0) or gives (1)."""
        module = submodule(self.attention(0), path)
        if isinstance(module, DequantisedLinear):
            return (module.in_features, module.out_features)[side]
        return int(module.weight.shape[side if isinstance(module, Conv1D) else 1 - side])

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
        return self.module(self.like).weight.dtype

    @property
    def like(self) -> str:
        """The path to a module whose weight has the dtype and place that residuals have."""
        weight = getattr(submodule(self.model, self.family.final_norm), "weight", None)
        return self.family.unembed if weight is None else self.family.final_norm

    def attention(self, layer: int) -> Any:
        return submodule(submodule(self.model, self.family.blocks)[layer], self.family.attention)

    def out_proj(self, layer: int) -> Any:
        return self.module(self.attention_path(layer, self.family.out_proj))

    def w_o(self, layer: int, *, bare: bool = False) -> Float[Tensor, "H d_h d"]:
        """W_O of each head: `o[h] = z[h] @ w_o[h]`. The projection's bias belongs to no head.

        A norm behind attention multiplies by its weights, which are in here unless it is asked for `bare`, and by a
        scale, which is each position's own (`Capture.scale`).
        """
        projection = self.out_proj(layer)
        weight = _times(_plain(weight_in_out(projection)), multiplier(projection))
        if self.family.norm_behind and not bare:
            weight = weight * self.gain(self.block_path(layer, self.family.norm_behind))
        return weight.reshape(self.n_heads, self.d_head, self.d_model)

    def b_o(self, layer: int) -> Float[Tensor, " d"]:
        """The output projection's bias, as `w_o`; zeros if it has none."""
        projection = self.out_proj(layer)
        if projection.bias is None:
            return torch.zeros(self.d_model)
        bias = _times(_plain(projection.bias), multiplier(projection))
        return bias * self.gain(self.block_path(layer, self.family.norm_behind)) if self.family.norm_behind else bias

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
        split = self.split
        return split(weight)[which].flatten(-2), None if bias is None else split(bias)[which].flatten(-2)

    @property
    def split(self) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Takes the output of one projection to queries [..., H, d_h], keys and values [..., H_kv, d_h] apart."""
        heads, groups, size = self.n_heads, self.n_kv_heads, self.d_head
        if self.family.fused == "parts":
            # a function would not travel to a server
            return lambda x: tuple(
                part.unflatten(-1, (-1, size)) for part in x.split([heads * size, groups * size, groups * size], dim=-1)
            )
        return lambda x: (
            x.unflatten(-1, (groups, -1, size))[..., :-2, :].flatten(-3, -2),
            x.unflatten(-1, (groups, -1, size))[..., -2, :],
            x.unflatten(-1, (groups, -1, size))[..., -1, :],
        )

    def _per_head(self, projection: Projection, group: int) -> tuple[Tensor, Tensor]:
        """Split a projection into heads; each one serves `group` query heads in a row."""
        weight = _plain(projection[0])
        bias = weight.new_zeros(weight.shape[1]) if projection[1] is None else _plain(projection[1])
        weight = weight.reshape(self.d_model, -1, self.d_head).transpose(0, 1)
        return weight.repeat_interleave(group, 0), bias.reshape(-1, self.d_head).repeat_interleave(group, 0)

    def rotate(
        self, layer: int, x: Float[Tensor, "*b S d_h"], positions: Int[Tensor, "*b S"]
    ) -> Float[Tensor, "*b S d_h"]:
        """Queries or keys of a layer after the rotation by their positions; unchanged where it does not rotate."""
        attention = self.attention(layer)
        if self.family.rotary is None or not self.family.rotates(attention):
            return x
        rotary = self.module(self.family.rotary)
        flat = positions.reshape(-1, positions.shape[-1]).to(self.w_device)
        return self.family.rotate(rotary, attention, x.reshape(len(flat), *x.shape[-2:]), flat).reshape(x.shape)

    def added_to_scores(self, positions: Int[Tensor, "*b S"]) -> Float[Tensor, "*b H S"] | None:
        """What the positions of keys add to the scores of every head; None in families that do not add them."""
        alibi = self.family.alibi
        return None if alibi is None else alibi(self.model.config, positions)

    def embedded_positions(self, positions: Int[Tensor, "*b S"]) -> Float[Tensor, "*b S d"]:
        """What the model adds to the token embedding for positions; zeros in families that rotate instead."""
        if self.family.positions is None:
            return torch.zeros(*positions.shape, self.d_model)
        return _plain(self.module(self.family.positions).weight)[positions.cpu() + self.family.position_offset]

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
        path = self.attention_path(layer, norm)
        gain = self.gain(path)
        if self.family.norm == "layer":
            x = x - x.mean(-1, keepdim=True)
        # one norm of all heads side by side, or one of each head, with weights of its own or shared
        square = x.pow(2).mean((-2, -1) if self.norms_heads_together else -1, keepdim=True)
        own = gain.reshape(-1, self.d_head)
        if len(own) > 1:
            own = own.repeat_interleave(self.n_heads // len(own), 0)
        return x * torch.rsqrt(square + epsilon(self.module(path))) * own

    @property
    def norms_heads_together(self) -> bool:
        """Whether one norm takes the queries of all heads of a layer side by side, and so the keys."""
        norm = self.family.query_norm
        weight = None if norm is None else submodule(self.model, self.attention_path(0, norm)).weight
        return weight is not None and weight.ndim == 1 and len(weight) > self.d_head

    def score_scale(self, layer: int) -> float:
        """What q.k is multiplied by before the softmax: 1 / sqrt(d_h), or what the family says."""
        return float(self.family.scale(self.attention(layer)))

    def scores(self, layer: int, products: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """What q.k becomes before the softmax, positions aside: scaled, and capped where the family caps it."""
        return capped(products * self.score_scale(layer), self.score_cap(layer))

    def score_cap(self, layer: int) -> float | None:
        """The soft cap on scaled scores, if there is one."""
        return self.family.score_cap(self.attention(layer))

    @property
    def logit_cap(self) -> float | None:
        """The soft cap behind the unembedding, if there is one: what is projected adds up before it."""
        return getattr(submodule(self.model, self.family.unembed), "cap", None)

    def capped(self, logits: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Logits as the model gives them, from sums of projected parts."""
        return capped(logits, self.logit_cap)

    def norm_in(self, layer: int, entering: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The norm before attention, each vector at its own scale: what W_Q, W_K and W_V are multiplied with."""
        if self.family.attention_norm is None:
            return entering
        norm = self.module(self.block_path(layer, self.family.attention_norm))
        like = norm if getattr(norm, "weight", None) is not None else self.module(self.like)
        with torch.no_grad():
            return _plain(norm(entering.to(like.weight.device, like.weight.dtype)))

    @property
    def w_device(self) -> torch.device:
        return self.module(self.like).weight.device

    def gain(self, path: str) -> Tensor:
        """What a norm multiplies by beside its scale: its weights, as its family means them; 1 if it has none."""
        norm = self.module(path)
        weight = getattr(norm, "weight", None)
        if weight is None:
            return torch.ones(self.d_model)
        return _times(_plain(weight) + self.family.gain if self.family.gain else _plain(weight), multiplier(norm))

    def w_u(self) -> Float[Tensor, "V d"]:
        """The unembedding W_U."""
        unembed = self.module(self.family.unembed)
        return _times(_plain(unembed.weight), multiplier(unembed))

    def unembed_bias(self) -> Float[Tensor, " V"] | None:
        """The bias of the unembedding, if it has one."""
        unembed = self.module(self.family.unembed)
        return None if unembed.bias is None else _times(_plain(unembed.bias), multiplier(unembed))

    def logit_bias(self) -> Float[Tensor, " V"]:
        """What the logits hold beside the projected residual: the final norm's bias through W_U, if it has one."""
        norm, own = self.module(self.family.final_norm), self.unembed_bias()
        bias = torch.zeros(len(self.module(self.family.unembed).weight))
        if getattr(norm, "bias", None) is not None:
            bias = bias + self.w_u() @ _plain(norm.bias)
        return bias if own is None else bias + own

    def behind_scale(self, layer: int, bare: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """The scale that the norm behind attention gives to what the output projection writes at a position."""
        assert self.family.norm_behind is not None
        norm = submodule(self.model, self.block_path(layer, self.family.norm_behind))
        return torch.rsqrt(bare.pow(2).mean(-1) + epsilon(norm))

    def norm_scale(self, final: Float[Tensor, "*b d"]) -> Float[Tensor, "*b 1"]:
        """The scale that the final norm gives to a prompt whose final residual is `final`.

        It is frozen per prompt: never use the scale of one prompt for a part of another.
        """
        norm = submodule(self.model, self.family.final_norm)
        if self.family.norm == "layer":
            return torch.rsqrt(final.var(-1, keepdim=True, unbiased=False) + epsilon(norm))
        return torch.rsqrt(final.pow(2).mean(-1, keepdim=True) + epsilon(norm))

    def norm_shape(self, v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """What the final norm does to v beside its scale: centring (LayerNorm) and weight; linear in v.

        LayerNorm's bias is left out, since it belongs to no part of the residual (see `logit_bias`).
        """
        if self.family.norm == "layer":
            v = v - v.mean(-1, keepdim=True)
        return v * self.gain(self.family.final_norm)

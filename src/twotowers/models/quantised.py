"""Layers whose weights stay as bitsandbytes stores them, in 4 or 8 bits, and are dequantised for each product.

What is multiplied is then exactly the matrix that the analyses read, and gradients pass through it. That is what
bitsandbytes itself does with many rows on a GPU; its own products on the CPU rearrange the stored weights in place, and
its 8-bit products quantise activations too, so neither would be the product of a matrix.
"""

from __future__ import annotations

import copy
import importlib.metadata
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ModelError, UnknownNameError

METHODS = ("nf4", "int8")  # that weights can be quantised to while they load
BLOCK = 64  # weights that share a scale in 4 bits


class DequantisedLinear(nn.Module):
    """A linear layer that dequantises its weight whenever it is asked for it.

    Args:
        packed: the stored weights, as bitsandbytes packs them.
        state: bitsandbytes' QuantState of 4-bit weights, or the scale of each row of 8-bit ones: [d_out].
        shape: d_out, d_in.
        dtype: what the weight is dequantised to.
    """

    packed: Tensor
    held: Tensor | None

    def __init__(
        self, packed: Tensor, state: Any, shape: tuple[int, int], bias: nn.Parameter | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = shape
        self.bias, self.dtype, self.held = bias, dtype, None
        self.register_buffer("packed", packed, persistent=False)
        if not isinstance(state, Tensor):
            # In its own shape bitsandbytes 0.50 dequantises a weight wrongly on the CPU wherever a block of weights
            # goes over the end of a row, so we give it the blocks as rows.
            state, number = copy.copy(state), math.prod(shape)
            rows, rest = divmod(number, state.blocksize)
            state.shape = torch.Size((number,) if rest else (rows, state.blocksize))
        self._state = state

    @property
    def weight(self) -> Float[Tensor, "d_out d_in"]:
        """The matrix that inputs are multiplied with: a new one each time, except inside `held`."""
        if self.held is not None:
            return self.held
        if isinstance(self._state, Tensor):
            return (self.packed.float() * (self._state.float() / 127)[:, None]).to(self.dtype)
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(self.packed, self._state).reshape(self.out_features, self.in_features).to(self.dtype)

    def forward(self, input: Tensor) -> Tensor:
        return _Product.apply(input, self)


class _Product(torch.autograd.Function):
    """x W^T + b, which dequantises W again for the backward pass instead of keeping it. Weights get no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: DequantisedLinear) -> Tensor:
        ctx.layer = layer
        return functional.linear(x, layer.weight.to(x.dtype), layer.bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.layer.weight.to(gradient.dtype), None


@contextmanager
def held(layer: nn.Module) -> Iterator[None]:
    """In here a dequantised layer multiplies with one copy of its weight, which may be edited; others as ever."""
    if not isinstance(layer, DequantisedLinear):
        yield
        return
    layer.held = layer.weight
    try:
        yield
    finally:
        layer.held = None


def method_of(config: Any) -> str | None:
    """How the weights of a model are stored: "nf4", "fp4", "int8", or None if they are not quantised.

    Raises:
        ModelError: in another way, whose weights cannot be read as matrices here.
    """
    settings: Any = getattr(config, "quantization_config", None)
    if settings is None:
        return None
    settings = settings if isinstance(settings, dict) else settings.to_dict()
    if settings.get("load_in_8bit"):
        return "int8"
    if settings.get("load_in_4bit"):
        return str(settings.get("bnb_4bit_quant_type", "fp4"))
    raise ModelError(
        f"The weights are quantised by {settings.get('quant_method', 'a method without name')}, and cannot be read "
        f"as matrices here; give the model without quantisation, and load it with quantise='nf4' if it is too large."
    )


def require_method(asked: str | None, stored: str | None) -> None:
    """Refuse what cannot be quantised, or not here.

    Args:
        asked: how weights are to be quantised while they load.
        stored: how they are in the files (`method_of`).

    Raises:
        UnknownNameError, ModelError: with what to do.
    """
    if asked is not None and asked not in METHODS:
        raise UnknownNameError("way to quantise", asked, METHODS)
    if asked and stored:
        raise ModelError(f"The weights are quantised already, to {stored}; leave the wish for {asked} out.")
    if (asked or stored) and version() is None:
        raise ModelError(
            "Quantised weights need bitsandbytes; run: python -m pip install -c constraints.txt -e '.[quantised]'"
        )


def version() -> str | None:
    """Of bitsandbytes; None if it is not installed."""
    try:
        return importlib.metadata.version("bitsandbytes")
    except importlib.metadata.PackageNotFoundError:
        return None


def settings_for(method: str) -> Any:
    """What transformers is told to quantise weights while they load."""
    from transformers import BitsAndBytesConfig

    if method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=method)


def bytes_per_weight(method: str) -> float:
    """Of a matrix in a block, with its scales (8 bits: one scale a row, which is left out)."""
    return 1.0 if method == "int8" else 0.5 + 4 / BLOCK


def quantise(weight: Float[Tensor, "d_out d_in"], method: str) -> DequantisedLinear:
    """A layer without bias from a weight that is at hand, quantised by bitsandbytes."""
    from bitsandbytes import functional as bnb

    if method == "int8":
        packed, scale, _ = bnb.int8_vectorwise_quant(weight.half())
        return DequantisedLinear(packed, scale, (weight.shape[0], weight.shape[1]), None, weight.dtype)
    packed, state = bnb.quantize_4bit(weight, quant_type=method)
    return DequantisedLinear(packed, state, (weight.shape[0], weight.shape[1]), None, weight.dtype)


def dequantise_linears(network: nn.Module, dtype: torch.dtype) -> None:
    """Put a `DequantisedLinear` in place of every quantised layer that bitsandbytes has made, before its first product.

    Where accelerate has hooks that move inputs between devices, they move to the new layer.

    Raises:
        ModelError: there is no such layer: bitsandbytes knows plain ones only, and leaves those of some families.
    """
    from accelerate.hooks import add_hook_to_module
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    made = [(path, part) for path, part in network.named_modules() if isinstance(part, Linear4bit | Linear8bitLt)]
    if not made:
        raise ModelError(
            "No matrix of this model is stored in fewer bits: bitsandbytes leaves layers of its kind as they are; load "
            "it without quantising."
        )
    for path, module in made:
        stored: Any = module.weight
        state = getattr(stored, "quant_state" if isinstance(module, Linear4bit) else "SCB", None)
        if state is None:
            raise ModelError(
                f"The configuration says that the weights are quantised, but {path} is not; remove its "
                f"quantization_config, or fetch the model again, all files of one version."
            )
        shape = (module.out_features, module.in_features)
        layer = DequantisedLinear(stored.data, state, shape, module.bias, dtype)
        network.set_submodule(path, layer)
        if hasattr(module, "_hf_hook"):
            add_hook_to_module(layer, module._hf_hook)

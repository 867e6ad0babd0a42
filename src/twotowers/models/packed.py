"""Linear layers that multiply with oneDNN's packed weights, where a model runs on the CPU.

PyTorch's own linear layer uses a general matrix product, which reads the weight in the order it is stored. oneDNN
reorders a weight once into the order its kernel reads, as `torch.compile` does when it freezes a model. The products
are the same up to rounding; the benchmark page says how much faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .memory import machine_memory

ROWS = 1024  # a hint to the packing: rows of a typical input
MEMORY_SHARE = 0.1  # of free memory, that packed copies may take
_packing = True
_looks = 0


def look_again() -> None:
    """Have every packed layer of a model look at the numbers of its weight before it multiplies again.

    Torch counts what is written into a weight, but not what is written into its `data`, or into a NumPy view of it.
    """
    global _looks
    _looks += 1


class PackedLinear(nn.Linear):
    """A linear layer with a packed copy of its weight, made at first use and again when the weight is edited.

    Where autograd records, and where oneDNN is not at hand, it is the plain layer.

    Attributes:
        fixed: nobody can edit its weight.
    """

    fixed = False

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight
        plain = not _packing or torch.is_grad_enabled() or input.numel() == 0
        if plain or weight.dtype != input.dtype or not _packable(weight):
            return super().forward(input)
        state = (weight.data_ptr(), weight._version)
        if self.__dict__.get("_packed_state") != state or self._is_edited():
            packed: Any = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
            sums = None if self.fixed else _sums(weight.detach())
            self.__dict__.update(_packed=packed, _packed_state=state, _packed_sums=sums, _packed_look=_looks)
        bias = None if self.bias is None else self.bias.detach()
        return torch.ops.mkldnn._linear_pointwise(input, self.__dict__["_packed"], bias, "none", [], "")

    def _is_edited(self) -> bool:
        """Whether the packed copy is of other numbers; looked at once for each `look_again`."""
        if self.fixed or self.__dict__["_packed_look"] == _looks:
            return False
        self.__dict__["_packed_look"] = _looks
        return not torch.equal(_sums(self.weight.detach()), self.__dict__["_packed_sums"])

    def __getstate__(self) -> dict[str, Any]:
        """A copy packs for itself: what is packed cannot be copied."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_packed")}


def _sums(weight: Tensor) -> Tensor:
    """A number a row that any edit changes, rows and columns that change places, too."""
    return weight.float() @ torch.arange(weight.shape[1], dtype=torch.float32).cos()


@torch.no_grad()
def packed(weight: Tensor) -> PackedLinear:
    """The product with the transpose of a fixed matrix, as a layer: `packed(w)(x) = x @ w.T`."""
    with torch.device("meta"):
        layer = PackedLinear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight, layer.fixed = nn.Parameter(weight, requires_grad=False), True
    return layer


def pack_linears(network: nn.Module) -> None:
    """Turn the plain linear layers of a model on the CPU into packed ones, in place.

    Only where a second copy of their weights is a small part of the memory that is free: a large model stays as it is.
    """
    layers = [m for m in network.modules() if type(m) is nn.Linear and _packable(m.weight)]
    copies = sum(layer.weight.nbytes for layer in layers)
    if hasattr(torch.ops.mkldnn, "_linear_pointwise") and copies < MEMORY_SHARE * machine_memory():
        for layer in layers:
            layer.__class__ = PackedLinear


def _packable(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32


@contextmanager
def plain_linears() -> Iterator[None]:
    """Packed layers multiply as PyTorch's own do, to compare the two."""
    global _packing
    before, _packing = _packing, False
    try:
        yield
    finally:
        _packing = before

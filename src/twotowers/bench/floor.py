"""The floor of a knock-out sweep: the multiplications that an exact sweep cannot avoid, at this machine's own rate.

A row without head h of layer l equals the intact row up to that head, so it needs: no attention in layer l, whose other
heads are the intact ones; the MLP of layer l; all of the layers above; and in the last layer queries, output projection
and MLP at the last positions only, since nothing else is read. Everything that is no matrix product counts nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..models.architecture import Architecture, submodule
from ..models.packed import PackedLinear
from ..models.quantised import DequantisedLinear
from ..tracing.capture import TOKEN_BUDGET

ROWS = TOKEN_BUDGET  # rows of the products whose rate is measured, as of a full forward of the sweep
TIMES = 3  # of which the fastest counts


def work(arch: Architecture, starts: Sequence[int], length: int, n_last: int) -> dict[tuple[int, int], float]:
    """Rows that must pass each matrix for one packed prompt set.

    Args:
        starts: the layer of each head that is removed by itself.
        length, n_last: positions of the packed set, and last positions among them.

    Returns:
        rows by (inputs, outputs) of a weight matrix; attention's products of scores and of values with weights have
        (d_head, length) and (length, d_head).
    """
    rows: dict[tuple[int, int], float] = {}

    def add(shape: tuple[int, int], number: int) -> None:
        rows[shape] = rows.get(shape, 0.0) + number

    d, heads = arch.d_model, arch.n_heads
    for layer in range(arch.n_layers):
        changed = sum(start < layer for start in starts)  # rows whose attention in this layer is not the intact one
        joined = sum(start <= layer for start in starts)
        read = n_last if layer == arch.n_layers - 1 else length
        add((d, heads * arch.d_head), (changed + 1) * read)
        for _ in range(2):
            add((d, arch.n_kv_heads * arch.d_head), (changed + 1) * length)
        add((arch.d_head, length), (changed + 1) * read * heads)
        add((length, arch.d_head), (changed + 1) * read * heads)
        add((heads * arch.d_head, d), (changed + 1) * read)
        for shape in mlp_shapes(arch, layer):
            add(shape, (joined + 1) * read)
    add((d, arch.d_vocab), (len(starts) + 1) * n_last)
    return rows


def mlp_shapes(arch: Architecture, layer: int) -> list[tuple[int, int]]:
    """(inputs, outputs) of the matrices of a layer's MLP."""
    attention = {*arch.attention(layer).modules()}
    shapes = []
    for module in submodule(arch.model, arch.family.blocks)[layer].modules():
        if module in attention:
            continue
        if isinstance(module, Conv1D):
            shapes.append((int(module.weight.shape[0]), int(module.weight.shape[1])))
        elif isinstance(module, nn.Linear | DequantisedLinear):
            shapes.append((module.in_features, module.out_features))
    return shapes


def rates(shapes: Sequence[tuple[int, int]], dtype: torch.dtype, device: torch.device) -> dict[tuple[int, int], float]:
    """Multiplications a second of a product with each shape of matrix: the better of PyTorch's and the packed one."""
    return {shape: _rate(shape, dtype, device) for shape in sorted(set(shapes))}


def _rate(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> float:
    n_in, n_out = shape
    rows = max(64, min(ROWS, 2**27 // n_out))
    x = torch.randn(rows, n_in, dtype=dtype, device=device)
    layers: list[Any] = [nn.Linear(n_in, n_out, bias=False, dtype=dtype, device=device)]
    if dtype == torch.float32 and device.type == "cpu":
        layers.append(PackedLinear(n_in, n_out, bias=False))
    with torch.no_grad():
        best = min(_seconds(layer, x) for layer in layers)
    return rows * n_in * n_out / best


def _seconds(layer: nn.Module, x: Tensor) -> float:
    layer(x)
    times = []
    for _ in range(TIMES):
        _synchronise(x)
        begun = time.perf_counter()
        layer(x)
        _synchronise(x)
        times.append(time.perf_counter() - begun)
    return min(times)


def _synchronise(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


def floor_seconds(rows: dict[tuple[int, int], float], rate: dict[tuple[int, int], float]) -> float:
    """Seconds of the products of `work` at the rates of `rates`; attention's own products, which come in small
    pieces, count at the best of these rates."""
    best = max(rate.values())
    return sum(number * n_in * n_out / rate.get((n_in, n_out), best) for (n_in, n_out), number in rows.items())

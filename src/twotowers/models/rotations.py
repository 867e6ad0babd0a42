"""How queries and keys turn with their positions, in the ways that families have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rotate_halves(rotary: Any, attention: Any, x: Tensor, positions: Tensor) -> Tensor:
    """Dimension i turns with dimension i + half; dimensions beyond those that the module turns stay."""
    turned, rest, cos, sin = _parts(rotary, x, positions)
    first, second = turned.chunk(2, dim=-1)
    return torch.cat([turned * cos + torch.cat([-second, first], dim=-1) * sin, rest], dim=-1)


def rotate_halves_by_layer(rotary: Any, attention: Any, x: Tensor, positions: Tensor) -> Tensor:
    """As `rotate_halves`, where layers of one kind turn otherwise than those of the other (Gemma 3, OLMo 3)."""
    kind = attention.config.layer_types[attention.layer_idx]

    class OfLayer:
        inv_freq = rotary.get_buffer(f"{kind}_inv_freq")

        def __call__(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
            return rotary(x, positions, kind)

    return rotate_halves(OfLayer(), attention, x, positions)


def rotate_pairs(rotary: Any, attention: Any, x: Tensor, positions: Tensor) -> Tensor:
    """Dimension 2i turns with dimension 2i + 1, by an angle that the module gives for each of them."""
    turned, rest, cos, sin = _parts(rotary, x, positions)
    return torch.cat([turned * cos + _partner(turned) * sin, rest], dim=-1)


def rotate_pairs_of_halves(rotary: Any, attention: Any, x: Tensor, positions: Tensor) -> Tensor:
    """As `rotate_pairs`, where the module gives the angles of all pairs, and then all of them again (GLM 4)."""
    turned, rest, cos, sin = _parts(rotary, x, positions)
    cos, sin = (half.chunk(2, dim=-1)[0].repeat_interleave(2, dim=-1) for half in (cos, sin))
    return torch.cat([turned * cos + _partner(turned) * sin, rest], dim=-1)


def rotate_by_table(table: Any, attention: Any, x: Tensor, positions: Tensor) -> Tensor:
    """GPT-J: dimension 2i turns with dimension 2i + 1, in the first `rotary_dim` dimensions, by a stored table."""
    angles = table.embed_positions.detach().float().cpu()[positions.cpu()]
    sin, cos = (half.repeat_interleave(2, dim=-1) for half in angles.chunk(2, dim=-1))
    turned, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], dim=-1)
    return torch.cat([turned * cos + _partner(turned) * sin, rest], dim=-1)


def _parts(rotary: Any, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What turns and what stays of x, and cosine and sine of its angles."""
    with torch.no_grad():
        cos, sin = (part.float().cpu() for part in rotary(x.to(rotary.inv_freq.device), positions))
    return *x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], dim=-1), cos, sin


def _partner(x: Tensor) -> Tensor:
    return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)

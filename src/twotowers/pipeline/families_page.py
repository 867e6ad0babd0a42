"""The page on families: what is special about each, and what it can be used for, from the table of families."""

from __future__ import annotations

import torch

from ..models.families import FAMILIES
from ..models.family import Family
from ..models.parallel import TRIED
from ..models.refused import REFUSED
from ..publishing.markdown import stacking
from ..tracing.check import TOLERANCE

HEADER = ("family", "norms", "positions", "what is special", "on a server", "split")
NORMS = {"layer": "LayerNorm", "rms": "RMSNorm"}


def families_page() -> str:
    """Tables of the families that can be read, and of those that are refused."""
    rows = [
        (f"`{name}`", _norms(family), _positions(family), family.note, _mark(family.on_servers), _mark(name in TRIED))
        for name, family in FAMILIES.items()
    ]
    by_reason: dict[str, list[str]] = {}
    for name, why in REFUSED.items():
        by_reason.setdefault(why, []).append(f"`{name}`")
    refused = [(", ".join(names), why) for why, names in by_reason.items()]
    return "\n\n".join(
        [
            f"There are {len(FAMILIES)} families. On a tiny random model of each, in float32, every identity of the "
            f"check holds within {TOLERANCE[torch.float32]:g}, and exchange, knock-out, cut edges and balanced "
            f"attention equal hooks in plain transformers; the tests see to that.",
            stacking(HEADER, rows),
            "Families that are known and refused:",
            stacking(("families", "why"), refused),
        ]
    )


def _norms(family: Family) -> str:
    return f"{NORMS[family.norm]}, also behind attention" if family.norm_behind else NORMS[family.norm]


def _positions(family: Family) -> str:
    if family.alibi:
        return "added to scores"
    return "rotated" if family.rotary else "embedded"


def _mark(yes: bool) -> str:
    return "yes" if yes else "no"

"""The registry as the command lists it: what fits the free memory, and what has been run."""

from __future__ import annotations

from ..models.loading import free_memory
from ..models.registry import REGISTRY
from .status import chapters_made


def registered() -> str:
    """A line for each model of the registry, and what they mean."""
    free = free_memory()
    key, family, licence = (
        max(len(getattr(entry, name)) for entry in REGISTRY.values()) for name in ("key", "family", "licence")
    )
    lines = [
        f"{'key':{key}} {'family':{family}} {'weights':>9} {'fits':5} {'chapters':>8}  {'licence':{licence}} source"
    ]
    for entry in REGISTRY.values():
        size, fits = f"{entry.memory / 2**30:.1f} GiB", "yes" if entry.memory < free else "no"
        facts = f"{size:>9} {fits:5} {chapters_made(entry.key):8d}"
        lines.append(f"{entry.key:{key}} {entry.family:{family}} {facts}  {entry.licence:{licence}} {entry.source}")
    said = f"Weights fit if they are smaller than the free memory here, {free / 2**30:.1f} GiB; chapters: run already."
    return "\n".join([*lines, said])

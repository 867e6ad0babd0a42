"""The registry as the command lists it: what fits the free memory, and what has been run."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping

from ..models.memory import free_memory
from ..models.registry import REGISTRY
from .costs import size
from .status import chapters_made

DROPPED = ("template", "family", "licence", "chapters", "source", "fits")  # where there is no room, the first first


def registered(width: int | None = None) -> str:
    """A line for each model of the registry, and what they mean.

    Args:
        width: columns of the terminal; lines stay within it, by leaving out columns of the table, which are then named.
    """
    free = free_memory()
    rows = [
        {
            "key": entry.key,
            "family": entry.family,
            "weights": size(entry.memory),
            "fits": "yes" if entry.memory < free else "no",
            "chapters": str(chapters_made(entry.key)),
            "licence": entry.licensed,
            "template": entry.template,
            "source": entry.source,
        }
        for entry in REGISTRY.values()
    ]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    out = list[str]()
    while width and sum(widths.values()) + 2 * len(widths) - 2 > width and len(out) < len(DROPPED):
        out.append(DROPPED[len(out)])
        del widths[out[-1]]
    said = (
        f"Weights fit if they are smaller than the free memory here, {size(free)}; chapters: run already; "
        f"gated: the source asks for an account to which access was granted."
    )
    if out:
        said += f" Not shown, for want of room: {', '.join(name for name in rows[0] if name in out)}."
    table = [_line(widths, row) for row in ({name: name for name in widths}, *rows)]
    return "\n".join([*table, *(textwrap.wrap(said, width) if width else [said])])


def columns() -> int | None:
    """Columns of the terminal that is written to; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _line(widths: Mapping[str, int], row: Mapping[str, str]) -> str:
    right = ("weights", "chapters")
    return "  ".join(f"{row[name]:{'>' if name in right else '<'}{wide}}" for name, wide in widths.items()).rstrip()

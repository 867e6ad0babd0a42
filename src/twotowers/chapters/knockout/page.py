"""What the chapter on knock-out shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...publishing.plots import accuracy_axis, banded_line, panels
from ...publishing.style import BLUE, GREY, ORANGE


def dose(table: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Accuracy by number of heads removed. Columns `removed, kind (top|random), label, mean, low, high`."""
    figure, axes = panels(len(labels), sharey=True)
    for ax, label in zip(axes, labels, strict=True):
        for kind, colour, marker, style in (("top", ORANGE, "o", "-"), ("random", BLUE, "s", "--")):
            part = table[(table["label"] == label) & (table["kind"] == kind)]
            name = "most harmful heads" if kind == "top" else "random heads, same layers"
            banded_line(ax, part, "removed", label=name, colour=colour, marker=marker, style=style)
        ax.set(xlabel="heads removed", title=f"gold label {label}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        accuracy_axis(ax)
    axes[0].set_ylabel("accuracy")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=9)
    return figure


def agreement(table: pd.DataFrame, *, marked: str = "in_context") -> Figure:
    """Two rankings of heads against each other. Columns `layer, head, log_increase, margin_drop` and `marked`."""
    figure, (ax,) = panels(height=3.8)
    plain, chosen = table[~table[marked]], table[table[marked]]
    depth: dict[str, Any] = {"cmap": "viridis", "vmin": table["layer"].min(), "vmax": table["layer"].max()}
    points = ax.scatter(plain["log_increase"], plain["margin_drop"], c=plain["layer"], s=16, **depth)
    ring: dict[str, Any] = {"edgecolor": ORANGE, "linewidth": 1.8, "label": "in-context heads"}
    ax.scatter(chosen["log_increase"], chosen["margin_drop"], c=chosen["layer"], s=58, **depth, **ring)
    for row in chosen.itertuples():
        ax.annotate(f"{row.layer}.{row.head}", (row.log_increase, row.margin_drop), xytext=(5, 4),
                    textcoords="offset points", fontsize=8.5)  # fmt: skip
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.set(xlabel="log-probability increase (nats)", ylabel="margin lost when zeroed (logits)")
    figure.colorbar(points, ax=ax, label="layer", pad=0.02)
    if len(chosen):
        ax.legend(loc="best", fontsize=9)
    return figure

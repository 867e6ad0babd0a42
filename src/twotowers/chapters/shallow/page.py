"""What the chapter on shallow layers shows."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ...publishing.plots import accuracy_axis, banded_line, panels
from ...publishing.style import BLUE, GREEN, GREY, ORANGE

PANELS = {"text_to_label": "text to label", "query_to_last": "query to last position"}
PLACES = {
    "text": ("at the text", GREEN, "^", "-"),
    "label": ("at its label", ORANGE, "o", "-"),
    "shuffled": ("at another's label", BLUE, "s", "--"),
}


def blocking(table: pd.DataFrame) -> Figure:
    """Accuracy by first layer of the window, intact where it is empty.

    Columns `kind, start, stop, control, mean, low, high`.
    """
    kinds = [kind for kind in PANELS if kind in set(table["kind"])]
    figure, axes = panels(len(kinds), height=3.6, sharey=True)
    for ax, kind in zip(axes, kinds, strict=True):
        part = table[table["kind"] == kind].sort_values("start")
        intact = part[part["stop"] == part["start"]]
        cuts = part[part["stop"] > part["start"]]
        for mean in intact["mean"]:
            ax.axhline(mean, color="#333333", linewidth=1.2, label="nothing cut")
        for control, name, colour, marker, style in (
            (False, "these edges cut", ORANGE, "o", "-"),
            (True, "random edges cut", BLUE, "s", "--"),
        ):
            banded_line(
                ax, cuts[cuts["control"] == control], "start", label=name, colour=colour, marker=marker, style=style
            )
        ax.set(xlabel="first layer of the window", title=PANELS[kind])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        accuracy_axis(ax)
    axes[0].set_ylabel("accuracy")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2, fontsize=9)
    return figure


def probing(table: pd.DataFrame, categories: int) -> Figure:
    """Accuracy of the probe by layer. Columns `layer, where, mean, low, high`; `categories` sets the chance line."""
    figure, (ax,) = panels(height=3.8)
    for where, (name, colour, marker, style) in PLACES.items():
        part = table[table["where"] == where].sort_values("layer")
        banded_line(ax, part, "layer", label=name, colour=colour, marker=marker, style=style)
    ax.axhline(0.5, color=GREY, linestyle="--", linewidth=1.0, label="one of the set's two categories")
    ax.axhline(1 / categories, color=GREY, linestyle=":", linewidth=1.3, label=f"one of {categories} categories")
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="residual entering layer", ylabel="category read correctly")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9)
    return figure

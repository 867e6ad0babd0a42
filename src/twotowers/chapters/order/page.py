"""What the chapter on order shows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...publishing.plots import banded_line, panels
from ...publishing.style import BLUE, GREEN, GREY, MARKERS, ORANGE

GROUPS = {"in-context": ("in-context heads", ORANGE, "o", "-"), "random": ("random heads", BLUE, "s", "--")}
MEASURES = {"accuracy": "accuracy", "margin": "margin (logits)", "attention": "attention to a label"}


def response(table: pd.DataFrame) -> Figure:
    """P(foo) and attention by the place of foo. Columns `heads, measure, recency, mean, low, high`."""
    figure, axes = panels(2, height=3.8)
    answers = table[(table["measure"] == "p_foo") & (table["heads"] == table["heads"].iloc[0])]
    banded_line(axes[0], answers, "recency", label="the model's answer", colour=GREEN, marker="^")
    for heads, (name, colour, marker, style) in GROUPS.items():
        part = table[(table["measure"] == "attention") & (table["heads"] == heads)]
        banded_line(axes[1], part, "recency", label=name, colour=colour, marker=marker, style=style)
    axes[0].set_title("P(foo), change from the set's mean", fontsize=10)
    axes[1].set_title("attention to foo minus bar, likewise", fontsize=10)
    for ax in axes:
        ax.axhline(0, color=GREY, linewidth=0.9)
        ax.set_xlabel("how much nearer foo stands\n(demonstrations)")
    _legend(figure, axes)
    return figure


def attention(table: pd.DataFrame) -> Figure:
    """Attention to a label position by distance. Columns `heads, same, distance, mean, low, high`."""
    figure, axes = panels(len(GROUPS), height=3.6, sharey=True)
    for ax, (heads, (name, *_)) in zip(axes, GROUPS.items(), strict=True):
        for same, colour, marker, style in ((True, ORANGE, MARKERS[0], "-"), (False, BLUE, MARKERS[1], "--")):
            part = table[(table["heads"] == heads) & (table["same"] == same)]
            label = "label of the query's class" if same else "label of the other class"
            banded_line(ax, part, "distance", label=label, colour=colour, marker=marker, style=style)
        ax.set(title=name, xlabel="distance from the query\n(demonstrations)")
        ax.set_ylim(0, 1.1 * table["high"].max() or 1)
    axes[0].set_ylabel("attention weight")
    _legend(figure, axes)
    return figure


def mitigation(table: pd.DataFrame) -> Figure:
    """Standard deviations over orders. Columns `heads, measure, when (before|after), mean, low, high`."""
    figure, axes = panels(len(MEASURES), height=3.5)
    for ax, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        for when, offset, colour, marker in (("before", -0.12, GREY, "o"), ("after", 0.12, ORANGE, "s")):
            part = table[(table["measure"] == measure) & (table["when"] == when)].set_index("heads")
            part = part.loc[[heads for heads in GROUPS if heads in part.index]]
            errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
            x = [list(GROUPS).index(str(heads)) + offset for heads in part.index]
            name = "intact" if when == "before" else "position term removed"
            ax.errorbar(x, part["mean"], yerr=errors, color=colour, marker=marker, linestyle="", capsize=3, label=name)
        ax.set_xticks(range(len(GROUPS)), ["in-context\nheads", "random\nheads"], fontsize=9)
        ax.set_xlim(-0.5, len(GROUPS) - 0.5)
        ax.set_ylim(0, 1.1 * table.loc[table["measure"] == measure, "high"].max() or 1)
        ax.set_title(title, fontsize=10)
        ax.grid(visible=False, axis="x")
    axes[0].set_ylabel("standard deviation over orders")
    _legend(figure, axes)
    return figure


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels."""
    shown = {name: handle for ax in axes for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(list(shown.values()), list(shown), loc="outside upper center", ncols=3, fontsize=9)

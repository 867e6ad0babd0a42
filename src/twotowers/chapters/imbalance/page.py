"""What the chapter on imbalance shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ...publishing.plots import banded_line, panels
from ...publishing.style import BLUE, GREEN, GREY, LABEL_COLOURS, MARKERS, STYLE, WIDTH

TITLES = {
    "probability": "how probable foo is",
    "accuracy": "accuracy, by right label",
    "attention": "attention, by label at position",
    "values": "weighted values, likewise",
}
# panel -> line -> its name in a legend; the labels' own lines share one legend above the figure
LINES: Mapping[str, Mapping[str, str]] = {
    "probability": {"p_foo_two_way": "between two labels", "p_foo": "full vocabulary"},
    "accuracy": {"bar": "bar", "foo": "foo"},
    "attention": {"bar": "bar", "foo": "foo"},
    "values": {"bar": "bar", "foo": "foo"},
}
UNITS = {
    "probability": "probability",
    "accuracy": "accuracy",
    "attention": "summed weight",
    "values": "logit minus (logits)",
}


def response(table: pd.DataFrame) -> Figure:
    """Four panels over the share of foo: probability, accuracy, attention, weighted values.

    Columns `panel` (a key of `TITLES`), `line` (a key of `LINES`), `heads` ("in-context", "random", or "" where no
    head is meant), `share, mean, low, high`. Random heads are dashed.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 6.0))
        axes = figure.subplots(2, 2, sharex=True).ravel()
    for ax, (panel, lines) in zip(axes, LINES.items(), strict=True):
        colours = (GREEN, GREY) if panel == "probability" else LABEL_COLOURS
        for (key, name), colour, marker in zip(lines.items(), colours, ("s", "o"), strict=True):
            own = table[(table["panel"] == panel) & (table["line"] == key)]
            for heads, part in own.groupby("heads", sort=False):
                style, label = ("--", f"{name}, random heads") if heads == "random" else ("-", name)
                banded_line(ax, part, "share", label=label, colour=colour, marker=marker, style=style)
        ax.set(title=TITLES[panel], ylabel=UNITS[panel])
        ax.title.set_fontsize(10.5)
        if panel in ("probability", "accuracy"):
            ax.set_ylim(0, 1.02)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        if panel == "values":
            ax.axhline(0, color=GREY, linewidth=1)
    axes[0].legend(fontsize=8, loc="best", frameon=False)
    handles, names = axes[2].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=8.5, frameon=False)
    _share_axis(list(axes[2:]), sorted(table["share"].unique()))
    return figure


def _share_axis(axes: Sequence[Axes], shares: Sequence[float]) -> None:
    """Shares as counts of foo to bar, which are legible where fractions are not."""
    n = round(1 / shares[0])
    for ax in axes:
        ax.set_xticks(list(shares), [f"{round(share * n)}:{n - round(share * n)}" for share in shares], fontsize=9)
        ax.set_xlabel("demonstrations foo : bar")


def mitigation(table: pd.DataFrame, measures: Mapping[str, str]) -> Figure:
    """Fluctuation with each remedy, and what the remedy takes off it.

    Args:
        table: columns `remedy, measure, quantity` ("fluctuation" or "removed"), `mean, low, high`.
        measures: measure -> its name in the legend.
    """
    remedies = list(dict.fromkeys(table["remedy"]))
    figure, axes = panels(2, height=1.6 + 0.46 * len(remedies), sharey=True)
    for ax, (quantity, title) in zip(
        axes, {"fluctuation": "fluctuation", "removed": "taken off it (right is steadier)"}.items(), strict=True
    ):
        for i, ((measure, name), colour) in enumerate(
            zip(measures.items(), (BLUE, LABEL_COLOURS[0], GREEN), strict=True)
        ):
            own = table[(table["quantity"] == quantity) & (table["measure"] == measure)]
            part = own.set_index("remedy").reindex(remedies if quantity == "fluctuation" else remedies[1:])
            y = np.array([remedies.index(remedy) for remedy in part.index]) + (i - 1) * 0.2
            ax.errorbar(part["mean"], y, xerr=[part["mean"] - part["low"], part["high"] - part["mean"]], color=colour,
                        marker=MARKERS[i], linestyle="", capsize=2.5, markersize=5, label=name)  # fmt: skip
        ax.set(xlabel="change of the set's mean", title=title)
        ax.title.set_fontsize(10.5)
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.grid(visible=False, axis="y")
    axes[0].set_xlim(left=0)
    axes[1].axvline(0, color=GREY, linewidth=1)
    axes[0].set_yticks(range(len(remedies)), remedies)
    axes[0].invert_yaxis()
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=8.5, frameon=False)
    return figure

"""Figures: a result table in, a matplotlib figure out. Nothing is computed here beyond what a plot needs.

Colours are from Okabe and Ito's palette, which colour-blind readers can tell apart; every line also differs by
marker. Widths are those of the page, so that text stays legible without zooming.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#767676", "#222222"
LABEL_COLOURS = (ORANGE, BLUE)  # labels in sorted order: bar, foo
MARKERS = ("o", "s", "^", "D")
WIDTH = 6.4  # inches

STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
}


def _axes(columns: int = 1, height: float = 3.4, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure that belongs to no window, with its axes in a row."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.subplots(1, columns, squeeze=False, sharey=sharey)
    return figure, list(axes[0])


def _line(ax: Axes, part: pd.DataFrame, x: str, *, label: str, colour: str, marker: str, style: str = "-") -> None:
    """A line through the means with its 95 % interval as a band."""
    ax.plot(part[x], part["mean"], color=colour, marker=marker, linestyle=style, label=label, markersize=5)
    ax.fill_between(part[x], part["low"], part["high"], color=colour, alpha=0.18, linewidth=0)


def _accuracy_axis(ax: Axes) -> None:
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.axhline(0.5, color=GREY, linestyle=":", linewidth=1.3, label="chance between two labels")


def shots(table: pd.DataFrame) -> Figure:
    """Accuracy by demonstrations a label. Columns `shots, measure, mean, low, high`."""
    figure, (ax,) = _axes()
    for (measure, part), colour, marker in zip(
        table.groupby("measure", sort=False), (BLUE, GREEN), MARKERS, strict=False
    ):
        _line(ax, part, "shots", label=str(measure), colour=colour, marker=marker)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(table["shots"].unique()), [str(n) for n in sorted(table["shots"].unique())])
    ax.set(xlabel="demonstrations of each label", ylabel="accuracy")
    _accuracy_axis(ax)
    ax.legend(loc="lower right")
    return figure


def templates(table: pd.DataFrame) -> Figure:
    """Accuracy by template and gold label. Columns `template, label, mean, low, high`."""
    names, labels = list(dict.fromkeys(table["template"])), sorted(table["label"].unique())
    figure, (ax,) = _axes(height=3.2)
    for i, label in enumerate(labels):
        part = table[table["label"] == label].set_index("template").loc[names]
        x = np.arange(len(names)) + (i - (len(labels) - 1) / 2) * 0.34
        errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
        ax.bar(x, part["mean"], 0.3, color=LABEL_COLOURS[i], yerr=errors, capsize=3, label=f"gold label {label}",
               error_kw={"ecolor": "#333333", "elinewidth": 1.2}, hatch=("//", "")[i], edgecolor="white")  # fmt: skip
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel="template", ylabel="accuracy")
    ax.grid(visible=False, axis="x")
    _accuracy_axis(ax)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=9)
    return figure


def layers(table: pd.DataFrame) -> Figure:
    """Log-probability increase by layer. Columns `layer, component, mean, low, high`."""
    figure, axes = _axes(2, sharey=True)
    for ax, (component, part), colour in zip(axes, table.groupby("component", sort=False), (BLUE, ORANGE), strict=True):
        errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
        ax.bar(part["layer"], part["mean"], color=colour, yerr=errors, width=0.8,
               error_kw={"ecolor": "#333333", "elinewidth": 0.8})  # fmt: skip
        ax.axhline(0, color="#333333", linewidth=0.8)
        ax.set(xlabel="layer", title={"mlp": "MLP"}.get(str(component), str(component)))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(visible=False, axis="x")
    axes[0].set_ylabel("log-probability increase (nats)")
    return figure


def head_map(table: pd.DataFrame, value: str, *, title: str, marked: Iterable[tuple[int, int]] = ()) -> Figure:
    """A value for every head, layer by head; marked heads are ringed. Columns `layer, head` and the value."""
    grid = table.pivot(index="head", columns="layer", values=value)
    figure, (ax,) = _axes(height=max(2.4, 0.2 * len(grid) + 1.3))
    limit = float(np.nanmax(np.abs(grid.to_numpy()))) or 1.0
    sns.heatmap(grid, ax=ax, cmap="RdBu_r", center=0, vmin=-limit, vmax=limit, linewidths=0.2, linecolor="#eeeeee",
                cbar_kws={"label": title, "pad": 0.02})  # fmt: skip
    for layer, head in marked:
        ax.add_patch(mpl.patches.Rectangle((layer, head), 1, 1, fill=False, edgecolor="black", linewidth=1.6))
    step = max(1, len(grid.columns) // 10)
    ax.set_xticks(np.arange(0, len(grid.columns), step) + 0.5, [str(i) for i in grid.columns[::step]], rotation=0)
    ax.set_yticks(np.arange(len(grid)) + 0.5, [str(i) for i in grid.index], rotation=0, fontsize=8)
    ax.set(xlabel="layer", ylabel="head")
    ax.grid(visible=False)
    return figure


def dose(table: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Accuracy by number of heads removed. Columns `removed, kind (top|random), label, mean, low, high`."""
    figure, axes = _axes(len(labels), sharey=True)
    for ax, label in zip(axes, labels, strict=True):
        for kind, colour, marker, style in (("top", ORANGE, "o", "-"), ("random", BLUE, "s", "--")):
            part = table[(table["label"] == label) & (table["kind"] == kind)]
            name = "most harmful heads" if kind == "top" else "random heads, same layers"
            _line(ax, part, "removed", label=name, colour=colour, marker=marker, style=style)
        ax.set(xlabel="heads removed", title=f"gold label {label}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        _accuracy_axis(ax)
    axes[0].set_ylabel("accuracy")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=9)
    return figure


def agreement(table: pd.DataFrame, *, marked: str = "in_context") -> Figure:
    """Two rankings of heads against each other. Columns `layer, head, log_increase, margin_drop` and `marked`."""
    figure, (ax,) = _axes(height=3.8)
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

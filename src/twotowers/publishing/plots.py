"""Figures: a result table in, a matplotlib figure out. Nothing is computed here beyond what a plot needs.

Colours are from Okabe and Ito's palette, which colour-blind readers can tell apart; every line also differs by
marker. Widths are those of the page, so that text stays legible without zooming.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .style import GREY, STYLE, WIDTH

LOWEST = 3.1  # inches of a map of heads, so that the label of its colours has room


def panels(columns: int = 1, height: float = 3.4, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure that belongs to no window, with its axes in a row."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.subplots(1, columns, squeeze=False, sharey=sharey)
    return figure, list(axes[0])


def banded_line(
    ax: Axes, part: pd.DataFrame, x: str, *, label: str, colour: str, marker: str, style: str = "-"
) -> None:
    """A line through the means with its 95 % interval as a band."""
    ax.plot(part[x], part["mean"], color=colour, marker=marker, linestyle=style, label=label, markersize=5)
    ax.fill_between(part[x], part["low"], part["high"], color=colour, alpha=0.18, linewidth=0)


def accuracy_axis(ax: Axes) -> None:
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.axhline(0.5, color=GREY, linestyle=":", linewidth=1.3, label="chance between two labels")


def head_map(table: pd.DataFrame, value: str, *, title: str, marked: Iterable[tuple[int, int]] = ()) -> Figure:
    """A value for every head, layer by head; marked heads are ringed. Columns `layer, head` and the value.

    A value that is no number is hatched: white is zero.
    """
    grid = table.pivot(index="head", columns="layer", values=value)
    figure, (ax,) = panels(height=max(LOWEST, 0.2 * len(grid) + 1.3))
    limit = float(grid.abs().fillna(0).to_numpy().max(initial=0)) or 1.0
    sns.heatmap(grid, ax=ax, cmap="RdBu_r", center=0, vmin=-limit, vmax=limit, linewidths=0.2, linecolor="#eeeeee",
                cbar_kws={"label": title, "pad": 0.02})  # fmt: skip
    for layer, head in marked:
        ax.add_patch(mpl.patches.Rectangle((layer, head), 1, 1, fill=False, edgecolor="black", linewidth=1.6))
    if grid.isna().to_numpy().any():
        unknown: dict[str, Any] = {"facecolor": "white", "edgecolor": GREY, "hatch": "////"}
        ax.patch.set(**unknown)
        ax.legend(handles=[mpl.patches.Patch(label="not known", **unknown)], loc="lower right",
                  bbox_to_anchor=(1, 1), fontsize=8, borderaxespad=0.2)  # fmt: skip
    step = max(1, len(grid.columns) // 10)
    ax.set_xticks(np.arange(0, len(grid.columns), step) + 0.5, [str(i) for i in grid.columns[::step]], rotation=0)
    ax.set_yticks(np.arange(len(grid)) + 0.5, [str(i) for i in grid.index], rotation=0, fontsize=8)
    ax.set(xlabel="layer", ylabel="head")
    ax.grid(visible=False)
    return figure

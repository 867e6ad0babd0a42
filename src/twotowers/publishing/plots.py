"""Figures: a result table in, a matplotlib figure out. Nothing is computed here beyond what a plot needs.

They are drawn within `style.styled`. Every line differs from others by marker as well as by colour. Widths are those of
the page, so that text stays legible without zooming.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, PercentFormatter

from .style import FAINT, GREY, HEIGHT, INK, NARROW, PAPER, WIDTH, diverging, narrow

ROW, LINE = 20, 36  # letters of a row's name and of an axis' in a narrow place
POINTS = 72  # to an inch
LETTER, HANDLE = 0.55, 4.0  # of a legend, by the size of its letters: how wide they, and what is before them, are
LOWEST = 3.1  # inches of a map of heads, so that the label of its colours has room


def panels(
    columns: int = 1, height: float = HEIGHT, sharey: bool = False, *, rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure that belongs to no window, with its axes row by row; in a narrow place all below each other.

    Args:
        height: in inches, of the whole figure; of one in a narrow place that of a row.
    """
    if narrow():
        rows, columns, height = rows * columns, 1, height * columns
    figure = Figure(figsize=(NARROW if narrow() else WIDTH, height))
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel())
    return figure, axes


def fitting(figure: Figure, names: Iterable[str], columns: int, size: float) -> int:
    """As many columns of a legend as are asked for, or as a narrow place has room for; letters of so many points."""
    if not narrow():
        return columns
    widest = LETTER * size * max(map(len, names), default=0) + HANDLE * size
    return max(1, min(columns, int(POINTS * figure.get_figwidth() // widest)))


def legend_above(figure: Figure, handles: Sequence[Any], names: Sequence[str], columns: int = 3, **more: Any) -> None:
    """One legend for all panels, above them, in so many columns or as few as there is room for."""
    size = float(more.setdefault("fontsize", 9))
    for number in range(fitting(figure, names, columns, size), 0, -1):
        legend = figure.legend(handles, names, loc="outside upper center", ncols=number, **more)
        if legend.get_window_extent().width <= figure.bbox.width or number == 1:
            return
        legend.remove()


def folded(figure: Figure) -> None:
    """Give each of the panels below each other what those in a row share, and break its long texts.

    Left alone is what stands beside an axis of numbers, and a second axis, as a scale of colours is.
    """
    named = next((ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()), "")
    for ax in figure.axes:
        if not ax.get_ylabel() and len(ax.get_shared_y_axes().get_siblings(ax)) > 1:
            ax.set_ylabel(named)
        ax.set_xlabel(textwrap.fill(ax.get_xlabel(), LINE))
        if isinstance(ax.yaxis.get_major_locator(), FixedLocator):
            rows = [textwrap.fill(text.get_text().replace("\n", " "), ROW) for text in ax.get_yticklabels()]
            ax.yaxis.set_ticklabels(rows)


def banded_line(ax: Axes, part: pd.DataFrame, x: str, *, label: str, colour: str, marker: str, line: str = "-") -> None:
    """A line through the means with its 95 % interval as a band."""
    ax.plot(part[x], part["mean"], color=colour, marker=marker, linestyle=line, label=label, markersize=5)
    ax.fill_between(part[x], part["low"], part["high"], color=colour, alpha=0.18, linewidth=0)


def few_ticks(ax: Axes) -> None:
    """So few numbers on the x axis of a narrow panel that they do not touch: fewer, if they are small and so long."""
    largest = max(map(abs, ax.get_xlim()))
    ax.xaxis.set_major_locator(MaxNLocator(4 if largest > 0.01 else 2))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.6g}"))


def accuracy_axis(ax: Axes, labels: int = 2) -> None:
    """An axis of accuracy, with a line at chance between so many labels."""
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    named = f"chance between {'two' if labels == 2 else labels} labels"
    ax.axhline(1 / labels, color=GREY, linestyle=":", linewidth=1.3, label=named)


def head_map(table: pd.DataFrame, value: str, *, title: str, marked: Iterable[tuple[int, int]] = ()) -> Figure:
    """A value for every head, layer by head; marked heads are ringed. Columns `layer, head` and the value.

    A value that is no number is hatched: white is zero.
    """
    grid = table.pivot(index="head", columns="layer", values=value)
    figure, (ax,) = panels(height=max(LOWEST, 0.2 * len(grid) + 1.3))
    limit = float(grid.abs().fillna(0).to_numpy().max(initial=0)) or 1.0
    sns.heatmap(grid, ax=ax, cmap=diverging(), vmin=-limit, vmax=limit, linewidths=0.2, linecolor=FAINT,
                cbar_kws={"label": title, "pad": 0.02})  # fmt: skip
    for layer, head in marked:
        ax.add_patch(mpl.patches.Rectangle((layer, head), 1, 1, fill=False, edgecolor=INK, linewidth=1.6))
    if grid.isna().to_numpy().any():
        unknown: dict[str, Any] = {"facecolor": PAPER, "edgecolor": GREY, "hatch": "////"}
        ax.patch.set(**unknown)
        ax.legend(handles=[mpl.patches.Patch(label="not known", **unknown)], loc="lower right",
                  bbox_to_anchor=(1, 1), fontsize=8, borderaxespad=0.2)  # fmt: skip
    step = max(1, len(grid.columns) // 10)
    ax.set_xticks(np.arange(0, len(grid.columns), step) + 0.5, [str(i) for i in grid.columns[::step]], rotation=0)
    ax.set_yticks(np.arange(len(grid)) + 0.5, [str(i) for i in grid.index], rotation=0, fontsize=8)
    ax.set(xlabel="layer", ylabel="head")
    ax.grid(visible=False)
    return figure

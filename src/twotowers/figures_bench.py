"""Figures of the performance page."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from .figures import BLUE, GREY, MARKERS, ORANGE, _axes

NAMES = {"heads": "heads removed", "prompts": "prompts of the set", "length": "packed tokens"}


def ratios(table: pd.DataFrame) -> Figure:
    """Time over ours, a point a way, with its spread over repeats; log scale. `way, ratio, ratio_low, ratio_high`."""
    figure, (ax,) = _axes(height=0.45 * len(table) + 1.0)
    place = list(range(len(table)))[::-1]
    spread = [table["ratio"] - table["ratio_low"], table["ratio_high"] - table["ratio"]]
    ax.errorbar(table["ratio"], place, xerr=spread, fmt=MARKERS[0], color=BLUE, capsize=3)
    for y, ratio in zip(place, table["ratio"], strict=True):
        ax.annotate(f"{ratio:.3g}", (ratio, y), xytext=(0, 6), textcoords="offset points", ha="center")
    ax.axvline(1, color=GREY, linestyle=":", linewidth=1.3)
    ax.annotate(
        "ours", (1, 0), xycoords=("data", "axes fraction"), xytext=(4, 4), textcoords="offset points", color=GREY
    )
    ax.set_yticks(place, list(table["way"]))
    ax.set_ylim(-0.6, len(table) - 0.3)
    ax.set_xscale("log")
    ax.set_xlim(0.7 * min(1.0, float(table["ratio_low"].min())), 1.5 * float(table["ratio_high"].max()))
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("time over ours")
    return figure


def scaling(table: pd.DataFrame) -> Figure:
    """Seconds and their floor against heads, prompts and tokens. `against, x, seconds, floor`."""
    figure, axes = _axes(columns=3, height=2.9)
    for ax, against in zip(axes, NAMES, strict=True):
        part = table[table["against"] == against]
        ax.plot(part["x"], part["seconds"], color=BLUE, marker=MARKERS[0], label="measured")
        ax.plot(part["x"], part["floor"], color=ORANGE, marker=MARKERS[1], linestyle="--", label="floor")
        ax.set_xlabel(NAMES[against])
        ax.set_ylim(bottom=0)
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0].set_ylabel("seconds")
    axes[0].legend(fontsize=9)
    return figure

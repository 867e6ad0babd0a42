"""Figures of the performance page."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from .figures import BLUE, GREY, MARKERS, ORANGE, _axes

NAMES = {"heads": "heads removed", "prompts": "prompts of the set", "length": "tokens of the packed set"}


def ratios(table: pd.DataFrame) -> Figure:
    """Time over ours, a bar a way, with the spread over repeats; log scale. `way, ratio, ratio_low, ratio_high`."""
    figure, (ax,) = _axes(height=0.55 * len(table) + 1.0)
    place = range(len(table))[::-1]
    spread = [table["ratio"] - table["ratio_low"], table["ratio_high"] - table["ratio"]]
    ax.barh(place, table["ratio"], xerr=spread, color=BLUE, height=0.6, error_kw={"ecolor": "black", "capsize": 3})
    for y, row in zip(place, table.itertuples(), strict=True):
        ax.annotate(f" {row.ratio:.3g}", (row.ratio_high, y), va="center", xytext=(3, 0), textcoords="offset points")
    ax.set_yticks(list(place), list(table["way"]))
    ax.set_xscale("log")
    ax.set_xlim(0.3, 2.2 * float(table["ratio_high"].max()))
    ax.axvline(1, color=GREY, linestyle=":", linewidth=1.3)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("time over ours (log scale)")
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
    axes[0].set_ylabel("seconds")
    axes[0].legend(fontsize=9)
    return figure

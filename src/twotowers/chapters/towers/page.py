"""What the chapter on query and key shows."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ...publishing.plots import panels
from ...publishing.style import BLUE, GREEN, GREY, LABEL_COLOURS, MARKERS, ORANGE, STYLE, WIDTH

COLOURS = (BLUE, ORANGE, GREEN)
INK = "#333333"


def heads(table: pd.DataFrame, *, xlabel: str, reference: float | None = None, percent: bool = False) -> Figure:
    """Means with intervals, a row for each head or group of heads, a marker for each measure.

    Columns `name, measure, mean, low, high`. A dotted line marks `reference`.
    """
    names, measures = list(dict.fromkeys(table["name"])), list(dict.fromkeys(table["measure"]))
    single = sum(name[0].isdigit() for name in names)
    figure, (ax,) = panels(height=0.34 * len(names) + 1.3)
    for i, (measure, colour, marker) in enumerate(zip(measures, COLOURS, MARKERS, strict=False)):
        part = table[table["measure"] == measure].set_index("name").reindex(names)
        y = np.arange(len(names)) + (i - (len(measures) - 1) / 2) * 0.22
        errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
        ax.errorbar(part["mean"], y, xerr=errors, fmt=marker, color=colour, markersize=5.5, capsize=2, label=measure)
    if reference is not None:
        ax.axvline(reference, color=GREY, linestyle=":", linewidth=1.3)
    ax.axhline(single - 0.5, color=INK, linewidth=0.8)  # single heads above, groups below
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set(xlabel=xlabel)
    if percent:
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    if len(measures) > 1:
        figure.legend(loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return figure


def transfer(points: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    """Left: weight against log-increase, a point for each label position of one head. Right: correlations by head.

    Columns `weight, log_increase, same`; and `name, mean, low, high`.
    """
    figure, (left, right) = panels(2, height=max(3.4, 0.3 * len(correlations) + 1.4))
    for same, colour, marker in ((True, BLUE, "o"), (False, ORANGE, "^")):
        part = points[points["same"] == same]
        left.scatter(part["weight"], part["log_increase"], s=11, alpha=0.45, color=colour, marker=marker, linewidth=0,
                     label="same class" if same else "other class")  # fmt: skip
    left.set_xscale("symlog", linthresh=1e-3)
    left.tick_params(axis="x", labelsize=8.5)
    left.set(xlabel="attention weight", ylabel="log-probability increase (nats)")
    left.legend(loc="upper left", fontsize=9, handletextpad=0.2, markerscale=1.6)
    y = np.arange(len(correlations))
    errors = [correlations["mean"] - correlations["low"], correlations["high"] - correlations["mean"]]
    right.errorbar(correlations["mean"], y, xerr=errors, fmt="o", color=BLUE, markersize=5.5, capsize=2)
    right.axvline(0, color=GREY, linestyle=":", linewidth=1.3)
    right.set_yticks(y, list(correlations["name"]))
    right.set_ylim(len(y) - 0.5, -0.5)
    right.set(xlabel="rank correlation", xlim=(-1.05, 1.05))
    return figure


def swap(table: pd.DataFrame) -> Figure:
    """Signed relative changes of attention and of values. Columns `name, measure, mean, low, high`."""
    figure, (ax,) = panels(height=3.3)
    names = list(dict.fromkeys(table["name"]))
    for i, (measure, colour, hatch) in enumerate((("attention", BLUE, ""), ("value", ORANGE, "//"))):
        part = table[table["measure"] == measure].set_index("name").reindex(names)
        errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
        ax.bar(np.arange(len(names)) + (i - 0.5) * 0.36, part["mean"], 0.33, color=colour, hatch=hatch, yerr=errors,
               edgecolor="white", capsize=3, error_kw={"ecolor": INK, "elinewidth": 1.1}, label=measure)  # fmt: skip
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xticks(range(len(names)), [name.replace(", ", "\n") for name in names])
    ax.set(ylabel="relative change")
    ax.grid(visible=False, axis="x")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=9, frameon=False)
    return figure


def plane(points: pd.DataFrame, arrows: pd.DataFrame) -> Figure:
    """Queries (filled) and keys (open) in the plane, a panel for each head, an arrow to the most attended keys.

    Columns `layer, head, kind, text, label, x, y, share`; and `layer, head, x, y, to_x, to_y`.
    """
    panels = list(points.groupby(["layer", "head"], sort=False))
    labels = sorted(points["label"].unique())
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2 * len(panels) + 0.4))
        axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for ax, ((layer, head), part) in zip(axes, panels, strict=True):
        for label, colour, marker in zip(labels, LABEL_COLOURS, ("s", "o"), strict=False):
            for kind, name, face in (("query", "query", colour), ("key", "demonstration", "white")):
                own = part[(part["label"] == label) & (part["kind"] == kind)]
                ax.scatter(own["x"], own["y"], s=42, marker=marker, facecolor=face, edgecolor=colour, linewidth=1.6,
                           label=f"{name}, {label}", zorder=2)  # fmt: skip
        ax.margins(0.13)
        for row in arrows[(arrows["layer"] == layer) & (arrows["head"] == head)].itertuples():
            ax.annotate("", (row.to_x, row.to_y), (row.x, row.y), zorder=1,
                        arrowprops={"arrowstyle": "->", "color": GREY, "shrinkA": 5, "shrinkB": 6})  # fmt: skip
        _name_points(ax, part)
        ax.set_title(f"head {layer}.{head} ({part['share'].iloc[0]:.0%} of the scores' variance)", fontsize=10.5)
        ax.set(xlabel="first axis", ylabel="second axis")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=8.5, handletextpad=0.2, frameon=False)
    return figure


def _name_points(ax: Axes, points: pd.DataFrame) -> None:
    """Write each point's text beside it, on the side where it meets the fewest points and other texts."""
    size = np.array([WIDTH, 4.2]) * 72  # of a panel, roughly, in typographic points
    low, high = np.transpose([ax.get_xlim(), ax.get_ylim()])
    places = (points[["x", "y"]].to_numpy() - low) / np.where(high > low, high - low, 1) * size
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for (x, y), row in zip(places, points.itertuples(), strict=True):
        width = 4.4 * len(str(row.text))
        choices = [(7, -3, "left"), (-7, -3, "right"), (0, 7, "center"), (0, -13, "center")]
        boxes = []
        for dx, dy, side in choices:
            left = x + dx - {"left": 0, "right": width, "center": width / 2}[side]
            boxes.append((left, y + dy - 1, left + width, y + dy + 7))
        hits = [sum(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in taken) for a in boxes]
        dx, dy, side = choices[int(np.argmin(hits))]
        taken.append(boxes[int(np.argmin(hits))])
        ax.annotate(str(row.text), (row.x, row.y), xytext=(dx, dy), textcoords="offset points", ha=side, fontsize=7.5,
                    style="italic" if row.kind == "query" else "normal", color=INK)  # fmt: skip

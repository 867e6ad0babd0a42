"""Queries and keys in the plane, as the chapter on query and key shows them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from ...publishing import style
from ...publishing.plots import legend_above, panels
from ...publishing.style import GREY, INK

HEIGHT = 4.2  # inches of a panel with its title and axis
AROUND = (0.8, 0.9)  # of them, roughly, outside its axes
FAR = (18, 30, 42, 54)  # typographic points from which a text needs a line to its point
# Where a text may stand: its distance from the point, in typographic points, and which of its sides is there.
CHOICES: list[tuple[int, int, str]] = [(7, -3, "left"), (-7, -3, "right"), (0, 7, "center"), (0, -13, "center")]
CHOICES += [(x, y, side) for far in FAR for y in (far, -far - 5)
            for x, side in ((0, "center"), (9, "left"), (-9, "right"))]  # fmt: skip
LINE: dict[str, Any] = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
LETTER, LONGEST = 4.9, 24  # typographic points of a letter, and letters of a text
POINTS, NEAR = 72, 4  # typographic points to an inch, and from an arrow at which a text would touch it


def plane_figure(points: pd.DataFrame, arrows: pd.DataFrame) -> Drawing:
    """Queries (filled) and keys (open) in the plane, a panel for each head, an arrow to the most attended keys.

    Columns `layer, head, kind, text, label, x, y, share`; and `layer, head, x, y, to_x, to_y`.
    """
    parts = list(points.groupby(["layer", "head"], sort=False))
    labels = sorted(points["label"].unique())
    figure, axes = panels(rows=len(parts), height=HEIGHT * len(parts) + 0.4)
    panel = np.array([figure.get_figwidth(), HEIGHT]) - AROUND
    for ax, ((layer, head), part) in zip(axes, parts, strict=True):
        for label, colour, _, marker in style.label_looks(labels):
            for kind, name, face in (("query", "query", colour), ("key", "demonstration", style.PAPER)):
                own = part[(part["label"] == label) & (part["kind"] == kind)]
                ax.scatter(own["x"], own["y"], s=42, marker=marker, facecolor=face, edgecolor=colour, linewidth=1.6,
                           label=f"{name}, {label}", zorder=2)  # fmt: skip
        _equal_axes(ax, part, panel)
        own_arrows = arrows[(arrows["layer"] == layer) & (arrows["head"] == head)]
        for row in own_arrows.itertuples():
            ax.annotate("", (row.to_x, row.to_y), (row.x, row.y), zorder=1,
                        arrowprops={"arrowstyle": "->", "color": GREY, "shrinkA": 5, "shrinkB": 6})  # fmt: skip
        _name_points(ax, part, own_arrows, panel)
        ax.set_title(f"head {layer}.{head} ({part['share'].iloc[0]:.0%} of the scores' variance)", fontsize=10.5)
        ax.set(xlabel="first axis", ylabel="second axis")
    handles, names = axes[0].get_legend_handles_labels()
    legend_above(figure, handles, names, 5, fontsize=8.5, handletextpad=0.2, frameon=False)
    return figure


def plane_caption(points: pd.DataFrame) -> str:
    """The in-context head comes first, then the sharpest deep head, if it is another."""
    heads = points[["layer", "head"]].drop_duplicates().itertuples(index=False)
    best, *others = [f"Head {layer}.{head}" for layer, head in heads]
    if others:
        who = f"{best} is the in-context head, and {others[0].lower()} the deep head, with the largest AUC"
    else:
        who = f"{best} is an in-context head, and the deep head with the largest AUC"
    return (
        "Queries and keys of one demonstration set in two dimensions, without rotation by position; dot products "
        "approximate q·k. Each arrow leads from a query to the demonstration that gets its largest attention weight "
        f"(with rotation). {who} on the selection half."
    )


def _name_points(ax: Axes, points: pd.DataFrame, arrows: pd.DataFrame, panel: np.ndarray) -> None:
    """Write each point's text beside it, within the axes, where it meets the fewest points, arrows and other texts.

    A line leads from one that is far from its point.

    Args:
        panel: width and height of what is within the axes, in inches.
    """
    low, high = np.transpose([ax.get_xlim(), ax.get_ylim()])
    per_unit = panel * POINTS / (high - low)
    places = (points[["x", "y"]].to_numpy() - low) * per_unit
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in [*places, (0 - low) * per_unit]]
    for start, end in zip(arrows[["x", "y"]].to_numpy(), arrows[["to_x", "to_y"]].to_numpy(), strict=True):
        steps = max(2, int(np.hypot(*(end - start) * per_unit) / NEAR))
        along = (np.linspace(start, end, steps) - low) * per_unit
        taken += [(x - NEAR / 2, y - NEAR / 2, x + NEAR / 2, y + NEAR / 2) for x, y in along]
    for place, row in zip(places, points.itertuples(), strict=True):
        text = str(row.text) if len(str(row.text)) <= LONGEST else f"{str(row.text)[: LONGEST - 1]}…"
        boxes = [_box(place, choice, LETTER * len(text)) for choice in CHOICES]
        hits = [sum(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in taken) for a in boxes]
        out = [a[0] < 0 or a[1] < 0 or a[2] > panel[0] * POINTS or a[3] > panel[1] * POINTS for a in boxes]
        best = int(np.argmin(np.add(hits, out)))
        taken.append(boxes[best])
        dx, dy, side = CHOICES[best]
        ax.annotate(text, (row.x, row.y), xytext=(dx, dy), textcoords="offset points", ha=side, fontsize=8, color=INK,
                    style="italic" if row.kind == "query" else "normal",
                    arrowprops=LINE if abs(dy) >= FAR[0] else None)  # fmt: skip


def _box(place: np.ndarray, choice: tuple[int, int, str], width: float) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of a text beside a place, in typographic points."""
    dx, dy, side = choice
    left = place[0] + dx - {"left": 0, "right": width, "center": width / 2}[side]
    return left, place[1] + dy - 1, left + width, place[1] + dy + 8


def _equal_axes(ax: Axes, points: pd.DataFrame, panel: np.ndarray) -> None:
    """Limits that show all points and the origin, and one unit as long along either axis: angles are those of dot
    products."""
    places = np.vstack([points[["x", "y"]].to_numpy(), [(0, 0)]])
    low, high = places.min(axis=0), places.max(axis=0)
    unit = float(np.max(1.3 * (high - low) / panel)) or 1.0  # per inch, with a margin
    middle, half = (low + high) / 2, unit * panel / 2
    ax.set(xlim=(middle[0] - half[0], middle[0] + half[0]), ylim=(middle[1] - half[1], middle[1] + half[1]))
    ax.set_aspect("equal", adjustable="box")
    ax.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    ax.plot(0, 0, "+", color=INK, markersize=11, markeredgewidth=1.6, zorder=1, label="origin")

"""Figures of the performance page."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter

from .figures import BLUE, GREY, MARKERS, ORANGE, _axes

NAMES = {"heads": "heads removed", "prompts": "prompts of the set", "length": "packed tokens"}
MOST_TICKS = 7
LARGEST = 300.0  # decimal logarithm beyond which an axis would overflow


def ratios(table: pd.DataFrame) -> Figure:
    """Time over ours, a point a way, with its spread over repeats; log scale. `way, ratio, ratio_low, ratio_high`.

    A way whose ratio is zero or not finite keeps its line, without a point.
    """
    figure, (ax,) = _axes(height=0.45 * max(1, len(table)) + 1.0)
    place = np.arange(len(table))[::-1]
    drawn = positive(table["ratio"])
    part, y = table[drawn], place[drawn]
    ratio = part["ratio"].to_numpy(float)
    low, high = (part[name].where(positive(part[name]), part["ratio"]) for name in ("ratio_low", "ratio_high"))
    spread = np.maximum(0.0, [ratio - low, high - ratio])
    left, right = log_limits([*ratio, *low, *high, 1.0])
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    ax.errorbar(ratio, y, xerr=spread, fmt=MARKERS[0], color=BLUE, capsize=3)
    for height, value in zip(y, ratio, strict=True):
        ax.annotate(f"{value:.3g}", (value, height), xytext=(0, 6), textcoords="offset points", ha="center")
    _mark_ours(ax, left, right)
    ax.set_yticks(place, list(table["way"]))
    ax.set_ylim(-0.6, max(1, len(table)) - 0.3)
    ax.xaxis.set_major_locator(FixedLocator(log_ticks(left, right)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _number(x)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("time over ours")
    return figure


def positive(values: pd.Series) -> np.ndarray:
    """Which values can stand on a logarithmic axis."""
    numbers = values.to_numpy(float)
    return np.isfinite(numbers) & (numbers > 0)


def log_limits(values: Iterable[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis around positive values, with room for the label of an outermost point."""
    logs = [math.log10(value) for value in values]
    room = max(0.02, 0.1 * (max(logs) - min(logs)))
    return 10 ** max(-LARGEST, min(logs) - room), 10 ** min(LARGEST, max(logs) + room)


def log_ticks(left: float, right: float) -> list[float]:
    """Round numbers within the limits of a logarithmic axis: two at least, and so few that they do not touch."""
    decades = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    fine = _within([float(f"{step}e{decade}") for decade in decades for step in (1, 2, 5)], left, right)
    if len(fine) < 3 and right < 5 * left:  # round numbers at equal distances, which are not too unequal here
        return _within(MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(left, right), left, right)
    if len(fine) <= MOST_TICKS:
        return fine
    every = math.ceil(len(decades) / MOST_TICKS)
    return _within([float(f"1e{decade}") for decade in decades if decade % every == 0], left, right)


def _within(ticks: Iterable[float], left: float, right: float) -> list[float]:
    return [float(tick) for tick in ticks if left <= tick <= right]


def _number(x: float) -> str:
    """A tick's label, short also if it is far from 1: `0.01`, `200`, `1e-5`."""
    if 1e-3 <= x < 1e5:
        return f"{x:g}"
    digits, _, power = f"{x:.0e}".partition("e")
    return f"{digits}e{int(power)}"


def _mark_ours(ax: Axes, left: float, right: float) -> None:
    """A line at 1, named on the side where there is more room."""
    leftwards = math.log(right) < -math.log(left)
    ax.axvline(1, color=GREY, linestyle=":", linewidth=1.3)
    ax.annotate(
        "ours", (1, 0), xycoords=("data", "axes fraction"), xytext=(-4 if leftwards else 4, 4),
        textcoords="offset points", color=GREY, ha="right" if leftwards else "left",
    )  # fmt: skip


def scaling(table: pd.DataFrame) -> Figure:
    """Seconds and their floor against heads, prompts and tokens. `against, x, seconds, floor`."""
    figure, axes = _axes(columns=3, height=2.9)
    for ax, against in zip(axes, NAMES, strict=True):
        part = table[table["against"] == against]
        ax.plot(part["x"], part["seconds"], color=BLUE, marker=MARKERS[0], label="measured")
        ax.plot(part["x"], part["floor"], color=ORANGE, marker=MARKERS[1], linestyle="--", label="floor")
        ax.set_xlabel(NAMES[against])
        ax.set_ylim(0, _top(part[["seconds", "floor"]]))
        ax.set_xlim(0, _top(part[["x"]]))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))  # 120k is short enough for a narrow panel
        ax.yaxis.set_major_locator(MaxNLocator(5))
        formatter = ScalarFormatter()
        formatter.set_powerlimits((-3, 5))
        ax.yaxis.set_major_formatter(formatter)
    axes[0].set_ylabel("seconds")
    axes[0].legend(fontsize=9)
    return figure


def _top(values: pd.DataFrame) -> float:
    """The end of an axis from 0: a little above the largest value that is a number, or 1 if none is above 0."""
    numbers = values.to_numpy(float)
    largest = numbers[np.isfinite(numbers)].max(initial=0.0)
    return 1.05 * float(largest) if largest > 0 else 1.0

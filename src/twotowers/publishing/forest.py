"""The forest: all claims of a model in one picture, each effect in units of its smallest effect of interest."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..paper import CLAIMS
from ..statistics import CONTRADICTED, INCONCLUSIVE, NEGLIGIBLE, SUPPORTED, UNSTABLE, Verdict
from . import style
from .ledger import NOT_RUN, measured
from .plots import panels

# Marker, colour and whether it is filled: each pair differs in grey as well.
LOOKS = {
    SUPPORTED: ("o", style.SUPPORTED, True),
    NEGLIGIBLE: ("o", style.SUPPORTED, False),
    CONTRADICTED: ("X", style.CONTRADICTED, True),
    INCONCLUSIVE: ("D", style.OPEN, False),
    UNSTABLE: ("^", style.OPEN, False),
}
OTHER = ("s", style.OPEN, False)
LIMIT = 1000.0  # smallest effects; beyond, an interval leaves the picture
CONTROL = "control"


def forest_table(verdicts: Mapping[str, Verdict]) -> pd.DataFrame:
    """What the picture is drawn from: `claim, verdict, unit, smallest, mean, low, high` and the control's interval."""
    rows = []
    for name, claim in CLAIMS.items():
        made = verdicts.get(name)
        effect = (made.mean, made.low, made.high) if made else (math.nan,) * 3
        control = made.control if made else None
        beside = (control.mean, control.low, control.high) if control else (math.nan,) * 3
        rows.append((name, made.verdict if made else NOT_RUN, claim.unit, claim.smallest, *effect, *beside))
    columns = ["claim", "verdict", "unit", "smallest", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, *(f"{CONTROL}_{x}" for x in ("mean", "low", "high"))])


def forest(table: pd.DataFrame) -> Figure:
    """Effects with intervals and controls, a row a claim, on an axis that is linear up to the smallest effect.

    In a narrow place claims are told by their number only.
    """
    figure, (ax,) = panels(height=0.33 * len(table) + 1.2)
    ax.axvspan(-1, 1, color=style.GREY, alpha=0.15, linewidth=0)
    ax.axvline(0, color=style.INK, linewidth=0.8)
    for place, row in enumerate(table.to_dict("records")):
        _row(ax, place, row)
    ax.set_xscale("symlog", linthresh=1, linscale=1.2)
    reach = np.abs(_scaled(table).to_numpy(dtype=float))
    reach = min(LIMIT, max(10.0, float(np.nanmax(reach, initial=0.0)) * 1.5))
    ticks = [x for x in (1, 10, 100, 1000) if x <= reach]
    ax.set_xticks(
        [*(-x for x in reversed(ticks)), 0, *ticks], [f"{x:g}" for x in [*(-t for t in ticks[::-1]), 0, *ticks]]
    )
    ax.set_xlim(-reach, reach)
    names = [name if style.narrow() else _label(name) for name in table["claim"]]
    ax.set_yticks(range(len(table)), names, fontsize=8.5)
    ax.set_ylim(len(table) - 0.4, -0.6)
    between = "\n" if style.narrow() else " "
    ax.set_xlabel(f"effect, in smallest effects of interest{between}(positive: as the paper says)")
    ax.grid(visible=False, axis="y")
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(table)), list(table["verdict"]), fontsize=8.5)
    for axis in (ax, right):
        axis.tick_params(axis="y", length=0)
    return figure


def _row(ax: Axes, place: int, row: Mapping[Hashable, object]) -> None:
    values = {name: float(str(row[name])) / float(str(row["smallest"])) for name in _NUMBERS}
    marker, colour, filled = LOOKS.get(str(row["verdict"]), OTHER)
    if math.isfinite(values["control_mean"]):
        low, high = values["control_low"], values["control_high"]
        ax.plot([low, high], [place + 0.24] * 2, color=style.GREY, linewidth=1)
        ax.plot(values["control_mean"], place + 0.24, "|", color=style.GREY, markersize=7, markeredgewidth=1.6)
    if math.isfinite(values["mean"]):
        ax.plot([values["low"], values["high"]], [place] * 2, color=colour, linewidth=1.8)
        face = colour if filled else style.PAPER
        ax.plot(values["mean"], place, marker, color=colour, markerfacecolor=face, markersize=7, markeredgewidth=1.4)


_NUMBERS = ("mean", "low", "high", "control_mean", "control_low", "control_high")


def _scaled(table: pd.DataFrame) -> pd.DataFrame:
    return table[list(_NUMBERS)].div(table["smallest"], axis=0)


def _label(claim: str) -> str:
    """A claim on at most two lines."""
    words, lines = f"{claim}: {CLAIMS[claim].sentence.rstrip('.')}".split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 34 and len(lines) < 2:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def forest_caption(model: str) -> str:
    return (
        f"All claims on {model}. Marker and line: effect and 95% interval over demonstration sets, each divided by its "
        f"smallest effect of interest, so the shaded band is what would not matter. A filled circle is supported, a "
        f"cross contradicted; all hollow markers are neither. Upright ticks in grey: the control's effect with its "
        f"interval, where there is one. The axis is linear in the band and logarithmic outside."
    )


def forest_alt(verdicts: Mapping[str, Verdict]) -> str:
    """Every claim with its verdict and effect."""
    parts = []
    for name, claim in CLAIMS.items():
        made = verdicts.get(name)
        known = made is not None and made.estimate.known
        effect = f", {measured(made.estimate, claim)}" if made is not None and known else ""
        parts.append(f"{name} {made.verdict if made else NOT_RUN}{effect}")
    return f"Forest plot with a row a claim. {'; '.join(parts)}."

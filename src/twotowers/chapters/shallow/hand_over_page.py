"""What the chapter on shallow layers shows of the hand-over test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ...publishing.plots import banded_line, legend_above, panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.style import GREY, LABEL, LAST, QUERY, SEPARATOR, TEXT
from ...publishing.wording import intervals, plural
from .crossing import MERGES

STYLES = {
    "text": (TEXT, "^", "--"),
    "text+separator": (SEPARATOR, "D", "-"),
    "label": (LABEL, "o", "-"),
    "query": (QUERY, "s", "-"),
    "last": (LAST, "v", "--"),
}
NAMES = {
    "text": "text",
    "text+separator": "text and separator",
    "label": "labels",
    "query": "query",
    "last": "last position",
}


def hand_over_figure(facts: Facts, curve: pd.DataFrame) -> Drawing:
    """Share of the margin by layer, a line a place; the exchange within a class drawn faintly.

    Columns `place, within, layer, mean, low, high`.
    """
    figure, (ax,) = panels(height=4.4)
    ax.axhline(0, color=GREY, linewidth=1.0)
    ax.axvline(facts.n_layers / 2, color=GREY, linestyle="-.", linewidth=1.3, label="half the layers")
    for place, (colour, marker, line) in STYLES.items():
        part = curve[curve["place"] == place].sort_values("layer")
        banded_line(ax, part[~part["within"]], "layer", label=NAMES[place], colour=colour, marker=marker, line=line)
        kept = part[part["within"]]
        ax.plot(kept["layer"], kept["mean"], color=colour, linestyle=":", alpha=0.45, label=f"_{place} within a class")
    ax.plot([], [], color=GREY, linestyle=":", alpha=0.6, label="exchanged within a class")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="residual entering layer", ylabel="margin, as a share of the intact one")
    legend_above(figure, *ax.get_legend_handles_labels())
    return figure


def _caption(crossings: pd.DataFrame) -> str:
    sets = int(crossings["sets"].max())
    return (
        f"The margin that is left when the residual that enters a layer is exchanged between the classes at one kind "
        f"of place, as a share of the intact margin: at -100% everything that the answer needs stands there, at 100% "
        f"it has left. Dotted: the same exchange within a class. "
        f"{intervals('Bands', sets)}"
    )


def _alt(crossings: pd.DataFrame) -> str:
    found = ", ".join(f"{NAMES[place]} {_layer(crossings, place)}" for place in NAMES)
    return f"Line chart of the share of the margin by layer, a line for each of five places. They pass zero: {found}."


HAND_OVER = Figure("shallow-hand-over", draw=hand_over_figure, caption=_caption, alt=_alt)


def _hand_over(facts: Facts, crossings: pd.DataFrame, kept: pd.DataFrame, claim: str) -> str:
    """Where the two places of a claim cross, whether that is shallow, and what an exchange within a class leaves."""
    place = MERGES[claim]
    places = [place, "label"] if claim == "C1" else [place, "last", "label"]
    found = "; ".join(f"{NAMES[p]}, {_layer(crossings, p, interval=True)}" for p in places)
    parts = [f"Where the share passes zero: {found}.", _depth(facts, _row(crossings, place), NAMES[place])]
    lacking = [p for p in places if _row(crossings, p).known < _row(crossings, p).sets]
    if lacking:
        counts = " and ".join(f"{NAMES[p]} in {_row(crossings, p).sets - _row(crossings, p).known}" for p in lacking)
        sets = int(crossings["sets"].max())
        parts.append(f"Without a crossing, and left out: {counts} of {sets} {plural(sets, 'demonstration set')}.")
    lowest = kept["effect"].mean()
    if np.isfinite(lowest):
        parts.append(f"Exchanged within a class, at least {lowest:z.0%} of the margin stays, at any layer read, "
                     f"in the mean over sets.")  # fmt: skip
    else:
        parts.append("What an exchange within a class leaves is not known.")
    return " ".join(parts)


TEXT_CROSSING = Text("shallow-text-crossing", write=_hand_over)
QUERY_CROSSING = Text("shallow-query-crossing", write=_hand_over)

# Wording


def _row(crossings: pd.DataFrame, place: str) -> Any:
    return next(crossings[crossings["place"] == place].itertuples(index=False))


def _layer(crossings: pd.DataFrame, place: str, *, interval: bool = False) -> str:
    """At which layer a place crosses, in the mean over sets."""
    row = _row(crossings, place)
    if not np.isfinite(row.mean):
        return "nowhere"
    if not interval or not np.isfinite([row.low, row.high]).all():
        return f"at layer {row.mean:z.1f}"
    return f"at layer {row.mean:z.1f} ({row.low:z.1f} to {row.high:z.1f})"


def _depth(facts: Facts, row: Any, name: str) -> str:
    """Half the layers minus the crossing layer, in number and words."""
    half = facts.n_layers / 2
    number = f"Half the layers minus the crossing of {name} is"
    if not np.isfinite(row.mean):
        return f"{number} not known."
    early, low, high = half - row.mean, half - row.high, half - row.low
    if not np.isfinite([low, high]).all():
        return f"{number} {early:+z.1f}; one demonstration set gives no interval."
    if low > 0:
        words = "merging ends in the shallow half"
    elif high < 0:
        words = "merging ends beyond the shallow half"
    else:
        words = "whether merging ends in the shallow half is not decided"
    return f"{number} {early:+z.1f} ({low:+z.1f} to {high:+z.1f}): {words}."

"""What the chapter on query and key shows of the exchange test, its central figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator, NullLocator

from ...publishing import style
from ...publishing.plots import banded_line, legend_above, panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.style import GREY
from ...publishing.wording import groups_as_good, head_names, intervals
from .edges import DRAWS
from .exchanging import ALL_DEEP, CHOSEN, INTACT, OTHERS, RANDOM, STRONGEST

ROWS = {
    "none": "nothing exchanged",
    "query-other": "query of another class",
    "query-same": "query of the same class",
    "keys": "keys of the labels",
    "values": "values of the labels",
    "keys-values": "keys and values",
}
SERIES = {
    CHOSEN: (style.TESTED, "o", 0.0),
    STRONGEST: (style.STRONGEST, "^", -0.18),
    ALL_DEEP: (style.WHOLE, "D", 0.18),
    OTHERS: (style.OTHERS, "s", 0.34),
}
LINES = {"first": (style.TESTED, "o", "-"), "all but the first": (style.OTHERS, "s", "--")}


def exchange_figure(means: pd.DataFrame, curve: pd.DataFrame) -> Drawing:
    """Margins, a row for each part and a mark for each group of heads; beside them the curve over the first n heads.

    Columns `name, part, draw, mean, low, high`, and `name, n, mean, low, high`.
    """
    figure, (ax, right) = panels(2, height=4.4)
    parts = list(ROWS)
    intact = means[means["name"] == INTACT]
    for value in intact["mean"]:
        ax.axvline(value, color=GREY, linewidth=1.2)
    for name, (colour, marker, shift) in SERIES.items():
        part = means[means["name"] == name]
        y = np.array([parts.index(p) for p in part["part"]]) + shift
        whiskers = [(part["mean"] - part["low"]).fillna(0).clip(0), (part["high"] - part["mean"]).fillna(0).clip(0)]
        if len(part):
            ax.errorbar(part["mean"], y, xerr=whiskers, fmt=marker, color=colour, capsize=2, markersize=5, label=name)
    drawn = means[means["name"] == RANDOM]
    if len(drawn):
        rows = [parts.index(p) - 0.32 for p in drawn["part"]]
        ax.plot(drawn["mean"], rows, "|", color=style.RANDOM, markersize=8, label=RANDOM)
    ax.axvline(0, color=GREY, linestyle=":", linewidth=1.3)
    ax.set_yticks(range(len(parts)), ROWS.values())
    ax.set_ylim(len(parts) - 0.5, -0.6)
    ax.set(xlabel="margin (logits)")
    for name, (colour, marker, line) in LINES.items():
        own = curve[curve["name"] == name]
        banded_line(right, own, "n", label=f"{name} n", colour=colour, marker=marker, line=line)
    right.axhline(0, color=GREY, linestyle=":", linewidth=1.3)
    right.set_xscale("symlog", base=2, linthresh=1)
    right.set_xlim(-0.5, 1.35 * max(curve["n"]))  # markers at both ends are whole
    ticks = sorted(set(curve["n"]))
    right.xaxis.set_major_locator(FixedLocator(ticks))
    right.xaxis.set_minor_locator(NullLocator())
    right.set_xticklabels([str(n) if n in (0, 1, 4, 16, max(ticks)) else "" for n in ticks])
    right.set(xlabel="number of heads n", ylabel="margin (logits)")
    right.legend(loc="best", fontsize=8.5)
    legend_above(figure, *ax.get_legend_handles_labels())
    return figure


def _caption(facts: Facts, means: pd.DataFrame, heads: Sequence[Sequence[int]], sets: int, curve_sets: int) -> str:
    drawn = means[means["name"] == RANDOM]["draw"].nunique()
    beside = f" Grey bars: {drawn} random groups of as many other deep heads." if drawn else ""
    below = "Below zero the model gives the *other* label."
    if len(facts.labels) > 2:
        below = "Below zero the *next* label is more likely than the right one."
    curve = intervals("Bands", curve_sets) if curve_sets > 1 else "The curves are of one set, so without intervals."
    return (
        f"Left: margin (right label's logit minus the {facts.exchanged} label's) on the evaluation half when one "
        "part of a head's computation at the last position is exchanged between the classes, in the in-context heads "
        f"({head_names(heads)}), in the strongest of them, in all deep heads, and "
        f"in all deep heads but these.{beside} {below} Grey line: nothing "
        f"exchanged. Right: the query of the {facts.exchanged} class in the first n deep heads by exchange score, "
        f"and in all but the first n. {curve} {intervals('Whiskers', sets)}"
    )


def _alt(means: pd.DataFrame) -> str:
    sentences = []
    for name in (INTACT, *SERIES):
        part = means[means["name"] == name]
        cells = [f"{ROWS[what]} {value:z.2f}" for what, value in zip(part["part"], part["mean"], strict=True)]
        if cells:
            sentences.append(f"{name}: {', '.join(cells)}.")
    drawn = means[(means["name"] == RANDOM) & (means["part"] == "query-other")]["mean"]
    if len(drawn):
        sentences.append(f"Random groups with a query of another class: {drawn.min():z.2f} to {drawn.max():z.2f}.")
    return " ".join(["Margins in rows by what is exchanged, and a curve over heads.", *sentences])


EXCHANGE = Figure("towers-exchange", draw=exchange_figure, caption=_caption, alt=_alt)


def _found(
    facts: Facts,
    means: pd.DataFrame,
    accuracy: Mapping[str, float],
    shares: Mapping[str, float],
    random: Sequence[float],
) -> str:
    """What the exchanges do to margin and answers, beside the heads that are not in-context."""
    mean = means.groupby(["name", "part"])["mean"].mean().to_dict()
    intact = mean[INTACT, "none"]
    if not np.isfinite(intact) or intact <= 0:
        return "The intact model has no margin, so there is nothing that an exchange could turn round."
    own = {part: mean[CHOSEN, part] for part in ROWS if (CHOSEN, part) in mean}
    words = [
        f"With the queries of the in-context heads exchanged between the classes, the margin goes from {intact:z.2f} "
        f"to **{own['query-other']:z.2f}** and accuracy {facts.between} from {accuracy['none']:.0%} to "
        f"**{accuracy['query-other']:.0%}**; within a class, to {own['query-same']:z.2f} and "
        f"{accuracy['query-same']:.0%}.",
        f"With their keys exchanged it goes to {own['keys']:z.2f}, with their values to {own['values']:z.2f}, with "
        f"both to {own['keys-values']:z.2f}.",
    ]
    if (OTHERS, "query-other") in mean:
        words.append(f"The same queries in all other deep heads leave {mean[OTHERS, 'query-other']:z.2f}.")
    if CHOSEN in shares and np.isfinite(shares[CHOSEN]):
        spread = f", random groups {min(random):z.0%} to {max(random):z.0%}" if random else ""
        others = f", all other deep heads together {shares[OTHERS]:z.0%}" if OTHERS in shares else ""
        words.append(
            f"So the class of the query moves **{shares[CHOSEN]:z.0%}** of the intact margin through the in-context "
            f"heads{others}{spread}."
        )
    return " ".join(words)


FOUND = Text("towers-exchanged", write=_found)


def _beside(what: str, form: Callable[[float], str], own: Mapping[str, float], others: float, share: float) -> str:
    """An effect of the in-context heads beside all other deep heads."""
    known = {name: x for name, x in own.items() if np.isfinite(x)}
    if not known:
        return f"{what} is not defined for these heads."
    each = ", ".join(f"{name} {form(x)}" for name, x in known.items())
    average = f"; the average of all other deep heads is {form(others)}" if np.isfinite(others) else ""
    draws = f"; {groups_as_good(round(share * (1 + DRAWS)) - 1, DRAWS)}" if np.isfinite(share) else ""
    return f"{what}: **{form(float(np.mean(list(known.values()))))}** a head ({each}){average}{draws}."


def _attention_beside(own: Mapping[str, float], others: float, share: float) -> str:
    return _beside(
        "Attention to the same class minus the other, in points", lambda x: f"{100 * x:+z.1f}", own, others, share
    )


def _agreement_beside(own: Mapping[str, float], others: float, share: float) -> str:
    return _beside("Rank correlation of weight and label moved", lambda x: f"{x:+z.2f}", own, others, share)


ATTENTION_BESIDE = Text("towers-attention-beside", write=_attention_beside)
AGREEMENT_BESIDE = Text("towers-agreement-beside", write=_agreement_beside)

"""What the chapter on order shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from ...paper import PAPER_ORDER_ACCURACY
from ...publishing import style
from ...publishing.markdown import escape, table_text
from ...publishing.plots import banded_line, few_ticks, legend_above, panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.style import GREY, MARKERS
from ...publishing.wording import TINY, counted, estimate_of, intervals, joined, relative, said
from ...statistics import Estimate
from ...tracing.controls import INTACT
from ...tracing.heads import CHOSEN, RANDOM

LINES = {CHOSEN: ("in-context heads", style.TESTED, "s", "-"), RANDOM: ("random heads", style.RANDOM, "D", "--")}
POSITION = {INTACT: ("nowhere (intact)", style.WHOLE, "o"), **{heads: look[:3] for heads, look in LINES.items()}}
TITLES = {
    "last": "the last demonstrations",
    "first": "the first demonstrations",
    "p_gold": "P(right label)",
    "margin": "margin, relative to its size",
}

Groups = Mapping[str, Sequence[Sequence[int]]]  # heads by the name of their group
Orders = Sequence[Sequence[int]]  # permutations of the demonstrations' numbers


# The label at an end


def removal_figure(summary: pd.DataFrame) -> Drawing:
    """A panel for each measure, a dot for each group of heads that attends without position.

    Columns `measure` (keys of `TITLES`), `heads` (keys of `POSITION`), `mean, low, high`.
    """
    measures = list(dict.fromkeys(summary["measure"]))
    figure, axes = panels(len(measures), height=2.6, sharey=True)
    groups = [heads for heads in POSITION if heads in set(summary["heads"])]
    for ax, measure in zip(axes, measures, strict=True):
        part = summary[summary["measure"] == measure].set_index("heads")
        for place, heads in enumerate(groups):
            _, colour, marker = POSITION[heads]
            mean, low, high = (part.loc[heads, name] for name in ("mean", "low", "high"))
            ax.errorbar([mean], [place], xerr=[[mean - low], [high - mean]], color=colour, marker=marker, capsize=3)
        ax.axvline(0, color=GREY, linewidth=1)
        ax.set_title(TITLES[measure], fontsize=10)
        few_ticks(ax)
        ax.grid(visible=False, axis="y")
    axes[0].set_yticks(range(len(groups)), [POSITION[heads][0] for heads in groups])
    axes[0].set_ylim(len(groups) - 0.5, -0.5)
    return figure


def response_figure(facts: Facts, summary: pd.DataFrame) -> Drawing:
    """`removal_figure` of what the label at an end gives to P(foo), that is of the second label."""
    figure = removal_figure(summary)
    first, second = facts.labels
    figure.supxlabel(f"P({second}), {second} there minus {first} there", fontsize="medium")
    return figure


def _response_caption(facts: Facts, summary: pd.DataFrame, groups: int, heads: int, sets: int) -> str:
    return (
        f"What the label of the last two demonstrations, and of the first two, gives to P({escape(facts.labels[1])}), "
        f"two-way: "
        f"paired orders, in which they are exchanged for two of the other label from the middle. By where the last "
        f"position attends without position. {_spans(summary, groups, heads, sets)}"
    )


def _removal_alt(summary: pd.DataFrame) -> str:
    parts = [
        f"{TITLES[str(row['measure'])]}, position removed from {POSITION[str(row['heads'])][0]}: {row['mean']:+z.3f}"
        for row in summary.to_dict("records")
    ]
    return f"Dot charts, one for each measure. {'; '.join(parts)}."


RESPONSE = Figure("order-response", draw=response_figure, caption=_response_caption, alt=_removal_alt)


def _ends_told(summary: pd.DataFrame, accuracies: pd.DataFrame) -> str:
    """The effects of both ends, and what is left of them."""
    rows = [
        (TITLES[measure], _said(_found(summary, measure, INTACT), 3), _said(_found(summary, measure, CHOSEN), 3))
        for measure in dict.fromkeys(summary["measure"])
    ]
    table = table_text(("label of", "intact", "in-context heads without position"), rows)
    return f"{table}\n\n{_accuracy(accuracies)}"


ENDS = Text("order-ends", write=_ends_told)


# Attention by distance


def attention_figure(profile: pd.DataFrame) -> Drawing:
    """Attention to a label position by distance. Columns `heads, same, distance, mean, low, high`."""
    groups = _present(profile)
    figure, axes = panels(len(groups), height=3.6, sharey=True)
    for ax, heads in zip(axes, groups, strict=True):
        for same, colour, marker, line in ((True, style.SAME, MARKERS[0], "-"), (False, style.OTHER, MARKERS[1], "--")):
            part = profile[(profile["heads"] == heads) & (profile["same"] == same)]
            label = "label of the query's class" if same else "label of the other class"
            banded_line(ax, part, "distance", label=label, colour=colour, marker=marker, line=line)
        ax.set(title=LINES[heads][0], xlabel="distance from the query\n(demonstrations)")
        ax.set_ylim(0, 1.1 * profile[["mean", "high"]].max().max() or 1)
    axes[0].set_ylabel("attention weight")
    _legend(figure, axes)
    return figure


def _attention_caption(groups: Groups, sets: int) -> str:
    control = f" and {_control(groups)}" if RANDOM in groups else ""
    return (
        f"Attention of the last position to one label position, by its distance from the query (1: the last "
        f"demonstration), mean over heads; {counted(len(groups[CHOSEN]), f'{CHOSEN} head')}{control}. "
        f"{intervals('Bands', sets)}"
    )


def _attention_alt(profile: pd.DataFrame) -> str:
    points = profile[profile["heads"] == CHOSEN].groupby("distance")["mean"].mean()
    number = len(_present(profile))
    charts = "Two line charts over distance, each" if number > 1 else "Line chart over distance"
    ends = [
        f"At distance {x:g}, the in-context heads give a label {points[x]:.3f} on average." for x in _ends(points.index)
    ]
    return f"{charts} with a line for labels of the query's class and one for the other class. {' '.join(ends)}"


ATTENTION = Figure("order-attention", draw=attention_figure, caption=_attention_caption, alt=_attention_alt)


def _gaps(gaps: pd.DataFrame) -> str:
    """Whether a nearer label gets more attention than a farther one of the same class."""
    rows = []
    for row in gaps.to_dict("records"):
        gap, name = estimate_of(row), "own" if row["same"] else "other"
        rows.append((f"{row['heads']} heads", name, _said(gap, 4), _word(gap)))
    return table_text(("heads", "class of the label", "nearer half minus farther half", "the interval says"), rows)


GAPS = Text("order-gaps", write=_gaps)


# Without the position term


def mitigation_figure(summary: pd.DataFrame) -> Drawing:
    """`removal_figure` of standard deviations over orders."""
    figure = removal_figure(summary)
    figure.supxlabel("standard deviation over orders", fontsize="medium")
    return figure


def _mitigation_caption(summary: pd.DataFrame, orders: Orders, groups: int, heads: int, sets: int) -> str:
    return (
        f"Standard deviation of a query over {len(orders)} orders of its demonstrations: of the two-way probability of "
        f"the right label, and of the margin, over the margin's mean size. By where the last position attends without "
        f"position. {_spans(summary, groups, heads, sets)}"
    )


MITIGATION = Figure("order-mitigation", draw=mitigation_figure, caption=_mitigation_caption, alt=_removal_alt)


def _steadied(summary: pd.DataFrame, accuracies: pd.DataFrame, swings: pd.DataFrame) -> str:
    """What removing position does to every deviation, to accuracy, and to the paper's number."""
    rows = []
    for measure in dict.fromkeys(summary["measure"]):
        before, after = (_found(summary, measure, heads) for heads in (INTACT, CHOSEN))
        rows.append((TITLES[measure], _said(before, 3), _said(after, 3), relative(before.mean, after.mean, 1)))
    table = table_text(("standard deviation of", "intact", "in-context heads without position", "change"), rows)
    moved = swings.set_index("heads")["effect"]
    return (
        f"{table}\n\n{_accuracy(accuracies)} The accuracy of all prompts together, over the full vocabulary, has a "
        f"standard deviation over orders of {moved[INTACT]:.4f} intact and {moved[CHOSEN]:.4f} without position "
        f"({relative(moved[INTACT], moved[CHOSEN], 1)}); the paper has {_sourced(PAPER_ORDER_ACCURACY)}."
    )


STEADIED = Text("order-steadied", write=_steadied)


# Wording


def _accuracy(accuracies: pd.DataFrame) -> str:
    own = accuracies.set_index("heads")["accuracy"]
    return f"Two-way accuracy on these prompts is {own[INTACT]:.1%} intact and {own[CHOSEN]:.1%} without position."


def _found(summary: pd.DataFrame, measure: str, heads: str) -> Estimate:
    place = (summary["measure"] == measure) & (summary["heads"] == heads)
    return estimate_of(summary[place].to_dict("records")[0])


def _spans(summary: pd.DataFrame, groups: int, heads: int, sets: int) -> str:
    random = f" Random heads: {groups} groups of {counted(heads, 'head')}, from the least to the greatest."
    return f"{intervals('Bars', sets)}{random if RANDOM in set(summary['heads']) else ''}"


def _present(table: pd.DataFrame) -> list[str]:
    """The groups of heads that a table has: layers without other heads leave no random ones."""
    return [heads for heads in LINES if heads in set(table["heads"])]


def _ends(values: Iterable[float]) -> list[float]:
    """The first and the last of sorted values; one of them, if there is no more."""
    return sorted({min(values := list(values)), max(values)})


def _control(groups: Groups) -> str:
    return f"{counted(len(groups[RANDOM]), f'{RANDOM} head')} of the same layers"


def _sourced(changes: Sequence[tuple[float, str]]) -> str:
    """The paper's changes with their sources; one that they share is said once."""
    sources = [source for _, source in changes]
    return joined(
        [
            f"{change:+g}%" + ("" if source in sources[i + 1 :] else f" ({source})")
            for i, (change, source) in enumerate(changes)
        ]
    )


def _said(e: Estimate, first: int) -> str:
    """A mean with its interval, if there is one; more digits where a number would look like zero."""
    values = [x for x in (e.mean, e.low, e.high) if abs(x) >= TINY]
    digits = next((n for n in range(first, 6) if all(round(x, n) for x in values)), 6)
    return said(e, f"+z.{digits}f")


def _word(e: Estimate) -> str:
    if not e.known:
        return "no interval of one set"
    return {1: "as the paper predicts", -1: "against the paper", 0: "undecided"}[int(e.low > 0) - int(e.high < 0)]


def _legend(figure: Drawing, axes: Sequence[Axes]) -> None:
    """One legend for all panels."""
    shown = {name: handle for ax in axes for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    legend_above(figure, list(shown.values()), list(shown))

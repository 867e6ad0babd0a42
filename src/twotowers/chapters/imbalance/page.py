"""What the chapter on imbalance shows of the bias; its remedies are on `mitigation_page`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import PercentFormatter

from ...publishing import style
from ...publishing.markdown import escape
from ...publishing.plots import banded_line, few_ticks, fitting, legend_above, panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.style import GREY, LABEL_COLOURS
from ...publishing.wording import counted, estimate_of, intervals, said
from ...statistics import Estimate
from ...tracing.controls import INTACT, OTHERS, is_random
from ...tracing.heads import CHOSEN, RANDOM

TITLES = {"attention": "attention, by label at position", "values": "weighted values, likewise"}
UNITS = {"attention": "summed weight", "values": "logit minus (logits)"}
# group of heads -> where attention is balanced by count, colour, marker, line
LINES = {
    INTACT: ("nowhere (intact)", style.WHOLE, "o", "-"),
    CHOSEN: ("in-context heads", style.TESTED, "s", "-"),
    OTHERS: ("all other deep heads", style.OTHERS, "^", "--"),
    RANDOM: ("random heads", style.RANDOM, "D", ":"),
}

Groups = Mapping[str, Sequence[Sequence[int]]]  # heads by the name of their group


LABELS = ("bar", "foo")  # the first and the second label in tables, whatever they are


# What the share does


def response_figure(facts: Facts, curves: pd.DataFrame, means: pd.DataFrame, sums: pd.DataFrame) -> Drawing:
    """P(foo), that is of the second label, by share under count-balanced attention, its slopes, and heads at labels.

    Columns: `curves` `heads` (keys of `LINES`), `share, mean, low, high`; `means` `heads` (each random group by its
    own name), `mean, low, high`; `sums` `panel` (a key of `TITLES`), `line` (one of `LABELS`), `heads, share`,
    `mean, low, high`, random heads dashed.
    """
    figure, axes = panels(2, 6.6, rows=2)
    for heads, (name, colour, marker, line) in _present(curves).items():
        part = curves[curves["heads"] == heads]
        banded_line(axes[0], part, "share", label=name, colour=colour, marker=marker, line=line)
    names_of = dict(zip(LABELS, facts.labels, strict=True))
    axes[0].set(
        title=f"how probable {facts.labels[1]} is", ylabel=f"P({facts.labels[1]}), between two labels", ylim=(0, 1.02)
    )
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    _slope_dots(axes[1], means)
    for ax, panel in zip(axes[2:], TITLES, strict=True):
        own = sums[sums["panel"] == panel]
        for (label, colour, marker), (whose, part) in (
            (look, item)
            for look in zip(LABELS, LABEL_COLOURS, ("s", "o"), strict=True)
            for item in own[own["line"] == look[0]].groupby("heads", sort=False)
        ):
            line, name = ("--", f"{names_of[label]}, random heads") if whose == RANDOM else ("-", names_of[label])
            banded_line(ax, part, "share", label=name, colour=colour, marker=marker, line=line)
        ax.set(title=TITLES[panel], ylabel=UNITS[panel])
    axes[3].axhline(0, color=GREY, linewidth=1)
    for ax in axes:
        ax.title.set_fontsize(10.5)
    _share_axis([axes[0], *axes[2:]], sorted(sums["share"].unique()), facts.labels)
    small: Any = {"fontsize": 8.5, "title_fontsize": 8.5, "columnspacing": 1.2}
    handles, names = axes[0].get_legend_handles_labels()
    legend_above(figure, handles, names, 4, title="top: attention balanced in", **small)
    handles, names = axes[2].get_legend_handles_labels()
    below: Any = {"ncols": fitting(figure, names, 4, 8.5), "title": "bottom: positions of", **small}
    figure.legend(handles, names, loc="outside lower center", **below)
    return figure


def _slope_dots(ax: Axes, means: pd.DataFrame) -> None:
    """A slope with its interval for each group; every random group is a dot of its own."""
    shown = means.assign(line=means["heads"].where(~is_random(means["heads"]), RANDOM))
    lines = {key: look for key, look in LINES.items() if key in set(shown["line"])}
    for place, (key, (_, colour, marker, _)) in enumerate(lines.items()):
        part = shown[shown["line"] == key]
        if key == RANDOM:
            ax.plot(
                part["mean"], [place] * len(part), color=colour, marker=marker, linestyle="", alpha=0.5, markersize=4
            )
            continue
        errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
        ax.errorbar(part["mean"], [place], xerr=errors, color=colour, marker=marker, linestyle="", capsize=3)
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set_yticks(
        range(len(lines)), [name.replace("all other ", "all other\n") for name, *_ in lines.values()], fontsize=8
    )
    few_ticks(ax)
    ax.set(title="its slope", xlabel="change over the range", ylim=(len(lines) - 0.5, -0.5))
    ax.grid(visible=False, axis="y")


def _share_axis(axes: Sequence[Axes], shares: Sequence[float], labels: Sequence[str]) -> None:
    """Shares as counts of the second label to the first, which are legible where fractions are not."""
    n = _demonstrations(shares)
    for ax in axes:
        ax.set_xticks(list(shares), [f"{round(share * n)}:{n - round(share * n)}" for share in shares], fontsize=9)
        ax.set_xlabel(f"demonstrations {labels[1]} : {labels[0]}")


def _response_caption(facts: Facts, means: pd.DataFrame, sums: pd.DataFrame, groups: Groups, sets: int) -> str:
    n = _demonstrations(sums["share"])
    drawn = int(is_random(means["heads"]).sum())
    random = f"; grey: {drawn} random groups of as many, from the least to the greatest" if drawn else ""
    control = "; these layers have no other heads to compare with"
    if RANDOM in groups:
        control = f"; dashed: {counted(len(groups[RANDOM]), f'{RANDOM} head')} of the same layers"
    return (
        f"Answers and heads when 1 to {n - 1} of {n} demonstrations are labelled {escape(facts.labels[1])}. "
        f"Top: intact, and with attention balanced by count in {_in_context(groups)} or in other deep heads{random}. "
        f"Bottom: attention of the last "
        f"position, and logit minus of the weighted values, summed over the label's positions and over "
        f"{_in_context(groups)}{control}. {intervals('Other bands, and bars' if drawn else 'Bands and bars', sets)}"
    )


def _response_alt(facts: Facts, means: pd.DataFrame, sums: pd.DataFrame) -> str:
    first, second = facts.labels
    n, shares, found = _demonstrations(sums["share"]), sorted(sums["share"].unique()), _by_heads(means)
    parts = [f"{found[heads].mean:z.2f} ({LINES[heads][0]})" for heads in (INTACT, CHOSEN, OTHERS) if heads in found]
    own = sums[sums["heads"] == CHOSEN].set_index(["panel", "line", "share"])["mean"]
    ends = [
        f"With {round(share * n)} of {n} demonstrations {second}, the in-context heads' summed attention is "
        f"{own['attention', 'foo', share]:z.2f} on {second} and {own['attention', 'bar', share]:z.2f} on {first} "
        f"positions."
        for share in (shares[0], shares[-1])
    ]
    return (
        f"Four charts. The slope of the two-way probability of {second} on its share is, by where attention is "
        f"balanced, {', '.join(parts)}. {' '.join(ends)}"
    )


RESPONSE = Figure("imbalance-response", draw=response_figure, caption=_response_caption, alt=_response_alt)


def _slopes(means: pd.DataFrame, levels: pd.DataFrame, dealt: pd.DataFrame | None = None) -> str:
    """What is left of the slope under count-balanced attention, what that does to accuracy, and what there is of it
    where labels say nothing of texts."""
    found, accuracy = _by_heads(means), levels.set_index("heads")["accuracy"]
    text = (
        f"Intact, the slope is {said(found[INTACT], '+z.2f')}. With attention balanced in the in-context heads "
        f"it is {said(found[CHOSEN], '+z.2f')}"
    )
    if OTHERS not in found:
        text += ". There are no other deep heads to compare with"
    else:
        drawn = means[is_random(means["heads"])]["mean"]
        text += (
            f", in all other deep heads together {said(found[OTHERS], '+z.2f')}, and in {len(drawn)} random "
            f"groups {drawn.min():+z.2f} to {drawn.max():+z.2f}"
        )
    before, after = accuracy[INTACT], accuracy[CHOSEN]
    if dealt is not None:
        text += f". With labels dealt at random, intact, it is {said(_by_heads(dealt)[INTACT], '+z.2f')}"
    return (
        f"{text}. On the same prompts, two-way accuracy is {before:z.1%} intact and {after:z.1%} with balanced "
        f"in-context heads."
    )


SLOPES = Text("imbalance-slopes", write=_slopes)


def _account(account: pd.DataFrame) -> str:
    """How much of the change in the answer the weighted values at the label positions are."""
    found = {(str(row["heads"]), row["quantity"]): estimate_of(row) for row in account.to_dict("records")}
    part = {heads: said(e, "z.0%") for (heads, quantity), e in found.items() if quantity == "part"}
    line = {heads: said(e, "z.2f") for (heads, quantity), e in found.items() if quantity == "r2"}
    text = (
        f"The in-context heads' weighted values at label positions make up {part[CHOSEN]} of the change in the logit "
        f"difference"
    )
    if RANDOM in part:
        text += f"; for the random heads it is {part[RANDOM]}"
    text += f". A line through the changes of a set has $R^2$ = {line[CHOSEN]} for in-context heads"
    if RANDOM in line:
        text += f" and {line[RANDOM]} for random heads"
    return f"{text}. All parts of the residual together make up 100%."


ACCOUNT = Text("imbalance-account", write=_account)


# Wording


def _present(curves: pd.DataFrame) -> dict[str, tuple[str, str, str, str]]:
    """The groups of heads that a table has, in their order."""
    return {heads: look for heads, look in LINES.items() if heads in set(curves["heads"])}


def _demonstrations(shares: Sequence[float] | pd.Series) -> int:
    """Of a prompt, from the shares of foo: the smallest is one demonstration."""
    return round(1 / min(shares))


def _in_context(groups: Groups) -> str:
    return f"the {counted(len(groups[CHOSEN]), f'{CHOSEN} head')}"


def _by_heads(means: pd.DataFrame) -> dict[str, Estimate]:
    return {str(row["heads"]): estimate_of(row) for row in means.to_dict("records")}

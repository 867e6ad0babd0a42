"""What the chapter on imbalance shows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import PercentFormatter

from ...paper import PAPER_FLUCTUATION
from ...publishing.markdown import table_text
from ...publishing.plots import banded_line, panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.style import BLUE, GREEN, GREY, LABEL_COLOURS, MARKERS, STYLE, WIDTH
from ...statistics import Estimate
from ...tracing.heads import CHOSEN, RANDOM
from .mitigation import CALIBRATION, MEASURES, NONE, OWN, PAPER
from .response import DIFFERENCE

TITLES = {
    "probability": "how probable foo is",
    "accuracy": "accuracy, by right label",
    "attention": "attention, by label at position",
    "values": "weighted values, likewise",
}
# panel -> line -> its name in a legend; the labels' own lines share one legend above the figure
LINES: Mapping[str, Mapping[str, str]] = {
    "probability": {"p_foo_two_way": "between two labels", "p_foo": "full vocabulary"},
    "accuracy": {"bar": "bar", "foo": "foo"},
    "attention": {"bar": "bar", "foo": "foo"},
    "values": {"bar": "bar", "foo": "foo"},
}
UNITS = {
    "probability": "probability",
    "accuracy": "accuracy",
    "attention": "summed weight",
    "values": "logit minus (logits)",
}
TINY = 1e-9  # what is smaller is a rounding error of zero
TENFOLD = 10  # a larger relative change says only that the start was near zero

Groups = Mapping[str, Sequence[Sequence[int]]]  # heads by the name of their group


# What the share does


def response_figure(curves: pd.DataFrame) -> Drawing:
    """Four panels over the share of foo: probability, accuracy, attention, weighted values.

    Columns `panel` (a key of `TITLES`), `line` (a key of `LINES`), `heads` ("in-context", "random", or "" where no
    head is meant), `share, mean, low, high`. Random heads are dashed.
    """
    with mpl.rc_context(STYLE):
        figure = Drawing(figsize=(WIDTH, 6.0))
        axes = list(figure.subplots(2, 2, sharex=True).ravel())
    for ax, (panel, lines) in zip(axes, LINES.items(), strict=True):
        colours = (GREEN, GREY) if panel == "probability" else LABEL_COLOURS
        for (key, name), colour, marker in zip(lines.items(), colours, ("s", "o"), strict=True):
            own = curves[(curves["panel"] == panel) & (curves["line"] == key)]
            for heads, part in own.groupby("heads", sort=False):
                style, label = ("--", f"{name}, random heads") if heads == RANDOM else ("-", name)
                banded_line(ax, part, "share", label=label, colour=colour, marker=marker, style=style)
        ax.set(title=TITLES[panel], ylabel=UNITS[panel])
        ax.title.set_fontsize(10.5)
        if panel in ("probability", "accuracy"):
            ax.set_ylim(0, 1.02)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        if panel == "values":
            ax.axhline(0, color=GREY, linewidth=1)
    axes[0].legend(fontsize=8, loc="best", frameon=False)
    handles, names = axes[2].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=8.5, frameon=False)
    _share_axis(axes[2:], sorted(curves["share"].unique()))
    return figure


def _share_axis(axes: Sequence[Axes], shares: Sequence[float]) -> None:
    """Shares as counts of foo to bar, which are legible where fractions are not."""
    n = _demonstrations(shares)
    for ax in axes:
        ax.set_xticks(list(shares), [f"{round(share * n)}:{n - round(share * n)}" for share in shares], fontsize=9)
        ax.set_xlabel("demonstrations foo : bar")


def _response_caption(facts: Facts, curves: pd.DataFrame, groups: Groups) -> str:
    n = _demonstrations(curves["share"])
    control = "; these layers have no other heads to compare with"
    if RANDOM in groups:
        control = f"; dashed: {_heads(groups, RANDOM)} of the same layers"
    return (
        f"Answers and heads when 1 to {n - 1} of {n} demonstrations are labelled foo. Attention of the last position, "
        f"and logit minus of the weighted values, are summed over the label's positions and over {_in_context(groups)}"
        f"{control}. Accuracy is over the full vocabulary. {_intervals(facts, 'Bands')}"
    )


def _response_alt(curves: pd.DataFrame) -> str:
    n, shares = _demonstrations(curves["share"]), sorted(curves["share"].unique())
    means = curves[curves["heads"] != RANDOM].set_index(["panel", "line", "share"])["mean"]
    ends = [
        f"With {round(share * n)} of {n} demonstrations foo, the two-way probability of foo is "
        f"{means['probability', 'p_foo_two_way', share]:z.0%} and the in-context heads' summed attention is "
        f"{means['attention', 'foo', share]:z.2f} on foo and {means['attention', 'bar', share]:z.2f} on bar positions."
        for share in (shares[0], shares[-1])
    ]
    return f"Four line charts over the share of foo. {' '.join(ends)}"


RESPONSE = Figure("imbalance-response", draw=response_figure, caption=_response_caption, alt=_response_alt)


# Does summed attention explain it?


def _ranks(facts: Facts, ranks: pd.DataFrame) -> str:
    """The rank correlation of summed attention with the answer, in in-context and in random heads."""
    found = {str(row["heads"]): _estimate(row) for row in ranks.to_dict("records")}
    text = f"The rank correlation is {_said(facts, found[CHOSEN], 'z.2f')} for in-context heads"
    if DIFFERENCE not in found:
        return f"{text}. Their layers have no other heads to compare them with."
    decided = {
        1: "so summed attention follows the answer more closely in the in-context heads, as the paper predicts",
        -1: "so the random heads follow the answer more closely, against the paper",
        0: "which does not decide between them",
        None: "but one demonstration set has no interval that could decide between them",
    }[_sign(facts, found[DIFFERENCE])]
    return (
        f"{text} and {_said(facts, found[RANDOM], 'z.2f')} for random heads of the same layers. The difference is "
        f"{_said(facts, found[DIFFERENCE], '+z.2f')}, {decided}."
    )


RANKS = Text("imbalance-ranks", write=_ranks)


def _account(facts: Facts, account: pd.DataFrame) -> str:
    """How much of the change in the answer the weighted values at the label positions are."""
    found = {(str(row["heads"]), row["quantity"]): _estimate(row) for row in account.to_dict("records")}
    part = {heads: _said(facts, e, "z.0%") for (heads, quantity), e in found.items() if quantity == "part"}
    line = {heads: _said(facts, e, "z.2f") for (heads, quantity), e in found.items() if quantity == "r2"}
    text = (
        f"The in-context heads' weighted values at label positions make up {part[CHOSEN]} of the change in the logit "
        f"difference"
    )
    if RANDOM in part:
        text += f"; for the random heads it is {part[RANDOM]}"
    text += f". A line through the changes of a set has $R^2$ = {line[CHOSEN]} for in-context heads"
    if RANDOM in line:
        text += f" and {line[RANDOM]} for random heads"
    return f"{text}. All parts of the residual together make up 100 %."


ACCOUNT = Text("imbalance-account", write=_account)


# A remedy


def mitigation_figure(compared: pd.DataFrame) -> Drawing:
    """Fluctuation with each remedy, and what the remedy takes off it.

    Columns `remedy, strength` (nan or 0: none), `measure` (a key of `MEASURES`), `quantity` ("fluctuation" or
    "removed"), `mean, low, high`.
    """
    titles = _titles(compared)
    remedies = list(titles)
    figure, axes = panels(2, height=1.6 + 0.46 * len(remedies), sharey=True)
    for ax, (quantity, title) in zip(
        axes, {"fluctuation": "fluctuation", "removed": "taken off it (right is steadier)"}.items(), strict=True
    ):
        for i, ((measure, name), colour) in enumerate(
            zip(MEASURES.items(), (BLUE, LABEL_COLOURS[0], GREEN), strict=True)
        ):
            own = compared[(compared["quantity"] == quantity) & (compared["measure"] == measure)]
            part = own.set_index("remedy").reindex(remedies if quantity == "fluctuation" else remedies[1:])
            y = np.array([remedies.index(remedy) for remedy in part.index]) + (i - 1) * 0.2
            ax.errorbar(part["mean"], y, xerr=[part["mean"] - part["low"], part["high"] - part["mean"]], color=colour,
                        marker=MARKERS[i], linestyle="", capsize=2.5, markersize=5, label=name)  # fmt: skip
        ax.set(xlabel="change of the set's mean", title=title)
        ax.title.set_fontsize(10.5)
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))  # as many decimals as the range needs
        ax.grid(visible=False, axis="y")
    axes[0].set_xlim(left=0)
    axes[1].axvline(0, color=GREY, linewidth=1)
    axes[0].set_yticks(range(len(remedies)), list(titles.values()))
    axes[0].invert_yaxis()
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=8.5, frameon=False)
    return figure


def _mitigation_caption(facts: Facts, compared: pd.DataFrame, demonstrations: int) -> str:
    calibration = "Calibration has no full-vocabulary accuracy. " if CALIBRATION in set(compared["remedy"]) else ""
    return (
        f"Left: change of a set's mean when one of {demonstrations} balanced demonstrations is dropped. Right: what "
        f"each remedy takes off it, paired by set. Strength {_strength(compared, OWN):g} was chosen on the selection "
        f"half. {calibration}{_intervals(facts, 'Bars')}"
    )


def _mitigation_alt(compared: pd.DataFrame) -> str:
    parts = [
        f"{_found(compared, remedy, 'accuracy_two_way').mean:z.1%} ({title})"
        for remedy, title in _titles(compared).items()
    ]
    return f"Two dot charts by remedy. Two-way accuracy fluctuates by {', '.join(parts)}."


MITIGATION = Figure("imbalance-mitigation", draw=mitigation_figure, caption=_mitigation_caption, alt=_mitigation_alt)


def _fluctuations(compared: pd.DataFrame) -> str:
    """Fluctuation of accuracy over the full vocabulary, at the chosen and at the paper's strength."""
    before, own, paper = (_found(compared, remedy, "accuracy").mean for remedy in (NONE, OWN, PAPER))
    chosen, fixed = (_strength(compared, remedy) for remedy in (OWN, PAPER))
    text = f"Accuracy over the full vocabulary fluctuates by {before:z.1%} in the intact model"
    if chosen == fixed:
        text += f" and {own:z.1%} at the chosen strength, which is the paper's {fixed:g} ({_relative(before, own)})"
    else:
        text += (
            f", {own:z.1%} at the chosen strength {chosen:g} ({_relative(before, own)}) and {paper:z.1%} at the "
            f"paper's {fixed:g} ({_relative(before, paper)})"
        )
    *most, last = [f"{change:+g} % ({source})" for change, source in PAPER_FLUCTUATION]
    return f"{text}. The paper has {', '.join(most)} and {last}."


FLUCTUATIONS = Text("imbalance-fluctuations", write=_fluctuations)


def _remedies(facts: Facts, compared: pd.DataFrame, levels: pd.DataFrame) -> str:
    """What every remedy takes off the fluctuation of two-way accuracy, and what it does to that accuracy."""
    means = levels.set_index("remedy")["mean"]
    rows = []
    for remedy, title in _titles(compared).items():
        if remedy != NONE:
            gain = _found(compared, remedy, "accuracy_two_way", "removed")
            word = {1: "steadier", -1: "less steady", 0: "undecided", None: "no interval of one set"}
            change = f"{100 * (means[remedy] - means[NONE]):+z.1f} points"
            rows.append((title, _said(facts, gain, "+z.1%"), word[_sign(facts, gain)], change))
    header = (
        "remedy",
        "taken off the fluctuation of two-way accuracy",
        "the interval says",
        "two-way accuracy itself",
    )
    return table_text(header, rows)


REMEDIES = Text("imbalance-remedies", write=_remedies)


def _majority(facts: Facts, shift: Mapping[str, float], compared: pd.DataFrame) -> str:
    """Whether a fluctuation moves the answer towards the label that is left in the majority."""
    e = Estimate(**shift)
    direction = {
        1: "towards the majority, which the remedy should cure",
        -1: "away from the majority, so the remedy pushes further the wrong way",
        0: "in no direction that the interval could tell from zero",
        None: "one demonstration set has no interval that could tell a direction",
    }[_sign(facts, e)]
    points = f"{100 * e.mean:+z.1f} points"
    if facts.evaluation_sets > 1:
        points += f" ({100 * e.low:+z.1f} to {100 * e.high:+z.1f})"
    return (
        f"Dropping one demonstration moves the probability of the label left in the majority by {points}: {direction}. "
        f"The probability of the right label fluctuates by {100 * _found(compared, NONE, 'p_gold').mean:z.1f} points."
    )


MAJORITY = Text("imbalance-majority", write=_majority)


# Wording


def _demonstrations(shares: Sequence[float] | pd.Series) -> int:
    """Of a prompt, from the shares of foo: the smallest is one demonstration."""
    return round(1 / min(shares))


def _heads(groups: Groups, name: str) -> str:
    number = len(groups[name])
    return f"{number} {name} head{'' if number == 1 else 's'}"


def _in_context(groups: Groups) -> str:
    return "the one in-context head" if len(groups[CHOSEN]) == 1 else f"the {_heads(groups, CHOSEN)}"


def _titles(compared: pd.DataFrame) -> dict[str, str]:
    """Remedies in their order with what they are called, their strength included."""
    rows = compared.drop_duplicates("remedy").to_dict("records")
    return {str(r["remedy"]): f"{r['remedy']}, {r['strength']:g}" if r["strength"] > 0 else r["remedy"] for r in rows}


def _strength(compared: pd.DataFrame, remedy: str) -> float:
    return float(compared.loc[compared["remedy"] == remedy, "strength"].iloc[0])


def _found(compared: pd.DataFrame, remedy: str, measure: str, quantity: str = "fluctuation") -> Estimate:
    place = (compared["remedy"] == remedy) & (compared["measure"] == measure) & (compared["quantity"] == quantity)
    return _estimate(compared[place].to_dict("records")[0])


def _estimate(row: Mapping[Hashable, Any]) -> Estimate:
    return Estimate(row["mean"], row["low"], row["high"])


def _relative(before: float, after: float) -> str:
    """How a fluctuation has changed, where it had anything to change from."""
    if before < TINY:
        return "there was none to shrink" if after < TINY else "from a start of zero"
    change = after / before - 1
    return "from a start near zero" if change >= TENFOLD else f"{change:+z.0%}"


def _said(facts: Facts, e: Estimate, spec: str) -> str:
    """A mean with its interval, if there are sets enough for one."""
    return format(e, spec) if facts.evaluation_sets > 1 else format(e.mean, spec)


def _sign(facts: Facts, e: Estimate) -> int | None:
    """On which side of zero the interval lies: 1, -1, or 0 if it includes zero; `None` if there is no interval."""
    if facts.evaluation_sets < 2:
        return None
    return int(e.low > 0) - int(e.high < 0)


def _intervals(facts: Facts, drawn: str) -> str:
    if facts.evaluation_sets < 2:
        return "From one demonstration set, so without intervals."
    return f"{drawn}: 95% intervals over {facts.evaluation_sets} demonstration sets."

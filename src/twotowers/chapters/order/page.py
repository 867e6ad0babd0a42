"""What the chapter on order shows."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from ...paper import PAPER_ORDER_ACCURACY, PAPER_ORDER_ATTENTION
from ...publishing.markdown import table_text
from ...publishing.plots import banded_line, panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.style import BLUE, GREEN, GREY, MARKERS, ORANGE
from ...statistics import Estimate
from ...tracing.heads import CHOSEN, RANDOM
from .effects import MEASURES

LINES = {CHOSEN: ("in-context heads", ORANGE, "o", "-"), RANDOM: ("random heads", BLUE, "s", "--")}
TITLES = {"accuracy": "accuracy", "margin": "margin (logits)", "attention": "attention to a label"}
TINY = 1e-9  # what is smaller is a rounding error of zero
TENFOLD = 10  # a larger relative change says only that the start was near zero

Groups = Mapping[str, Sequence[Sequence[int]]]  # heads by the name of their group
Orders = Sequence[Sequence[int]]  # permutations of the demonstrations' numbers


# One set, many orders


def response_figure(curve: pd.DataFrame) -> Drawing:
    """P(foo) and attention by the place of foo. Columns `heads, measure, recency, mean, low, high`."""
    figure, axes = panels(2, height=3.8)
    answers = curve[(curve["measure"] == "p_foo") & (curve["heads"] == curve["heads"].iloc[0])]
    banded_line(axes[0], answers, "recency", label="the model's answer", colour=GREEN, marker="^")
    for heads in _present(curve):
        name, colour, marker, style = LINES[heads]
        part = curve[(curve["measure"] == "attention") & (curve["heads"] == heads)]
        banded_line(axes[1], part, "recency", label=name, colour=colour, marker=marker, style=style)
    axes[0].set_title("P(foo), change from the set's mean", fontsize=10)
    axes[1].set_title("attention to foo minus bar, likewise", fontsize=10)
    for ax in axes:
        ax.axhline(0, color=GREY, linewidth=0.9)
        ax.set_xlabel("how much nearer foo stands\n(demonstrations)")
    _legend(figure, axes)
    return figure


def _response_caption(facts: Facts, groups: Groups, orders: Orders) -> str:
    control = f", and over {_control(groups)}" if RANDOM in groups else ""
    return (
        f"The same {len(orders[0])} demonstrations in {len(orders)} orders. Left: two-way probability of foo. Right: "
        f"attention of the last position to foo's label positions minus bar's, mean over {_heads(groups, CHOSEN)}"
        f"{control}. Horizontal: mean place of foo's demonstrations minus that of bar's. Each set's mean over its "
        f"orders is taken away. {_intervals(facts, 'Bands')}"
    )


def _response_alt(curve: pd.DataFrame) -> str:
    part = curve[curve["heads"] == CHOSEN].pivot(index="recency", columns="measure", values="mean").sort_index()
    ends = [
        f"At {x:+z.1f} demonstrations, P(foo) differs from its mean by {100 * part['p_foo'][x]:+z.1f} points and the "
        f"in-context heads' attention to foo minus bar by {part['attention'][x]:+z.3f}."
        for x in _ends(part.index)
    ]
    return f"Two line charts over how much nearer foo stands than bar. {' '.join(ends)}"


RESPONSE = Figure("order-response", draw=response_figure, caption=_response_caption, alt=_response_alt)


def _slopes(facts: Facts, slopes: pd.DataFrame) -> str:
    """The unit of C12, its slope in logits, and the control."""
    found = _estimates(slopes, "slope")
    if not found["effect"].known:
        return "No order moves the mean places of the labels, so there is no slope."
    return (
        f"The unit is probability a demonstration. In logits the slope is {_said(facts, found['logits'], 3)}. With the "
        f"places dealt to the orders at random, the slope in probability is {_said(facts, found['shuffled'], 3)}."
    )


SLOPES = Text("order-slopes", write=_slopes)


# Attention by distance


def attention_figure(profile: pd.DataFrame) -> Drawing:
    """Attention to a label position by distance. Columns `heads, same, distance, mean, low, high`."""
    groups = _present(profile)
    figure, axes = panels(len(groups), height=3.6, sharey=True)
    for ax, heads in zip(axes, groups, strict=True):
        for same, colour, marker, style in ((True, ORANGE, MARKERS[0], "-"), (False, BLUE, MARKERS[1], "--")):
            part = profile[(profile["heads"] == heads) & (profile["same"] == same)]
            label = "label of the query's class" if same else "label of the other class"
            banded_line(ax, part, "distance", label=label, colour=colour, marker=marker, style=style)
        ax.set(title=LINES[heads][0], xlabel="distance from the query\n(demonstrations)")
        ax.set_ylim(0, 1.1 * profile["high"].max() or 1)
    axes[0].set_ylabel("attention weight")
    _legend(figure, axes)
    return figure


def _attention_caption(facts: Facts, groups: Groups) -> str:
    control = f" and {_control(groups)}" if RANDOM in groups else ""
    return (
        f"Attention of the last position to one label position, by its distance from the query (1: the last "
        f"demonstration), mean over heads; {_heads(groups, CHOSEN)}{control}. {_intervals(facts, 'Bands')}"
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


def _gaps(facts: Facts, gaps: pd.DataFrame) -> str:
    """Whether a nearer label gets more attention than a farther one of the same class."""
    word = {1: "as the paper predicts", -1: "against the paper", 0: "undecided", None: "no interval of one set"}
    rows = []
    for row in gaps.to_dict("records"):
        gap, name = _estimate(row), "own" if row["same"] else "other"
        rows.append((f"{row['heads']} heads", name, _said(facts, gap, 4), word[_sign(facts, gap)]))
    return table_text(("heads", "class of the label", "nearer half minus farther half", "the interval says"), rows)


GAPS = Text("order-gaps", write=_gaps)


# Without the position term


def mitigation_figure(changes: pd.DataFrame) -> Drawing:
    """Standard deviations over orders. Columns `heads, measure, when (before|after), mean, low, high`."""
    groups = _present(changes)
    figure, axes = panels(len(MEASURES), height=3.5)
    for ax, measure in zip(axes, MEASURES, strict=True):
        for when, offset, colour, marker in (("before", -0.12, GREY, "o"), ("after", 0.12, ORANGE, "s")):
            part = changes[(changes["measure"] == measure) & (changes["when"] == when)].set_index("heads").loc[groups]
            errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
            x = [i + offset for i in range(len(groups))]
            name = "intact" if when == "before" else "position term removed"
            ax.errorbar(x, part["mean"], yerr=errors, color=colour, marker=marker, linestyle="", capsize=3, label=name)
        ax.set_xticks(range(len(groups)), [LINES[heads][0].replace(" ", "\n") for heads in groups], fontsize=9)
        ax.set_xlim(-0.5, len(groups) - 0.5)
        ax.set_ylim(0, 1.1 * changes.loc[changes["measure"] == measure, "high"].max() or 1)
        ax.set_title(TITLES[measure], fontsize=10)
        ax.grid(visible=False, axis="x")
    axes[0].set_ylabel("standard deviation over orders")
    _legend(figure, axes)
    return figure


def _mitigation_caption(facts: Facts, groups: Groups, orders: Orders, strength: float) -> str:
    queries = "the one query of a set" if facts.queries == 1 else f"a set's {facts.queries} queries"
    control = f" or in {_control(groups)}" if RANDOM in groups else ""
    return (
        f"Standard deviation over {len(orders)} orders: of accuracy (full vocabulary) over {queries}, of a query's "
        f"margin, and of its attention to one demonstration's label in these heads. Position is removed at strength "
        f"{strength:g}, in {_heads(groups, CHOSEN)}{control}. {_intervals(facts, 'Bars')}"
    )


def _mitigation_alt(changes: pd.DataFrame) -> str:
    means = changes.set_index(["heads", "measure", "when"])["mean"]
    parts = [f"{m} from {means[CHOSEN, m, 'before']:.3f} to {means[CHOSEN, m, 'after']:.3f}" for m in MEASURES]
    return (
        f"Three dot charts, intact model beside the model whose position term is removed. In-context heads: "
        f"{', '.join(parts)}."
    )


MITIGATION = Figure("order-mitigation", draw=mitigation_figure, caption=_mitigation_caption, alt=_mitigation_alt)


def _steadied(facts: Facts, gains: pd.DataFrame) -> str:
    """What removing position takes off every standard deviation."""
    word = {1: "steadier", -1: "less steady", 0: "undecided", None: "no interval of one set"}
    rows = []
    for row in gains.to_dict("records"):
        gain, change = _estimate(row), _relative(row["before"], row["after"])
        rows.append((f"{row['heads']} heads", row["measure"], change, _said(facts, gain, 4), word[_sign(facts, gain)]))
    header = (
        "position removed in",
        "standard deviation of",
        "change",
        "before minus after",
        "the interval says",
    )
    return table_text(header, rows)


STEADIED = Text("order-steadied", write=_steadied)


def _paper(gains: pd.DataFrame, levels: pd.DataFrame) -> str:
    """The change of the standard deviations beside the paper's, and what happens to accuracy itself."""
    rows = gains[gains["heads"] == CHOSEN].set_index("measure")
    moved = {m: _from_to(rows["before"][m], rows["after"][m], ".4f") for m in ("accuracy", "attention")}
    changed = {m: _relative(rows["before"][m], rows["after"][m]) for m in moved}
    before, after = levels.iloc[0], levels.iloc[-1]
    return (
        f"The standard deviation of accuracy {moved['accuracy']} ({changed['accuracy']}); the paper has "
        f"{_sourced(PAPER_ORDER_ACCURACY)}. That of attention {moved['attention']} ({changed['attention']}); the paper "
        f"has {_sourced(PAPER_ORDER_ATTENTION)}. Accuracy itself "
        f"{_from_to(before['mean_accuracy'], after['mean_accuracy'], '.1%')}, and attention summed over the label "
        f"positions {_from_to(before['mean_attention'], after['mean_attention'], '.3f')}."
    )


PAPER = Text("order-paper", write=_paper)


def _pull(facts: Facts, pull: pd.DataFrame, strength: float) -> str:
    """What the position term of the in-context heads does to the slope of C12."""
    found = _estimates(pull, "slope")
    if not found["difference"].known:
        return "Without a slope, nothing can be said of what the position term does to it."
    direction = {
        1: "pulls answers towards the near label, as the paper predicts",
        -1: "pulls answers towards the far label, against the paper",
        0: "has no effect on the slope that the interval can tell from none",
        None: "cannot be judged by one demonstration set, which has no interval",
    }[_sign(facts, found["difference"])]
    return (
        f"With position removed at strength {strength:g}, the slope of C12 becomes "
        f"{_said(facts, found['removed'], 3)}. Intact minus removed it is {_said(facts, found['difference'], 3)}: the "
        f"position term of the in-context heads {direction}."
    )


PULL = Text("order-pull", write=_pull)


# Wording


def _estimate(row: Mapping[Hashable, Any]) -> Estimate:
    return Estimate(row["mean"], row["low"], row["high"])


def _estimates(table: pd.DataFrame, column: str) -> dict[str, Estimate]:
    return {str(row[column]): _estimate(row) for row in table.to_dict("records")}


def _present(table: pd.DataFrame) -> list[str]:
    """The groups of heads that a table has: layers without other heads leave no random ones."""
    return [heads for heads in LINES if heads in set(table["heads"])]


def _ends(values: Iterable[float]) -> list[float]:
    """The first and the last of sorted values; one of them, if there is no more."""
    return sorted({min(values := list(values)), max(values)})


def _heads(groups: Groups, name: str) -> str:
    number = len(groups[name])
    return f"{number} {name} head{'' if number == 1 else 's'}"


def _control(groups: Groups) -> str:
    return f"{_heads(groups, RANDOM)} of the same layers"


def _relative(before: float, after: float) -> str:
    """How a standard deviation has changed, where it had anything to change from."""
    if before < TINY:
        return "none to shrink" if after < TINY else "from a start of zero"
    change = after / before - 1
    return "from a start near zero" if change >= TENFOLD else f"{change:+z.1%}"


def _from_to(before: float, after: float, spec: str) -> str:
    first, last = format(before, spec), format(after, spec)
    return f"stays at {first}" if first == last else f"goes from {first} to {last}"


def _sourced(changes: Sequence[tuple[float, str]]) -> str:
    """The paper's changes with their sources; one that they share is said once."""
    sources = [source for _, source in changes]
    *most, last = [
        f"{change:+g} %" + ("" if source in sources[i + 1 :] else f" ({source})")
        for i, (change, source) in enumerate(changes)
    ]
    return f"{', '.join(most)} and {last}"


def _said(facts: Facts, e: Estimate, first: int) -> str:
    """A mean with its interval, if there are sets enough for one; more digits where a number would look like zero."""
    values = [x for x in (e.mean, e.low, e.high) if abs(x) >= TINY]
    digits = next((n for n in range(first, 6) if all(round(x, n) for x in values)), 6)
    spec = f"+z.{digits}f"
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


def _legend(figure: Drawing, axes: Sequence[Axes]) -> None:
    """One legend for all panels."""
    shown = {name: handle for ax in axes for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(list(shown.values()), list(shown), loc="outside upper center", ncols=3, fontsize=9)

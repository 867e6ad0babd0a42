"""What the chapter on query and key shows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator, FuncFormatter, PercentFormatter

from ...paper import PAPER_SWAP
from ...publishing import style
from ...publishing.markdown import escape, table_text
from ...publishing.plots import few_ticks, legend_above, panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.style import GREY, INK, MARKERS, MEASURES, narrow
from ...publishing.wording import counted, intervals
from ...statistics import Estimate
from .alts_page import attention_alt, metric_alt, plane_alt, swap_alt, transfer_alt
from .metric import CONTROL, IN_CONTEXT, SCORES, SHARPEST
from .plane_page import plane_caption, plane_figure
from .reading import CLASSES

NOT_MEASURED = "not measured"
BESIDE = 6  # names of bars that have room beside each other
CUT = 3.0  # relative change at which the axis ends: beyond, the base was close to nothing, and other bars would vanish
FEW = 0.001  # a weight below which an axis of weights is linear
OF_CLASS = {CLASSES["same"]: style.SAME, CLASSES["other"]: style.OTHER}  # colours of measures; others in their order
Groups = Mapping[str, Sequence[Any]]  # heads by the name of their group

# Attention by class


def rows_figure(table: pd.DataFrame, *, xlabel: str, reference: float | None = None, percent: bool = False) -> Drawing:
    """Means with intervals, a row for each head or group of heads, a marker for each measure.

    Columns `name, measure, mean, low, high`. A dotted line marks `reference`.
    """
    names, measures = list(dict.fromkeys(table["name"])), list(dict.fromkeys(table["measure"]))
    single = sum(_is_single(name) for name in names)
    figure, (ax,) = panels(height=0.34 * len(names) + 1.3)
    for i, (measure, colour, marker) in enumerate(zip(measures, MEASURES, MARKERS, strict=False)):
        part = table[table["measure"] == measure].set_index("name").reindex(names)
        y = np.arange(len(names)) + (i - (len(measures) - 1) / 2) * 0.22
        ax.errorbar(part["mean"], y, xerr=_errors(part), fmt=marker, color=OF_CLASS.get(measure, colour),
                    markersize=5.5, capsize=2, label=measure)  # fmt: skip
    if reference is not None:
        ax.axvline(reference, color=GREY, linestyle=":", linewidth=1.3)
    ax.axhline(single - 0.5, color=INK, linewidth=0.8)  # single heads above, groups below
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(max(len(names), 1) - 0.5, -0.5)
    ax.set(xlabel=xlabel)
    if percent:
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    if len(measures) > 1:
        legend_above(figure, *ax.get_legend_handles_labels())
    return figure


def attention_figure(means: pd.DataFrame) -> Drawing:
    """Attention to the query's class and to the other one, a row for each head or group of heads."""
    return rows_figure(means, xlabel="attention weight, summed over positions", percent=True)


def _attention_caption(facts: Facts, groups: Groups) -> str:
    mean = "" if len(facts.labels) == 2 else ", and the mean over the other classes taken"
    another = "the other" if len(facts.labels) == 2 else "another"
    return (
        f"Attention of the last position to label positions of the query's class and of {another} class, each summed "
        f"over its positions{mean}. Above the line single in-context heads (layer.head), below it means over groups "
        f"({_sizes(groups)}). {intervals('Whiskers', facts.evaluation_sets)}"
    )


def _gaps(means: pd.DataFrame, groups: Groups) -> str:
    wide = means.pivot(index="name", columns="measure", values="mean")
    gaps = (100 * (wide[CLASSES["same"]] - wide[CLASSES["other"]])).dropna()
    if IN_CONTEXT not in gaps:
        return f"The difference of the in-context heads was {NOT_MEASURED}."
    if len(groups[IN_CONTEXT]) > 1:
        text = "The claim sums over the in-context heads. For a single head the difference is "
        text += f"{gaps[IN_CONTEXT]:+z.1f} percentage points on average"
    else:
        text = f"There is one in-context head. Its difference is {gaps[IN_CONTEXT]:+z.1f} percentage points"
    others = {CONTROL: "for a random deep head", SHARPEST: "for one of the sharpest heads"}
    if len(groups.get(SHARPEST, ())) == 1:
        others[SHARPEST] = "for the sharpest head"
    against = [f"{gaps[name]:+z.1f} {words}" for name, words in others.items() if name in gaps]
    return f"{text}{', against ' if against else ''}{' and '.join(against)}."


ATTENTION = Figure("towers-attention", draw=attention_figure, caption=_attention_caption, alt=attention_alt)
GAPS = Text("towers-attention-gaps", write=_gaps)

# The metric test


def metric_figure(areas: pd.DataFrame) -> Drawing:
    """AUC of three scores as classifiers of "same class", a row for each head or group of heads."""
    return rows_figure(areas, xlabel="AUC for 'same class'", reference=0.5)


def _metric_caption(facts: Facts, groups: Groups) -> str:
    return (
        "AUC of three scores as classifiers of 'same class', per prompt, at label positions: q·k as it enters the "
        "softmax, the same without rotation by position, and the cosine of the residuals at the last and the label "
        f"position. Above the line single in-context heads, below it groups ({_sizes(groups)}). Dotted: guessing. "
        f"{intervals('Whiskers', facts.evaluation_sets)}"
    )


def _chance(facts: Facts, areas: pd.DataFrame, above: Mapping[str, float]) -> str:
    over = Estimate(**above) if above else Estimate.unknown()
    if not over.known:
        return "No prompt shows both classes, so there is no AUC."
    if facts.evaluation_sets < 2:
        chance = "one demonstration set does not tell it from chance"
    else:
        chance = (
            "above chance" if over.low > 0 else "below chance" if over.high < 0 else "not distinguishable from chance"
        )
    text = f"The AUC of q·k minus one half is {over:+z.3f}: {chance}."
    if not facts.rotary:
        return f"{text} This family does not rotate: positions are embedded, and left in."
    means = areas[areas["name"] == IN_CONTEXT].set_index("measure")["mean"]
    rotation = means[SCORES["auc_unrotated"]] - means[SCORES["auc"]]
    return f"{text} Leaving positions out of q·k changes the AUC by {rotation:+z.3f}."


METRIC = Figure("towers-metric", draw=metric_figure, caption=_metric_caption, alt=metric_alt)
CHANCE = Text("towers-metric-chance", write=_chance)

# Two towers in the plane


PLANE = Figure("towers-plane", draw=plane_figure, caption=plane_caption, alt=plane_alt)

# Does weight move the label?


def transfer_figure(example: pd.DataFrame, correlations: pd.DataFrame) -> Drawing:
    """Left: weight against log-increase, a point for each label position of one head. Right: correlations by head.

    Columns `weight, log_increase, same`; and `name, mean, low, high`.
    """
    figure, (left, right) = panels(2, height=max(3.4, 0.3 * len(correlations) + 1.4))
    for same, colour, marker in ((True, style.SAME, "o"), (False, style.OTHER, "^")):
        part = example[example["same"] == same]
        left.scatter(part["weight"], part["log_increase"], s=11, alpha=0.45, color=colour, marker=marker, linewidth=0,
                     label=CLASSES["same" if same else "other"])  # fmt: skip
    _weight_axis(left, example["weight"])
    left.tick_params(axis="x", labelsize=8.5)
    left.set(xlabel="attention weight", ylabel="log-probability increase (nats)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=9, handletextpad=0.2,
                  markerscale=1.6)  # fmt: skip
    y = np.arange(len(correlations))
    right.errorbar(correlations["mean"], y, xerr=_errors(correlations), fmt="o", color=INK, markersize=5.5, capsize=2)
    right.axvline(0, color=GREY, linestyle=":", linewidth=1.3)
    right.set_yticks(y, list(correlations["name"]))
    right.set_ylim(max(len(y), 1) - 0.5, -0.5)
    right.set(xlabel="rank correlation", xlim=(-1.05, 1.05))
    return figure


def _weight_axis(ax: Axes, weights: pd.Series) -> None:
    """Logarithmic above a thousandth, with 0, where there is a weight of a hundredth; else from 0 to the largest."""
    largest = float(weights.max())
    if largest < 10 * FEW:
        few_ticks(ax)
        return
    ax.set_xscale("symlog", linthresh=FEW)
    ticks = [0.0, *(x for x in (0.001, 0.01, 0.1, 1.0) if x <= 1.5 * largest)]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _transfer_caption(facts: Facts, example: pd.DataFrame, correlations: pd.DataFrame, groups: Groups) -> str:
    layer, head = example[["layer", "head"]].iloc[0]
    prompts = example.groupby(["set", "query"]).ngroups
    whose = "the in-context heads" if len(groups[IN_CONTEXT]) > 1 else "the in-context head"
    if groups.get(CONTROL):
        whose += f" and {counted(len(groups[CONTROL]), 'random deep head')}"
    found = set(correlations["name"])
    left_out = [name for name in sorted(f"{a}.{b}" for a, b in groups[IN_CONTEXT]) if name not in found]
    missing = f" It is not defined for {', '.join(left_out)}, where one of the two does not vary." if left_out else ""
    return (
        "Left: attention weight of a label position against the log-probability increase of its own label, head "
        f"{layer}.{head}, {counted(len(example), 'position')}. Right: Spearman's rank correlation of the two within a "
        f"prompt, mean over {counted(prompts, 'prompt')}, for {whose}.{missing} "
        f"{intervals('Whiskers', facts.evaluation_sets)}"
    )


TRANSFER = Figure("towers-transfer", draw=transfer_figure, caption=_transfer_caption, alt=transfer_alt)

# Swap the labels


def swap_figure(signed: pd.DataFrame) -> Drawing:
    """Signed relative changes of attention and of values, as far as `CUT`. Columns `name, measure, mean, low, high`."""
    figure, (ax,) = panels(height=3.3)
    names = list(dict.fromkeys(signed["name"]))
    crowded, size = len(names) > BESIDE, style.SMALLEST if narrow() else None
    for i, (measure, colour, hatch) in enumerate((("attention", style.ATTENTION, ""), ("value", style.VALUES, "//"))):
        part = signed[signed["measure"] == measure].set_index("name").reindex(names)
        ax.bar(np.arange(len(names)) + (i - 0.5) * 0.36, part["mean"], 0.33, color=colour, hatch=hatch,
               yerr=_errors(part), edgecolor=style.PAPER, capsize=3, error_kw={"ecolor": INK, "elinewidth": 1.1},
               label=measure)  # fmt: skip
        _say_what_is_cut(ax, part["mean"], (i - 0.5) * 0.36, upright=crowded)
    ax.axhline(0, color=INK, linewidth=0.8)
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, -CUT), min(high, CUT))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    shown = [name if crowded else name.replace(", ", "\n") for name in names]
    ax.set_xticks(range(len(names)), shown, rotation=90 if crowded else 0, fontsize=8.5 if crowded else size)
    ax.set(ylabel="relative change")
    ax.grid(visible=False, axis="x")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=9, frameon=False)
    return figure


def _say_what_is_cut(ax: Axes, means: pd.Series, aside: float, *, upright: bool) -> None:
    """Write the value of a bar that is cut off at the end of what is seen of it; upright, where bars are many."""
    for place, mean in enumerate(means):
        if abs(mean) > CUT:
            ax.annotate(f"{mean:+,.0%}", (place + aside, CUT * np.sign(mean)), xytext=(0, -5 if mean > 0 else 5),
                        textcoords="offset points", ha="center", va="top" if mean > 0 else "bottom", fontsize=8.5,
                        rotation=90 if upright else 0, backgroundcolor=style.PAPER)  # fmt: skip


def _swap_caption(facts: Facts, signed: pd.DataFrame) -> str:
    means = f"Means of {counted(facts.evaluation_sets, 'demonstration set')}"
    if facts.evaluation_sets > 1:
        means += " with 95% intervals"
    return (
        "Relative change of attention to, and of the logit minus of values at, the positions that carry the heads' own "
        "label, when all labels of the prompt are exchanged. 'Answer' is the right answer before. "
        + means
        + "."
        + _cut_off(signed)
    )


def _cut_off(signed: pd.DataFrame) -> str:
    """That something lies outside the picture, if it does."""
    bars = int((signed["mean"].abs() > CUT).sum())
    whiskers = int((signed[["low", "high"]].abs() > CUT).any(axis=1).sum())
    if not bars and not whiskers:
        return ""
    what = " and ".join(counted(n, name) for n, name in ((bars, "bar"), (whiskers, "whisker")) if n)
    verb, written = "is" if bars + whiskers == 1 else "are", ", and the value of a bar is written at it" if bars else ""
    return f" The axis ends at ±{CUT:.0%}: {what} {verb} cut off{written}; the table has all numbers."


def _swap_table(facts: Facts, signed: pd.DataFrame) -> str:
    """Beside the paper's numbers, which are of two labels that change places."""
    paper = {f"{heads}, answer {answer}": changed for heads, answer, changed in PAPER_SWAP}
    cells = {(r.name, r.measure): _interval(r.mean, r.low, r.high) for r in signed.itertuples(index=False)}
    header = ["heads, right answer before", "attention", "values", "attention in the paper (summaries of version 3)"]
    rows = [
        (
            escape(name),
            cells.get((name, "attention"), NOT_MEASURED),
            cells.get((name, "value"), NOT_MEASURED),
            paper.get(name, "not known"),
        )
        for name in dict.fromkeys(signed["name"])
    ]
    shown = len(header) if len(facts.labels) == 2 else -1
    return table_text(header[:shown], [row[:shown] for row in rows])


def _changes(unsigned: Mapping[str, float], follows: Mapping[str, float]) -> str:
    text = f"Without signs, {_both(unsigned)}. A head that looks at fixed positions changes too."
    if follows:
        text += (
            " The part that follows the class, down where the label was the answer and up where it was not, is "
            f"{Estimate(**follows):+z.0%} of attention."
        )
    return text


def _same_demonstrations(facts: Facts, unsigned: Mapping[str, float]) -> str:
    whole = len(facts.labels) / (len(facts.labels) - 1)  # from 1 to minus one share of the mean of all others
    return (
        f"Followed at the *same demonstrations* instead, whose label is then another one, {_both(unsigned)}; "
        f"a value that copies its label perfectly would change by {whole:.0%} there."
    )


def _both(unsigned: Mapping[str, float]) -> str:
    """Unsigned changes of attention and of values, where known, in words."""
    attention, value = (f"{unsigned[name]:z.0%}" if name in unsigned else "" for name in ("attention", "value"))
    if attention and value:
        return f"attention changes by {attention} and values by {value}"
    if attention:
        return f"attention changes by {attention}; no change of values is defined"
    return f"values change by {value}; no change of attention is defined" if value else "no change is defined"


SWAP = Figure("towers-swap", draw=swap_figure, caption=_swap_caption, alt=swap_alt)
SWAP_TABLE = Text("towers-swap-table", write=_swap_table)
CHANGES = Text("towers-swap-changes", write=_changes)
SAME_DEMONSTRATIONS = Text("towers-swap-same-demonstrations", write=_same_demonstrations)


def _interval(mean: Any, low: Any, high: Any) -> str:
    return f"{Estimate(mean, low, high):+z.0%}"


def _is_single(name: str) -> bool:
    """Whether a row is of one head, layer.head, rather than of a group."""
    return re.fullmatch(r"\d+\.\d+", name) is not None


def _errors(part: pd.DataFrame) -> list[pd.Series]:
    """Whiskers, which matplotlib wants not to be negative, were it by rounding."""
    return [(part["mean"] - part["low"]).clip(lower=0), (part["high"] - part["mean"]).clip(lower=0)]


def _sizes(groups: Groups) -> str:
    return ", ".join(f"{name}: {len(heads)}" for name, heads in groups.items())

"""What the chapter on query and key shows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import PercentFormatter

from ...paper import PAPER_SWAP
from ...publishing.markdown import table_text
from ...publishing.plots import panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.style import BLUE, GREEN, GREY, LABEL_COLOURS, MARKERS, ORANGE, STYLE, WIDTH
from ...publishing.wording import counted, intervals
from ...statistics import Estimate
from .alts_page import attention_alt, metric_alt, plane_alt, swap_alt, transfer_alt
from .metric import CONTROL, IN_CONTEXT, SCORES, SHARPEST
from .reading import CLASSES

COLOURS = (BLUE, ORANGE, GREEN)
INK = "#333333"
NOT_MEASURED = "not measured"
Groups = Mapping[str, Sequence[Any]]  # heads by the name of their group

# Attention by class


def rows_figure(table: pd.DataFrame, *, xlabel: str, reference: float | None = None, percent: bool = False) -> Drawing:
    """Means with intervals, a row for each head or group of heads, a marker for each measure.

    Columns `name, measure, mean, low, high`. A dotted line marks `reference`.
    """
    names, measures = list(dict.fromkeys(table["name"])), list(dict.fromkeys(table["measure"]))
    single = sum(_is_single(name) for name in names)
    figure, (ax,) = panels(height=0.34 * len(names) + 1.3)
    for i, (measure, colour, marker) in enumerate(zip(measures, COLOURS, MARKERS, strict=False)):
        part = table[table["measure"] == measure].set_index("name").reindex(names)
        y = np.arange(len(names)) + (i - (len(measures) - 1) / 2) * 0.22
        ax.errorbar(part["mean"], y, xerr=_errors(part), fmt=marker, color=colour, markersize=5.5, capsize=2,
                    label=measure)  # fmt: skip
    if reference is not None:
        ax.axvline(reference, color=GREY, linestyle=":", linewidth=1.3)
    ax.axhline(single - 0.5, color=INK, linewidth=0.8)  # single heads above, groups below
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(max(len(names), 1) - 0.5, -0.5)
    ax.set(xlabel=xlabel)
    if percent:
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    if len(measures) > 1:
        figure.legend(loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return figure


def attention_figure(means: pd.DataFrame) -> Drawing:
    """Attention to the query's class and to the other one, a row for each head or group of heads."""
    return rows_figure(means, xlabel="attention weight, summed over positions", percent=True)


def _attention_caption(facts: Facts, groups: Groups) -> str:
    return (
        "Attention of the last position to label positions of the query's class and of the other class, each summed "
        "over its positions. Above the line single in-context heads (layer.head), below it means over groups "
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
    return f"{text} Leaving rotation out changes the AUC by {rotation:+z.3f}."


METRIC = Figure("towers-metric", draw=metric_figure, caption=_metric_caption, alt=metric_alt)
CHANCE = Text("towers-metric-chance", write=_chance)

# Two towers in the plane


def plane_figure(points: pd.DataFrame, arrows: pd.DataFrame) -> Drawing:
    """Queries (filled) and keys (open) in the plane, a panel for each head, an arrow to the most attended keys.

    Columns `layer, head, kind, text, label, x, y, share`; and `layer, head, x, y, to_x, to_y`.
    """
    parts = list(points.groupby(["layer", "head"], sort=False))
    labels = sorted(points["label"].unique())
    with mpl.rc_context(STYLE):
        figure = Drawing(figsize=(WIDTH, 4.2 * len(parts) + 0.4))
        axes = figure.subplots(len(parts), squeeze=False)[:, 0]
    for ax, ((layer, head), part) in zip(axes, parts, strict=True):
        for label, colour, marker in zip(labels, LABEL_COLOURS, ("s", "o"), strict=False):
            for kind, name, face in (("query", "query", colour), ("key", "demonstration", "white")):
                own = part[(part["label"] == label) & (part["kind"] == kind)]
                ax.scatter(own["x"], own["y"], s=42, marker=marker, facecolor=face, edgecolor=colour, linewidth=1.6,
                           label=f"{name}, {label}", zorder=2)  # fmt: skip
        ax.margins(0.13)
        for row in arrows[(arrows["layer"] == layer) & (arrows["head"] == head)].itertuples():
            ax.annotate("", (row.to_x, row.to_y), (row.x, row.y), zorder=1,
                        arrowprops={"arrowstyle": "->", "color": GREY, "shrinkA": 5, "shrinkB": 6})  # fmt: skip
        _name_points(ax, part)
        ax.set_title(f"head {layer}.{head} ({part['share'].iloc[0]:.0%} of the scores' variance)", fontsize=10.5)
        ax.set(xlabel="first axis", ylabel="second axis")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=8.5, handletextpad=0.2, frameon=False)
    return figure


def _plane_caption(points: pd.DataFrame) -> str:
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


def _name_points(ax: Axes, points: pd.DataFrame) -> None:
    """Write each point's text beside it, on the side where it meets the fewest points and other texts."""
    size = np.array([WIDTH, 4.2]) * 72  # of a panel, roughly, in typographic points
    low, high = np.transpose([ax.get_xlim(), ax.get_ylim()])
    places = (points[["x", "y"]].to_numpy() - low) / np.where(high > low, high - low, 1) * size
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for (x, y), row in zip(places, points.itertuples(), strict=True):
        width = 4.4 * len(str(row.text))
        choices = [(7, -3, "left"), (-7, -3, "right"), (0, 7, "center"), (0, -13, "center")]
        boxes = []
        for dx, dy, side in choices:
            left = x + dx - {"left": 0, "right": width, "center": width / 2}[side]
            boxes.append((left, y + dy - 1, left + width, y + dy + 7))
        hits = [sum(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in taken) for a in boxes]
        dx, dy, side = choices[int(np.argmin(hits))]
        taken.append(boxes[int(np.argmin(hits))])
        ax.annotate(str(row.text), (row.x, row.y), xytext=(dx, dy), textcoords="offset points", ha=side, fontsize=7.5,
                    style="italic" if row.kind == "query" else "normal", color=INK)  # fmt: skip


PLANE = Figure("towers-plane", draw=plane_figure, caption=_plane_caption, alt=plane_alt)

# Does weight move the label?


def transfer_figure(example: pd.DataFrame, correlations: pd.DataFrame) -> Drawing:
    """Left: weight against log-increase, a point for each label position of one head. Right: correlations by head.

    Columns `weight, log_increase, same`; and `name, mean, low, high`.
    """
    figure, (left, right) = panels(2, height=max(3.4, 0.3 * len(correlations) + 1.4))
    for same, colour, marker in ((True, BLUE, "o"), (False, ORANGE, "^")):
        part = example[example["same"] == same]
        left.scatter(part["weight"], part["log_increase"], s=11, alpha=0.45, color=colour, marker=marker, linewidth=0,
                     label=CLASSES["same" if same else "other"])  # fmt: skip
    left.set_xscale("symlog", linthresh=1e-3)
    left.tick_params(axis="x", labelsize=8.5)
    left.set(xlabel="attention weight", ylabel="log-probability increase (nats)")
    left.legend(loc="upper left", fontsize=9, handletextpad=0.2, markerscale=1.6)
    y = np.arange(len(correlations))
    right.errorbar(correlations["mean"], y, xerr=_errors(correlations), fmt="o", color=BLUE, markersize=5.5, capsize=2)
    right.axvline(0, color=GREY, linestyle=":", linewidth=1.3)
    right.set_yticks(y, list(correlations["name"]))
    right.set_ylim(max(len(y), 1) - 0.5, -0.5)
    right.set(xlabel="rank correlation", xlim=(-1.05, 1.05))
    return figure


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
    """Signed relative changes of attention and of values. Columns `name, measure, mean, low, high`."""
    figure, (ax,) = panels(height=3.3)
    names = list(dict.fromkeys(signed["name"]))
    for i, (measure, colour, hatch) in enumerate((("attention", BLUE, ""), ("value", ORANGE, "//"))):
        part = signed[signed["measure"] == measure].set_index("name").reindex(names)
        ax.bar(np.arange(len(names)) + (i - 0.5) * 0.36, part["mean"], 0.33, color=colour, hatch=hatch,
               yerr=_errors(part), edgecolor="white", capsize=3, error_kw={"ecolor": INK, "elinewidth": 1.1},
               label=measure)  # fmt: skip
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xticks(range(len(names)), [name.replace(", ", "\n") for name in names])
    ax.set(ylabel="relative change")
    ax.grid(visible=False, axis="x")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=9, frameon=False)
    return figure


def _swap_caption(facts: Facts) -> str:
    means = f"Means of {counted(facts.evaluation_sets, 'demonstration set')}"
    if facts.evaluation_sets > 1:
        means += " with 95% intervals"
    return (
        "Relative change of attention to, and of the logit minus of values at, the positions that carry the heads' own "
        "label, when all labels of the prompt are exchanged. 'Answer' is the right answer before. " + means + "."
    )


def _swap_table(signed: pd.DataFrame) -> str:
    paper = {f"{heads}, answer {answer}": changed for heads, answer, changed in PAPER_SWAP}
    cells = {(r.name, r.measure): _interval(r.mean, r.low, r.high) for r in signed.itertuples(index=False)}
    header = ["heads, right answer before", "attention", "values", "attention in the paper (summaries of version 3)"]
    rows = [
        (
            name,
            cells.get((name, "attention"), NOT_MEASURED),
            cells.get((name, "value"), NOT_MEASURED),
            paper.get(name, "not known"),
        )
        for name in dict.fromkeys(signed["name"])
    ]
    return table_text(header, rows)


def _changes(unsigned: Mapping[str, float], follows: Mapping[str, float]) -> str:
    text = f"Without signs, {_both(unsigned)}. A head that looks at fixed positions changes too."
    if follows:
        text += (
            " The part that follows the class, down where the label was the answer and up where it was not, is "
            f"{Estimate(**follows):+z.0%} of attention."
        )
    return text


def _same_demonstrations(unsigned: Mapping[str, float]) -> str:
    return (
        f"Followed at the *same demonstrations* instead, whose label is then another one, {_both(unsigned)}; "
        "a value that copies its label perfectly would change by 200% there."
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

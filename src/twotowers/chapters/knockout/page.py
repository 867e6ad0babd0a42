"""What the chapter on knock-out shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from ...publishing import style
from ...publishing.markdown import escape, table_text
from ...publishing.plots import accuracy_axis, banded_line, head_map, legend_above, panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.wording import NOT_KNOWN, counted, head_names, intervals, percent, plural, share
from ...statistics import Estimate

NAMED = 10  # heads that an alt text names
RANDOM, TOP_HEADS = "random heads, same layers", "most harmful heads"

# Every head, one at a time


def heads_figure(ranked: pd.DataFrame) -> Drawing:
    """Margin lost by head, the most harmful framed. Columns `layer, head, margin_drop, top`."""
    return head_map(ranked, "margin_drop", title="margin lost (logits)", marked=_top(ranked))


def _heads_caption(facts: Facts, ranked: pd.DataFrame, prompts: int) -> str:
    number = len(_top(ranked))
    if number == len(ranked):
        framed = "Framed: the only head"
    else:
        framed = f"Framed: the {_most_harmful(number)} ({number / len(ranked):.1%} of all)"
    return (
        f"Margin (right label's logit minus {facts.against}) lost when one head is removed, "
        f"{f'mean over {prompts} prompts' if prompts > 1 else 'on one prompt'} of the selection half. {framed}. Green "
        f"heads leave a *larger* margin when they are gone."
    )


def _heads_alt(ranked: pd.DataFrame) -> str:
    sizes = ranked["margin_drop"].abs()
    largest, lost = sizes.max(), ranked["margin_drop"].max()
    if not np.isfinite(largest):
        return "Heat map of heads by layer. What a head costs is not known."
    near = int((sizes <= largest / 10).sum())
    what = f"{near} of {len(ranked)} cells lie within a tenth of the largest value around zero."
    if largest == 0:
        return "Heat map of heads by layer. No cell differs from zero."
    names = [f"{layer}.{head}" for layer, head in _top(ranked)[:NAMED]]
    begin = f"The most harmful head, as layer.head, is {names[0]}"
    if len(names) > 1:
        begin = f"The most harmful heads, as layer.head, are {', '.join(names)}"
    costs = f"the largest loss is {lost:.2f} logits" if lost > 0 else "no head costs margin when it is removed"
    return f"Heat map of heads by layer. {what} {begin}; {costs}."


HEADS = Figure("knockout-heads", draw=heads_figure, caption=_heads_caption, alt=_heads_alt)

# The most harmful heads together


def dose_figure(curve: pd.DataFrame) -> Drawing:
    """Accuracy by number of heads removed. Columns `removed, kind (top|random), label, mean, low, high`."""
    labels = sorted(curve["label"].unique())
    figure, axes = panels(len(labels), sharey=True)
    for ax, label in zip(axes, labels, strict=True):
        for kind, name, colour, marker, line in (
            ("top", TOP_HEADS, style.TESTED, "o", "-"),
            ("random", RANDOM, style.RANDOM, "s", "--"),
        ):
            part = curve[(curve["label"] == label) & (curve["kind"] == kind)]
            banded_line(ax, part, "removed", label=name, colour=colour, marker=marker, line=line)
        ax.set(xlabel="heads removed", title=f"gold label {label}")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))  # panels of four labels are narrow
        accuracy_axis(ax, max(2, len(labels)))
    axes[0].set_ylabel("accuracy")
    handles, names = axes[0].get_legend_handles_labels()
    legend_above(figure, handles, names)
    return figure


def _dose_caption(facts: Facts, curve: pd.DataFrame, sets: int) -> str:
    random = curve[curve["kind"] == "random"]
    fewer = " (fewer where these have too few others)" if (random["zeroed"] < random["removed"]).any() else ""
    return (
        f"Accuracy over the full vocabulary on the evaluation half when the most harmful heads are removed together, "
        f"beside as many random heads of the same layers{fewer}, {counted(facts.draws, 'draw')}, for each gold label. "
        f"{intervals('Bands', sets)}"
    )


def _dose_alt(curve: pd.DataFrame) -> str:
    number = curve["label"].nunique()
    which = "all" if number > 2 else "both"
    charts = "Line chart." if number == 1 else f"{'Two' if number == 2 else number} line charts, one per gold label."
    sentences = []
    for n in sorted({int(n) for n in curve["removed"]}):
        (top, _), (random, zeroed) = _overall(curve, n, "top"), _overall(curve, n, "random")
        what = f"With {counted(n, 'head')} removed, accuracy over {which} labels is {percent(top)}"
        if n == 0:
            sentences.append(f"With no head removed, accuracy over {which} labels is {percent(top)}.")
        elif zeroed == 0:
            sentences.append(f"{what} for the most harmful; there are no random heads.")
        else:
            sentences.append(f"{what} for the most harmful and {percent(random)} for random heads.")
    return " ".join([charts, *sentences])


DOSE = Figure("knockout-dose", draw=dose_figure, caption=_dose_caption, alt=_dose_alt)


def _cost(facts: Facts, curve: pd.DataFrame, number: int) -> str:
    """What removing the most harmful 1 % of heads costs, `number` heads."""
    intact, after = (percent(_overall(curve, n, "top")[0], 1) for n in (0, number))
    random, zeroed = _overall(curve, number, "random")
    change = f"leaves accuracy at **{after}**" if after == intact else f"takes accuracy from **{intact} to {after}**"
    what = f"Removing the {_most_harmful(number)} ({number / facts.all_heads:.1%} of all) {change}"
    if zeroed == 0:
        return f"{what}; {'its layer has' if number == 1 else 'their layers have'} no other heads to compare with."
    if zeroed < number:
        heads = counted(zeroed, "random head")
        verb = "leaves" if zeroed == 1 else "leave"
        return f"{what}; {heads} of the same layers, which have no more others, {verb} {percent(random, 1)}."
    heads = "a random head of the same layer leaves" if number == 1 else "random heads of the same layers leave"
    return f"{what}; {heads} {percent(random, 1)}."


COST = Text("knockout-cost", write=_cost)

# Foo-heads and bar-heads


def _groups(facts: Facts, split: pd.DataFrame, groups: Mapping[str, Sequence[Sequence[int]]]) -> str:
    """Accuracy by gold label without each group of heads."""
    labels = sorted(split["label"].unique())
    found = {(r.name, r.label): r for r in split.itertuples(index=False)}
    rows = [
        (escape(name), head_names(heads), *(_cell(facts, found.get((name, label))) for label in labels))
        for name, heads in groups.items()
    ]
    table = table_text(["removed", "heads", *(f"accuracy, gold {escape(label)}" for label in labels)], rows)
    own = [name for name in groups if name != "none" and not name.startswith("random for ")]
    if alone := [name for name in own if f"random for {name}" not in groups]:
        table += (
            f"\n\nThe layers of the {' and the '.join(map(escape, alone))} have no other heads to draw a control from."
        )
    return table


GROUPS = Text("knockout-groups", write=_groups)


def _change(facts: Facts, split: pd.DataFrame, serving: pd.DataFrame) -> str:
    """What the heads of each label cost its own prompts and the other's."""
    mean: dict[tuple[str, str], Any] = {(str(r.name), str(r.label)): r.mean for r in split.itertuples(index=False)}
    sentences, groups = [], []
    for own in facts.labels:
        others = [label for label in facts.labels if label != own]
        table = serving[serving["label"] == own]
        groups.append({(layer, head) for layer, head in zip(table["layer"], table["head"], strict=True)})
        if table.empty:
            continue
        own_change, other_change = (
            _points(float(np.mean([mean[f"{own}-heads", label] - mean["none", label] for label in labels])))
            for labels in ([own], others)
        )
        elsewhere = f"*{escape(others[0])}*" if len(others) == 1 else "another"
        worst = int(table["worse_rank"].max())
        sentences.append(
            f"Removing the {_placed(own, len(table), worst)}, changes accuracy by {own_change} where the answer is "
            f"*{escape(own)}* and by {other_change} where it is {elsewhere}."
        )
    if not sentences:
        missing = " or ".join(f"{escape(label)}-heads" for label in facts.labels)
        return f"The deep half of the layers has no heads to choose from, so there are no {missing}."
    every = "both" if len(groups) == 2 else f"all {len(groups)}"
    return f"{' '.join(sentences)} Heads in {every} groups: {len(set.intersection(*groups))}."


CHANGE = Text("knockout-change", write=_change)

# Do the two rankings agree?


def agreement_figure(facts: Facts, compared: pd.DataFrame) -> Drawing:
    """Two rankings of the deep heads against each other, the selected ones ringed and named.

    Columns `layer, head, log_increase, margin_drop, in_context`.
    """
    figure, (ax,) = panels(height=3.8)
    table = _deep(facts, compared)
    plain, chosen = table[~table["in_context"]], table[table["in_context"]]
    norm = Normalize(facts.half, max(facts.half, facts.n_layers - 1))
    depth: dict[str, Any] = {"cmap": style.depth(), "norm": norm}
    ax.scatter(plain["log_increase"], plain["margin_drop"], c=plain["layer"], s=16, **depth)
    ring: dict[str, Any] = {"edgecolor": style.TESTED, "linewidth": 1.8, "label": "in-context heads"}
    ax.scatter(chosen["log_increase"], chosen["margin_drop"], c=chosen["layer"], s=58, **depth, **ring)
    for row in chosen.itertuples():
        ax.annotate(f"{row.layer}.{row.head}", (row.log_increase, row.margin_drop), xytext=(5, 4),
                    textcoords="offset points", fontsize=8.5)  # fmt: skip
    ax.axhline(0, color=style.GREY, linewidth=0.8)
    ax.axvline(0, color=style.GREY, linewidth=0.8)
    ax.set(xlabel="log-probability increase (nats)", ylabel="margin lost when zeroed (logits)")
    if norm.vmin != norm.vmax:  # one layer needs no scale
        points = ScalarMappable(**depth)
        figure.colorbar(points, ax=ax, label="layer", pad=0.02, ticks=MaxNLocator(integer=True))
    if len(chosen):
        legend_above(figure, *ax.get_legend_handles_labels())  # within, its mark would look like a head
    return figure


def _agreement_caption(rho: float | None) -> str:
    return (
        "Log-probability increase against margin lost, one point a head of the deep half, both on the selection half. "
        f"Ringed: the in-context heads. {_rho(rho)}."
    )


def _agreement_alt(facts: Facts, compared: pd.DataFrame, rho: float | None) -> str:
    table = _deep(facts, compared)
    if table.empty:
        return "Empty scatter plot, as both scores are known for no head of the deep half."
    ringed = int(table["in_context"].sum())
    sizes = table[["log_increase", "margin_drop"]].abs()
    near = int((sizes <= sizes.max() / 10).all(axis=1).sum())
    lie = "lies" if near == 1 else "lie"
    return (
        f"Scatter plot of {counted(len(table), 'head')}. {near} {lie} within a tenth of the largest value of each "
        f"score around the origin; {counted(ringed, 'head')} {'is' if ringed == 1 else 'are'} ringed. {_rho(rho)}."
    )


AGREEMENT = Figure("knockout-agreement", draw=agreement_figure, caption=_agreement_caption, alt=_agreement_alt)

# Wording


def _top(ranked: pd.DataFrame) -> list[tuple[int, int]]:
    table = ranked[ranked["top"]]
    return [(int(layer), int(head)) for layer, head in zip(table["layer"], table["head"], strict=True)]


def _overall(curve: pd.DataFrame, removed: int, kind: str) -> tuple[float, int]:
    """Accuracy on the prompts of all labels, and the number of heads that were removed indeed."""
    part = curve[(curve["removed"] == removed) & (curve["kind"] == kind)]
    return (float(part["overall"].iloc[0]), int(part["zeroed"].iloc[0])) if len(part) else (float("nan"), 0)


def _deep(facts: Facts, compared: pd.DataFrame) -> pd.DataFrame:
    """The heads of the deep half whose scores are known."""
    return compared[compared["layer"] >= facts.half].dropna(subset=["log_increase", "margin_drop"])


def _most_harmful(number: int) -> str:
    return "most harmful head" if number == 1 else f"{number} most harmful heads"


def _placed(label: str, number: int, worst: int) -> str:
    """The heads of a label, and how high they stand in both lists."""
    if number == 1:
        return f"{escape(label)}-head, {'first in' if worst == 1 else f'within the top {worst} of'} both lists"
    return f"{escape(label)}-heads, all within the top {worst} of both lists"


def _cell(facts: Facts, row: Any) -> str:
    if row is None:
        return NOT_KNOWN
    if facts.evaluation_sets < 2:
        return percent(row.mean, 1)
    return share(Estimate(row.mean, row.low, row.high))


def _points(change: float) -> str:
    """A change of accuracy in percentage points."""
    if not np.isfinite(change):
        return "an unknown amount"
    points = round(100 * change)
    return f"{points:+d} {plural(abs(points), 'point')}" if points else "0 points"


def _rho(rho: float | None) -> str:
    if rho is None:
        return "Spearman's rank correlation is not defined here, as there are too few heads or too many equal scores"
    return f"Spearman's rank correlation: {rho:z.2f}"

"""What the chapter on knock-out shows of the in-context heads: how they were chosen, and what the group carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from ...publishing import style
from ...publishing.markdown import escape, table_text
from ...publishing.plots import panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.wording import head_names, intervals
from ...statistics import CHANCE, rank_agreement
from ...tracing.heads import pairs
from .group import ALL_DEEP, AT_MEAN, INTACT, OTHERS, RANDOM, ZEROED
from .scores import SCORES

AGAINST = -0.1  # of the largest exchange score: heads below that are named, as they work against the others
LISTED = 12  # heads of the table
NAMES = {
    "exchange": "exchange [$X$](#sym-exchange-score)",
    "values": "values exchanged",
    "label_edge": "label edges [$E$](#sym-label-edges)",
    "direct_margin": "written directly [$D$](#sym-written-directly)",
    "induction": "induction",
    "previous_token": "previous token",
}


def _scores(scores: pd.DataFrame, heads: Sequence[Sequence[int]], folds: Sequence[Sequence[Sequence[int]]] = ()) -> str:
    """The heads with the highest exchange scores, the chosen ones in bold, beside what else each does.

    Below, what each fold of the selection sets would have chosen by itself.
    """
    chosen = {(layer, head) for layer, head in heads}
    best = scores.dropna(subset="exchange").sort_values("exchange", ascending=False, kind="stable").head(LISTED)
    rows = []
    for head, values in zip(pairs(best), best[[*SCORES]].to_numpy(dtype=float), strict=True):
        name = head_names([head])
        rows.append([f"**{name}**" if head in chosen else name, *(f"{value:z.2f}" for value in values)])
    table = table_text(["head", *(NAMES[score] for score in SCORES)], rows)
    if not folds:
        return table
    same = [{(layer, head) for layer, head in fold} == chosen for fold in folds]
    if all(same):
        return f"{table}\n\nEach of {len(folds)} parts of the selection sets by itself chooses the same heads."
    own = "; ".join(head_names(fold) for fold in folds)
    return f"{table}\n\nThe {len(folds)} parts of the selection sets by themselves choose: {own}."


SCORE_TABLE = Text("knockout-scores", write=_scores)


def _chosen(
    facts: Facts,
    scores: pd.DataFrame,
    heads: Sequence[Sequence[int]],
    paper: Mapping[str, Sequence[Sequence[int]]],
) -> str:
    """Which heads are in-context, which work against them, and what the paper's own rule would have taken."""
    known = scores.dropna(subset="exchange")
    value = dict(zip(pairs(known), known["exchange"].astype(float), strict=True))
    own = [value[layer, head] for layer, head in heads]
    are = "The in-context head is" if len(heads) == 1 else f"The {len(heads)} in-context heads are"
    text = f"{are} **{head_names(heads)}** ({len(heads) / facts.all_heads:.1%} of all)."
    if own and min(own) <= 0:
        text += f" {sum(x <= 0 for x in own)} of them lose no margin with the query of another class."
    against = known[known["exchange"] < AGAINST * max(known["exchange"].max(), 0)].sort_values("exchange")
    if len(against) and known["exchange"].max() > 0:
        few = head_names(pairs(against, 3))
        them = "it" if len(heads) == 1 else "them"
        text += f" Against {them} work most of all {few}: with the query of another class the margin *grows*."
    if len(own) > 1 and np.ptp(known["exchange"]) > 0:
        rank = rank_agreement(known["exchange"], known["induction"])
        text += f" Over all heads the rank correlation of exchange and induction score is {rank:z.2f}."
    taken = [f"for *{escape(label)}* {head_names(own) if own else 'it is empty'}" for label, own in paper.items()]
    return f"{text} The paper's own rule, the first ten of both of its lists: {'; '.join(taken)}."


CHOSEN = Text("knockout-chosen", write=_chosen)

MEASURES = {"margin": "margin (logits)", "accuracy_two_way": "two-way accuracy"}
ORDER = (INTACT, ZEROED, RANDOM, AT_MEAN, OTHERS, ALL_DEEP)


def group_figure(conditions: pd.DataFrame, facts: Facts | None = None) -> Drawing:
    """Margin and accuracy, a row for each condition; a mark for each random group.

    Columns `name, draw, measure, mean, low, high`.
    """
    figure, axes = panels(2, height=3.2, sharey=True)
    guessing = facts.chance if facts else CHANCE
    names = [name for name in ORDER if name in set(conditions["name"])]
    for ax, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        for y, name in enumerate(names):
            part = conditions[(conditions["name"] == name) & (conditions["measure"] == measure)]
            if name == RANDOM:
                ax.plot(part["mean"], [y] * len(part), "|", color=style.RANDOM, markersize=11)
                continue
            whiskers = [(part["mean"] - part["low"]).fillna(0), (part["high"] - part["mean"]).fillna(0)]
            ax.errorbar(part["mean"], [y] * len(part), xerr=whiskers, fmt="o", color=style.TESTED, capsize=3)
        ax.axvline(guessing if measure != "margin" else 0, color=style.GREY, linestyle=":", linewidth=1.3)
        ax.set(xlabel=title if measure == "margin" or guessing == CHANCE else "accuracy between labels")
    axes[1].set_xlim(0, 1.02)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def _group_caption(facts: Facts, conditions: pd.DataFrame, sets: int) -> str:
    drawn = conditions[conditions["name"] == RANDOM]["draw"].nunique()
    bars = f"a bar each for {drawn} random groups of the same layers" if drawn else "there are no random groups"
    return (
        f"Margin, and accuracy {facts.between}, on the evaluation half: without the in-context heads (zeroed at "
        f"every position; {bars}), and with heads replaced at the last position by their mean over the selection half. "
        f"Dotted: no margin, and guessing. {intervals('Whiskers', sets)}"
    )


def _group_alt(conditions: pd.DataFrame) -> str:
    sentences = []
    for name in (name for name in ORDER if name in set(conditions["name"])):
        part = conditions[conditions["name"] == name].pivot_table(index="draw", columns="measure", values="mean")
        margin, accuracy = part["margin"], part["accuracy_two_way"]
        if name == RANDOM:
            span = f"margin {margin.min():z.2f} to {margin.max():z.2f}, accuracy {accuracy.min():.0%} to"
            sentences.append(f"{name}: {span} {accuracy.max():.0%}.")
        else:
            sentences.append(f"{name}: margin {margin.item():z.2f}, accuracy {accuracy.item():.0%}.")
    return " ".join(["Two charts of points in rows.", *sentences])


GROUP = Figure("knockout-group", draw=group_figure, caption=_group_caption, alt=_group_alt)


def _carried(conditions: pd.DataFrame) -> str:
    """What is left of the margin without the heads, and with them alone."""
    means = conditions[conditions["measure"] == "margin"].groupby("name")["mean"].mean()
    intact = means[INTACT]
    if not np.isfinite(intact) or intact <= 0:
        return "The intact model has no margin, so there is nothing that a group of heads could carry."
    share = {name: means[name] / intact for name in ORDER[1:] if name in means}
    words = [f"Without the in-context heads **{share[ZEROED]:z.0%}** of the margin is left"]
    if RANDOM in share:
        words[0] += f", without random heads of the same layers {share[RANDOM]:z.0%} on average"
    words.append(f"With them at their mean {share[AT_MEAN]:z.0%} is left")
    words.append(
        f"with all *other* deep heads at their mean **{share[OTHERS]:z.0%}**, with all deep heads at theirs "
        f"{share[ALL_DEEP]:z.0%}"
    )
    return f"{words[0]}. {words[1]}, {words[2]}."


CARRIED = Text("knockout-carried", write=_carried)

"""Towers: do query and key of a head measure whether a demonstration is of the query's class?

Everything is read at the *label positions* of a prompt, where the demonstrations are merged. A label position is of the
*same class* if its label is the query's right answer. The score of a position is q.k as it enters the softmax (method
page, equation eq-attention); `pattern` is what the softmax makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pandas as pd

from ...models.model import Model
from ...models.surroundings import undisturbed
from ...prompts.sets import PromptSet
from ...statistics import estimate, summarise
from ...tracing.heads import HEAD, Head, Heads, as_heads, control_heads, deep_heads, is_in
from .reading import PROMPT, read_heads

IN_CONTEXT, SHARPEST, CONTROL = "in-context heads", "sharpest heads", "random deep heads"
SCORES = {"auc": "q·k", "auc_unrotated": "q·k without rotation", "auc_cosine": "cosine of the residuals"}


@undisturbed
def towers(model: Model, prompt_sets: PromptSet | Sequence[PromptSet], heads: Heads) -> pd.DataFrame:
    """The metric test: how well q.k of each head tells label positions of the query's class from the others.

    Returns:
        a row per head and prompt, as `metric`.
    """
    return metric(read_heads(model, prompt_sets, as_heads(model, heads, least=1)))


def auc(table: pd.DataFrame, column: str) -> pd.Series:
    """Area under the ROC curve of a column of `read_heads` as a classifier of "same class", per head and prompt.

    It is the chance that a label position of the same class scores higher than one of the other; ties count half.
    nan where a prompt shows one class only.
    """
    ranked = table.assign(rank=table.groupby(PROMPT)[column].rank())  # ties get their mean rank
    same = ranked[ranked["same"]].groupby(PROMPT)["rank"].agg(["sum", "size"])
    size = ranked.groupby(PROMPT).size()
    same = same.reindex(size.index, fill_value=0)
    pairs = same["size"] * (size - same["size"])
    above = same["sum"] - same["size"] * (same["size"] + 1) / 2
    return (above / pairs.where(pairs > 0)).rename(column)


def metric(table: pd.DataFrame) -> pd.DataFrame:
    """The metric test from `read_heads`: AUC of q.k, of q.k without rotation and of the residuals' cosine.

    Returns:
        `layer, head, set, query, gold, auc, auc_unrotated, auc_cosine`.
    """
    columns = {"auc": "score", "auc_unrotated": "score_unrotated", "auc_cosine": "cosine"}
    return pd.DataFrame({name: auc(table, column) for name, column in columns.items()}).reset_index()


def metric_effects(measured: pd.DataFrame) -> pd.DataFrame:
    """C9 from `metric`: AUC of q.k minus that of the cosine, mean over heads. `set, query, effect, above_chance`.

    `above_chance` is the AUC of q.k minus one half, which has to be positive too.
    """
    means = measured.groupby(["set", "query"], as_index=False)[["auc", "auc_cosine"]].mean()
    means = means.assign(effect=means["auc"] - means["auc_cosine"], above_chance=means["auc"] - 0.5)
    return means[["set", "query", "effect", "above_chance"]]


def sharpest_heads(model: Model, prompt_sets: Sequence[PromptSet], number: int | None = None) -> list[Head]:
    """Heads of the deep half by how well q.k tells the query's class (mean AUC), best first: the first `number` or all.

    They are a choice, so make it on the selection half.
    """
    deep = deep_heads(model)
    if not deep:
        return []
    means = towers(model, prompt_sets, deep).groupby(HEAD)["auc"].mean().sort_values(ascending=False, kind="stable")
    return [(int(layer), int(head)) for layer, head in means.index[:number]]


def sharpest_of(heads: Sequence[Head], ranked: Sequence[Head]) -> Head:
    """The one of some heads that stands first in a ranking; the first of them if none is ranked."""
    places = {head: place for place, head in enumerate(ranked)}
    return min(heads, key=lambda head: places.get(head, len(places)))


def head_groups(
    model: Model, heads: Sequence[Head], draws: int, *, ranked: Sequence[Head] = (), seed: int = 0
) -> dict[str, list[Head]]:
    """In-context heads, as many of the sharpest, and random deep heads; a group without heads is left out.

    Args:
        draws: random heads for each in-context head.
        ranked: the result of `sharpest_heads`; without it there are two groups.
    """
    control = control_heads(model, heads, draws, seed)
    groups = {IN_CONTEXT: list(heads), SHARPEST: list(ranked[: len(heads)]), CONTROL: control}
    return {name: group for name, group in groups.items() if group}


def above_chance(effects: pd.DataFrame) -> dict[str, float]:
    """AUC of q.k minus one half, from `metric_effects`: `mean, low, high`; empty where there is no AUC."""
    known = effects.dropna(subset="above_chance")
    return asdict(estimate(known["above_chance"], known["set"])) if len(known) else {}


def by_head(table: pd.DataFrame, columns: Mapping[str, str], groups: Mapping[str, Sequence[Head]]) -> pd.DataFrame:
    """Means and intervals of some columns for each head of the first group, and for each group together.

    Args:
        table: a row per head and prompt, with a column `set`.
        columns: column -> its name in the result.
        groups: name -> heads; the in-context heads first.

    Returns:
        `name, measure, mean, low, high`; names are layer.head for single heads.
    """
    first = next(iter(groups.values()))
    named = [table[is_in(table, [head])].assign(name=f"{head[0]}.{head[1]}") for head in sorted(first)]
    named += [table[is_in(table, heads)].assign(name=name) for name, heads in groups.items()]
    long = pd.concat(named).melt(["name", "set"], list(columns), "measure", "value").dropna(subset="value")
    summary = summarise(long, ["name", "measure"], "value")
    return summary.assign(measure=summary["measure"].map(dict(columns)))

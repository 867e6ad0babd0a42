"""Count-balanced attention over shares of a label: how much of the majority bias runs through some heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from scipy.special import expit

from ...models.model import Model
from ...prompts.sets import PromptSet, require_two
from ...statistics import estimate, summarise
from ...tracing.balancing import balanced
from ...tracing.controls import INTACT, fold_effects, is_fold, is_random, more_than_others, random_effects, removed
from ...tracing.heads import RANDOM, Head
from .response import share_effects


def balanced_answers(
    model: Model,
    prompt_sets_by_share: Mapping[float, Sequence[PromptSet]],
    groups: Mapping[str, Sequence[Head]],
) -> pd.DataFrame:
    """Answers at every share, intact and under count-balanced attention in each group of heads.

    Returns:
        a row per group, share and prompt: `heads` (the group's name, or `intact`), `share, set, query, label` (gold),
        `p_foo_two_way, accuracy, accuracy_two_way`.
    """
    names, tables = dict(enumerate((INTACT, *groups))), []
    for share, sets in prompt_sets_by_share.items():
        require_two(sets, "The probability of the second label")
        table = balanced(model, sets, [[], *groups.values()])
        towards = table["margin"].where(table["label"] == sets[0].labels[1], -table["margin"])
        tables.append(table.assign(heads=table["group"].map(names), share=share, p_foo_two_way=expit(towards)))
    return pd.concat(tables, ignore_index=True).drop(columns=["group", "margin"])


def slopes(table: pd.DataFrame) -> pd.DataFrame:
    """Slope of P(foo) on the share of foo for every group of heads: `heads, set, effect`."""
    parts = [share_effects(part).assign(heads=name) for name, part in table.groupby("heads", sort=False)]
    return pd.concat(parts, ignore_index=True)


def evidence(table: pd.DataFrame, accuracy: pd.DataFrame) -> dict[str, Any]:
    """What C11 is judged by, named as in `statistics.judge`: the slope that goes with the in-context heads.

    Args:
        table: result of `balanced_answers` for the groups of `control_groups`.
        accuracy: two-way accuracy per set, `set, effect`.
    """
    found = slopes(table)
    return {
        "effects": removed(found),
        "random": random_effects(found),
        "control": more_than_others(found),
        "folds": fold_effects(found),
        "accuracy": accuracy,
    }


def mean_slopes(effects: pd.DataFrame) -> pd.DataFrame:
    """Mean slope of every group but of folds with its interval over sets: `heads, mean, low, high`."""
    shown = effects[~is_fold(effects["heads"])]
    parts = [(name, estimate(part["effect"], part["set"])) for name, part in shown.groupby("heads", sort=False)]
    return pd.DataFrame([(name, e.mean, e.low, e.high) for name, e in parts], columns=["heads", "mean", "low", "high"])


def levels(table: pd.DataFrame) -> pd.DataFrame:
    """Mean two-way accuracy of every group over all prompts: `heads, accuracy`."""
    means = table[~is_fold(table["heads"])].groupby("heads", sort=False)["accuracy_two_way"].mean()
    return means.rename("accuracy").reset_index()


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """P(foo) by share: `heads, share, mean, low, high`, with intervals over sets.

    Random groups are one line, their mean, whose `low` and `high` are the least and the greatest of the groups.
    """
    one = table[~is_random(table["heads"]) & ~is_fold(table["heads"])]
    lines = [summarise(one, ["heads", "share"], "p_foo_two_way")]
    drawn = table[is_random(table["heads"])]
    if len(drawn):
        means = drawn.groupby(["heads", "share"])["p_foo_two_way"].mean().groupby("share")
        lines.append(means.agg(mean="mean", low="min", high="max").reset_index().assign(heads=RANDOM))
    return pd.concat(lines, ignore_index=True)

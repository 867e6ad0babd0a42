"""Orders with and without position in some heads: what the last labels do to an answer, and how far it swings.

Paired orders exchange demonstrations of one label at the end, or at the start, for as many of the other in the middle.
Nothing else moves, so the difference of their answers is the effect of the label that stands there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from scipy.special import expit

from ...models.model import Model
from ...prompts.packing import pack
from ...prompts.sets import PromptSet, require_two
from ...prompts.variants import Order, reorder, rotations
from ...statistics import estimate
from ...study import Study
from ...tracing.answers import outcome_table
from ...tracing.capture import capture
from ...tracing.controls import INTACT, fold_effects, is_fold, is_random, random_effects, removed
from ...tracing.heads import CHOSEN, RANDOM, Head
from ...tracing.position_free import without_position_in
from ...tracing.sweep import sweep

SETS = 16  # evaluation sets that are enough; each runs in several orders, and with every group
SWINGS = 4  # orders whose answers are compared: two rotations and their reversals
ENDS = ("last", "first")  # two places each; where there are fewer demonstrations of a label, one


def numbers(study: Study) -> list[int]:
    """Numbers of an evenly spaced part of the evaluation sets, at least `SETS` where there are."""
    sets = study.scale.evaluation_sets
    return list(range(0, sets, max(1, sets // SETS)))


def swing_orders(study: Study) -> list[Order]:
    """The orders over which answers swing, evenly spaced."""
    return rotations(2 * study.scale.shots, SWINGS)


def paired_orders(s: PromptSet) -> dict[tuple[str, str], Order]:
    """Orders by end (`last`, `first`) and by the label that stands there, two pairs with the same four demonstrations.

    The demonstrations at the end and in the middle are the first two of each label; the others stay in their order.
    """
    n, width = len(s.demonstrations), 2
    own = {name: [i for i, (_, label) in enumerate(s.demonstrations) if label == name][:width] for name in s.labels}
    width = min(len(places) for places in own.values())
    moved = {name: own[name][:width] for name in s.labels}
    left = [i for i in range(n) if all(i not in places for places in moved.values())]
    found: dict[tuple[str, str], Order] = {}
    for end in ENDS:
        at_end = list(range(n - width, n)) if end == "last" else list(range(width))
        others = sorted(set(range(n)) - set(at_end), key=lambda place: abs(place - (n - 1) / 2))
        middle = sorted(others[:width])
        for name, rival in zip(s.labels, reversed(s.labels), strict=True):
            order, rest = [-1] * n, iter(left)
            for places, who in ((at_end, moved[name]), (middle, moved[rival])):
                for place, i in zip(places, who, strict=True):
                    order[place] = i
            found[end, name] = tuple(next(rest) if i < 0 else i for i in order)
    return found


def in_paired_orders(
    model: Model, prompt_sets: Mapping[int, PromptSet], groups: Mapping[str, Sequence[Head]]
) -> pd.DataFrame:
    """Answers in `paired_orders`, intact and without position in each group: the columns of `answers_in`, `end, shown`.

    `shown` is the label that stands at the end.
    """
    orders = {number: list(paired_orders(s).items()) for number, s in prompt_sets.items()}
    table = answers_in(model, prompt_sets, {n: [order for _, order in own] for n, own in orders.items()}, groups)
    keys = [orders[n][i][0] for n, i in zip(table["set"], table["order"], strict=True)]
    return table.assign(end=[end for end, _ in keys], shown=[shown for _, shown in keys])


def answers_in(
    model: Model,
    prompt_sets: Mapping[int, PromptSet],
    orders: Mapping[int, Sequence[Order]],
    groups: Mapping[str, Sequence[Head]],
) -> pd.DataFrame:
    """Answers of sets, by their numbers, each in its orders, intact and without position in each group of heads.

    Returns:
        a row per group, order and prompt: `heads` (the group's name, or `intact`), `set, order, query, label` (gold),
        `accuracy, accuracy_two_way, margin, p_foo, p_gold` (between the two labels).
    """
    require_two([*prompt_sets.values()], "The probability of the second label")
    names = (INTACT, *groups)

    def of_set(number: int, s: PromptSet) -> pd.DataFrame:
        tables = []
        for i, order in enumerate(orders[number]):
            turned = reorder(model, s, order)
            batch = pack([turned], model.pad_id)
            intact = capture(model, batch, inputs=True)
            rows = without_position_in(model, batch, intact, [[], *groups.values()])
            tables += [
                outcome_table(part, turned, 0, number).assign(heads=name, order=i)
                for name, part in zip(names, rows, strict=True)
            ]
        return pd.concat(tables, ignore_index=True)

    asked = [list(orders.items()), list(groups.items())]
    tables = sweep(model, list(prompt_sets.values()), "orders", asked, of_set, numbers=list(prompt_sets))
    table = pd.concat(tables, ignore_index=True).drop(columns="group")
    foo = next(iter(prompt_sets.values())).labels[1]
    towards = table["margin"].where(table["label"] == foo, -table["margin"])
    return table.assign(p_foo=expit(towards), p_gold=expit(table["margin"]))


def end_effects(paired: pd.DataFrame, end: str = "last") -> pd.DataFrame:
    """What foo at an end gives to P(foo), over bar there: `heads, set, effect`; mean over queries."""
    part = paired[paired["end"] == end]
    means = part.groupby(["heads", "set", "shown"], sort=False)["p_foo"].mean().unstack("shown").sort_index(axis=1)
    bar, foo = means.columns
    return (means[foo] - means[bar]).rename("effect").reset_index()


def swings(answers: pd.DataFrame, measure: str = "p_gold") -> pd.DataFrame:
    """Standard deviation over orders, of one query, mean over the queries of a set: `heads, set, effect`.

    Of the margin it is relative to the mean size of the margin, so that a smaller margin alone steadies nothing.
    """
    groups = answers.groupby(["heads", "set", "query"], sort=False)[measure]
    sd = groups.std(ddof=0).groupby(["heads", "set"], sort=False).mean()
    if measure == "margin":
        sd /= answers["margin"].abs().groupby([answers["heads"], answers["set"]], sort=False).mean()
    return sd.rename("effect").reset_index()


def recency_evidence(paired: pd.DataFrame) -> dict[str, Any]:
    """What C12 is judged by, named as in `statistics.judge`."""
    found = end_effects(paired)
    return {"effects": removed(found), "random": random_effects(found), "folds": fold_effects(found)}


def swing_evidence(answers: pd.DataFrame) -> dict[str, Any]:
    """What C14 is judged by, named as in `statistics.judge`."""
    found = swings(answers)
    before = found.loc[found["heads"] == INTACT, ["set", "effect"]]
    return {"effects": removed(found), "random": random_effects(found), "folds": fold_effects(found), "before": before}


def summary(effects: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Means of tables of effects with intervals over sets: `measure, heads, mean, low, high`.

    Random groups are one line a measure, whose `low` and `high` are the least and the greatest of the groups.
    """
    rows = []
    for measure, table in effects.items():
        for heads in (INTACT, CHOSEN):
            part = table[table["heads"] == heads]
            e = estimate(part["effect"], part["set"])
            rows.append((measure, heads, e.mean, e.low, e.high))
        means = table[is_random(table["heads"])].groupby("heads")["effect"].mean()
        if len(means):
            rows.append((measure, RANDOM, float(means.mean()), float(means.min()), float(means.max())))
    return pd.DataFrame(rows, columns=["measure", "heads", "mean", "low", "high"])


def accuracies(answers: pd.DataFrame) -> pd.DataFrame:
    """Two-way accuracy over all orders and prompts, by group: `heads, accuracy`."""
    shown = answers[~is_fold(answers["heads"])]
    return shown.groupby("heads", sort=False)["accuracy_two_way"].mean().rename("accuracy").reset_index()


def accuracy_over_orders(answers: pd.DataFrame) -> pd.DataFrame:
    """The paper's number: standard deviation over orders of the accuracy of all prompts: `heads, effect`."""
    shown = answers[~is_fold(answers["heads"])]
    means = shown.groupby(["heads", "order"], sort=False)["accuracy"].mean()
    return means.groupby("heads", sort=False).std(ddof=0).rename("effect").reset_index()

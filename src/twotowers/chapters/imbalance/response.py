"""Imbalance: what happens to an answer when one label has more demonstrations, and why.

A set's demonstrations are drawn with 1, 3, ... of n labelled foo, its queries stay. Beside the answer stands what
the given heads do at the label positions: their attention, and the logit minus (method page, eq-logit-minus) of
pattern * vo, a part of the logit difference, since the final norm's scale is frozen. Throughout, *foo* is the
second of a set's two sorted labels and a logit difference is foo's logit minus bar's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Int
from torch import Tensor

from ...arguments import require_between
from ...errors import HeadError, PromptError
from ...models.architecture import Architecture
from ...models.model import Model
from ...models.surroundings import undisturbed
from ...prompts.encoding import require_reader
from ...prompts.sets import PromptSet, as_sets, require_two
from ...statistics import estimate, summarise
from ...tracing.answers import SAME, answer_table
from ...tracing.capture import Batch, Capture
from ...tracing.heads import CHOSEN, Head, Heads, as_heads, beside_random, by_layer
from ...tracing.labels import position_kinds
from ...tracing.projection import label_direction, values_minus
from ...tracing.sweep import sweep_captures


def head_groups(heads: Sequence[Head], model: Model, seed: int) -> dict[str, list[Head]]:
    """`heads.beside_random` with the chapter's own draw."""
    return beside_random(heads, model.arch.n_heads, [seed, 5])


# Answers, attention and weighted values by share


@undisturbed
def imbalance(
    model: Model,
    prompt_sets_by_share: Mapping[float, Sequence[PromptSet]],
    heads: Heads | Mapping[str, Heads],
) -> pd.DataFrame:
    """Answers and what heads do at the label positions, for prompt sets with different shares of foo.

    Args:
        prompt_sets_by_share: share of foo -> prompt sets; set i of every share is compared with set i of the others.
        heads: (layer, head) pairs, or named groups of them that are looked at apart.

    Returns:
        a row per group of heads, share and prompt: `heads` (the group's name; `in-context` for a plain list),
        `share, set, query, label` (gold), `p_foo` (over the full vocabulary), `p_foo_two_way`, `p_gold` (two-way),
        `accuracy, accuracy_two_way, logit_difference`; then sums over the group's heads and a label's positions:
        `attention_foo, attention_bar` of the last position, and `values_foo, values_bar`, logit minus of
        pattern * vo, in logits.
    """
    require_reader(model)
    groups = named(model, heads)
    if not isinstance(prompt_sets_by_share, Mapping) or not prompt_sets_by_share:
        raise PromptError("Prompt sets are given by their share of foo, such as {0.25: sets, 0.5: others}.")
    for share in prompt_sets_by_share:
        require_between("A share of foo", share, 0, 1)
    by_share = {float(share): as_sets(model, sets) for share, sets in prompt_sets_by_share.items()}
    for sets in by_share.values():
        require_two(sets, "The imbalance of labels")

    def of_capture(
        share: float, members: list[PromptSet], first: int, batch: Batch, captured: Capture
    ) -> list[pd.DataFrame]:
        shown = answer_table(captured.answers, members, first).assign(share=share)
        kinds = position_kinds(members, batch)
        return [
            shown.assign(heads=name, **label_sums(model.arch, batch, captured, kinds, own))
            for name, own in groups.items()
        ]

    tables = [
        sweep_captures(
            model, sets, f"imbalance, {share:.0%} foo", [share, [*groups.items()]], partial(of_capture, share)
        )
        for share, sets in by_share.items()
    ]
    return pd.concat(tables, ignore_index=True)


def label_sums(
    arch: Architecture, batch: Batch, captured: Capture, kinds: Int[Tensor, "N S"], heads: Sequence[Head]
) -> dict[str, np.ndarray]:
    """The columns `attention_bar` to `values_foo` of `imbalance`; `kinds` is of `labels.position_kinds`."""
    assert captured.pattern is not None
    sums = {f"{of}_{label}": np.zeros(len(kinds)) for of in ("attention", "values") for label in ("bar", "foo")}
    towards = label_direction(arch, captured, batch)
    for layer, numbers in by_layer(heads).items():
        attention = captured.pattern[layer][:, numbers]  # [N, h, S]
        weighted = attention * values_minus(arch, captured, batch, layer, numbers, towards)
        for code, label in enumerate(("bar", "foo")):
            here = (kinds == code)[:, None]
            sums[f"attention_{label}"] += (attention * here).sum((1, 2)).double().numpy()
            sums[f"values_{label}"] += (weighted * here).sum((1, 2)).double().numpy()
    return sums


# What the share changes, set by set


def response(table: pd.DataFrame) -> pd.DataFrame:
    """Means of what heads do, over all prompts by share of foo, with 95 % intervals over sets.

    Returns:
        `panel` (attention, values), `line` (the label at the positions), `heads` (the group), `share, mean, low, high`.
    """
    rows = [
        summarise(part, ["share"], f"{panel}_{label}").assign(panel=panel, line=label, heads=group)
        for panel in ("attention", "values")
        for group, part in table.groupby("heads", sort=False)
        for label in ("bar", "foo")
    ]
    return pd.concat(rows, ignore_index=True)[["panel", "line", "heads", "share", "mean", "low", "high"]]


def share_effects(table: pd.DataFrame, value: str = "p_foo_two_way") -> pd.DataFrame:
    """Change of a column over the whole range of shares, per set: `set, effect`.

    The effect is the least-squares slope on the share of foo, from 0 to 1; queries are averaged first.
    """
    means = table.groupby(["set", "share"], as_index=False)[value].mean()
    rows = [(key, _slope(part["share"], part[value])) for key, part in means.groupby("set")]
    return pd.DataFrame(rows, columns=["set", "effect"])


def accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """Two-way accuracy at the chapter's own shots, over all shares, per set: `set, effect`."""
    answers = table[table["heads"] == table["heads"].iloc[0]]
    return answers.groupby("set")["accuracy_two_way"].mean().rename("effect").reset_index()


def accounted(table: pd.DataFrame) -> pd.DataFrame:
    """How much of the change in the logit difference the summed weighted values account for, per set.

    Both are taken as deviations from the prompt's own mean over shares. The weighted values are a part of the
    logit difference, so the slope of the part on the whole is the part's share of the change; all parts of the
    residual together have 1.

    Returns:
        `set, part` (that slope) and `r2` (squared correlation); both 0 where one of the two does not change.
    """
    pairs = table.assign(values=table["values_foo"] + table["values_bar"])
    columns = ["values", "logit_difference"]
    pairs[columns] -= pairs.groupby(list(SAME))[columns].transform("mean")
    rows = []
    for key, part in pairs.groupby("set"):
        forth = _slope(part["logit_difference"], part["values"])
        rows.append((key, forth, forth * _slope(part["values"], part["logit_difference"])))
    return pd.DataFrame(rows, columns=["set", "part", "r2"])


def accounts(table: pd.DataFrame) -> pd.DataFrame:
    """Means of `accounted` for each group of heads, with 95 % intervals over sets.

    Returns:
        `heads, quantity` ("part" or "r2"), `mean, low, high`.
    """
    groups = {str(name): accounted(part) for name, part in table.groupby("heads")}
    rows = [
        (name, quantity, estimate(part[quantity], part["set"]))
        for name, part in groups.items()
        for quantity in ("part", "r2")
    ]
    columns = ["heads", "quantity", "mean", "low", "high"]
    return pd.DataFrame([(name, quantity, e.mean, e.low, e.high) for name, quantity, e in rows], columns=columns)


def _slope(x: pd.Series, y: pd.Series) -> float:
    """Least-squares slope of y on x; 0 if x does not change."""
    deviation = x.to_numpy(dtype=float) - x.mean()
    return float(deviation @ y.to_numpy(dtype=float) / (deviation @ deviation)) if np.ptp(deviation) > 0 else 0.0


# Shared with the mitigation


def named(model: Model, heads: Heads | Mapping[str, Heads]) -> dict[str, list[Head]]:
    groups = heads if isinstance(heads, Mapping) else {CHOSEN: heads}
    if not groups:
        raise HeadError("There is no group of heads; give (layer, head) pairs, or groups of them by name.")
    return {name: as_heads(model, own) for name, own in groups.items()}

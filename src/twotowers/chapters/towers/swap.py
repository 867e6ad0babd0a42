"""Swap: the same prompt with all its labels exchanged. What moves, attention or values?

If query and key find the demonstrations of the query's class and values carry their labels, then exchanging the labels
moves attention, seen from a label, to other demonstrations, while the positions that carry a label still hand over
that label. So *positions that carry a label* are compared, before and after: they are other positions of the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from ...models.model import Model
from ...prompts.sets import PromptSet
from ...prompts.variants import swapped
from ...statistics import estimate, summarise
from ...tracing.heads import HEAD, Head, is_in
from .reading import BEFORE, read_heads

ROW = [*HEAD, "set", "query", "demonstration"]


def read_swapped(
    model: Model, prompt_sets: Sequence[PromptSet], heads: Sequence[Head]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What heads do, as `reading.read_heads`, before and after all labels are exchanged."""
    before, after = (read_heads(model, sets, heads) for sets in (prompt_sets, [swapped(s) for s in prompt_sets]))
    return before, after


def heads_by_label(selected: Mapping[str, Sequence[Head]]) -> dict[str, list[Head]]:
    """The heads that serve each label, the second label first; a label without heads is left out."""
    labels = sorted(set(selected) - {"all"}, reverse=True)
    return {label: list(selected[label]) for label in labels if selected[label]}


def swap(before: pd.DataFrame, after: pd.DataFrame, *, same_demonstrations: bool = False) -> pd.DataFrame:
    """Attention and values at the positions that carry a label, before and after the labels are exchanged.

    Args:
        before, after: `towers.read_heads` of the prompt sets and of their `swapped` versions, same heads.
        same_demonstrations: compare the positions of the same demonstrations instead, whose label is another
            one afterwards; values are then read towards the label that was there before.

    Returns:
        a row per `layer, head, set, gold` (right answer before) and `label` (which the positions carry), with
        `attention_before, attention_after`, mean weight of such a position, and `value_before, value_after`,
        mean logit minus of its vo towards the label, over positions and queries.

    Raises:
        ValueError: the tables do not belong together.
    """
    if not before[ROW].equals(after[ROW]) or (before["label"] == after["label"]).any():
        raise ValueError("before and after must be the same heads on the same prompts, with all labels exchanged")
    after = after.assign(gold=before["gold"])
    if same_demonstrations:
        was = after[BEFORE] if BEFORE in after else -after["value"]
        after = after.assign(label=before["label"], value=was)
    keys = [*HEAD, "set", "gold", "label"]
    columns = {"weight": "attention", "value": "value"}
    means = [table.groupby(keys)[list(columns)].mean().rename(columns=columns) for table in (before, after)]
    return means[0].add_suffix("_before").join(means[1].add_suffix("_after")).reset_index()


def at_own_label(changes: pd.DataFrame, serving: Mapping[str, Sequence[Head]]) -> pd.DataFrame:
    """Rows of `swap` where the positions carry the label that the head serves: foo-heads at foo positions."""
    return pd.concat(
        [changes[(changes["label"] == label) & is_in(changes, heads)] for label, heads in serving.items()],
        ignore_index=True,
    )


def relative_changes(changes: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Relative changes of attention and of values in each demonstration set, for each combination of the columns `by`.

    Changes and starting sizes are added up over heads and answers, and a set's change is divided by the starting size
    of an average set, before they are averaged: a head or set that starts near zero cannot swamp the others. So
    the mean over sets is the sum of all changes over the sum of all starting sizes.

    Returns:
        the columns `by`, `set`, then `attention` and `value`: sum of |after - before| over that of |before|; and
        `attention_signed, value_signed`: sum of (after - before) over |sum of before|. nan where that sum is 0.
    """
    keys, parts = [*by, "set"], {}
    for name in ("attention", "value"):
        start, end = changes[f"{name}_before"], changes[f"{name}_after"]
        facts = changes[keys].assign(start=start, size=start.abs(), signed=end - start, moved=(end - start).abs())
        total = facts.groupby(keys)[["start", "size", "signed", "moved"]].sum()
        usual = (total.groupby(list(by)).transform("mean") if by else total.assign(**total.mean())).abs()
        parts[name] = total["moved"] / usual["size"].where(usual["size"] > 0)
        parts[f"{name}_signed"] = total["signed"] / usual["start"].where(usual["start"] > 0)
    return pd.DataFrame(parts).reset_index()


def swap_effects(changes: pd.DataFrame) -> pd.DataFrame:
    """C10: relative change of attention minus that of values, per demonstration set. `set, effect`."""
    relative = relative_changes(changes)
    return relative.assign(effect=relative["attention"] - relative["value"])[["set", "effect"]]


def mean_effect(changes: pd.DataFrame, heads: Sequence[Head]) -> float:
    """The mean of `swap_effects` of some heads."""
    return float(swap_effects(changes[is_in(changes, heads)])["effect"].mean())


def directed_changes(changes: pd.DataFrame) -> pd.DataFrame:
    """The part of the relative change of attention that follows the class, per demonstration set. `set, effect`.

    Attention to a label should fall where it was the answer and rise where it was not. Changes in that direction
    count as positive, others as negative, over the sum of |before|. A head that looks at fixed positions changes
    alike for both answers, which cancels. Of more than two labels, attention should rise at the next label, which the
    gold one has become; what happens at further labels does not count.
    """
    direction = (changes["label"] != changes["gold"]) * 2 - 1
    labels = sorted(changes["gold"].unique())
    if len(labels) > 2:
        following = changes["gold"].map(dict(zip(labels, (*labels[1:], labels[0]), strict=True)))
        direction = direction.where((changes["label"] == changes["gold"]) | (changes["label"] == following), 0)
    total = changes.assign(
        moved=direction * (changes["attention_after"] - changes["attention_before"]), size=changes["attention_before"]
    )
    total = total.groupby("set", as_index=False)[["moved", "size"]].sum()
    return total.assign(effect=total["moved"] / total["size"].mean())[["set", "effect"]]


def unsigned_changes(changes: pd.DataFrame) -> dict[str, float]:
    """Relative changes of `attention` and of `value` without signs, means over demonstration sets, where known."""
    means = relative_changes(changes)[["attention", "value"]].mean().dropna()
    return {str(name): float(mean) for name, mean in means.items()}


def following(changes: pd.DataFrame) -> dict[str, float]:
    """Mean of `directed_changes` with its interval: `mean, low, high`; empty where there is no attention to change."""
    directed = directed_changes(changes)
    known = directed[np.isfinite(directed["effect"])]
    return asdict(estimate(known["effect"], known["set"])) if len(known) else {}


def by_label(changes: pd.DataFrame, serving: Mapping[str, Sequence[Head]]) -> pd.DataFrame:
    """Signed relative changes of each label's heads at its own positions, for each right answer before the swap.

    Returns:
        `name` ("foo-heads, answer foo"), `measure` (attention or value), `mean, low, high`.
    """
    tables = []
    for label, heads in serving.items():
        signed = relative_changes(at_own_label(changes, {label: heads}), ["gold"])
        signed = pd.concat([signed[signed["gold"] == label], signed[signed["gold"] != label]])  # own answer first
        long = signed.melt(["gold", "set"], ["attention_signed", "value_signed"], "measure", "change").dropna()
        tables.append(long.assign(name=f"{label}-heads, answer " + long["gold"]))
    table = pd.concat(tables, ignore_index=True)
    table["measure"] = table["measure"].str.removesuffix("_signed")
    return summarise(table, ["name", "measure"], "change")

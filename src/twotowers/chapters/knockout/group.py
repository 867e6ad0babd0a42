"""The in-context heads as a group: without them, at their mean, and alone; beside random groups of the same layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ...models.model import Model
from ...models.parts import Tables
from ...paper import PAPER_TOP
from ...prompts.packing import Batch, pack
from ...prompts.sets import PromptSet
from ...statistics import summarise
from ...tracing.answers import two_way_table
from ...tracing.capture import capture
from ...tracing.controls import FOLD, GROUPS
from ...tracing.heads import HEAD, Head, deep_heads, different, is_deep, random_heads
from ...tracing.outcomes import outcomes
from ...tracing.rewriting import rewritten_differences
from ...tracing.sweep import sweep, sweep_batches

INTACT, ZEROED, RANDOM = "nothing removed", "in-context heads zeroed", "random heads zeroed, same layers"
AT_MEAN, OTHERS, ALL_DEEP = (
    "in-context heads at their mean",
    "all other deep heads at their mean",
    "all deep heads at their mean",
)


def zeroed(
    model: Model,
    sets: Sequence[PromptSet],
    heads: Sequence[Head],
    folds: Sequence[Sequence[Head]] = (),
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Outcomes with nothing removed, without the heads, and without each of the random groups of the same layers.

    Args:
        folds: heads as each fold of the selection sets would choose them, removed as well.

    Returns:
        rows of `outcomes` with `name` and `draw` (of random groups, of which there are none if the layers have no other
        heads, and of folds; else -1).
    """
    rng = np.random.default_rng([seed, 5])
    drawn = different(lambda: random_heads(heads, model.arch.n_heads, rng), GROUPS)
    choices = [(INTACT, -1, []), (ZEROED, -1, list(heads)), *((RANDOM, i, own) for i, own in enumerate(drawn))]
    choices += [(FOLD, i, list(own)) for i, own in enumerate(folds)]
    table = outcomes(model, sets, [own for *_, own in choices])
    return _named(table, [choice[:2] for choice in choices])


def mean_z(model: Model, sets: Sequence[PromptSet]) -> Float[Tensor, "L H d_h"]:
    """Mean of z at the last position over all prompts of some sets."""

    def of_batch(members: list[PromptSet], first: int, batch: Batch) -> Tables:
        return (capture(model, batch).z.sum(1).numpy(),)

    total = torch.zeros(())
    for (of_prompts,) in sweep_batches(model, sets, "mean z", None, of_batch):
        total = total + torch.from_numpy(of_prompts)
    return total / sum(len(s.prompts) for s in sets)


def at_mean(
    model: Model, sets: Sequence[PromptSet], heads: Sequence[Head], mean: Float[Tensor, "L H d_h"]
) -> pd.DataFrame:
    """Outcomes with z at the last position replaced by its mean over other prompts: mean ablation and sufficiency.

    Args:
        mean: over the selection prompts, as `mean_z`.

    Returns:
        as `zeroed`: of these heads, of all other deep heads, and of all deep heads.
    """
    choices = {AT_MEAN: list(heads), OTHERS: deep_heads(model, heads), ALL_DEEP: deep_heads(model)}

    def of_set(index: int, s: PromptSet) -> pd.DataFrame:
        batch = pack([s], model.pad_id)
        intact = capture(model, batch, inputs=True)
        new = [{h: mean[h].expand(len(s.prompts), -1) for h in own} for own in choices.values()]
        return two_way_table(rewritten_differences(model, batch, intact, new), s, index)

    tables = sweep(model, sets, "mean", [choices, mean.numpy()], of_set)
    return _named(pd.concat(tables, ignore_index=True), [(name, -1) for name in choices])


def _named(table: pd.DataFrame, keys: Sequence[tuple[str, int]]) -> pd.DataFrame:
    return table.join(pd.DataFrame(keys, columns=["name", "draw"]), on="group").drop(columns="group")


def evidence(table: pd.DataFrame, value: str = "accuracy_two_way") -> dict[str, Any]:
    """What C4 is judged by, named as in `statistics.judge`, from a `zeroed` table: what is lost without the heads, a
    row per prompt, and mean losses without random groups and without the heads of each fold."""
    keys = ["set", "query"]
    intact = table[table["name"] == INTACT].set_index(keys)[value]
    without = table[table["name"] == ZEROED].set_index(keys)[value]
    drawn, folds = (table[table["name"] == name].groupby("draw")[value].mean() for name in (RANDOM, FOLD))
    return {
        "effects": (intact - without).rename("effect").reset_index(),
        "random": [float(intact.mean() - mean) for mean in drawn],
        "folds": [float(intact.mean() - mean) for mean in folds] or None,
    }


def conditions(*tables: pd.DataFrame) -> pd.DataFrame:
    """Margin and two-way accuracy of each condition; of random groups one row each, without an interval.

    Returns:
        `name, draw, measure, mean, low, high`, in the order of appearance.
    """
    shown = pd.concat(tables)
    long = shown[shown["name"] != FOLD].melt(
        ["name", "draw", "set"], ["margin", "accuracy_two_way"], var_name="measure", value_name="value"
    )
    table = summarise(long, ["name", "draw", "measure"], "value")
    return table.assign(**{end: table[end].where(table["name"] != RANDOM) for end in ("low", "high")})


def own_label_effect(prompts: pd.DataFrame) -> pd.DataFrame:
    """C5 from a `named_groups` table with "none" and "<label>-heads": the least of what each label's heads cost its own
    prompts, and of what their removal gains the other label's, in accuracy; a row per demonstration set.

    The effect is missing if a label has no heads.
    """
    means = prompts.groupby(["name", "label", "set"])["accuracy"].mean().unstack("set")
    labels = sorted(prompts["label"].unique())
    if not {f"{own}-heads" for own in labels} <= set(prompts["name"]):
        return pd.DataFrame({"set": means.columns, "effect": np.nan})
    parts = []
    for own in labels:
        change = means.loc["none"] - means.loc[f"{own}-heads"]
        parts += [change.loc[own], *(-change.loc[other] for other in labels if other != own)]
    return pd.concat(parts, axis=1).min(axis=1, skipna=False).rename("effect").rename_axis("set").reset_index()


def paper_rule(
    ranked: pd.DataFrame, located: pd.DataFrame, n_layers: int, label: str, top: int = PAPER_TOP
) -> list[Head]:
    """The deep heads that the paper's own rule takes for one label: among the first ten of both lists.

    Args:
        ranked: `rank_heads` on the prompts of that gold label; `located`: `Located.heads`.
    """
    both = []
    for table, score in ((ranked, "margin_drop"), (located[located["label"] == label], "log_increase")):
        deep = table[[is_deep(layer, n_layers) for layer in table["layer"]]].sort_values(score, ascending=False)
        both.append({(int(layer), int(head)) for layer, head in deep[HEAD].head(top).to_numpy()})
    return sorted(set.intersection(*both))

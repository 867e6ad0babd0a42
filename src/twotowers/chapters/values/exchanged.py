"""What values carry, causally: the margin that is lost when those of the two labels change places.

Only the in-context heads' values are exchanged, at the last position (method page, equation eq-exchange); where these
heads look, and all that other heads do, is as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from ...models.model import Model
from ...prompts.sets import PromptSet
from ...statistics import estimate
from ...tracing.controls import GROUPS, INTACT, fold_effects, fold_groups, random_effects, removed
from ...tracing.direct_margin import share_of_margin
from ...tracing.exchange import exchanges
from ...tracing.heads import CHOSEN, RANDOM, Head, deep_heads, random_groups


def exchanged_values(
    model: Model,
    sets: Sequence[PromptSet],
    heads: Sequence[Head],
    folds: Sequence[Sequence[Head]] = (),
    *,
    seed: int = 0,
    number: int = GROUPS,
) -> pd.DataFrame:
    """Answer every prompt with the values of some heads exchanged, and with those of random groups of as many.

    Args:
        folds: heads as each fold of the selection sets would choose them.
        number: of random groups, drawn from the other deep heads; none if there are not as many heads.

    Returns:
        rows of `exchanges` with `heads` for `group`: `intact`, `in-context`, names of folds and of random groups.
    """
    others = deep_heads(model, heads)
    drawn = random_groups(others, len(heads), number, seed=seed) if len(others) >= len(heads) else []
    groups = {CHOSEN: list(heads), **fold_groups(folds), **{f"{RANDOM} {i}": own for i, own in enumerate(drawn)}}
    table = exchanges(model, sets, [([], "none"), *((own, "values") for own in groups.values())])
    return table.assign(heads=table["group"].map(dict(enumerate((INTACT, *groups))))).drop(columns="group")


def margins(table: pd.DataFrame) -> pd.DataFrame:
    """Margins of each set as shares of the mean intact margin: `heads, set, effect`, from `exchanged_values`."""
    means = table.groupby(["heads", "set"], sort=False)["margin"].mean().rename("effect").reset_index()
    intact = means[means["heads"] == INTACT]["effect"]
    return means.assign(effect=share_of_margin(means["effect"], intact))


def evidence(table: pd.DataFrame) -> dict[str, Any]:
    """What C6 is judged by, named as in `statistics.judge`: the share of the margin that is lost."""
    found = margins(table)
    return {"effects": removed(found), "random": random_effects(found), "folds": fold_effects(found)}


def exchange_summary(table: pd.DataFrame) -> dict[str, Any]:
    """Mean margins `intact` and `exchanged` (logits), the loss with its interval, and the `random` groups' losses."""
    made, means = evidence(table), table.groupby("heads")["margin"].mean()
    return {
        "intact": float(means[INTACT]),
        "exchanged": float(means[CHOSEN]),
        **asdict(estimate(made["effects"]["effect"], made["effects"]["set"])),
        "random": made["random"] or [],
    }

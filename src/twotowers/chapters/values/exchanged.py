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
from ...tracing.controls import GROUPS
from ...tracing.direct_margin import share_of_margin
from ...tracing.exchange import exchanges
from ...tracing.heads import Head, deep_heads, random_groups

INTACT, THESE = 0, 1  # numbers of groups; those above are random


def exchanged_values(
    model: Model, sets: Sequence[PromptSet], heads: Sequence[Head], *, seed: int = 0, number: int = GROUPS
) -> pd.DataFrame:
    """Answer every prompt with the values of some heads exchanged, and with those of random groups of as many.

    Args:
        number: of random groups, drawn from the other deep heads; none if there are not as many heads.

    Returns:
        as `exchanges`: group 0 is the intact model, 1 has the heads, those above are random.
    """
    others = deep_heads(model, heads)
    drawn = random_groups(others, len(heads), number, seed=seed) if len(others) >= len(heads) else []
    return exchanges(model, sets, [([], "none"), *((group, "values") for group in (heads, *drawn))])


def losses(table: pd.DataFrame) -> pd.DataFrame:
    """The margin lost, as a share of the mean intact margin: `group, set, effect`, a row per set and changed group.

    Args:
        table: result of `exchanged_values`.
    """
    margins = table.groupby(["set", "group"])["margin"].mean().unstack("group")
    lost = margins.drop(columns=INTACT).rsub(margins[INTACT], axis=0)
    lost = lost.melt(ignore_index=False, value_name="effect").reset_index()
    return lost.assign(effect=share_of_margin(lost["effect"], margins[INTACT]))[["group", "set", "effect"]]


def exchange_effect(lost: pd.DataFrame) -> pd.DataFrame:
    """C6: the loss of the heads themselves, `set, effect`, from `losses`."""
    return lost.loc[lost["group"] == THESE, ["set", "effect"]].reset_index(drop=True)


def random_losses(lost: pd.DataFrame) -> list[float] | None:
    """The mean loss of each random group, from `losses`; None where there are none."""
    return lost[lost["group"] > THESE].groupby("group")["effect"].mean().tolist() or None


def exchange_summary(table: pd.DataFrame) -> dict[str, Any]:
    """Mean margins `intact` and `exchanged` (logits), the loss with its interval, and the `random` groups' losses."""
    lost, means = losses(table), table.groupby("group")["margin"].mean()
    own = exchange_effect(lost)
    return {
        "intact": float(means[INTACT]),
        "exchanged": float(means[THESE]),
        **asdict(estimate(own["effect"], own["set"])),
        "random": random_losses(lost) or [],
    }

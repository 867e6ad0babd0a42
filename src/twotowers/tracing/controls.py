"""Controls of an intervention in some heads: the groups that undergo it beside them, and what it does in each.

Tables of effects have a row per group of heads and demonstration set, `heads, set, effect`, where `heads` is the
group's name; `intact` is the model without the intervention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from ..models.model import Model
from .heads import CHOSEN, RANDOM, Head, deep_heads, random_groups

INTACT, OTHERS, FOLD = "intact", "all others", "selection fold"
GROUPS = 20  # of random heads: enough that being better than all of them is one in twenty


def control_groups(
    model: Model, heads: Sequence[Head], folds: Sequence[Sequence[Head]] = (), *, seed: int = 0
) -> dict[str, list[Head]]:
    """The in-context heads, all other deep heads, and up to `GROUPS` random groups of as many of these, by name.

    Where there are no other deep heads, the in-context ones stand alone, and nothing can be told from chance.

    Args:
        folds: heads as each fold of the selection sets would choose them, which are groups, too.
    """
    others = deep_heads(model, heads)
    drawn = enumerate(random_groups(others, len(heads), GROUPS, seed=seed))
    groups = {CHOSEN: list(heads), OTHERS: others, **{f"{RANDOM} {i}": group for i, group in drawn}}
    groups |= fold_groups(folds)
    return {name: group for name, group in groups.items() if group}


def fold_groups(folds: Sequence[Sequence[Head]]) -> dict[str, list[Head]]:
    """Heads as each fold of the selection sets would choose them, by name."""
    return {f"{FOLD} {i}": list(heads) for i, heads in enumerate(folds)}


def number_drawn(groups: Mapping[str, Sequence[Head]]) -> int:
    """How many of some groups are random: `GROUPS`, or fewer where there are too few heads."""
    return sum(name.startswith(RANDOM) for name in groups)


def is_random(names: pd.Series) -> pd.Series:
    """Which rows belong to a random group."""
    return names.str.startswith(RANDOM)


def is_fold(names: pd.Series) -> pd.Series:
    """Which rows belong to heads that a fold of the selection sets chose."""
    return names.str.startswith(FOLD)


def removed(effects: pd.DataFrame, heads: str = CHOSEN) -> pd.DataFrame:
    """What an intervention in a group takes off, per set: `set, effect`, intact minus changed."""
    by_set = effects.pivot(index="set", columns="heads", values="effect")
    return (by_set[INTACT] - by_set[heads]).rename("effect").reset_index()


def more_than_others(effects: pd.DataFrame) -> pd.DataFrame:
    """What the in-context heads take off minus what all other deep heads together do; `set, effect`.

    Without other deep heads it has no rows.
    """
    if OTHERS not in set(effects["heads"]):
        return pd.DataFrame({"set": [], "effect": []}, dtype=float)
    return minus(removed(effects), removed(effects, OTHERS))


def minus(effects: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """An effect minus the same one elsewhere, `set, effect`: means of sets, missing where one of them is."""
    own, other = (table.groupby("set")["effect"].mean() for table in (effects, others))
    return (own - other).rename("effect").reset_index()


def random_effects(effects: pd.DataFrame) -> list[float]:
    """What each random group takes off, mean over sets; empty where there is none."""
    return _means_removed(effects, is_random)


def fold_effects(effects: pd.DataFrame) -> list[float] | None:
    """What each fold's heads take off, mean over sets; None where there are no folds."""
    return _means_removed(effects, is_fold) or None


def _means_removed(effects: pd.DataFrame, belongs: Callable[[pd.Series], pd.Series]) -> list[float]:
    names = effects["heads"].drop_duplicates()
    return [float(removed(effects, name)["effect"].mean()) for name in names[belongs(names)]]

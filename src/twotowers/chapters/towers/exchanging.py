"""The exchange test of the towers: queries, keys, values exchanged in some heads, in others, and in random groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ...models.model import Model
from ...prompts.sets import PromptSet
from ...statistics import summarise
from ...tracing.controls import FOLD, GROUPS, minus
from ...tracing.exchange import PARTS, exchanges
from ...tracing.heads import Head, deep_heads, random_groups

INTACT, STRONGEST, CHOSEN = "intact", "strongest head", "in-context heads"
ALL_DEEP, OTHERS, RANDOM = "all deep heads", "all deep heads but these", "random groups"
RANDOM_PARTS = ("query-other", "query-same", "values")  # what is exchanged in random groups
KEYS = ["name", "part", "draw"]


def exchange_groups(
    model: Model,
    sets: Sequence[PromptSet],
    heads: Sequence[Head],
    folds: Sequence[Sequence[Head]] = (),
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Every part exchanged in the strongest of the heads, in all of them, in all deep heads and in all but these.

    Args:
        heads: the in-context heads, the strongest first.
        folds: heads as each fold of the selection sets would choose them; of these only queries are exchanged.

    Returns:
        rows of `exchange` with `name`, `part` and `draw`: of random groups and of folds, else -1. A group that would
        be empty is not there.
    """
    others = deep_heads(model, heads)
    named = {STRONGEST: list(heads[:1]), CHOSEN: list(heads), ALL_DEEP: deep_heads(model), OTHERS: others}
    drawn = random_groups(others, len(heads), GROUPS if others else 0, seed=seed)
    choices: list[tuple[str, str, int, list[Head]]] = [(INTACT, "none", -1, [])]
    choices += [(name, part, -1, own) for name, own in named.items() if own for part in PARTS[1:]]
    choices += [(RANDOM, part, number, own) for number, own in enumerate(drawn) for part in RANDOM_PARTS]
    choices += [(FOLD, part, number, list(own)) for number, own in enumerate(folds) for part in RANDOM_PARTS[:2]]
    return _exchanged(model, sets, [(choice[:3], choice[3], choice[1]) for choice in choices])


def exchange_curve(model: Model, sets: Sequence[PromptSet], ranked: Sequence[Head]) -> pd.DataFrame:
    """Queries of the other class in the first n heads of a ranking of the deep heads, and in all but the first n.

    Returns:
        rows of `exchange` with `name` (`first` or `all but the first`), `n`, and `draw`, as above.
    """
    sizes = sorted({n for n in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256) if n < len(ranked)} | {len(ranked)})
    choices = [("first", n, list(ranked[:n])) for n in sizes] + [
        ("all but the first", n, list(ranked[n:])) for n in sizes
    ]
    rows = [((name, n, -1), own, "query-other" if own else "none") for name, n, own in choices]
    return _exchanged(model, sets, rows).rename(columns={"part": "n"})


def _exchanged(
    model: Model, sets: Sequence[PromptSet], rows: Sequence[tuple[tuple[str, object, int], list[Head], str]]
) -> pd.DataFrame:
    table = exchanges(model, sets, [(own, part) for _, own, part in rows])
    keys = pd.DataFrame([key for key, _, _ in rows], columns=KEYS)
    return table.join(keys, on="group").drop(columns="group")


def intact_margin(table: pd.DataFrame) -> float:
    """The mean margin with nothing exchanged, of which effects are shares; nan if it is not positive."""
    mean = float(table[table["name"] == INTACT]["margin"].mean())
    return mean if mean > 0 else float("nan")


def choice_share(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """C9: margin lost with the query of the other class minus with one of the same, as a share of the intact margin.

    Returns:
        `set, effect`; no rows if the group is not there.
    """
    part = table[table["name"] == name]
    return _lost(part, "query-same", "query-other", intact_margin(table))


def mean_shares(table: pd.DataFrame) -> dict[str, float]:
    """Means of `choice_share` by the name of the group, where there is one."""
    means = {name: choice_share(table, name)["effect"].mean() for name in (STRONGEST, CHOSEN, ALL_DEEP, OTHERS)}
    return {name: float(mean) for name, mean in means.items() if np.isfinite(mean)}


def drawn_shares(table: pd.DataFrame, name: str = RANDOM) -> list[float]:
    """The same of each random group, or of each fold (`FOLD`), means over sets."""
    part = table[table["name"] == name]
    whole = intact_margin(table)
    return [float(_lost(own, "query-same", "query-other", whole)["effect"].mean()) for _, own in part.groupby("draw")]


def _lost(table: pd.DataFrame, kept: str, changed: str, whole: float) -> pd.DataFrame:
    before, after = (table[table["part"] == part].groupby("set")["margin"].mean() for part in (kept, changed))
    return ((before - after) / whole).rename("effect").reset_index()


def beside_others(table: pd.DataFrame) -> pd.DataFrame:
    """C9's control: the share of the in-context heads minus that of all deep heads but these, `set, effect`."""
    return minus(choice_share(table, CHOSEN), choice_share(table, OTHERS))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Margins of `exchange_groups`: `name, part, draw, mean, low, high`; random groups without an interval."""
    means = summarise(table[table["name"] != FOLD], KEYS, "margin")
    return means.assign(**{end: means[end].where(means["name"] != RANDOM) for end in ("low", "high")})


def flips(table: pd.DataFrame) -> dict[str, float]:
    """Accuracy between the two labels with nothing exchanged, and with each part exchanged in the in-context heads."""
    part = table[table["name"].isin([INTACT, CHOSEN])]
    return {str(name): float(x) for name, x in part.groupby("part")["accuracy_two_way"].mean().items()}


def curve_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Margins of `exchange_curve`: `name, n, mean, low, high`."""
    return summarise(table, ["name", "n"], "margin").sort_values(["name", "n"], ignore_index=True)

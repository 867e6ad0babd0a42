"""Attention by place, from the tables of `order`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...statistics import summarise


def by_distance(attention: pd.DataFrame) -> pd.DataFrame:
    """Attention to a label position by its distance from the query, for the query's class and for the other.

    Distances are grouped so that every demonstration is as often in each group (see `rotations`): groups hold the
    same content, at different places.

    Args:
        attention: rows of `Ordered.attention` of one strength.

    Returns:
        `heads, same, distance` (mean of the group), `mean, low, high`.
    """
    width = max(1, attention["distance"].max() // attention["order"].nunique())
    group = (attention["distance"] - 1) // width
    table = attention.assign(distance=attention.groupby(group)["distance"].transform("mean")).sort_values("distance")
    return summarise(table, ["heads", "same", "distance"], "attention")


def near_minus_far(attention: pd.DataFrame) -> pd.DataFrame:
    """Attention to the nearer half of the places minus the farther half: `heads, same, set, effect`, per set."""
    near = np.where(attention["distance"] <= attention["distance"].max() / 2, "near", "far")
    keys = ["heads", "same", "set"]
    halves = attention.assign(half=near).groupby([*keys, "half"])["attention"].mean().unstack("half")
    return (halves["near"] - halves["far"]).rename("effect").reset_index()


def gaps(attention: pd.DataFrame) -> pd.DataFrame:
    """Means of `near_minus_far` over sets with 95 % intervals: `heads, same, mean, low, high`."""
    return summarise(near_minus_far(attention), ["heads", "same"], "effect")

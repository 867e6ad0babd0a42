"""Crossing layers: where the class leaves its text, its separator, its label or the query in the hand-over test.

An exchange between the classes turns the answer round while the answer still needs what stands at a place, and does
nothing once it has left. In between the margin passes zero: at the crossing layer (method page, equation eq-crossing).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ...models.model import Model
from ...prompts.sets import PromptSet
from ...statistics import Estimate, Values, estimate, summarise
from ...tracing.hand_over import PLACES, hand_overs

MOST = 12  # demonstration sets of which the layers are read: they show every category of the words twice
DEEP = 16  # layers, beyond which only every other one is read
FEW = 5  # layers, about, where there are to be few
CONTROLLED = PLACES[1:]
MERGES = {"C1": "text+separator", "C2": "query"}  # the place that is handed over before the labels are, by claim


def layers_to_read(n_layers: int, *, few: bool = False) -> list[int]:
    """From 0 to the number of layers, which is the final residual: all, of a deeper model every other one, or few."""
    step = max(1, n_layers // (FEW - 1)) if few else 2 if n_layers > DEEP else 1
    return sorted({*range(0, n_layers + 1, step), n_layers})


def exchanged(model: Model, sets: Sequence[PromptSet], layers: Sequence[int]) -> pd.DataFrame:
    """The hand-over test at all five places, with an exchange within a class as control at every fourth of the layers.

    Texts without their separator are in no claim: they have no control, and are read at every other of the layers.

    Args:
        layers: the last of them is the number of layers.

    Returns:
        `place, within, layer, set, query, label, accuracy, accuracy_two_way, margin`, as `hand_overs`.
    """
    fewer = sorted({*layers[::4], layers[-1]})
    choices = {("text", False): sorted({*layers[::2], layers[-1]})}
    choices |= {(place, False): list(layers) for place in CONTROLLED} | {(place, True): fewer for place in CONTROLLED}
    return hand_overs(model, sets, choices)


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """The margin of each set, its mean over queries, as a share of the intact margin, its mean over sets.

    No set is divided by its own margin, which may be close to zero.

    Args:
        table: result of `exchanged`; labels exchanged in the final residual change nothing, so that is intact.

    Returns:
        `place, within, layer, set, share`; missing if the intact margin is not above zero.
    """
    means = table.groupby(["place", "within", "layer", "set"], as_index=False)["margin"].mean()
    intact = means[(means["place"] == "label") & ~means["within"] & (means["layer"] == means["layer"].max())]
    whole = intact["margin"].mean()
    return means.assign(share=means["margin"] / (whole if whole > 0 else np.nan)).drop(columns="margin")


def curve(shared: pd.DataFrame) -> pd.DataFrame:
    """Mean share by layer over sets, from `shares`: `place, within, layer, mean, low, high`."""
    return summarise(shared, ["place", "within", "layer"], "share")


def crossing(layers: Sequence[int], share: Values) -> float:
    """The layer at which a share passes zero from below for the last time, interpolated between the layers read.

    Returns:
        nan if it does not pass, or does not stay above zero, or is not known everywhere.
    """
    y = np.asarray(share, dtype=float)
    below = np.flatnonzero(y <= 0)
    if np.isnan(y).any() or not (y < 0).any() or below[-1] == len(y) - 1:
        return float("nan")
    a, b = below[-1], below[-1] + 1
    return float(layers[a] + (layers[b] - layers[a]) * -y[a] / (y[b] - y[a]))


def crossings(shared: pd.DataFrame) -> pd.DataFrame:
    """The crossing layer of each place in each set, from `shares`: `set, place, crossing`; missing if there is none.

    The last position is the mirror of the others: its share passes zero from above, where the answer arrives.
    """
    rows = []
    for (number, place), part in shared[~shared["within"]].groupby(["set", "place"]):
        part = part.sort_values("layer")
        share = part["share"] * (-1 if place == "last" else 1)
        rows.append((number, place, crossing(part["layer"].tolist(), share.tolist())))
    return pd.DataFrame(rows, columns=["set", "place", "crossing"])


def hand_over_effect(crossed: pd.DataFrame, claim: str) -> pd.DataFrame:
    """Claims C1 and C2: how many layers later labels cross than text and separator, or than the query, in each set.

    Args:
        crossed: result of `crossings`.

    Returns:
        `set, effect`; positive if merging comes before transfer; missing if either has no crossing.
    """
    wide = crossed.pivot(index="set", columns="place", values="crossing")
    return (wide["label"] - wide[MERGES[claim]]).rename("effect").reset_index()


def kept_within(shared: pd.DataFrame, claim: str) -> pd.DataFrame:
    """Control of C1 and C2: the lowest share that an exchange within a class leaves, at any layer, in each set.

    An exchange that only disturbs could turn the answer round as well, and would do so within a class, too. Above zero
    the share has not crossed. Both places of the claim count, the labels and what they are compared with.

    Returns:
        `set, effect`.
    """
    own = shared[shared["within"] & shared["place"].isin(["label", MERGES[claim]])]
    lowest = own.groupby("set")["share"].agg(lambda share: share.min(skipna=False))
    return lowest.rename("effect").reset_index()


def summary(crossed: pd.DataFrame) -> pd.DataFrame:
    """Mean crossing layer of each place over sets: `place, mean, low, high, known, sets`, in the order of `PLACES`.

    Args:
        crossed: result of `crossings`.

    Returns:
        `known`: the number of sets, of all `sets`, that have a crossing.
    """
    rows = []
    for place in PLACES:
        part = crossed[crossed["place"] == place]
        known = part.dropna(subset="crossing")
        found = estimate(known["crossing"], known["set"]) if len(known) else Estimate.unknown()
        rows.append((place, found.mean, found.low, found.high, len(known), len(part)))
    return pd.DataFrame(rows, columns=["place", "mean", "low", "high", "known", "sets"])

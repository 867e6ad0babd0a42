"""Statistics of results: intervals over demonstration sets, agreement of rankings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

RESAMPLES = 5000
Values = Sequence[Any] | np.ndarray | pd.Series | pd.Index  # numbers, one per prompt or per head


@dataclass(frozen=True)
class Estimate:
    """A mean over demonstration sets with its 95 % bootstrap interval, in the units of its values."""

    mean: float
    low: float
    high: float

    @classmethod
    def unknown(cls) -> Estimate:
        """Of nothing: there are no values."""
        return cls(*[float("nan")] * 3)

    @property
    def known(self) -> bool:
        return bool(np.isfinite([self.mean, self.low, self.high]).all())

    def __format__(self, spec: str) -> str:
        """`f"{estimate:.1%}"` gives mean and interval, each in that format."""
        mean, low, high = (format(float(x), spec or ".2f") for x in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})"


def estimate(values: Values, sets: Values, *, seed: int = 0) -> Estimate:
    """Mean of per-prompt values, with a 95 % percentile bootstrap over demonstration sets.

    Prompts of one set share their demonstrations and are not independent, so whole sets are resampled.

    Args:
        values: one per prompt.
        sets: the demonstration set of each prompt; sets hold equally many prompts.

    Returns:
        the interval collapses to the mean if there is one set only.
    """
    means = pd.Series(np.asarray(values, dtype=float)).groupby(np.asarray(sets)).mean().to_numpy()
    centre = float(means.mean())
    if len(means) < 2 or np.ptp(means) == 0:
        return Estimate(centre, centre, centre)
    interval = scipy.stats.bootstrap(
        (means,),
        np.mean,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(centre, float(interval.low), float(interval.high))


def per_set(effects: pd.DataFrame) -> pd.DataFrame:
    """Effects of demonstration sets, `set, effect`, from a row for each or for each of their prompts.

    A missing effect is left out; a set without any has no row.
    """
    return effects.dropna(subset="effect").groupby("set", as_index=False)[["effect"]].mean()


def rank_agreement(a: Values, b: Values) -> float:
    """Spearman's rank correlation, -1 to 1; nan if either list is constant."""
    if np.ptp(np.asarray(a, dtype=float)) == 0 or np.ptp(np.asarray(b, dtype=float)) == 0:
        return float("nan")
    return float(scipy.stats.spearmanr(a, b).statistic)


def summarise(table: pd.DataFrame, by: Sequence[str], value: str, *, seed: int = 0) -> pd.DataFrame:
    """Mean and interval of a per-prompt `value` for each combination of the columns `by`.

    Args:
        table: has a column `set` beside `by` and `value`.

    Returns:
        the columns `by`, then `mean, low, high`, in the order of appearance.
    """
    rows = [
        (
            *(key if isinstance(key, tuple) else (key,)),
            (e := estimate(part[value], part["set"], seed=seed)).mean,
            e.low,
            e.high,
        )
        for key, part in table.groupby(list(by), sort=False)
    ]
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high"])

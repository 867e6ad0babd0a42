"""The standard error of a mean over demonstration sets that are related because they show the same categories."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .errors import ArgumentError

OF_SET = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")  # categories that a set shows


def clustered_error(sets: np.ndarray, residuals: np.ndarray, categories: pd.DataFrame) -> tuple[float, int]:
    """Standard error of a mean over sets that are related if they share a category, and the number of categories.

    The products of residuals of related sets, each with itself, summed, over n^2: the dyadic sandwich of Aronow, Samii
    and Assenova (2015), over 1 - d/n, by which it is too small if a set is related to d, itself counted; for unrelated
    sets that leaves the usual one. 0 where all sets are related.

    Raises:
        ArgumentError: a set has no categories, or one is missing, or two rows of it differ.
    """
    columns = [name for name in OF_SET if name in categories]
    told = categories[["set", *columns]].dropna().drop_duplicates()
    if len(twice := told["set"][told["set"].duplicated()]):
        raise ArgumentError(f"The categories of set {twice.iloc[0]} are there twice, and differ; leave the right ones.")
    known = told.set_index("set")
    if lacking := [s for s in sets if s not in known.index]:
        raise ArgumentError(f"The categories of {len(lacking)} sets are missing, set {lacking[0]} first; give them.")
    pairs = np.sort(known.loc[sets, columns].to_numpy(dtype=str), axis=1)
    if len(columns) > 2 or (pairs[:, 0] == pairs[:, 1]).any():
        return _by_many(residuals, pairs)
    names, place = np.unique(pairs, return_inverse=True)
    first, second = place.reshape(pairs.shape).T
    both = first * len(names) + second

    def related(weights: np.ndarray) -> float:
        """Sum of the products of the weights of related sets: those of each category, less those counted twice."""
        shared = np.bincount(first, weights, len(names)) + np.bincount(second, weights, len(names))
        return float((shared**2).sum() - (np.bincount(both, weights) ** 2).sum())

    n = len(residuals)
    left = 1 - related(np.ones(n)) / n**2
    return (float(np.sqrt(max(0.0, related(residuals)) / n**2 / left)) if left > 1e-9 else 0.0), len(names)


def _by_many(residuals: np.ndarray, shown: np.ndarray) -> tuple[float, int]:
    """As `clustered_error`, for sets of more than two categories each, a row of them a set."""
    names, place = np.unique(shown, return_inverse=True)
    member = np.zeros((len(shown), len(names)), dtype=bool)
    member[np.arange(len(shown))[:, None], place.reshape(shown.shape)] = True
    related, n = (member.astype(float) @ member.T) > 0, len(residuals)
    left = 1 - related.mean()
    error = np.sqrt(max(0.0, float(residuals @ related @ residuals)) / n**2 / left) if left > 1e-9 else 0.0
    return float(error), len(names)

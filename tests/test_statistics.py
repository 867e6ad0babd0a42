"""Intervals resample demonstration sets, and rankings agree as they should."""

import numpy as np
import pandas as pd
import pytest

from twotowers.statistics import estimate, rank_agreement, summarise


def test_the_mean_is_the_mean_and_the_interval_contains_it():
    values, sets = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0], [0, 0, 1, 1, 2, 2]
    result = estimate(values, sets)
    assert result.mean == pytest.approx(0.5)
    assert result.low < 0.5 < result.high


def test_prompts_of_one_set_are_not_independent():
    """Repeating every prompt of a set tells nothing new, so the interval stays as wide."""
    rng = np.random.default_rng(0)
    per_set = rng.normal(size=12)
    one = estimate(per_set, range(12))
    many = estimate(np.repeat(per_set, 50), np.repeat(np.arange(12), 50))
    assert many.high - many.low == pytest.approx(one.high - one.low)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        values = rng.normal(0.3, 1.0, size=(32, 8)) + rng.normal(0, 1.0, size=(32, 1))
        result = estimate(values.ravel(), np.repeat(np.arange(32), 8))
        hits += result.low <= 0.3 <= result.high
    assert 176 <= hits <= 199


def test_without_variation_the_interval_collapses():
    assert estimate([0.5, 0.5], [0, 1]).low == estimate([0.5, 0.5], [0, 1]).high == 0.5
    assert estimate([1.0, 0.0], [0, 0]).low == 0.5


def test_the_interval_is_seeded():
    values, sets = np.random.default_rng(2).normal(size=20), range(20)
    assert estimate(values, sets, seed=3) == estimate(values, sets, seed=3)
    assert estimate(values, sets, seed=3) != estimate(values, sets, seed=4)


def test_an_estimate_prints_mean_and_interval():
    assert f"{estimate([0.5, 0.5], [0, 1]):.0%}" == "50% (50% to 50%)"


def test_rank_agreement_sees_order_only():
    assert rank_agreement([1, 2, 3, 4], [1, 8, 27, 64]) == pytest.approx(1)
    assert rank_agreement([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert np.isnan(rank_agreement([1, 1, 1], [1, 2, 3]))


def test_summarise_gives_a_row_for_each_combination():
    table = pd.DataFrame(
        {"kind": ["a", "a", "b", "b"], "label": ["foo"] * 4, "set": [0, 1, 0, 1], "x": [0.0, 1.0, 2.0, 4.0]}
    )
    result = summarise(table, ["kind", "label"], "x")
    assert list(result.columns) == ["kind", "label", "mean", "low", "high"]
    assert result["mean"].tolist() == [0.5, 3.0]
    assert summarise(table, ["kind"], "x")["kind"].tolist() == ["a", "b"]

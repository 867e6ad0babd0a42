"""Intervals are over demonstration sets, and rankings agree as they should."""

import numpy as np
import pandas as pd
import pytest

from twotowers.statistics import Estimate, estimate, judge, rank_agreement, summarise


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


def test_one_set_has_no_interval():
    alone = estimate([1.0, 0.0], [0, 0])
    assert alone.mean == 0.5
    assert np.isnan([alone.low, alone.high]).all()
    assert not alone.known


def test_sets_that_are_all_the_same_are_no_certainty():
    """The rule of three: of 66 sets without a failure, up to 4.4 % may be failures."""
    sure = estimate([1.0] * 66, range(66))
    assert sure.mean == 1.0
    assert sure.low == pytest.approx(1 - 3 / 66, abs=2e-3)
    assert sure.known


def test_the_interval_is_the_one_of_verdicts():
    values = np.random.default_rng(2).normal(size=20)
    made = judge(pd.DataFrame({"set": range(20), "effect": values}), 1.0)
    assert estimate(values, range(20)) == Estimate(made.mean, made.low, made.high)


def test_an_estimate_prints_mean_and_interval():
    assert f"{Estimate(0.5, 0.25, 0.75):.0%}" == "50% (25% to 75%)"


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

"""Effects of imbalance: answers planted so that each claim about shares and remedies is true or false."""

import numpy as np
import pandas as pd
import pytest

from twotowers.chapters.imbalance.designs import BALANCED
from twotowers.chapters.imbalance.mitigation import (
    choose_strength,
    compare,
    fluctuation,
    majority_shift,
    mitigation_effects,
)
from twotowers.chapters.imbalance.response import accounted, attention_effects, share_effects
from twotowers.paper import CLAIMS
from twotowers.statistics import judge

SHARES = np.arange(1, 8) / 8


# Planted truth: the response


def planted(difference, *, attention=None, values=None, sets=12, queries=4):
    """A table as `imbalance` gives it, from functions of (share, noise)."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(sets):
        level = rng.normal()
        for share in SHARES:
            for query in range(queries):
                noise = rng.normal()
                d = difference(share, noise) + level
                a, v = (f(share, noise, d) if f else 0.0 for f in (attention, values))
                rows.append((i, query, ("bar", "foo")[query % 2], share, d, 1 / (1 + np.exp(-d)), a, v))
    columns = ["set", "query", "label", "share", "logit_difference", "p_foo_two_way", "attention_foo", "values_foo"]
    return pd.DataFrame(rows, columns=columns).assign(attention_bar=0.0, values_bar=0.0)


def test_the_slope_is_that_of_a_line():
    table = planted(lambda share, noise: 0.0).assign(p_foo_two_way=lambda t: 0.1 + 0.6 * t["share"])
    np.testing.assert_allclose(share_effects(table)["effect"], 0.6)


@pytest.mark.parametrize(("slope", "verdict"), [(6.0, "supported"), (-6.0, "contradicted"), (0.0, "inconclusive")])
def test_c11_can_come_out_each_way(slope, verdict):
    table = planted(lambda share, noise: slope * (share - 0.5) + noise)
    assert judge(share_effects(table), CLAIMS["C11"].smallest).verdict == verdict


def test_values_that_are_the_whole_change_account_for_all_of_it():
    """The prompt's own level stays out of it, whatever it is."""
    table = planted(lambda share, noise: 5 * share + noise, values=lambda share, noise, d: 5 * share + noise + 3)
    found = accounted(table)
    np.testing.assert_allclose(found["part"], 1)
    np.testing.assert_allclose(found["r2"], 1)


def test_values_that_follow_weakly_have_a_perfect_line_and_a_small_part():
    table = planted(lambda share, noise: 5 * share + noise, values=lambda share, noise, d: 0.1 * d)
    found = accounted(table)
    np.testing.assert_allclose(found["part"], 0.1)
    np.testing.assert_allclose(found["r2"], 1)


def test_values_unrelated_to_the_change_account_for_nothing():
    rng = np.random.default_rng(1)
    table = planted(lambda share, noise: noise, values=lambda share, noise, d: rng.normal(), queries=8)
    assert accounted(table)["r2"].mean() < 0.06
    assert abs(accounted(table)["part"].mean()) < 0.1
    still = accounted(table.assign(values_foo=1.0))
    assert (still[["part", "r2"]] == 0).all(axis=None)


def test_values_against_the_change_have_a_negative_part():
    table = planted(lambda share, noise: 5 * share, values=lambda share, noise, d: -d)
    np.testing.assert_allclose(accounted(table)["part"], -1)


def test_attention_is_ranked_against_the_answer():
    with_it = planted(lambda share, noise: 5 * share, attention=lambda share, noise, d: np.exp(share))
    against = planted(lambda share, noise: 5 * share, attention=lambda share, noise, d: -share)
    np.testing.assert_allclose(attention_effects(with_it)["effect"], 1)
    np.testing.assert_allclose(attention_effects(against)["effect"], -1)
    assert (attention_effects(planted(lambda share, noise: 5 * share))["effect"] == 0).all()
    swapped = with_it.rename(columns={"attention_foo": "attention_bar", "attention_bar": "attention_foo"})
    np.testing.assert_allclose(attention_effects(swapped)["effect"], -1)


# Planted truth: the mitigation


def outcomes(balanced, dropped, *, sets=10):
    """Per-set accuracies of a balanced variant and of two dropped ones, a query a set."""
    rng = np.random.default_rng(2)
    rows = [
        (variant, i, 0, "foo", value + 0.02 * rng.normal())
        for variant, value in zip((BALANCED, "bar dropped 1", "foo dropped 1"), (balanced, *dropped), strict=True)
        for i in range(sets)
    ]
    table = pd.DataFrame(rows, columns=["variant", "set", "query", "label", "accuracy"])
    return table.assign(accuracy_two_way=table["accuracy"], p_gold=table["accuracy"])


def test_fluctuation_counts_losses_and_gains_alike():
    table = outcomes(0.5, (0.4, 0.7)).assign(accuracy=lambda t: t["accuracy"].round(1))
    np.testing.assert_allclose(fluctuation(table)["fluctuation"], 0.15)


@pytest.mark.parametrize("push", [0.2, -0.2])
def test_a_shift_towards_the_majority_is_told_from_one_away_from_it(push):
    """Bar dropped leaves foo in the majority, foo dropped leaves bar."""
    table = outcomes(0.5, (0.5 + push, 0.5 - push)).assign(p_foo_two_way=lambda t: t["accuracy"])
    both = pd.concat([table.assign(query=0), table.assign(query=1, label="bar")])
    assert majority_shift(both)["effect"].mean() == pytest.approx(push, abs=0.02)
    content = outcomes(0.5, (0.5 + push, 0.5 + push)).assign(p_foo_two_way=lambda t: t["accuracy"])
    assert majority_shift(content.assign(label=["bar", "foo"] * 15))["effect"].mean() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(
    ("after", "verdict"),
    [((0.85, 0.75), "supported"), ((0.4, 0.2), "contradicted"), ((0.6, 0.6), "inconclusive")],
)
def test_c13_can_come_out_each_way(after, verdict):
    """Balanced 0.8; intact 0.6 and 0.6 when one is dropped. A remedy that makes it worse has a negative effect."""
    before = outcomes(0.8, (0.6, 0.6))
    remedied = outcomes(0.8, after) if verdict != "inconclusive" else before
    effects = mitigation_effects(before, remedied)
    assert judge(effects, CLAIMS["C13"].smallest).verdict == verdict
    row = compare(before, {"it": remedied}).query("remedy == 'it' and measure == 'p_gold' and quantity == 'removed'")
    assert row["mean"].item() == pytest.approx(effects["effect"].mean())


def test_the_strength_is_the_steadiest_and_the_weakest_of_equals():
    steady, shaky = outcomes(0.8, (0.8, 0.8)), outcomes(0.8, (0.5, 0.5))
    tried = {0.0: steady.assign(accuracy=0.8), 0.03: shaky, 0.1: steady, 1.0: steady, 3.0: shaky}
    assert choose_strength(pd.concat(part.assign(strength=s) for s, part in tried.items())) == 0.1

"""Effects of imbalance: answers planted so that each claim about shares and remedies is true or false."""

import numpy as np
import pandas as pd
import pytest

from twotowers.chapters.imbalance.balance import evidence as balance_evidence
from twotowers.chapters.imbalance.balance import mean_slopes, slopes
from twotowers.chapters.imbalance.designs import BALANCED
from twotowers.chapters.imbalance.mitigation import (
    CONTROL,
    NONE,
    OWN,
    Remedied,
    choose_strength,
    compare,
    evidence,
    fluctuation,
    majority_shift,
    mitigation_effects,
    offset_effects,
    shift_size,
)
from twotowers.chapters.imbalance.response import accounted, share_effects
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


def balanced(intact, chosen, others=None, random=None):
    """Answers by group of heads, whose logit difference rises by a slope over the share."""
    random = [intact + 0.1 * np.cos(i) for i in range(20)] if random is None else random
    rises = {"intact": intact, "in-context": chosen, "all others": intact if others is None else others}
    rises |= {f"random {i}": rise for i, rise in enumerate(random)}
    tables = [planted(lambda share, noise, r=r: r * (share - 0.5) + noise).assign(heads=h) for h, r in rises.items()]
    return pd.concat(tables, ignore_index=True)


GATE = pd.DataFrame({"set": range(12), "effect": 0.8 + 0.01 * np.arange(12)})


@pytest.mark.parametrize(
    ("planted_rises", "verdict"),
    [
        ({"intact": 6.0, "chosen": 0.0}, "supported"),
        ({"intact": 0.0, "chosen": 6.0}, "contradicted"),
        ({"intact": 0.0, "chosen": 0.0, "random": [0.01 * i for i in range(20)]}, "inconclusive"),
        ({"intact": 6.0, "chosen": 6.0, "random": [6.0] * 20}, "inconclusive"),
        ({"intact": 6.0, "chosen": 0.0, "others": -2.0}, "inconclusive"),
        ({"intact": 6.0, "chosen": 1.0, "random": [0.5, *[6.0] * 19]}, "inconclusive"),
    ],
)
def test_c11_can_come_out_each_way(planted_rises, verdict):
    """A planted majority bias that goes with the heads; none; one that stays; one that others carry as well."""
    table = balanced(**planted_rises)
    found = balance_evidence(table, GATE)
    assert judge(**found, smallest=CLAIMS["C11"].smallest).verdict == verdict
    means = mean_slopes(slopes(table)).set_index("heads")["mean"]
    assert found["effects"]["effect"].mean() == pytest.approx(means["intact"] - means["in-context"])


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


# Planted truth: the mitigation


def leaning(lean, *, heads="in-context", strength=0.0, sets=12, level=0.0, noise=0.1):
    """Logit differences of two queries a set, `lean` towards the label that is shown more often."""
    rng = np.random.default_rng(2)
    rows = [
        (heads, strength, variant, i, query, label, level + lean * way + noise * rng.normal())
        for variant, way in ((1 / 8, -1), (7 / 8, 1))
        for i in range(sets)
        for query, label in enumerate(("bar", "foo"))
    ]
    columns = ["heads", "strength", "variant", "set", "query", "label", "logit_difference"]
    table = pd.DataFrame(rows, columns=columns)
    p = 1 / (1 + np.exp(-table["logit_difference"]))
    return table.assign(p_foo_two_way=p, accuracy_two_way=((p > 0.5) == (table["label"] == "foo")).astype(float))


@pytest.mark.parametrize(("lean", "level"), [(1.0, 0.0), (-1.0, 0.0), (0.0, 2.0)])
def test_a_lean_towards_the_majority_is_told_from_one_to_a_label(lean, level):
    shift = majority_shift(leaning(lean, level=level, noise=0.0))["effect"]
    np.testing.assert_allclose(shift, 1 / (1 + np.exp(-lean)) - 0.5, atol=1e-12)
    np.testing.assert_allclose(shift_size(leaning(lean, level=level, noise=0.0))["effect"], shift.abs())


def test_sizes_of_groups_do_not_cancel():
    both = pd.concat([leaning(1.0, heads="random 1"), leaning(-1.0, heads="random 2")])
    assert shift_size(both)["effect"].min() > 0.2


@pytest.mark.parametrize(
    ("before", "after", "random", "verdict"),
    [
        (2.0, 0.2, 1.9, "supported"),
        (2.0, -0.2, 1.9, "supported"),
        (1.0, 3.0, 1.0, "contradicted"),
        (2.0, 2.0, 1.9, "inconclusive"),
        (2.0, 0.2, 0.1, "inconclusive"),
        (0.05, 0.0, 0.05, "nothing to cure"),
    ],
)
def test_c13_can_come_out_each_way(before, after, random, verdict):
    drawn = pd.concat(leaning(random, heads=f"random {i}", strength=1.0) for i in range(20))
    tried = Remedied(leaning(before), {OWN: leaning(after, strength=1.0), CONTROL: drawn})
    found = evidence(tried, GATE)
    assert judge(**found, smallest=CLAIMS["C13"].smallest).verdict == verdict
    row = compare(tried).query("remedy == @OWN and quantity == 'removed'")
    assert row["mean"].item() == pytest.approx(found["effects"]["effect"].mean())
    none = compare(tried).query(f"remedy == '{NONE}' and quantity == 'shift'")
    assert none["mean"].item() == pytest.approx(found["before"]["effect"].mean())


def test_a_remedy_that_pushes_all_answers_one_way_is_no_more_than_a_constant():
    """Every answer goes to foo, for sure: the lean is gone, and a constant does the same."""
    before = leaning(1.0)
    after = before.assign(logit_difference=before["logit_difference"] + 6)
    after = after.assign(p_foo_two_way=1 / (1 + np.exp(-after["logit_difference"])))
    own, offset = mitigation_effects(before, after), offset_effects(before, after)
    assert own["effect"].mean() > 0.2
    assert offset["effect"].to_numpy() == pytest.approx(own["effect"].to_numpy(), abs=0.01)
    verdict = judge(**evidence(Remedied(before, {OWN: after}), GATE), smallest=0.05)
    assert verdict.verdict == "inconclusive"


def test_the_strength_leaves_the_least_and_is_the_weakest_of_equals():
    tried = {0.0: 0.1, 0.03: 1.0, 0.1: 0.2, 1.0: 0.2, 3.0: -1.0}
    assert choose_strength(pd.concat(leaning(lean, strength=s) for s, lean in tried.items())) == 0.1


def test_a_data_set_fluctuates_by_what_its_accuracy_moves():
    """Losses and gains count alike, but prompts of a variant are one: what cancels among them is no fluctuation."""
    rows = [
        (0.0, variant, s, accuracy)
        for variant, values in ((BALANCED, (1, 0)), ("bar dropped 1", (0, 1)), ("foo dropped 1", (1, 1)))
        for s, accuracy in enumerate(values)
    ]
    table = pd.DataFrame(rows, columns=["strength", "variant", "set", "accuracy"])
    assert fluctuation(table)["fluctuation"].tolist() == [0.25]

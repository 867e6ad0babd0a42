"""Effects of order: answers planted so that each claim is true or false, and the order of the paired prompts."""

import numpy as np
import pandas as pd
import pytest

import twotowers
from conftest import DEMONSTRATIONS, QUERIES, make_sets
from twotowers.chapters.order.effects import by_distance, near_minus_far
from twotowers.chapters.order.removal import (
    answers_in,
    end_effects,
    in_paired_orders,
    paired_orders,
    recency_evidence,
    summary,
    swing_evidence,
    swings,
)
from twotowers.paper import CLAIMS
from twotowers.statistics import judge

RANDOM = [f"random {i}" for i in range(20)]


def paired(intact, chosen, random, *, first=0.0, sets=12):
    """P(foo) that foo at an end raises, by group of heads."""
    rng = np.random.default_rng(0)
    rises = {"intact": intact, "in-context": chosen, **dict.fromkeys(RANDOM, random)}
    rows = [
        (heads, s, query, end, shown, 0.5 + way * size / 2 + 0.005 * rng.normal())
        for heads, rise in rises.items()
        for s in range(sets)
        for query in range(2)
        for end, size in (("last", rise), ("first", first))
        for shown, way in (("bar", -1), ("foo", 1))
    ]
    return pd.DataFrame(rows, columns=["heads", "set", "query", "end", "shown", "p_foo"])


@pytest.mark.parametrize(
    ("intact", "chosen", "random", "verdict"),
    [
        (0.2, 0.0, 0.2, "supported"),
        (0.0, 0.2, 0.0, "contradicted"),
        (0.0, 0.0, 0.0, "absent"),
        (0.2, 0.2, 0.2, "absent"),
        (0.2, 0.0, -0.1, "inconclusive"),
    ],
)
def test_c12_can_come_out_each_way(intact, chosen, random, verdict):
    table = paired(intact, chosen, random, first=0.3)
    assert judge(**recency_evidence(table), smallest=CLAIMS["C12"].smallest).verdict == verdict
    told = summary({end: end_effects(table, end) for end in ("last", "first")}).set_index(["measure", "heads"])["mean"]
    assert told["last", "intact"] == pytest.approx(intact, abs=0.01)
    assert told["first", "intact"] == pytest.approx(0.3, abs=0.01)


def swinging(intact, chosen, random, *, sets=12):
    """P(gold) and margin that swing between orders by an amplitude, by group of heads."""
    rng = np.random.default_rng(0)
    sizes = {"intact": intact, "in-context": chosen, **dict.fromkeys(RANDOM, random)}
    rows = [
        (heads, s, order, query, 0.7 + size * (-1) ** order * (1 + 0.1 * rng.random()), 2 + size * (-1) ** order)
        for heads, size in sizes.items()
        for s in range(sets)
        for order in range(4)
        for query in range(2)
    ]
    return pd.DataFrame(rows, columns=["heads", "set", "order", "query", "p_gold", "margin"])


@pytest.mark.parametrize(
    ("intact", "chosen", "random", "verdict"),
    [
        (0.2, 0.05, 0.2, "supported"),
        (0.1, 0.2, 0.1, "contradicted"),
        (0.2, 0.2, 0.2, "absent"),
        (0.2, 0.1, 0.05, "inconclusive"),
        (0.01, 0.0, 0.01, "nothing to cure"),
    ],
)
def test_c14_can_come_out_each_way(intact, chosen, random, verdict):
    table = swinging(intact, chosen, random)
    assert judge(**swing_evidence(table), smallest=CLAIMS["C14"].smallest).verdict == verdict


def test_a_smaller_margin_alone_steadies_no_margin():
    table = swinging(0.2, 0.2, 0.2)
    shrunk = table.assign(margin=table["margin"].where(table["heads"] == "intact", table["margin"] / 10))
    found = swings(shrunk, "margin").groupby("heads")["effect"].mean()
    assert found["in-context"] == pytest.approx(found["intact"])


@pytest.mark.parametrize("shots", [1, 2, 3, 8])
def test_paired_orders_exchange_two_labels_and_nothing_else(tiny_gpt2, shots):
    pairs = [(f"{'abcdefgh'[i]}", label) for label in ("bar", "foo") for i in range(shots)]
    s = twotowers.prompt_set(tiny_gpt2, pairs, QUERIES)
    found, width = paired_orders(s), min(2, shots)
    for end in ("last", "first"):
        orders = {label: found[end, label] for label in ("bar", "foo")}
        for label, order in orders.items():
            assert sorted(order) == list(range(2 * shots))
            at_end = order[-width:] if end == "last" else order[:width]
            assert {pairs[i][1] for i in at_end} == {label}
        differ = [place for place, (a, b) in enumerate(zip(*orders.values(), strict=True)) if a != b]
        assert len(differ) == 2 * width
        if shots == 8:
            assert differ == ([7, 8, 14, 15] if end == "last" else [0, 1, 7, 8])


def test_the_intact_model_and_heads_without_effect(tiny):
    """Intact answers are the model's own; an empty group changes nothing; a group does."""
    s = make_sets(tiny)[0]
    groups = {"in-context": [(2, 1), (2, 3)], "random 1": []}
    table = answers_in(tiny, {5: s}, {5: [tuple(range(5)), (1, 0, 2, 3, 4)]}, groups)
    by_heads = {name: part.reset_index(drop=True) for name, part in table.groupby("heads")}
    assert set(table["set"]) == {5}
    np.testing.assert_allclose(by_heads["random 1"]["margin"], by_heads["intact"]["margin"], atol=1e-4)
    assert (by_heads["in-context"]["margin"] - by_heads["intact"]["margin"]).abs().max() > 1e-4
    first = by_heads["intact"].query("order == 0")
    ours = twotowers.balance_attention(tiny, s, [])
    np.testing.assert_allclose(first["margin"], ours["margin"], atol=1e-4)
    foo = first["label"] == "foo"
    np.testing.assert_allclose(first["p_foo"].where(foo, 1 - first["p_foo"]), first["p_gold"])


def test_equal_sets_have_equal_effects_under_their_own_numbers(tiny_gpt2):
    s = twotowers.prompt_set(tiny_gpt2, DEMONSTRATIONS[:4], QUERIES)
    table = in_paired_orders(tiny_gpt2, {0: s, 3: s}, {"in-context": [(3, 0)]})
    assert table.groupby(["heads", "end", "shown"]).size().eq(6).all()
    effects = end_effects(table)
    assert set(effects["set"]) == {0, 3}
    assert effects.groupby("heads")["effect"].nunique().eq(1).all()


def test_attention_by_distance_falls_only_where_it_does():
    rows = [
        ("in-context", s, order, q, d, i % 2 == 0, 0.5 - 0.05 * d)
        for s in range(3)
        for order in range(4)
        for q in range(2)
        for i, d in enumerate(range(1, 5))
    ]
    columns = ["heads", "set", "order", "query", "distance", "same", "attention"]
    table = pd.DataFrame(rows, columns=columns)
    for _, part in by_distance(table).groupby("same"):
        assert (np.diff(part.sort_values("distance")["mean"]) < 0).all()
    assert (near_minus_far(table)["effect"] > 0).all()

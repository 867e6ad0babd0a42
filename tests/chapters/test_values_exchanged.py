"""What is lost with exchanged values, and what is written directly: planted tables, and identities on tiny models."""

import pandas as pd
import pytest

import twotowers
from twotowers.chapters.values import exchanged
from twotowers.chapters.values.direct import direct_summary, share_of_heads, written_directly
from twotowers.chapters.values.exchanged import evidence, exchange_summary, exchanged_values
from twotowers.chapters.values.logit_minus import position_logit_minus
from twotowers.paper import CLAIMS
from twotowers.statistics import judge
from twotowers.tracing.controls import FOLD, INTACT
from twotowers.tracing.heads import CHOSEN, RANDOM, deep_heads, every_head
from twotowers.tracing.outcomes import outcomes

HEADS = [(2, 0), (3, 1)]
NOTHING = pd.DataFrame({"group": []})
SMALLEST = CLAIMS["C6"].smallest


def planted(own, random, sets=12, intact=2.0):
    """Margins of two prompts a set: intact, with the heads' values exchanged, and with those of random groups."""
    margins = {INTACT: intact, CHOSEN: own, **{f"{RANDOM} {i}": margin for i, margin in enumerate(random)}}
    rows = [
        (heads, s, query, margin + (s % 3 - 1) * 0.25 + (query - 0.5))
        for heads, margin in margins.items()
        for s in range(sets)
        for query in (0, 1)
    ]
    return pd.DataFrame(rows, columns=["heads", "set", "query", "margin"])


def spread(table):
    """Another loss in each set, so that effects are not all the same."""
    return table.assign(margin=table["margin"] + 0.05 * (table["heads"] == CHOSEN) * (table["set"] % 4))


def verdict(table):
    return judge(**evidence(table), smallest=SMALLEST).verdict


def test_a_loss_is_a_share_of_the_mean_intact_margin():
    found = evidence(planted(-1.0, [1.5, 2.5]))
    assert found["effects"]["effect"].to_numpy() == pytest.approx([1.5] * 12)
    assert found["effects"]["set"].tolist() == list(range(12))
    assert found["random"] == pytest.approx([0.25, -0.25])
    assert found["folds"] is None
    assert evidence(planted(-1.0, []))["random"] == []
    assert verdict(spread(planted(-1.0, []))) == "inconclusive"  # nothing to be better than
    chosen = planted(-1.0, []).query("heads == @CHOSEN")
    folds = [chosen.assign(heads=f"{FOLD} {i}", margin=chosen["margin"] + i) for i in (0, 1)]
    assert evidence(pd.concat([planted(-1.0, []), *folds]))["folds"] == pytest.approx([1.5, 1.0])
    summary = exchange_summary(planted(-1.0, [1.5]))
    assert summary["intact"] == pytest.approx(2.0)
    assert summary["exchanged"] == pytest.approx(-1.0)
    assert summary["low"] < summary["mean"] == pytest.approx(1.5)
    assert summary["random"] == pytest.approx([0.25])


def test_sets_with_small_margins_weigh_no_more():
    table = planted(0.0, []).query("set < 2")
    table.loc[table["set"] == 0, "margin"] /= 100
    own = evidence(table)["effects"]["effect"]
    assert own[0] == pytest.approx(2.0 / 100 / table.query("heads == @INTACT")["margin"].mean())
    assert own[1] > 50 * own[0]


def test_support_needs_a_loss_that_random_groups_do_not_have():
    assert verdict(spread(planted(-1.0, [1.9] * 20))) == "supported"
    assert verdict(spread(planted(-1.0, [1.9] * 19 + [-1.0]))) != "supported"
    assert verdict(spread(planted(2.0, [1.9] * 20))) != "supported"
    assert verdict(spread(planted(4.0, [1.9] * 20))) == "contradicted"


def test_without_a_margin_nothing_can_be_lost():
    assert evidence(planted(-3.0, [-2.0] * 20, intact=-1.0))["effects"]["effect"].isna().all()
    assert verdict(planted(-3.0, [-2.0] * 20, intact=-1.0)) == "not testable"


def test_groups_are_the_intact_model_the_heads_and_as_many_others(tiny, two_sets):
    table = exchanged_values(tiny, two_sets, HEADS, [HEADS[:1], HEADS], number=3)
    names = [INTACT, CHOSEN, f"{FOLD} 0", f"{FOLD} 1", *(f"{RANDOM} {i}" for i in range(3))]
    assert table["heads"].unique().tolist() == names
    margins = {group: part["margin"].to_numpy() for group, part in table.groupby("heads")}
    assert margins[f"{FOLD} 1"] == pytest.approx(margins[CHOSEN], abs=1e-4)
    assert margins[INTACT] == pytest.approx(outcomes(tiny, two_sets, [[]])["margin"].to_numpy(), abs=1e-4)
    assert margins[CHOSEN] == pytest.approx(
        twotowers.exchange(tiny, two_sets, HEADS, "values")["margin"].to_numpy(), abs=1e-4
    )
    assert abs(margins[CHOSEN] - margins[INTACT]).max() > 1e-3


@pytest.mark.parametrize(("heads", "random"), [(HEADS, 15), (HEADS[:1], 7), (4, 1), (5, 0), (8, 0)])
def test_random_groups_are_other_deep_heads_or_there_are_none(tiny_gpt2, monkeypatch, heads, random):
    """The deep half has 8 heads: of 5 there are no as many others, and of 4 there is one group."""
    heads = deep_heads(tiny_gpt2)[:heads] if isinstance(heads, int) else heads
    seen = []
    monkeypatch.setattr(exchanged, "exchanges", lambda model, sets, choices: seen.append(choices) or NOTHING)
    for seed in (0, 0, 1):
        exchanged_values(tiny_gpt2, [], heads, seed=seed)
    first, again, other = seen
    assert first == again
    assert (first == other) == (random < 2)
    assert first[:2] == [([], "none"), (heads, "values")]
    assert len(first) == 2 + random
    assert len({tuple(group) for group, _ in first[2:]}) == random
    for group, part in first[2:]:
        assert part == "values"
        assert len(set(group)) == len(heads)
        assert set(group) <= set(deep_heads(tiny_gpt2)) - set(heads)


def test_deep_heads_write_what_deep_attention_writes_but_for_the_bias(tiny, two_sets):
    written = written_directly(tiny, two_sets, deep_heads(tiny))
    assert written["set"].tolist() == [0, 0, 0, 1, 1, 1]
    same = written["own"].to_numpy() == pytest.approx(written["deep"].to_numpy(), rel=1e-3, abs=1e-3)
    assert same == (tiny.config.model_type == "llama")  # whose output has no bias
    assert written["own"].abs().min() > 1e-3


def test_what_heads_write_is_their_weighted_logit_minus_towards_the_gold_label(tiny, two_sets):
    table = position_logit_minus(tiny, two_sets, HEADS)
    minus = table.groupby(["set", "query", "label"])["weighted"].sum().reset_index()
    expected = minus["weighted"].where(minus["label"] == "foo", -minus["weighted"])
    written = written_directly(tiny, two_sets, HEADS)
    assert written["own"].to_numpy() == pytest.approx(expected.to_numpy(), rel=1e-3, abs=1e-3)


def test_the_share_is_of_the_mean():
    summary = direct_summary(pd.DataFrame({"set": [0, 1], "own": [1.0, 3.0], "deep": [2.0, 6.0]}))
    assert summary["mean"].tolist() == [2.0, 4.0, 0.5]
    below = direct_summary(pd.DataFrame({"set": [0, 1], "own": [1.0, 3.0], "deep": [-2.0, -6.0]}))
    assert below["mean"].isna().tolist() == [False, False, True]


def test_heads_are_a_share_of_the_deep_half(tiny_gpt2):
    assert share_of_heads(tiny_gpt2, HEADS) == 0.25
    assert share_of_heads(tiny_gpt2, every_head(tiny_gpt2)) == 1.0

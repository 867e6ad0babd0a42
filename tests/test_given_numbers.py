"""Numbers and tables as notebooks have them: taken as what they are, or refused in one sentence."""

import inspect
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

import twotowers
from conftest import make_sets, message
from twotowers.errors import ArgumentError, HeadError
from twotowers.statistics import judge

EFFECTS = pd.DataFrame({"set": range(12), "effect": np.linspace(0.2, 0.6, 12)})
CATEGORIES = pd.DataFrame({"set": range(12), "first": list("abcdef" * 2), "second": list("bcdefa" * 2)})
GROUPS = [0.1] * 10 + [0.5] * 10


@pytest.mark.parametrize(
    "given",
    [dict(enumerate(GROUPS)).values(), np.float32(GROUPS), torch.tensor(GROUPS), pd.Index(GROUPS)],
    ids=["values of a dict", "float32", "tensor", "index"],
)
def test_random_groups_are_counted_however_they_are_given(given):
    for name in ("random", "folds"):
        assert judge(EFFECTS, 0.1, **{name: given}) == judge(EFFECTS, 0.1, **{name: GROUPS})


@pytest.mark.parametrize(
    "given",
    [
        np.ma.array(GROUPS, mask=[True] + [False] * 19),
        np.array(GROUPS) + 1j,
        pd.DataFrame({0: GROUPS, 1: GROUPS}),
        [10**400],
        pd.array([None, 0.1], dtype="Float64"),
    ],
    ids=["masked", "complex", "frame", "huge", "missing"],
)
def test_what_would_lose_a_number_is_refused(given):
    assert "random is no list of numbers" in message(ArgumentError, lambda: judge(EFFECTS, 0.1, random=given))


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ([None, *range(11)], "has a row without a set"),
        ([np.nan] * 4 + [*range(8)], "has a row without a set"),
        (pd.array([None, *"abcdefghijk"], dtype="string"), "has a row without a set"),
        ([1, "a"] * 6, "has names of several kinds"),
    ],
)
@pytest.mark.parametrize("name", ["effects", "control", "categories"])
def test_a_set_that_is_not_named_is_no_set(name, column, said):
    frames = {"effects": EFFECTS, "control": EFFECTS, "categories": CATEGORIES}
    frames[name] = frames[name].assign(set=column)
    text = message(ArgumentError, lambda: judge(frames.pop("effects"), 0.1, **frames))
    assert text.startswith(f"The column set of {name} {said}")


def test_a_column_that_is_there_twice_is_refused():
    twice = pd.concat([EFFECTS, EFFECTS[["set"]]], axis=1)
    assert message(ArgumentError, lambda: judge(twice, 0.1)) == "effects has the column set more than once; leave one."


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (CATEGORIES.assign(first=None), "The categories of 12 sets are missing, set 0 first"),
        (CATEGORIES.assign(second=["b"] * 11 + [np.nan]), "The categories of 1 sets are missing, set 11 first"),
        (pd.concat([CATEGORIES, CATEGORIES.assign(first="z")]), "The categories of set 0 are there twice, and differ"),
    ],
)
def test_categories_that_are_missing_or_differ_are_refused(odd, said):
    assert message(ArgumentError, lambda: judge(EFFECTS, 0.1, categories=odd)).startswith(said)
    again = pd.concat([CATEGORIES, CATEGORIES])
    assert judge(EFFECTS, 0.1, categories=again) == judge(EFFECTS, 0.1, categories=CATEGORIES)


def test_a_category_that_stands_twice_in_a_set_counts_once():
    """The dyadic sandwich of clusters that share nothing is that of clusters."""
    one = CATEGORIES.assign(second=CATEGORIES["first"])
    noise = EFFECTS.assign(effect=[0.9, 0.1, 0.4, 0.7, 0.3, 0.5] * 2)
    residuals = (noise["effect"] - noise["effect"].mean()).groupby(one["first"]).sum()
    error = np.sqrt((residuals**2).sum() / 12**2 / (1 - 2 / 12))
    assert judge(noise, 0.1, categories=one).error == pytest.approx(error)


def test_an_accuracy_in_percent_is_refused():
    text = message(ArgumentError, lambda: judge(EFFECTS, 0.1, accuracy=EFFECTS.assign(effect=45.0)))
    assert text == "An accuracy is a share, from 0 to 1; give it as that, not in percent."


def test_a_missing_effect_that_is_a_text_is_counted():
    effects = EFFECTS.assign(effect=pd.Series(["nan", *map(str, EFFECTS["effect"][1:])], dtype=object))
    assert judge(effects, 0.1).left_out == 1


@pytest.mark.parametrize("number", [np.float32(0.25), np.float16(0.25), Fraction(1, 4)])
def test_a_number_may_be_of_any_kind(tiny_gpt2, number):
    """Without the types that are checked in these tests, as a notebook has it."""
    sets = make_sets(tiny_gpt2)
    judged, imbalance, chosen = map(inspect.unwrap, (judge, twotowers.imbalance, twotowers.in_context_heads))
    assert judged(EFFECTS, number, alpha=number) == judge(EFFECTS, 0.25, alpha=0.25)
    found = (imbalance(tiny_gpt2, {share: sets}, [(1, 0)]) for share in (number, 0.25))
    pd.testing.assert_frame_equal(*found)
    assert chosen(SCORES, 4, number) == [(2, 0)]


SCORES = pd.DataFrame({"layer": [2, 2, 3, 3], "head": [0, 1, 0, 1], "exchange": [10.0, 9.0, 0.5, -3.0]})


def test_scores_are_numbers_also_where_they_are_written_as_texts():
    as_text = SCORES.assign(exchange=SCORES["exchange"].astype(str), layer=SCORES["layer"].astype(float))
    expected = twotowers.in_context_heads(SCORES, 4, 0.75)
    assert expected == [(2, 0), (2, 1), (3, 0)]
    assert twotowers.in_context_heads(as_text, 4, 0.75) == expected


@pytest.mark.parametrize("layer", ["2", np.nan, -1, 1.5])
def test_a_layer_that_is_no_number_of_one_is_refused(tiny_gpt2, layer):
    odd = SCORES.assign(layer=layer, set=0, values=0.0)
    assert "The column layer of scores has" in message(ArgumentError, lambda: twotowers.in_context_heads(odd, 4))
    call = lambda: twotowers.head_scores(tiny_gpt2, make_sets(tiny_gpt2), by_set=odd)  # noqa: E731
    assert "The column layer of by_set has" in message(ArgumentError, call)


def test_scores_of_other_heads_than_there_are_are_refused(tiny_gpt2):
    twice = pd.concat([SCORES, SCORES])
    assert "more than one row" in message(HeadError, lambda: twotowers.in_context_heads(twice, 4))
    other = SCORES.assign(layer=9, set=0, values=0.0)
    call = lambda: twotowers.head_scores(tiny_gpt2, make_sets(tiny_gpt2), by_set=other)  # noqa: E731
    assert "has no head (9, 0)" in message(HeadError, call)

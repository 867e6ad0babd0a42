"""Numbers in words: zero, one, negative zero, ties and what is no number."""

import math

import pytest

from twotowers.publishing import wording
from twotowers.statistics import Estimate

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.0, 0, "0%"),
        (-0.0, 1, "0.0%"),
        (-0.0004, 0, "0%"),
        (-0.25, 1, "-25.0%"),
        (1.0, 0, "100%"),
        (NAN, 0, "not known"),
        (-INF, 2, "not known"),
    ],
)
def test_a_share(share, digits, text):
    assert wording.percent(share, digits) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 queries"), (1, "one query"), (2, "2 queries"), (1000, "1000 queries")]
)
def test_a_count(number, text):
    assert wording.counted(number, "query", "queries") == text
    assert f"{number} {wording.plural(number, 'query', 'queries')}" == text.replace("one", "1")
    assert wording.counted(number, "head").endswith("head" if number == 1 else "heads")


@pytest.mark.parametrize(
    ("words", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "a"], "a, b and a")]
)
def test_words_are_joined(words, text):
    assert wording.joined(words) == text


def test_heads_are_named():
    assert wording.head_names([(3, 1), [0, 12]]) == "3.1, 0.12"
    assert wording.head_names([]) == "none"


@pytest.mark.parametrize(
    ("numbers", "spec", "text"),
    [
        ((0.5, 0.25, 0.75), ".0%", "50% (25% to 75%)"),
        ((0.5, 0.5, 0.5), "+z.1f", "+0.5 (+0.5 to +0.5)"),
        ((-0.001, -0.002, 0.0), "+z.2f", "+0.00 (+0.00 to +0.00)"),
        ((-0.0, NAN, NAN), "z.1%", "0.0%"),
        ((1.0, NAN, 2.0), "z.1f", "1.0"),
        ((NAN, NAN, NAN), "z.1f", "not known"),
        ((INF, NAN, NAN), "z.1f", "not known"),
    ],
)
def test_an_estimate_has_its_interval_if_there_is_one(numbers, spec, text):
    row = dict(zip(("mean", "low", "high"), numbers, strict=True))
    assert wording.said(wording.estimate_of(row), spec) == text == wording.said(Estimate(*numbers), spec)


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (0.5, 0.25, "-50%"),
        (0.5, 0.5, "+0%"),
        (0.5, 0.4999, "+0%"),
        (0.0, 0.0, "none to shrink"),
        (1e-12, -0.0, "none to shrink"),
        (0.0, 0.1, "from a start of zero"),
        (0.001, 0.5, "from a start near zero"),
        (NAN, 0.5, "not known"),
        (0.5, INF, "not known"),
    ],
)
def test_a_relative_change(before, after, text):
    assert wording.relative(before, after) == text


def test_a_relative_change_has_as_many_digits_as_are_asked_for():
    assert wording.relative(3.0, 2.0, 1) == "-33.3%"


@pytest.mark.parametrize("sets", [0, 1])
def test_one_set_has_no_intervals(sets):
    assert wording.intervals("Bands", sets) == "From one demonstration set, so without intervals."


def test_intervals_are_of_so_many_sets():
    assert wording.intervals("Bars", 2) == "Bars: 95% intervals over 2 demonstration sets."


def test_a_share_has_an_interval_of_what_a_share_can_be():
    assert wording.share(Estimate(1.0, 0.913, 1.087)) == "100.0% (91.3% to 100.0%)"
    assert wording.share(Estimate(-0.0, -0.087, 0.087)) == "0.0% (0.0% to 8.7%)"
    assert wording.share(Estimate(0.5, NAN, NAN), 0) == "50%"
    assert wording.share(Estimate.unknown()) == "not known"

"""The rule of verdicts: every word can come out, each control can forbid support, and nothing passes by missing."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import twotowers
from twotowers.statistics import Estimate, Verdict, holm, judge, per_set

SMALLEST = 0.05


def frame(values):
    return pd.DataFrame({"set": range(len(values)), "effect": np.asarray(values, dtype=float)})


def around(mean, error=0.01, sets=32):
    """Effects whose mean and standard error are exactly these."""
    x = np.linspace(-1, 1, sets)
    return frame(mean + x / x.std(ddof=1) * error * np.sqrt(sets))


def verdict(effects, **given):
    return judge(effects, SMALLEST, **given).verdict


# The interval


def test_the_interval_is_that_of_a_t_test_over_sets():
    values = np.random.default_rng(0).normal(0.3, 1, 20)
    test = scipy.stats.ttest_1samp(values, 0)
    made, (low, high) = judge(frame(values), SMALLEST), test.confidence_interval(0.95)
    np.testing.assert_allclose([made.mean, made.low, made.high, made.p], [values.mean(), low, high, test.pvalue])
    assert made.error == pytest.approx(scipy.stats.sem(values))
    assert made.sets == 20


def test_prompts_count_within_their_set():
    effects = around(0.3)
    many = pd.concat([effects.assign(effect=effects["effect"] + shift) for shift in (-1, 0, 1)] * 50)
    assert dataclasses.asdict(judge(many, SMALLEST)) == pytest.approx(dataclasses.asdict(judge(effects, SMALLEST)))


@pytest.mark.parametrize("constant", [0.0, 0.04, 0.125, -0.3, 2.0])
@pytest.mark.parametrize("sets", [8, 66])
def test_the_same_in_every_set_is_no_certainty(constant, sets):
    """A set that differs by one unit would go unseen as often as alpha says."""
    made = judge(frame([constant] * sets), SMALLEST)
    assert (1 - (made.high - constant)) ** sets == pytest.approx(0.05)
    assert constant - made.low == pytest.approx(made.high - constant)
    assert (made.p < 0.05) == (not made.low <= 0 <= made.high)


def pairs(number):
    return [tuple(map(str, pair)) for pair in itertools.combinations(range(number), 2)]


def categories_of(rows):
    return pd.DataFrame([(i, *pair) for i, pair in enumerate(rows)], columns=["set", "first", "second"])


def related_sum(values, rows):
    """The dyadic sandwich, pair by pair."""
    return sum(a * b for (a, p), (b, q) in itertools.product(zip(values, rows, strict=True), repeat=2) if {*p} & {*q})


@pytest.mark.parametrize("twice", [False, True])
def test_sets_that_share_a_category_are_not_independent(twice):
    """Where a category decides the effect, the standard error is that of the sandwich, with its degrees of freedom."""
    rows = pairs(8) + [pair[::-1] for pair in pairs(8)] * twice
    values = np.array([int(a) + int(b) for a, b in rows]) + 0.1 * np.random.default_rng(0).normal(size=len(rows))
    made = judge(frame(values), SMALLEST, categories=categories_of(rows))
    left = 1 - related_sum(np.ones(len(rows)), rows) / len(rows) ** 2
    expected = np.sqrt(related_sum(values - values.mean(), rows) / len(rows) ** 2 / left)
    assert made.error == pytest.approx(expected)
    assert made.error > 1.5 * scipy.stats.sem(values)
    assert made.high - made.mean == pytest.approx(expected * scipy.stats.t.ppf(0.975, 7))


def test_the_order_of_a_pair_and_names_do_not_matter():
    rows = pairs(8)
    values = frame([int(a) + int(b) for a, b in rows])
    renamed = [(f"z{b}", f"z{a}") for a, b in rows]
    assert judge(values, SMALLEST, categories=categories_of(rows)) == judge(
        values, SMALLEST, categories=categories_of(renamed)
    )


@pytest.mark.parametrize("rows", [[("a", "b")] * 32, [(f"a{i}", f"b{i}") for i in range(32)]], ids=["all", "none"])
def test_where_all_or_no_sets_are_related_the_usual_error_stands(rows):
    effects = around(0.3)
    assert judge(effects, SMALLEST, categories=categories_of(rows)) == judge(effects, SMALLEST)


def test_the_clustered_error_of_unrelated_sets_is_the_usual_one_and_never_makes_an_interval_narrower():
    rng, rows = np.random.default_rng(3), pairs(12)
    for _ in range(50):
        effects = frame(rng.normal(size=len(rows)))
        clustered = judge(effects, SMALLEST, categories=categories_of(rows))
        assert clustered.error >= judge(effects, SMALLEST).error


def test_a_set_without_categories_is_refused():
    with pytest.raises(ValueError, match="The categories of 4 sets are missing, set 28"):
        judge(around(0.3), SMALLEST, categories=categories_of(pairs(8)))


# The words


@pytest.mark.parametrize(
    ("mean", "error", "word"),
    [
        (0.3, 0.01, "supported"),
        (0.03, 0.005, "supported, negligible"),
        (0.03, 0.012, "supported, negligible"),  # though the interval reaches beyond the smallest effect
        (0.005, 0.01, "absent"),
        (-0.03, 0.005, "absent"),  # surely below zero, and surely too small to speak against the claim
        (-0.045, 0.005, "contradicted"),
        (-0.3, 0.01, "contradicted"),
        (0.01, 0.03, "inconclusive"),
        (0.3, 0.5, "inconclusive"),
    ],
)
def test_the_interval_decides(mean, error, word):
    made = judge(around(mean, error), SMALLEST)
    assert made.verdict == word
    assert bool(made.reason) == (word not in ("supported", "contradicted"))


@pytest.mark.parametrize("sets", [0, 1, 2, 7])
def test_fewer_than_eight_sets_decide_nothing(sets):
    made = judge(around(0.3, sets=sets) if sets > 1 else frame([0.3] * sets), SMALLEST)
    assert made.verdict == "not testable"
    assert made.reason == "fewer than 8 demonstration sets have an effect"
    assert np.isfinite(made.low) == (sets > 1)
    assert verdict(around(0.3, sets=8)) == "supported"


def test_missing_effects_are_left_out_and_counted():
    effects = around(0.3)
    gaps = pd.concat([effects, effects.assign(effect=np.nan).iloc[:5]])
    assert judge(gaps, SMALLEST).left_out == 5
    assert judge(gaps, SMALLEST).mean == pytest.approx(0.3)
    gaps = effects.assign(effect=effects["effect"].where(effects["set"] < 9))
    assert judge(gaps, SMALLEST).sets == 9
    assert verdict(effects.assign(effect=np.nan)) == "not testable"
    assert verdict(frame([np.inf] * 32)) == "not testable"


@pytest.mark.parametrize(
    ("accuracy", "reason"),
    [
        (around(0.8), ""),
        (around(0.51), "the interval of two-way accuracy includes one half"),
        (around(0.4), "the interval of two-way accuracy lies below one half"),
        (frame([0.5] * 32), "the interval of two-way accuracy includes one half"),
        (frame([1.0] * 32), ""),
        (frame([0.9]), "the accuracy of the model is not known"),
        (frame([np.nan] * 32), "the accuracy of the model is not known"),
    ],
)
def test_a_model_that_may_be_at_chance_is_not_tested(accuracy, reason):
    made = judge(around(0.3), SMALLEST, accuracy=accuracy)
    assert (made.verdict, made.reason) == ("not testable" if reason else "supported", reason)


@pytest.mark.parametrize(
    ("before", "word"),
    [(around(0.3), "supported"), (around(0.04), "nothing to cure"), (frame([np.nan] * 9), "not testable")],
)
def test_what_is_not_there_cannot_be_cured(before, word):
    assert verdict(around(0.3), before=before) == word


@pytest.mark.parametrize(
    ("mean", "folds", "word"),
    [
        (0.3, [0.2, 0.4], "supported"),
        (0.3, [0.7, -0.1], "unstable"),
        (-0.3, [-0.7, 0.1], "unstable"),
        (0.3, [0.3, np.nan], "unstable"),
        (0.3, [0.3, 0.0], "supported"),
        (0.0, [0.02, -0.02], "absent"),
        (0.0, [0.5, -0.5], "unstable"),
    ],
)
def test_folds_that_contradict_each_other_are_unstable(mean, folds, word):
    assert verdict(around(mean), folds=folds) == word


# Controls


@pytest.mark.parametrize(
    ("random", "word"),
    [
        ([0.0] * 20, "supported"),
        ([0.0] * 19, "supported"),
        ([0.0] * 18, "inconclusive"),  # (1 + 0) / (1 + 18) is above 5 %
        ([0.0] * 19 + [0.31], "inconclusive"),
        ([0.0] * 19 + [np.nan], "inconclusive"),
        ([0.0] * 98 + [0.4] * 4, "supported"),
        ([0.0] * 95 + [0.4] * 5, "inconclusive"),
        ([], "inconclusive"),
    ],
)
def test_support_needs_to_be_better_than_random_groups(random, word):
    made = judge(around(0.3), SMALLEST, random=random)
    assert made.verdict == word
    assert ("random groups" in made.reason) == (word != "supported")


@pytest.mark.parametrize("number", [0, 7, 18])
def test_being_the_best_of_few_heads_tells_nothing(number):
    made = judge(around(0.3), SMALLEST, random=[0.0] * number)
    assert (made.verdict, made.random_p) == ("inconclusive", pytest.approx(1 / (1 + number)))
    few = f"there are only {number} random groups, too few to tell, though none does as well"
    assert made.reason == (few if number else "there are no random groups to compare with")


def test_random_groups_as_good_as_the_heads_are_counted_with_them():
    made = judge(frame([0.25, 0.75] * 16), SMALLEST, random=[0.5] + [0.0] * 19)
    assert made.random_p == pytest.approx(2 / 21)


@pytest.mark.parametrize(
    ("control", "word", "reason"),
    [
        (around(0.2), "supported", ""),
        (around(0.0), "inconclusive", "its control is not above zero: +0.000 (-0.020 to +0.020)"),
        (around(-0.2), "inconclusive", "its control is not above zero"),
        (around(0.018), "supported", ""),  # 1.8 standard errors: one-sided at 5 %
        (around(0.016), "inconclusive", "its control is not above zero"),
        (around(0.2).iloc[1:], "inconclusive", "its control has no effect in 1 of 32 sets"),
        (around(0.2).assign(effect=np.nan), "inconclusive", "its control has no effect in 32 of 32 sets"),
        (pd.concat([around(0.2), frame([0.2] * 40)]), "supported", ""),
    ],
)
def test_support_needs_a_control_above_zero(control, word, reason):
    made = judge(around(0.3), SMALLEST, control=control)
    assert made.verdict == word
    assert made.reason.startswith(reason)
    assert isinstance(made.control, Estimate)


def test_every_control_that_is_not_passed_is_named():
    made = judge(around(0.3), SMALLEST, random=[1.0] * 20, control=around(-0.1))
    assert made.reason.startswith("20 of 20 random groups do as well; its control")


def test_a_control_can_forbid_support_only():
    given = {"random": [1.0] * 20, "control": around(-1)}
    assert verdict(around(-0.3), **given) == "contradicted"
    assert verdict(around(0.02, 0.005), **given) == "absent"


def test_a_smallest_effect_of_zero_is_refused():
    with pytest.raises(ValueError, match="give a number above 0"):
        judge(around(0.3), 0.0)


# Many claims


def with_p(p, mean=1.0):
    effects = around(0, 1)
    t = scipy.stats.t.isf(p / 2, 31)
    return judge(effects.assign(effect=effects["effect"] + np.sign(mean) * t), SMALLEST)


def test_holm_steps_down_over_both_directions():
    """Of p = 0.01, 0.02, 0.03, 0.04 only the first passes 0.05 / 4; after it, 0.02 fails 0.05 / 3, and all above it."""
    ledger = {str(p): with_p(p, mean) for p, mean in ((0.03, 1), (0.01, -1), (0.04, 1), (0.02, -1))}
    assert [v.verdict for v in ledger.values()] == ["supported", "contradicted"] * 2
    after = holm(ledger)
    assert list(after) == list(ledger)
    assert [v.verdict for v in after.values()] == ["inconclusive", "contradicted", "inconclusive", "inconclusive"]
    assert after["0.02"].reason == "not among 4 claims: p = 0.060 by Holm"
    assert after["0.04"].reason == "not among 4 claims: p = 0.060 by Holm"  # never below that of a smaller p
    assert (after["0.02"].low, after["0.02"].high) == (ledger["0.02"].low, ledger["0.02"].high)


def test_holm_changes_no_other_word_and_counts_only_claims_with_a_p():
    unknown = Verdict("not run", *[float("nan")] * 4)
    ledger = {"a": with_p(0.04), "b": unknown, "c": judge(around(0.0), SMALLEST)}
    after = holm(ledger)
    assert [v.verdict for v in after.values()] == ["inconclusive", "not run", "absent"]
    assert after["a"].reason.startswith("not among 2 claims")
    assert holm({"a": with_p(0.04), "b": unknown})["a"].verdict == "supported"
    assert holm({}) == {}


def test_what_was_negligible_and_is_not_among_many_is_absent_if_it_is_surely_small():
    small = judge(around(0.0205), SMALLEST)
    assert small.verdict == "supported, negligible"
    assert holm({"a": small, "b": with_p(0.5)})["a"].verdict == "absent"


def test_anyone_can_try_the_rule():
    effects = around(0.3)
    assert twotowers.judge(effects, SMALLEST, random=[0.0] * 20).verdict == "supported"
    assert isinstance(twotowers.judge(effects, SMALLEST), twotowers.Verdict)
    assert twotowers.holm({"C4": with_p(0.04)})["C4"].verdict == "supported"


def test_effects_of_sets_are_the_means_of_their_prompts():
    table = pd.DataFrame({"set": [2, 0, 0, 1, 2], "effect": [1.0, 0.0, 1.0, np.nan, np.nan]})
    pd.testing.assert_frame_equal(per_set(table), pd.DataFrame({"set": [0, 2], "effect": [0.5, 1.0]}))

"""The page on imbalance: what it says of given results, without a model."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from facts import make_facts

from twotowers.chapters.imbalance import page
from twotowers.chapters.imbalance.designs import BALANCED
from twotowers.chapters.imbalance.mitigation import (
    CALIBRATION,
    CONTROL,
    MEASURES,
    NONE,
    OWN,
    PAPER,
    Remedied,
    compare_remedies,
    levels,
    mean_shift,
)
from twotowers.chapters.imbalance.response import accounts, head_groups, rank_correlations
from twotowers.publishing.publish import Figure, call, figure_of
from twotowers.publishing.shown import Shown

UNWANTED = re.compile(r"\bnan\b|\binf\b|-0(\.0+)?(?![\d.])|\b1 \w+(-\w+)? heads|\bthe 1 ")
BOTH = {"in-context": [[2, 0], [3, 1]], "random": [[2, 1], [3, 0]]}
ALONE = {"in-context": [[3, 0]]}  # of layers with one head


def interval(mean, spread):
    return mean, mean - spread, mean + spread


def curves_of(start=0.25, end=0.75, *, n=4, groups=BOTH, spread=0.05):
    """Straight lines from `start` to `end`, attention on foo from 0.2 to 1.2 and on bar the other way around."""
    rows = []
    for i in range(n - 1):
        share, way = (i + 1) / n, i / (n - 2)
        middle = start + way * (end - start)
        answers = [("probability", "p_foo_two_way", middle), ("probability", "p_foo", middle / 2)]
        answers += [("accuracy", "bar", 1 - middle), ("accuracy", "foo", middle)]
        rows += [(panel, line, "", share, *interval(mean, spread)) for panel, line, mean in answers]
        for heads in groups:
            sums = [("bar", 1.2 - way), ("foo", 0.2 + way)]
            rows += [
                (panel, line, heads, share, *interval(x, spread))
                for panel in ("attention", "values")
                for line, x in sums
            ]
    return pd.DataFrame(rows, columns=["panel", "line", "heads", "share", "mean", "low", "high"])


def ranks_of(spread=0.1, **means):
    names = {"chosen": "in-context", "random": "random", "difference": "difference"}
    rows = [(names[name], *interval(mean, spread)) for name, mean in means.items()]
    return pd.DataFrame(rows, columns=["heads", "mean", "low", "high"])


def account_of(parts, spread=0.1):
    """From `{heads: (part, r2)}`."""
    rows = [
        (heads, quantity, *interval(mean, spread))
        for heads, pair in parts.items()
        for quantity, mean in zip(("part", "r2"), pair, strict=True)
    ]
    return pd.DataFrame(rows, columns=["heads", "quantity", "mean", "low", "high"])


def compared_of(before=0.04, after=None, *, strength=0.3, spread=0.01):
    """Every measure fluctuates by `before`, and by `after[remedy]` with a remedy."""
    after = {PAPER: 0.03, OWN: 0.02, CONTROL: 0.05, CALIBRATION: 0.04} if after is None else after
    strengths = {NONE: 0.0, PAPER: 0.03, OWN: strength, CONTROL: strength, CALIBRATION: np.nan}
    rows = []
    for remedy, now in {NONE: before, **after}.items():
        for measure in MEASURES:
            if (remedy, measure) != (CALIBRATION, "accuracy"):
                rows.append((remedy, measure, "fluctuation", *interval(now, spread), strengths[remedy]))
                gain = interval(before - now, spread if remedy != NONE else 0.0)
                rows.append((remedy, measure, "removed", *gain, strengths[remedy]))
    return pd.DataFrame(rows, columns=["remedy", "measure", "quantity", "mean", "low", "high", "strength"])


def levels_of(compared, mean=0.75, change=0.01):
    remedies = list(dict.fromkeys(compared["remedy"]))
    return pd.DataFrame({"remedy": remedies, "mean": [mean, *[mean + change] * (len(remedies) - 1)]})


def shift_of(mean, spread):
    return dict(zip(("mean", "low", "high"), interval(mean, spread), strict=True))


def test_the_response_says_what_is_at_both_ends():
    _, caption, alt = figure_of(page.RESPONSE, make_facts(), {"curves": curves_of(), "groups": BOTH})
    assert caption == (
        "Answers and heads when 1 to 3 of 4 demonstrations are labelled foo. Attention of the last position, and logit "
        "minus of the weighted values, are summed over the label's positions and over the 2 in-context heads; dashed: "
        "2 random heads of the same layers. Accuracy is over the full vocabulary. Bands: 95% intervals over "
        "32 demonstration sets."
    )
    assert alt == (
        "Four line charts over the share of foo. With 1 of 4 demonstrations foo, the two-way probability of foo is 25% "
        "and the in-context heads' summed attention is 0.20 on foo and 1.20 on bar positions. With 3 of 4 "
        "demonstrations foo, the two-way probability of foo is 75% and the in-context heads' summed attention is 1.20 "
        "on foo and 0.20 on bar positions."
    )


@pytest.mark.parametrize(("groups", "lines"), [(BOTH, [2, 2, 4, 5]), (ALONE, [2, 2, 2, 3])])
def test_every_group_has_its_lines(groups, lines):
    drawing = page.response_figure(curves_of(groups=groups))
    assert [len(ax.get_lines()) for ax in drawing.axes] == lines  # values: and the zero line
    foo = next(line for line in drawing.axes[2].get_lines() if line.get_label() == "foo")
    np.testing.assert_allclose(foo.get_ydata(), [0.2, 0.7, 1.2])
    assert [text.get_text() for text in drawing.axes[3].get_xticklabels()] == ["1:3", "2:2", "3:1"]


def test_layers_without_other_heads_have_no_control():
    inputs = {"curves": curves_of(groups=ALONE), "groups": ALONE}
    _, caption, _ = figure_of(page.RESPONSE, make_facts(evaluation_sets=1), inputs)
    assert "over the one in-context head; these layers have no other heads to compare with." in caption
    assert caption.endswith("From one demonstration set, so without intervals.")


@pytest.mark.parametrize(
    ("difference", "decided"),
    [
        (0.5, "so summed attention follows the answer more closely in the in-context heads, as the paper predicts"),
        (-0.5, "so the random heads follow the answer more closely, against the paper"),
        (0.05, "which does not decide between them"),
    ],
)
def test_ranks_are_compared_with_the_control(difference, decided):
    text = call(page.RANKS.write, make_facts(), {"ranks": ranks_of(chosen=0.6, random=0.1, difference=difference)})
    assert text == (
        "The rank correlation is 0.60 (0.50 to 0.70) for in-context heads and 0.10 (0.00 to 0.20) for random heads of "
        f"the same layers. The difference is {difference:+.2f} ({difference - 0.1:+.2f} to {difference + 0.1:+.2f}), "
        f"{decided}."
    )


def test_ranks_of_one_set_decide_nothing():
    ranks = ranks_of(spread=0, chosen=0.6, random=0.1, difference=0.5)
    text = call(page.RANKS.write, make_facts(evaluation_sets=1), {"ranks": ranks})
    assert text == (
        "The rank correlation is 0.60 for in-context heads and 0.10 for random heads of the same layers. The "
        "difference is +0.50, but one demonstration set has no interval that could decide between them."
    )


def test_ranks_without_a_control_are_not_compared():
    text = call(page.RANKS.write, make_facts(), {"ranks": ranks_of(chosen=0.6)})
    assert text == (
        "The rank correlation is 0.60 (0.50 to 0.70) for in-context heads. Their layers have no other heads to compare "
        "them with."
    )


def test_the_account_gives_parts_and_lines():
    account = account_of({"in-context": (0.3, 0.8), "random": (0.0, 0.2)})
    assert call(page.ACCOUNT.write, make_facts(), {"account": account}) == (
        "The in-context heads' weighted values at label positions make up 30% (20% to 40%) of the change in the logit "
        "difference; for the random heads it is 0% (-10% to 10%). A line through the changes of a set has $R^2$ = 0.80 "
        "(0.70 to 0.90) for in-context heads and 0.20 (0.10 to 0.30) for random heads. All parts of the residual "
        "together make up 100 %."
    )
    alone = call(page.ACCOUNT.write, make_facts(), {"account": account_of({"in-context": (0.3, 0.8)})})
    assert "random" not in alone


def test_the_remedies_are_named_with_their_strengths():
    inputs = {"compared": compared_of(), "demonstrations": 8}
    drawing, caption, alt = figure_of(page.MITIGATION, make_facts(), inputs)
    assert caption == (
        "Left: change of a set's mean when one of 8 balanced demonstrations is dropped. Right: what each remedy takes "
        "off it, paired by set. Strength 0.3 was chosen on the selection half. Calibration has no full-vocabulary "
        "accuracy. Bars: 95% intervals over 32 demonstration sets."
    )
    assert alt == (
        "Two dot charts by remedy. Two-way accuracy fluctuates by 4.0% (none), 3.0% (paper's strength, 0.03), 2.0% "
        "(chosen strength, 0.3), 5.0% (random heads, 0.3), 4.0% (calibration)."
    )
    left, right = drawing.axes
    names = ["none", "paper's strength, 0.03", "chosen strength, 0.3", "random heads, 0.3", "calibration"]
    assert [text.get_text() for text in left.get_yticklabels()] == names
    assert list(left.containers[1][0].get_xdata()) == [0.04, 0.03, 0.02, 0.05, 0.04]
    assert list(right.containers[1][0].get_xdata()) == pytest.approx([0.01, 0.02, -0.01, 0.0], abs=1e-12)


SAYS_THE_PAPER = (
    " The paper has -22 % (abstract of version 3), -29.1 % (Llama-7B; summaries) and -14.9 % (GPT-J; summaries)."
)


@pytest.mark.parametrize(
    ("before", "own", "paper", "strength", "said"),
    [
        (0.04, 0.02, 0.05, 0.3, "4.0% in the intact model, 2.0% at the chosen strength 0.3 (-50%) and 5.0% at the "
         "paper's 0.03 (+25%)."),
        (0.04, 0.02, 0.02, 0.03, "4.0% in the intact model and 2.0% at the chosen strength, which is the paper's 0.03 "
         "(-50%)."),
        (0.0, 0.0, 0.01, 1.0, "0.0% in the intact model, 0.0% at the chosen strength 1 (there was none to shrink) and "
         "1.0% at the paper's 0.03 (from a start of zero)."),
        (0.001, 0.05, 0.001, 3.0, "0.1% in the intact model, 5.0% at the chosen strength 3 (from a start near zero) "
         "and 0.1% at the paper's 0.03 (+0%)."),
    ],
)  # fmt: skip
def test_a_fluctuation_is_relative_where_there_was_one(before, own, paper, strength, said):
    compared = compared_of(before, {PAPER: paper, OWN: own, CALIBRATION: before}, strength=strength)
    text = call(page.FLUCTUATIONS.write, make_facts(), {"compared": compared})
    assert text == f"Accuracy over the full vocabulary fluctuates by {said}{SAYS_THE_PAPER}"


@pytest.mark.parametrize("size", [1, 0.1, 0.01, 0.0])
def test_no_two_ticks_look_alike(size):
    fluctuations = {PAPER: 0.03 * size, OWN: 0.05 * size, CONTROL: 0.04 * size, CALIBRATION: 0.04 * size}
    drawing = page.mitigation_figure(compared_of(0.04 * size, fluctuations, spread=0.01 * size))
    drawing.draw_without_rendering()
    for ax in drawing.axes:
        names = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in ax.get_xticklabels()]
        assert len(set(names)) == len(names) > 1
        assert not any(UNWANTED.search(name) for name in names)


def test_the_remedies_are_judged_by_their_intervals():
    compared = compared_of(after={PAPER: 0.04, OWN: 0.02, CONTROL: 0.06, CALIBRATION: 0.04})
    text = call(page.REMEDIES.write, make_facts(), {"compared": compared, "levels": levels_of(compared)})
    assert text.splitlines()[2:] == [
        "| paper's strength, 0.03 | +0.0% (-1.0% to +1.0%) | undecided | +1.0 points |",
        "| chosen strength, 0.3 | +2.0% (+1.0% to +3.0%) | steadier | +1.0 points |",
        "| random heads, 0.3 | -2.0% (-3.0% to -1.0%) | less steady | +1.0 points |",
        "| calibration | +0.0% (-1.0% to +1.0%) | undecided | +1.0 points |",
    ]
    inputs = {"compared": compared_of(spread=0), "levels": levels_of(compared)}
    one = call(page.REMEDIES.write, make_facts(evaluation_sets=1), inputs)
    assert "| chosen strength, 0.3 | +2.0% | no interval of one set | +1.0 points |" in one


@pytest.mark.parametrize(
    ("mean", "said"),
    [
        (0.05, "+5.0 points (+4.0 to +6.0): towards the majority, which the remedy should cure."),
        (-0.05, "-5.0 points (-6.0 to -4.0): away from the majority, so the remedy pushes further the wrong way."),
        (0.0, "+0.0 points (-1.0 to +1.0): in no direction that the interval could tell from zero."),
    ],
)
def test_a_shift_has_a_direction_if_the_interval_has(mean, said):
    text = call(page.MAJORITY.write, make_facts(), {"shift": shift_of(mean, 0.01), "compared": compared_of()})
    assert text == (
        f"Dropping one demonstration moves the probability of the label left in the majority by {said} The probability "
        "of the right label fluctuates by 4.0 points."
    )


def test_a_shift_of_one_set_has_none():
    inputs = {"shift": shift_of(0.05, 0), "compared": compared_of(spread=0)}
    text = call(page.MAJORITY.write, make_facts(evaluation_sets=1), inputs)
    assert "by +5.0 points: one demonstration set has no interval that could tell a direction." in text


def edge(name):
    """Facts and the inputs of every item."""
    zeros = dict.fromkeys((PAPER, OWN, CONTROL, CALIBRATION), 0.0)
    uncontrolled = {PAPER: 0.03, OWN: 0.02, CALIBRATION: 0.04}
    pair = {"in-context": (0.3, 0.8), "random": (0.0, 0.2)}
    ranks, account, groups, facts = ranks_of(chosen=0.6, random=0.1, difference=0.5), account_of(pair), BOTH, {}
    curves, compared, shift, change = curves_of(), compared_of(), shift_of(0.01, 0.001), 0.01
    if name == "one set":
        facts = {"evaluation_sets": 1}
        ranks, account = ranks_of(0, chosen=0.6, random=0.1, difference=0.5), account_of(pair, 0)
        curves, compared, shift = curves_of(spread=0), compared_of(spread=0), shift_of(0.01, 0)
    elif name == "one head":
        facts, groups, curves = {"n_layers": 1, "n_heads": 1}, ALONE, curves_of(groups=ALONE)
        ranks, account = ranks_of(chosen=0.6), account_of({"in-context": (0.3, 0.8)})
        compared = compared_of(after=uncontrolled)
    elif name == "one head a group":
        groups = {"in-context": [[3, 0]], "random": [[3, 1]]}
    elif name == "at chance":
        curves, compared, shift, change = curves_of(0.5, 0.5), compared_of(0.0, zeros, spread=0), shift_of(0.0, 0), 0.0
        ranks = ranks_of(0, chosen=0.0, random=0.0, difference=0.0)
        account = account_of({"in-context": (0.0, 0.0), "random": (0.0, 0.0)}, 0)
    elif name == "perfect":
        curves, compared = curves_of(1.0, 1.0, spread=0), compared_of(0.0, zeros, spread=0, strength=0.03)
    elif name == "nothing but rounding errors":
        tiny = -1e-12
        ranks = ranks_of(1e-13, chosen=tiny, random=tiny, difference=tiny)
        account = account_of({"in-context": (tiny, tiny), "random": (tiny, tiny)}, 1e-13)
        compared = compared_of(1e-17, dict.fromkeys(zeros, 2e-17), spread=0)
        shift, change = shift_of(tiny, 1e-13), tiny
    elif name == "many demonstrations":
        curves = curves_of(n=8)
    return make_facts(**facts), {
        page.RESPONSE: {"curves": curves, "groups": groups},
        page.RANKS: {"ranks": ranks},
        page.ACCOUNT: {"account": account},
        page.MITIGATION: {"compared": compared, "demonstrations": 4},
        page.FLUCTUATIONS: {"compared": compared},
        page.REMEDIES: {"compared": compared, "levels": levels_of(compared, change=change)},
        page.MAJORITY: {"shift": shift, "compared": compared},
    }


@pytest.mark.parametrize(
    "name",
    [
        "usual",
        "one set",
        "one head",
        "one head a group",
        "at chance",
        "perfect",
        "nothing but rounding errors",
        "many demonstrations",
    ],
)
def test_every_case_is_kept_and_shown_again(tmp_path, name):
    facts, items = edge(name)
    shown = Shown(tmp_path, "imbalance", facts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for item, inputs in items.items():
            shown.add(item, inputs)
        again = Shown.read(tmp_path, "imbalance")
        for item, inputs in items.items():
            text = again.render(item)
            assert text.strip()
            assert not UNWANTED.search(text), text
            if isinstance(item, Figure):
                _, caption, alt = figure_of(item, facts, inputs)
                assert caption
                assert alt
                assert caption in text
                assert alt in text


# What the page is given


@pytest.mark.parametrize(("n_heads", "names"), [(4, ["in-context", "random"]), (1, ["in-context"])])
def test_layers_of_one_head_leave_no_control(n_heads, names):
    assert list(head_groups([(2, 0), (3, 0)], n_heads, 0)) == names


def test_ranks_and_accounts_are_those_of_the_groups():
    """In-context: attention and values follow the answer; random: nothing changes."""
    rows = [
        (heads, share, s, q, "foo", 4 * share, follows * share, 0.0, follows * 2 * share, 0.0)
        for heads, follows in (("in-context", 1), ("random", 0))
        for share in (0.25, 0.5, 0.75)
        for s in range(3)
        for q in range(2)
    ]
    columns = ["heads", "share", "set", "query", "label", "logit_difference", "attention_foo", "attention_bar"]
    table = pd.DataFrame(rows, columns=[*columns, "values_foo", "values_bar"])
    ranks = rank_correlations(table).set_index("heads")["mean"]
    assert ranks.to_dict() == pytest.approx({"in-context": 1, "random": 0, "difference": 1})
    account = accounts(table).set_index(["heads", "quantity"])["mean"]
    assert account["in-context", "part"] == pytest.approx(0.5)
    assert account["in-context", "r2"] == pytest.approx(1)
    assert (account["random"] == 0).all()
    alone = rank_correlations(table[table["heads"] == "in-context"])
    assert list(alone["heads"]) == ["in-context"]


def test_remedies_are_compared_with_their_strengths():
    def answers(dropped, **more):
        rows = [
            (variant, s, 0, "foo", value)
            for variant, value in ((BALANCED, 0.8), ("bar dropped 1", dropped))
            for s in range(3)
        ]
        table = pd.DataFrame(rows, columns=["variant", "set", "query", "label", "accuracy_two_way"])
        return table.assign(p_gold=table["accuracy_two_way"], p_foo_two_way=table["accuracy_two_way"], **more)

    tried = Remedied(answers(0.6, strength=0.0), {OWN: answers(0.7, strength=0.3), CALIBRATION: answers(0.8)})
    compared = compare_remedies(tried)
    assert compared.drop_duplicates("remedy")["strength"].fillna(-1).tolist() == [0.0, 0.3, -1]
    gain = compared.query("measure == 'p_gold' and quantity == 'removed'")["mean"]
    np.testing.assert_allclose(gain, [0, 0.1, 0.2], atol=1e-12)
    np.testing.assert_allclose(levels(tried)["mean"], [0.7, 0.75, 0.8])
    assert mean_shift(tried.intact) == pytest.approx({"mean": -0.2, "low": -0.2, "high": -0.2})

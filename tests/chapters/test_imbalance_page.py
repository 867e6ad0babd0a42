"""The pages on imbalance: what they say of given results, without a model."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest

from facts import make_facts
from twotowers.chapters.imbalance import mitigation_page, page
from twotowers.chapters.imbalance.mitigation import BALANCING, CALIBRATION, CONTROL, NONE, OWN, PAPER
from twotowers.publishing.publish import Figure, call, figure_of
from twotowers.publishing.shown import Shown

pytestmark = pytest.mark.usefixtures("light_figures")

UNWANTED = re.compile(r"\bnan\b|\binf\b|-0(\.0+)?(?![\d.])|\b1 \w+(-\w+)? heads|\bthe 1 ")
BOTH = {"in-context": [[2, 0], [3, 1]], "random": [[2, 1], [3, 0]]}
ALONE = {"in-context": [[3, 0]]}  # of layers with one head
NAN = float("nan")


def interval(mean, spread):
    return mean, mean - spread, mean + spread


def curves_of(others=True, start=0.25, end=0.75, spread=0.05):
    """Lines from `start` to `end`; with the in-context heads balanced, level."""
    lines = {"intact": (start, end), "in-context": (start, start)}
    lines |= {"all others": (start, end), "random": (start, end)} if others else {}
    rows = [
        (heads, share, *interval(p, spread))
        for heads, ends in lines.items()
        for share, p in zip((0.25, 0.75), ends, strict=True)
    ]
    return pd.DataFrame(rows, columns=["heads", "share", "mean", "low", "high"])


def means_of(intact=0.6, chosen=0.1, others=0.5, spread=0.05):
    rows = [("intact", *interval(intact, spread)), ("in-context", *interval(chosen, spread))]
    if others is not None:
        rows.append(("all others", *interval(others, spread)))
        rows += [(f"random {i}", *interval(others + i / 100, spread)) for i in range(3)]
    return pd.DataFrame(rows, columns=["heads", "mean", "low", "high"])


def levels_of(before=0.7, after=0.75):
    return pd.DataFrame({"heads": ["intact", "in-context"], "accuracy": [before, after]})


def sums_of(groups=BOTH, spread=0.05, n=4):
    rows = [
        (panel, line, heads, share, *interval(share if line == "foo" else 1 - share, spread))
        for panel in ("attention", "values")
        for heads in groups
        for line in ("bar", "foo")
        for share in (1 / n, 1 - 1 / n)
    ]
    return pd.DataFrame(rows, columns=["panel", "line", "heads", "share", "mean", "low", "high"])


def account_of(parts, spread=0.1):
    """From `{heads: (part, r2)}`."""
    rows = [
        (heads, quantity, *interval(mean, spread))
        for heads, pair in parts.items()
        for quantity, mean in zip(("part", "r2"), pair, strict=True)
    ]
    return pd.DataFrame(rows, columns=["heads", "quantity", "mean", "low", "high"])


def compared_of(before=0.2, after=None, accuracy=0.7, strength=0.3, spread=0.01):
    after = {PAPER: 0.2, OWN: 0.1, CONTROL: 0.25, CALIBRATION: 0.15, BALANCING: 0.0} if after is None else after
    strengths = {NONE: 0.0, PAPER: 0.03, OWN: strength, CONTROL: strength}
    rows = []
    for remedy, now in {NONE: before, **after}.items():
        found = {"shift": now, "removed": before - now, "accuracy": accuracy}
        rows += [(remedy, q, *interval(x, spread), strengths.get(remedy, NAN)) for q, x in found.items()]
    return pd.DataFrame(rows, columns=["remedy", "quantity", "mean", "low", "high", "strength"])


def fluctuations_of(before=0.04, own=0.02, paper=0.05, strength=0.3):
    return pd.DataFrame({"strength": [0.0, 0.03, strength], "fluctuation": [before, paper, own]})


def response_of(**changes):
    usual = {"curves": curves_of(), "means": means_of(), "sums": sums_of(), "groups": BOTH, "sets": 33}
    return {**usual, **changes}


def test_the_response_says_where_attention_is_balanced():
    drawing, caption, alt = figure_of(page.RESPONSE, make_facts(), response_of())
    assert caption == (
        "Answers and heads when 1 to 3 of 4 demonstrations are labelled foo. Top: intact, and with attention balanced "
        "by count in the 2 in-context heads or in other deep heads; grey: 3 random groups of as many, from the least "
        "to the greatest. Bottom: attention of the last position, and logit minus of the weighted values, summed over "
        "the label's positions and over the 2 in-context heads; dashed: 2 random heads of the same layers. Other "
        "bands, and bars: 95% intervals over 33 demonstration sets."
    )
    assert alt == (
        "Four charts. The slope of the two-way probability of foo on its share is, by where attention is balanced, "
        "0.60 (nowhere (intact)), 0.10 (in-context heads), 0.50 (all other deep heads). With 1 of 4 demonstrations "
        "foo, the in-context heads' summed attention is 0.25 on foo and 0.75 on bar positions. With 3 of 4 "
        "demonstrations foo, the in-context heads' summed attention is 0.75 on foo and 0.25 on bar positions."
    )
    assert [len(ax.get_lines()) for ax in drawing.axes[:1]] == [4]
    dots = [line for line in drawing.axes[1].get_lines() if line.get_marker() == "D"]
    np.testing.assert_allclose(dots[0].get_xdata(), [0.5, 0.51, 0.52])


def test_the_slopes_are_told_with_their_controls():
    text = call(page.SLOPES.write, make_facts(), {"means": means_of(), "levels": levels_of()})
    assert text == (
        "Intact, the slope is +0.60 (+0.55 to +0.65). With attention balanced in the in-context heads it is +0.10 "
        "(+0.05 to +0.15), in all other deep heads together +0.50 (+0.45 to +0.55), and in 3 random groups +0.50 to "
        "+0.52. On the same prompts, two-way accuracy is 70.0% intact and 75.0% with balanced in-context heads."
    )
    alone = call(page.SLOPES.write, make_facts(), {"means": means_of(others=None), "levels": levels_of()})
    assert "There are no other deep heads to compare with." in alone
    dealt = means_of().query("heads == 'intact'")
    text = call(page.SLOPES.write, make_facts(), {"means": means_of(), "levels": levels_of(), "dealt": dealt})
    assert "With labels dealt at random, intact, it is +0.60 (+0.55 to +0.65). On the same prompts" in text


def test_the_account_gives_parts_and_lines():
    account = account_of({"in-context": (0.3, 0.8), "random": (0.0, 0.2)})
    assert call(page.ACCOUNT.write, make_facts(), {"account": account}) == (
        "The in-context heads' weighted values at label positions make up 30% (20% to 40%) of the change in the logit "
        "difference; for the random heads it is 0% (-10% to 10%). A line through the changes of a set has $R^2$ = 0.80 "
        "(0.70 to 0.90) for in-context heads and 0.20 (0.10 to 0.30) for random heads. All parts of the residual "
        "together make up 100%."
    )


def test_the_remedies_are_judged_by_their_intervals():
    inputs = {"compared": compared_of(), "demonstrations": 8, "groups": 20, "sets": 33}
    drawing, caption, alt = figure_of(mitigation_page.MITIGATION, make_facts(), inputs)
    assert "Strength 0.3 was chosen on the selection half. Random heads: mean over 20 groups of as many." in caption
    assert "20.0% and 70.0% (none), 20.0% and 70.0% (paper's strength, 0.03)" in alt
    assert list(drawing.axes[0].containers[0][0].get_xdata()) == [0.2, 0.2, 0.1, 0.25, 0.15, 0.0]
    text = call(mitigation_page.REMEDIES.write, make_facts(), {"compared": compared_of()})
    assert text.startswith("Intact, the shift has a size of 20.0% (19.0% to 21.0%).")
    assert text.splitlines()[4:] == [
        "| paper's strength, 0.03 | +0.0% (-1.0% to +1.0%) | undecided | +0.0 points |",
        "| chosen strength, 0.3 | +10.0% (+9.0% to +11.0%) | less biased | +0.0 points |",
        "| random heads, 0.3 | -5.0% (-6.0% to -4.0%) | more biased | +0.0 points |",
        "| calibration | +5.0% (+4.0% to +6.0%) | less biased | +0.0 points |",
        "| count-balanced attention | +20.0% (+19.0% to +21.0%) | less biased | +0.0 points |",
    ]


@pytest.mark.parametrize(
    ("before", "own", "paper", "strength", "said"),
    [
        (0.04, 0.02, 0.05, 0.3, "0.3 (-50%) and 5.0% at the paper's 0.03 (+25%)."),
        (0.04, 0.02, 0.02, 0.03, "2.0% at the chosen strength, the paper's 0.03 (-50%)."),
        (0.0, 0.0, 0.01, 1.0, "1 (none to shrink) and 1.0% at the paper's 0.03 (from a start of zero)."),
        (0.001, 0.05, 0.001, 3.0, "3 (from a start near zero) and 0.1% at the paper's 0.03 (+0%)."),
    ],
)
def test_a_fluctuation_is_relative_where_there_was_one(before, own, paper, strength, said):
    moved = fluctuations_of(before, own, paper, strength)
    inputs = {"fluctuations": moved, "compared": compared_of(strength=strength)}
    text = call(mitigation_page.FLUCTUATIONS.write, make_facts(), inputs)
    assert said in text
    assert "The paper has -22% (abstract of version 3)" in text


def edge(name):
    """Facts and the inputs of every item."""
    response, pair, compared = response_of(), {"in-context": (0.3, 0.8), "random": (0.0, 0.2)}, compared_of()
    facts, means, spread, sets = {}, means_of(), 0.1, 33
    if name == "one set":
        sets, spread, means = 1, NAN, means_of(spread=NAN)
        response = response_of(curves=curves_of(spread=NAN), sums=sums_of(spread=NAN), means=means, sets=1)
        compared = compared_of(spread=NAN)
    elif name == "one head":
        facts, pair, means = {"n_layers": 1, "n_heads": 1}, {"in-context": (0.3, 0.8)}, means_of(others=None)
        response = response_of(curves=curves_of(False), means=means, sums=sums_of(ALONE), groups=ALONE)
        compared = compared_of(after={PAPER: 0.2, OWN: 0.1, CALIBRATION: 0.1, BALANCING: 0.1})
    elif name == "at chance":
        pair, spread, means = {"in-context": (0.0, 0.0), "random": (0.0, 0.0)}, 0, means_of(0.0, 0.0, 0.0, spread=0)
        response = response_of(curves=curves_of(start=0.5, end=0.5, spread=0), means=means)
        compared = compared_of(0.0, dict.fromkeys((PAPER, OWN, CONTROL, CALIBRATION, BALANCING), 0.0), 0.5, spread=0)
    elif name == "nothing but rounding errors":
        pair, means = {"in-context": (-1e-12, -1e-12)}, means_of(-1e-12, -1e-12, -1e-12, spread=1e-13)
        compared = compared_of(1e-17, dict.fromkeys((PAPER, OWN, CALIBRATION, BALANCING), 2e-17), 1.0, spread=1e-13)
    sizes = {"demonstrations": 4, "groups": 20, "sets": sets}
    return make_facts(**facts), {
        page.RESPONSE: response,
        page.SLOPES: {"means": means, "levels": levels_of()},
        page.ACCOUNT: {"account": account_of(pair, spread)},
        mitigation_page.MITIGATION: {"compared": compared, **sizes},
        mitigation_page.REMEDIES: {"compared": compared},
        mitigation_page.FLUCTUATIONS: {"compared": compared, "fluctuations": fluctuations_of()},
    }


@pytest.mark.parametrize("name", ["usual", "one set", "one head", "at chance", "nothing but rounding errors"])
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


def test_figures_name_the_labels_of_the_run():
    facts = make_facts(labels=("no", "yes"))
    drawing, caption, alt = figure_of(page.RESPONSE, facts, response_of())
    axes = drawing.get_axes()
    assert axes[0].get_ylabel() == "P(yes), between two labels"
    assert axes[0].get_xlabel() == "demonstrations yes : no"
    assert {line.get_label() for line in axes[2].lines} >= {"no", "yes"}
    assert "demonstrations are labelled yes" in caption
    assert "on yes and" in alt
    assert not any(word in caption + alt for word in ("foo", "bar "))

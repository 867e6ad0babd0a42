"""The page on order: what it says of given results, without a model."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from facts import make_facts

from twotowers.chapters.order import page
from twotowers.chapters.order.effects import MEASURES, chosen_slopes, gains, gaps, intact, levels, pooled, pull
from twotowers.chapters.order.order import Ordered, head_groups
from twotowers.publishing.publish import Figure, call, figure_of
from twotowers.publishing.shown import Shown

UNWANTED = re.compile(r"\bnan\b|\binf\b|-0(\.0+)?(?![\d.])|\b1 \w+(-\w+)? heads|\b1 queries|\d{4,}(\.\d+)?%")
BOTH = {"in-context": [[2, 0], [3, 1]], "random": [[2, 1], [3, 0]]}
ALONE = {"in-context": [[3, 0]]}  # of layers with one head
ORDERS = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 0, 3, 2]]
NAN = float("nan")


def interval(mean, spread):
    return mean, mean - spread, mean + spread


def curve_of(answer=0.02, attention=0.01, *, places=(-2.0, 0.0, 2.0), groups=BOTH, spread=0.005):
    """P(foo) and attention rise by `answer` and `attention` over each place."""
    rows = [
        (heads, measure, x, *interval(slope * x, spread))
        for heads in groups
        for measure, slope in (("p_foo", answer), ("attention", attention))
        for x in places
    ]
    return pd.DataFrame(rows, columns=["heads", "measure", "recency", "mean", "low", "high"])


def profile_of(start=0.1, end=0.02, *, distances=(1.5, 3.5), groups=BOTH, spread=0.005):
    rows = [
        (heads, same, x, *interval(mean, spread))
        for heads in groups
        for same in (False, True)
        for x, mean in zip(distances, (start, end), strict=False)
    ]
    return pd.DataFrame(rows, columns=["heads", "same", "distance", "mean", "low", "high"])


def changes_of(before=0.05, after=0.04, *, groups=BOTH, spread=0.005):
    rows = [
        (heads, measure, when, *interval(mean, spread))
        for heads in groups
        for measure in MEASURES
        for when, mean in (("before", before), ("after", after))
    ]
    return pd.DataFrame(rows, columns=["heads", "measure", "when", "mean", "low", "high"])


def gains_of(before=0.05, after=0.04, *, groups=BOTH, spread=0.005, accuracy=None):
    """All measures change from `before` to `after`, but accuracy if it is given."""
    rows = []
    for heads in groups:
        for measure in MEASURES:
            first, last = accuracy if accuracy and measure == "accuracy" else (before, after)
            rows.append((heads, measure, first, last, *interval(first - last, spread)))
    return pd.DataFrame(rows, columns=["heads", "measure", "before", "after", "mean", "low", "high"])


def levels_of(accuracy=(0.75, 0.8), attention=(0.5, 0.4)):
    return pd.DataFrame({"strength": [0.0, 0.5], "mean_accuracy": accuracy, "mean_attention": attention})


def means_of(spread=0.005, **means):
    rows = [(name, *interval(mean, spread)) for name, mean in means.items()]
    return pd.DataFrame(rows, columns=["slope", "mean", "low", "high"])


def gaps_of(means, spread=0.005):
    rows = [(heads, same, *interval(mean, spread)) for (heads, same), mean in means.items()]
    return pd.DataFrame(rows, columns=["heads", "same", "mean", "low", "high"])


def test_the_response_says_what_is_at_both_ends():
    inputs = {"curve": curve_of(), "groups": BOTH, "orders": ORDERS}
    drawing, caption, alt = figure_of(page.RESPONSE, make_facts(), inputs)
    assert caption == (
        "The same 4 demonstrations in 4 orders. Left: two-way probability of foo. Right: attention of the last "
        "position to foo's label positions minus bar's, mean over 2 in-context heads, and over 2 random heads of the "
        "same layers. Horizontal: mean place of foo's demonstrations minus that of bar's. Each set's mean over its "
        "orders is taken away. Bands: 95% intervals over 32 demonstration sets."
    )
    assert alt == (
        "Two line charts over how much nearer foo stands than bar. At -2.0 demonstrations, P(foo) differs from its "
        "mean by -4.0 points and the in-context heads' attention to foo minus bar by -0.020. At +2.0 demonstrations, "
        "P(foo) differs from its mean by +4.0 points and the in-context heads' attention to foo minus bar by +0.020."
    )
    left, right = drawing.axes
    np.testing.assert_allclose(left.get_lines()[0].get_ydata(), [-0.04, 0, 0.04])
    assert len(right.get_lines()) == 3  # and zero


def test_one_place_is_said_once():
    curve = curve_of(places=(0.0,), groups=ALONE)
    inputs = {"curve": curve, "groups": ALONE, "orders": ORDERS}
    _, caption, alt = figure_of(page.RESPONSE, make_facts(evaluation_sets=1), inputs)
    assert "mean over 1 in-context head. Horizontal" in caption
    assert caption.endswith("From one demonstration set, so without intervals.")
    assert alt.count("At ") == 1


def test_slopes_come_with_their_unit():
    text = call(page.SLOPES.write, make_facts(), {"slopes": means_of(effect=0.02, logits=0.1, shuffled=0.0001)})
    assert text == (
        "The unit is probability a demonstration. In logits the slope is +0.100 (+0.095 to +0.105). With the places "
        "dealt to the orders at random, the slope in probability is +0.0001 (-0.0049 to +0.0051)."
    )


def test_no_slope_without_places():
    text = call(page.SLOPES.write, make_facts(), {"slopes": means_of(effect=NAN, logits=NAN, shuffled=NAN)})
    assert text == "No order moves the mean places of the labels, so there is no slope."
    text = call(page.PULL.write, make_facts(), {"pull": means_of(removed=NAN, difference=NAN), "strength": 0.5})
    assert text == "Without a slope, nothing can be said of what the position term does to it."


def test_attention_is_given_at_both_ends():
    drawing, caption, alt = figure_of(page.ATTENTION, make_facts(), {"profile": profile_of(), "groups": BOTH})
    assert caption == (
        "Attention of the last position to one label position, by its distance from the query (1: the last "
        "demonstration), mean over heads; 2 in-context heads and 2 random heads of the same layers. Bands: 95% "
        "intervals over 32 demonstration sets."
    )
    assert alt == (
        "Two line charts over distance, each with a line for labels of the query's class and one for the other class. "
        "At distance 1.5, the in-context heads give a label 0.100 on average. At distance 3.5, the in-context heads "
        "give a label 0.020 on average."
    )
    assert [ax.get_title() for ax in drawing.axes] == ["in-context heads", "random heads"]


def test_without_a_control_there_is_one_chart():
    inputs = {"profile": profile_of(groups=ALONE), "groups": ALONE}
    drawing, caption, alt = figure_of(page.ATTENTION, make_facts(), inputs)
    assert "mean over heads; 1 in-context head. Bands" in caption
    assert alt.startswith("Line chart over distance with a line for labels of the query's class")
    assert len(drawing.axes) == 1


def test_gaps_are_judged_by_their_intervals():
    means = {("in-context", False): 0.02, ("in-context", True): -0.02, ("random", True): 0.001}
    assert call(page.GAPS.write, make_facts(), {"gaps": gaps_of(means)}).splitlines()[2:] == [
        "| in-context heads | other | +0.0200 (+0.0150 to +0.0250) | as the paper predicts |",
        "| in-context heads | own | -0.0200 (-0.0250 to -0.0150) | against the paper |",
        "| random heads | own | +0.0010 (-0.0040 to +0.0060) | undecided |",
    ]
    one = call(page.GAPS.write, make_facts(evaluation_sets=1), {"gaps": gaps_of({("random", True): 0.02}, 0)})
    assert one.splitlines()[2] == "| random heads | own | +0.0200 | no interval of one set |"


def test_the_mitigation_names_what_is_removed():
    inputs = {"changes": changes_of(), "groups": BOTH, "orders": ORDERS, "strength": 1.0}
    drawing, caption, alt = figure_of(page.MITIGATION, make_facts(), inputs)
    assert caption == (
        "Standard deviation over 4 orders: of accuracy (full vocabulary) over a set's 8 queries, of a query's margin, "
        "and of its attention to one demonstration's label in these heads. Position is removed at strength 1, in 2 "
        "in-context heads or in 2 random heads of the same layers. Bars: 95% intervals over 32 demonstration "
        "sets."
    )
    assert alt == (
        "Three dot charts, intact model beside the model whose position term is removed. In-context heads: accuracy "
        "from 0.050 to 0.040, margin from 0.050 to 0.040, attention from 0.050 to 0.040."
    )
    for ax in drawing.axes:
        assert [list(container[0].get_ydata()) for container in ax.containers] == [[0.05, 0.05], [0.04, 0.04]]


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (0.05, 0.04, "-20.0%"),
        (0.05, 0.05, "+0.0%"),
        (0.0, 0.0, "none to shrink"),
        (1e-17, 0.0, "none to shrink"),
        (0.0, 0.03, "from a start of zero"),
        (0.0001, 0.03, "from a start near zero"),
    ],
)
def test_a_change_is_relative_where_there_was_something(before, after, change):
    told = gains_of(accuracy=(before, after))
    text = call(page.STEADIED.write, make_facts(), {"gains": told})
    assert text.splitlines()[2].startswith(f"| in-context heads | accuracy | {change} | ")
    assert f"({change}); the paper has -17 %" in call(
        page.PAPER.write, make_facts(), {"gains": told, "levels": levels_of()}
    )


def test_the_paper_stands_beside_the_change():
    assert call(page.PAPER.write, make_facts(), {"gains": gains_of(), "levels": levels_of((0.75, 0.75))}) == (
        "The standard deviation of accuracy goes from 0.0500 to 0.0400 (-20.0%); the paper has -17 % (abstract of "
        "version 3), -23.4 % (Llama-7B; summaries) and -10.6 % (GPT-J; summaries). That of attention goes from 0.0500 "
        "to 0.0400 (-20.0%); the paper has -40.1 % and -37.7 % (summaries). Accuracy itself stays at 75.0%, and "
        "attention summed over the label positions goes from 0.500 to 0.400."
    )


@pytest.mark.parametrize(
    ("difference", "direction"),
    [
        (0.02, "pulls answers towards the near label, as the paper predicts"),
        (-0.02, "pulls answers towards the far label, against the paper"),
        (0.001, "has no effect on the slope that the interval can tell from none"),
    ],
)
def test_the_pull_has_a_direction_if_the_interval_has(difference, direction):
    told = means_of(removed=0.01, difference=difference)
    text = call(page.PULL.write, make_facts(), {"pull": told, "strength": 0.5})
    assert text.startswith("With position removed at strength 0.5, the slope of C12 becomes +0.010 (+0.005 to +0.015).")
    assert text.endswith(f"): the position term of the in-context heads {direction}.")


def test_the_pull_of_one_set_has_none():
    told = means_of(0, removed=0.01, difference=0.02)
    assert call(page.PULL.write, make_facts(evaluation_sets=1), {"pull": told, "strength": 1.0}) == (
        "With position removed at strength 1, the slope of C12 becomes +0.010. Intact minus removed it is +0.020: the "
        "position term of the in-context heads cannot be judged by one demonstration set, which has no interval."
    )


def edge(name):
    """Facts and the inputs of every item."""
    facts, groups, spread, values, strength = {}, BOTH, 0.005, (0.05, 0.04), 0.5
    curve, profile, levels_ = {}, {}, levels_of()
    slopes, pulled = {"effect": 0.02, "logits": 0.1, "shuffled": 0.0}, {"removed": 0.01, "difference": 0.01}
    if name == "one set":
        facts, spread = {"evaluation_sets": 1, "queries": 1}, 0
    elif name == "one head":
        facts, groups = {"n_layers": 1, "n_heads": 1}, ALONE
    elif name == "one head a group":
        groups = {"in-context": [[3, 0]], "random": [[3, 1]]}
    elif name == "places never change":
        curve, profile = {"places": (0.0,)}, {"distances": (1.0,)}
        slopes, pulled = dict.fromkeys(slopes, NAN), dict.fromkeys(pulled, NAN)
    elif name == "all zero":
        spread, values, levels_ = 0, (0.0, 0.0), levels_of((1.0, 1.0), (0.0, 0.0))
        curve, profile = {"answer": 0.0, "attention": 0.0}, {"start": 0.0, "end": 0.0}
        slopes, pulled = dict.fromkeys(slopes, 0.0), dict.fromkeys(pulled, 0.0)
    elif name == "nothing but rounding errors":
        spread, values, curve = 1e-13, (0.0, 1e-12), {"answer": -1e-12, "attention": -1e-12, "places": (-1e-12, 1e-12)}
        slopes, pulled = dict.fromkeys(slopes, -1e-12), dict.fromkeys(pulled, -1e-12)
    elif name == "from zero":
        values, levels_ = (0.0, 0.04), levels_of((0.5, 0.5))
    elif name == "from near zero":
        values, strength = (1e-6, 0.04), 1.0
    named = {(heads, same): values[0] - values[1] for heads in groups for same in (False, True)}
    own, seen = {"groups": groups, "spread": spread}, {"groups": groups, "orders": ORDERS}
    changes, told = changes_of(*values, **own), gains_of(*values, **own)
    return make_facts(**facts), {
        page.RESPONSE: {"curve": curve_of(**own, **curve), **seen},
        page.SLOPES: {"slopes": means_of(spread, **slopes)},
        page.ATTENTION: {"profile": profile_of(**own, **profile), "groups": groups},
        page.GAPS: {"gaps": gaps_of(named, spread)},
        page.MITIGATION: {"changes": changes, **seen, "strength": strength},
        page.STEADIED: {"gains": told},
        page.PAPER: {"gains": told, "levels": levels_},
        page.PULL: {"pull": means_of(spread, **pulled), "strength": strength},
    }


@pytest.mark.parametrize(
    "name",
    [
        "usual",
        "one set",
        "one head",
        "one head a group",
        "places never change",
        "all zero",
        "nothing but rounding errors",
        "from zero",
        "from near zero",
    ],
)
def test_every_case_is_kept_and_shown_again(tmp_path, name):
    facts, items = edge(name)
    shown = Shown(tmp_path, "order", facts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for item, inputs in items.items():
            shown.add(item, inputs)
        again = Shown.read(tmp_path, "order")
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


def ordered_of(slope, after, recencies=(-1.0, 0.0, 1.0)):
    """Two sets whose P(foo) rises by a slope over each place, at strength 0 and, as `after`, at strength 1."""
    rows = [
        ("in-context", strength, s, order, 0, 0.5 + rise * x, rise * x, x)
        for strength, rise in ((0.0, slope), (1.0, after))
        for s in range(2)
        for order, x in enumerate(recencies)
    ]
    columns = ["heads", "strength", "set", "order", "query", "p_foo", "logit_minus", "recency"]
    return Ordered(pd.DataFrame(rows, columns=columns), pd.DataFrame({"strength": [0.0, 1.0]}))


def test_slopes_are_pooled_and_compared():
    ordered = ordered_of(0.1, 0.04)
    before, after = chosen_slopes(ordered), chosen_slopes(ordered, 1.0)
    np.testing.assert_allclose(pooled(before).set_index("slope").loc[["effect", "logits"], "mean"], 0.1)
    np.testing.assert_allclose(pull(before, after)["mean"], [0.04, 0.06])
    assert len(intact(ordered).prompts) == 6
    assert len(intact(ordered).attention) == 1


def test_places_that_never_change_give_no_slope():
    ordered = ordered_of(0.1, 0.04, (0.0, 0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before, after = chosen_slopes(ordered), chosen_slopes(ordered, 1.0)
        assert pooled(before)["mean"].isna().all()
        assert pull(before, after)["mean"].isna().all()


def test_gains_and_levels_are_means_over_sets():
    rows = [
        (heads, strength, s, *[sd] * 3, 0.7 + strength / 10, 0.5)
        for heads in ("in-context", "random")
        for strength, sd in ((0.0, 0.2), (0.5, 0.1))
        for s in range(3)
    ]
    spreads = pd.DataFrame(rows, columns=["heads", "strength", "set", *MEASURES, "mean_accuracy", "mean_attention"])
    found = gains(spreads)
    assert list(found["heads"]) == ["in-context"] * 3 + ["random"] * 3
    np.testing.assert_allclose(found[["before", "after", "mean"]], [[0.2, 0.1, 0.1]] * 6)
    np.testing.assert_allclose(levels(spreads)["mean_accuracy"], [0.7, 0.75])


def test_gaps_are_those_of_near_and_far():
    rows = [
        ("in-context", same, s, distance, 0.3 if distance < 3 else 0.1)
        for same in (False, True)
        for s in range(2)
        for distance in (1, 2, 3, 4)
    ]
    found = gaps(pd.DataFrame(rows, columns=["heads", "same", "set", "distance", "attention"]))
    assert list(found["same"]) == [False, True]
    np.testing.assert_allclose(found["mean"], 0.2)

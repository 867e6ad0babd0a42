"""The page on order: what it says of given results, without a model."""

import re
import warnings

import pandas as pd
import pytest

from facts import make_facts
from twotowers.chapters.order import page
from twotowers.publishing.publish import Figure, call, figure_of
from twotowers.publishing.shown import Shown

pytestmark = pytest.mark.usefixtures("light_figures")

UNWANTED = re.compile(r"\bnan\b|\binf\b|-0(\.0+)?(?![\d.])|\b1 \w+(-\w+)? heads|\b1 heads|\d{4,}(\.\d+)?%")
BOTH = {"in-context": [[2, 0], [3, 1]], "random": [[2, 1], [3, 0]]}
ALONE = {"in-context": [[3, 0]]}  # of layers with one head
ORDERS = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 0, 3, 2]]
NAN = float("nan")


def interval(mean, spread):
    return mean, mean - spread, mean + spread


def profile_of(start=0.1, end=0.02, *, distances=(1.5, 3.5), groups=BOTH, spread=0.005):
    rows = [
        (heads, same, x, *interval(mean, spread))
        for heads in groups
        for same in (False, True)
        for x, mean in zip(distances, (start, end), strict=False)
    ]
    return pd.DataFrame(rows, columns=["heads", "same", "distance", "mean", "low", "high"])


def summary_of(measures, before=0.11, after=0.02, *, random=True, spread=0.01):
    means = {"intact": before, "in-context": after, **({"random": before} if random else {})}
    rows = [(measure, heads, *interval(mean, spread)) for measure in measures for heads, mean in means.items()]
    return pd.DataFrame(rows, columns=["measure", "heads", "mean", "low", "high"])


def gaps_of(mean=0.02, groups=BOTH, spread=0.005):
    rows = [(heads, same, *interval(mean, spread)) for heads in groups for same in (False, True)]
    return pd.DataFrame(rows, columns=["heads", "same", "mean", "low", "high"])


def pair_of(column, before, after):
    return pd.DataFrame({"heads": ["intact", "in-context"], column: [before, after]})


SIZES = {"groups": 20, "heads": 4, "sets": 33}


def test_the_response_shows_every_group():
    inputs = {"summary": summary_of(("last", "first")), **SIZES}
    drawing, caption, alt = figure_of(page.RESPONSE, make_facts(), inputs)
    assert caption.endswith(
        "Bars: 95% intervals over 33 demonstration sets. Random heads: 20 groups of 4 heads, from the least to the "
        "greatest."
    )
    assert "the last demonstrations, position removed from in-context heads: +0.020" in alt
    assert [ax.get_title() for ax in drawing.axes] == ["the last demonstrations", "the first demonstrations"]
    assert [container[0].get_xdata()[0] for container in drawing.axes[0].containers] == [0.11, 0.02, 0.11]


def test_the_ends_are_told_with_accuracy():
    inputs = {"summary": summary_of(("last", "first")), "accuracies": pair_of("accuracy", 0.896, 0.906)}
    text = call(page.ENDS.write, make_facts(), inputs)
    assert "| the last demonstrations | +0.110 (+0.100 to +0.120) | +0.020 (+0.010 to +0.030) |" in text
    assert text.endswith("Two-way accuracy on these prompts is 89.6% intact and 90.6% without position.")


def test_attention_is_given_at_both_ends():
    drawing, caption, alt = figure_of(
        page.ATTENTION, make_facts(), {"profile": profile_of(), "groups": BOTH, "sets": 17}
    )
    assert caption.endswith("Bands: 95% intervals over 17 demonstration sets.")
    assert "At distance 1.5, the in-context heads give a label 0.100 on average." in alt
    assert [ax.get_title() for ax in drawing.axes] == ["in-context heads", "random heads"]


@pytest.mark.parametrize(
    ("mean", "word"), [(0.02, "as the paper predicts"), (-0.02, "against the paper"), (0.001, "undecided")]
)
def test_gaps_are_judged_by_their_intervals(mean, word):
    rows = call(page.GAPS.write, make_facts(), {"gaps": gaps_of(mean)}).splitlines()[2:]
    assert len(rows) == 4
    assert all(row.endswith(f"| {word} |") for row in rows)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (0.05, 0.04, "-20.0%"),
        (0.0, 0.0, "none to shrink"),
        (0.0, 0.03, "from a start of zero"),
        (0.0001, 0.03, "from a start near zero"),
    ],
)
def test_a_change_is_relative_where_there_was_something(before, after, change):
    inputs = {"summary": summary_of(("p_gold",), before, after), "accuracies": pair_of("accuracy", 0.7, 0.7)}
    text = call(page.STEADIED.write, make_facts(), {**inputs, "swings": pair_of("effect", before, after)})
    assert text.splitlines()[2].endswith(f"| {change} |")
    assert f"without position ({change}); the paper has -17%" in text


def edge(name):
    """Facts and the inputs of every item."""
    facts, groups, spread, values, sizes, profile = {}, BOTH, 0.005, (0.05, 0.04), SIZES, {}
    if name == "one set":
        spread, sizes = NAN, {**SIZES, "sets": 1}
        profile = {"spread": NAN}
    elif name == "one head":
        facts, groups, sizes = {"n_layers": 1, "n_heads": 1}, ALONE, {**SIZES, "heads": 1}
    elif name == "all zero":
        spread, values, profile = 0, (0.0, 0.0), {"start": 0.0, "end": 0.0, "spread": 0}
    elif name == "nothing but rounding errors":
        spread, values = 1e-13, (-1e-12, -1e-12)
    elif name == "one place":
        profile = {"distances": (1.0,)}
    made = {"random": groups is BOTH, "spread": spread}
    ends, swings = (summary_of(names, *values, **made) for names in (("last", "first"), ("p_gold", "margin")))
    accuracies = pair_of("accuracy", 1.0, 1.0)
    return make_facts(**facts), {
        page.RESPONSE: {"summary": ends, **sizes},
        page.ENDS: {"summary": ends, "accuracies": accuracies},
        page.ATTENTION: {"profile": profile_of(groups=groups, **profile), "groups": groups, "sets": sizes["sets"]},
        page.GAPS: {"gaps": gaps_of(values[0] - values[1], groups, spread)},
        page.MITIGATION: {"summary": swings, "orders": ORDERS, **sizes},
        page.STEADIED: {"summary": swings, "accuracies": accuracies, "swings": pair_of("effect", 0.0, 0.0)},
    }


@pytest.mark.parametrize(
    "name", ["usual", "one set", "one head", "all zero", "nothing but rounding errors", "one place"]
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

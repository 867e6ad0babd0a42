"""What the page on knock-out says of the in-context heads, without a model."""

import pandas as pd
import pytest

from facts import make_facts
from twotowers.chapters.knockout import group, group_page
from twotowers.publishing.publish import call, figure_of

NAN = float("nan")


def scores_of(exchange, n_heads=3):
    rows = [(i // n_heads, i % n_heads, x) for i, x in enumerate(exchange)]
    table = pd.DataFrame(rows, columns=["layer", "head", "exchange"])
    return table.assign(values=1.0, label_edge=0.5, direct_margin=0.2, induction=table.index / 10, previous_token=0.0)


def conditions_of(margins, draws=2):
    rows = [(name, -1, measure, x, x - 0.1, x + 0.1) for name, x in margins.items() for measure in group_page.MEASURES]
    rows += [(group.RANDOM, i, m, 0.8 + i / 10, NAN, NAN) for i in range(draws) for m in group_page.MEASURES]
    return pd.DataFrame(rows, columns=["name", "draw", "measure", "mean", "low", "high"])


FULL = {group.INTACT: 1.0, group.ZEROED: 0.5, group.AT_MEAN: 0.4, group.OTHERS: 0.7, group.ALL_DEEP: 0.0}


def test_the_chosen_heads_are_named_with_those_that_work_against_and_the_papers_rule():
    given = {"scores": scores_of([0, 0, 0, 0, 0, 0, 1.5, 0, -1.2, 0.7, 0, 0]), "heads": [(2, 0), (3, 0)]}
    text = call(group_page.CHOSEN.write, make_facts(), given | {"paper": {"bar": [(2, 0)], "foo": []}})
    assert "**2.0, 3.0** (16.7% of all)" in text
    assert "work most of all 2.2" in text
    assert "for *bar* 2.0; for *foo* it is empty" in text
    table = call(group_page.SCORE_TABLE.write, make_facts(), given)
    assert table.splitlines()[2].startswith("| **2.0** | 1.50 |")
    assert "**3.0**" in table


@pytest.mark.parametrize("exchange", [[0.0], [NAN, -1.0], [0.0, 0.0], [1.0]])
def test_of_few_heads_without_effect_nothing_is_said_that_is_not_so(exchange):
    best = [(0, i) for i, x in enumerate(exchange) if x == x][:1]
    given = {"scores": scores_of(exchange), "heads": best, "paper": {"bar": [], "foo": []}}
    text = call(group_page.CHOSEN.write, make_facts(n_layers=1, n_heads=len(exchange)), given)
    assert "nan" not in text
    assert ("lose no margin" in text) == (exchange != [1.0])
    assert "Against" not in text


def test_the_group_is_drawn_with_a_mark_for_each_random_group():
    drawing, caption, alt = figure_of(group_page.GROUP, make_facts(), {"conditions": conditions_of(FULL), "sets": 33})
    assert [t.get_text() for t in drawing.axes[0].get_yticklabels()] == list(group_page.ORDER)
    assert "a bar each for 2 random groups" in caption
    assert "33 demonstration sets" in caption
    assert f"{group.ZEROED}: margin 0.50, accuracy 50%." in alt
    assert f"{group.RANDOM}: margin 0.80 to 0.90, accuracy 80% to 90%." in alt
    text = call(group_page.CARRIED.write, make_facts(), {"conditions": conditions_of(FULL), "sets": 33})
    assert "**50%** of the margin is left, without random heads of the same layers 85% on average" in text
    assert "**70%**" in text


def test_without_random_groups_and_without_a_margin_the_page_says_so():
    alone = conditions_of(FULL, draws=0)
    _, caption, alt = figure_of(group_page.GROUP, make_facts(), {"conditions": alone, "sets": 1})
    assert "there are no random groups" in caption
    assert caption.endswith("From one demonstration set, so without intervals.")
    assert group.RANDOM not in alt
    nothing = conditions_of(FULL | {group.INTACT: 0.0})
    assert "no margin" in call(group_page.CARRIED.write, make_facts(), {"conditions": nothing})

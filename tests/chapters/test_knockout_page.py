"""The page on knock-out: what it says of given results, without a model."""

import re
import warnings

import matplotlib as mpl
import numpy as np
import pytest
from knockout_tables import (
    DOSES,
    DROPS,
    GROUPS,
    INCREASES,
    NAN,
    SERVING,
    SPLIT,
    located_of,
    ranked_of,
    removed_of,
    serving_of,
    split_of,
)

from facts import make_facts
from twotowers.chapters.knockout import knockout, page, serving
from twotowers.publishing.publish import call, figure_of
from twotowers.publishing.shown import Shown

pytestmark = pytest.mark.usefixtures("light_figures")

UNWANTED = re.compile(r"\b(nan|inf|None)\b|-0\.0+\b|-0 ?%|(?<![\d.])1 (prompt|head|draw|point)s|top 1 of")


def test_heads_frames_and_names_the_most_harmful():
    drawing, caption, alt = figure_of(page.HEADS, make_facts(), {"ranked": ranked_of(DROPS), "prompts": 64})
    assert "mean over 64 prompts of the selection half. Framed: the most harmful head (8.3% of all). Green" in caption
    assert alt == (
        "Heat map of heads by layer. 8 of 12 cells lie within a tenth of the largest value around zero. The most "
        "harmful head, as layer.head, is 2.0; the largest loss is 2.50 logits."
    )
    frames = [p.get_xy() for p in drawing.axes[0].patches if isinstance(p, mpl.patches.Rectangle)]
    assert frames == [(2, 0)]
    np.testing.assert_array_equal(drawing.axes[0].collections[0].get_array().reshape(3, 4), np.array(DROPS).T)


def test_several_harmful_heads_are_named():
    ranked = ranked_of(np.arange(200.0).reshape(10, 20))
    _, caption, alt = figure_of(page.HEADS, make_facts(n_layers=10, n_heads=20), {"ranked": ranked, "prompts": 64})
    assert "Framed: the 2 most harmful heads (1.0% of all)." in caption
    assert "The most harmful heads, as layer.head, are 9.19, 9.18; the largest loss is 199.00 logits." in alt


def test_dose_draws_top_and_random_heads_for_each_gold_label():
    curve = knockout.dose_curve(removed_of(DOSES))
    drawing, caption, alt = figure_of(page.DOSE, make_facts(), {"curve": curve, "sets": 32})
    drawn = [{line.get_label(): list(line.get_ydata()) for line in ax.get_lines()} for ax in drawing.axes]
    assert [ax.get_title() for ax in drawing.axes] == ["gold label bar", "gold label foo"]
    assert [d[page.TOP_HEADS] for d in drawn] == [[1.0, 0.5], [0.8, 0.3]]
    assert [d[page.RANDOM] for d in drawn] == [[1.0, 1.0], [0.8, 0.7]]
    assert "as many random heads of the same layers, 3 draws, for each gold label. Bands: 95% intervals" in caption
    assert alt == (
        "Two line charts, one per gold label. With no head removed, accuracy over both labels is 90%. With one head "
        "removed, accuracy over both labels is 40% for the most harmful and 85% for random heads."
    )


@pytest.mark.parametrize(
    ("number", "accuracy", "zeroed", "expected"),
    [
        (
            1,
            (0.5, 0.3),
            1,
            "Removing the most harmful head (8.3% of all) takes accuracy from **90.0% to 40.0%**; a random head of the "
            "same layer leaves 85.0%.",
        ),
        (
            3,
            (1.0, 0.8),
            3,
            "Removing the 3 most harmful heads (25.0% of all) leaves accuracy at **90.0%**; random heads of the same "
            "layers leave 85.0%.",
        ),
        (
            3,
            (1.0, 1.0),
            1,
            "Removing the 3 most harmful heads (25.0% of all) takes accuracy from **90.0% to 100.0%**; one random head "
            "of the same layers, which have no more others, leaves 85.0%.",
        ),
        (
            1,
            (0.0, 0.0),
            0,
            "Removing the most harmful head (8.3% of all) takes accuracy from **90.0% to 0.0%**; its layer has no "
            "other heads to compare with.",
        ),
        (
            2,
            (0.5, 0.5),
            0,
            "Removing the 2 most harmful heads (16.7% of all) takes accuracy from **90.0% to 50.0%**; their layers "
            "have no other heads to compare with.",
        ),
    ],
)
def test_the_cost_of_the_most_harmful_heads(number, accuracy, zeroed, expected):
    doses = {k: v for k, v in DOSES.items() if k[0] == 0} | {(number, "top"): accuracy, (number, "random"): (1.0, 0.7)}
    curve = knockout.dose_curve(removed_of(doses, {(number, "random"): zeroed}))
    assert call(page.COST.write, make_facts(), {"curve": curve, "number": number}) == expected
    fewer = "(fewer where these have too few others)" in call(
        page.DOSE.caption, make_facts(), {"curve": curve, "sets": 32}
    )
    assert fewer == (zeroed < number)
    without = "there are no random heads" in call(page.DOSE.alt, make_facts(), {"curve": curve, "sets": 32})
    assert without == (zeroed == 0)


def test_groups_are_a_table():
    split = split_of(SPLIT)
    split = split.assign(low=split["mean"] - 0.1, high=split["mean"] + 0.05)
    rows = call(page.GROUPS.write, make_facts(), {"split": split, "groups": GROUPS}).splitlines()
    assert rows[0] == "| removed | heads | accuracy, gold bar | accuracy, gold foo |"
    assert rows[2] == "| none | none | 100.0% (90.0% to 100.0%) | 80.0% (70.0% to 85.0%) |"
    assert rows[4] == "| foo-heads | 3.0, 2.2 | 100.0% (90.0% to 100.0%) | 79.0% (69.0% to 84.0%) |"
    assert len(rows) == 2 + len(GROUPS)


def test_one_set_has_no_intervals_and_one_head_no_control():
    names = ("none", "bar-heads", "foo-heads")
    groups = {name: GROUPS[name] for name in names}
    split = split_of({name: SPLIT[name] for name in names}, sets=1)
    text = call(page.GROUPS.write, make_facts(evaluation_sets=1), {"split": split, "groups": groups})
    assert "| bar-heads | 3.0 | 25.0% | 90.0% |" in text
    assert text.endswith(
        "\n\nThe layers of the bar-heads and the foo-heads have no other heads to draw a control from."
    )


def test_the_change_by_label_and_place_in_both_lists():
    text = call(page.CHANGE.write, make_facts(), {"split": split_of(SPLIT), "serving": SERVING})
    assert text == (
        "Removing the bar-head, first in both lists, changes accuracy by -75 points where the answer is *bar* and by "
        "+10 points where it is *foo*. Removing the foo-heads, all within the top 4 of both lists, changes accuracy by "
        "-1 point where the answer is *foo* and by 0 points where it is *bar*. Heads in both groups: 1."
    )


def test_without_heads_there_is_no_change():
    inputs = {"split": split_of({"none": (1.0, 1.0)}), "serving": serving_of([])}
    assert call(page.CHANGE.write, make_facts(n_layers=1), inputs) == (
        "The deep half of the layers has no heads to choose from, so there are no bar-heads or foo-heads."
    )


def test_agreement_rings_and_names_the_heads_of_the_labels():
    compared = serving.compare_rankings(ranked_of(DROPS), located_of(INCREASES), [(3, 0), (2, 2)])
    drawing, caption, alt = figure_of(page.AGREEMENT, make_facts(), {"compared": compared, "rho": 0.456})
    ax = drawing.axes[0]
    assert sorted(text.get_text() for text in ax.texts) == ["2.2", "3.0"]
    assert ax.collections[1].get_offsets().tolist() == [[3.0, 1.5], [0.5, 0.0]]
    assert len(ax.collections[0].get_offsets()) == 4
    assert "Ringed: the in-context heads. Spearman's rank correlation: 0.46." in caption
    assert alt == (
        "Scatter plot of 6 heads. 1 lies within a tenth of the largest value of each score around the origin; 2 heads "
        "are ringed. Spearman's rank correlation: 0.46."
    )


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize(
    ("drops", "increases", "selected", "accuracy"),
    [
        pytest.param([[1.0]], [[1.0]], [], (1.0, 1.0), id="one head"),
        pytest.param([[-1.0], [-0.0]], [[1.0], [-0.0001]], [(1, 0)], (0.5, 0.5), id="one head a layer"),
        pytest.param([[0.0, 0.0]], [[1.0, 2.0]], [], (0.0, 0.0), id="one layer"),
        pytest.param([[0.0] * 3] * 4, [[0.0] * 3] * 4, [(2, 0)], (0.0, 0.0), id="zeros"),
        pytest.param([[1.0] * 3] * 4, [[1.0] * 3] * 4, [(2, 0)], (1.0, 1.0), id="ties"),
        pytest.param([[NAN, 1.0], [NAN, -0.001]], [[1.0, NAN], [NAN, 1.0]], [(1, 0), (1, 1)], (1.0, 0.0), id="missing"),
        pytest.param([[1.0, 0.0], [0.0, -0.001]], [[1.0, 2.0], [NAN, NAN]], [(1, 0)], (NAN, 0.5), id="no scores"),
    ],
)
def test_everything_can_be_kept_and_drawn_again(tmp_path, drops, increases, selected, accuracy, sets):
    facts = make_facts(
        n_layers=len(drops), n_heads=len(drops[0]), evaluation_sets=sets, selection_sets=1, queries=1, draws=1
    )
    ranked, others = ranked_of(drops), len(drops[0]) - 1
    zeroed = {(1, "random"): min(1, others)}
    doses = {(n, kind): accuracy for n in (0, 1) for kind in ("top", "random")}
    curve = knockout.dose_curve(removed_of(doses, zeroed, sets))
    chosen = serving_of([(*head, n, n, n, label) for n, head in enumerate(selected, 1) for label in ("bar", "foo")])
    groups = serving.with_controls(serving.by_label(chosen, facts.labels), facts.n_heads)
    split = split_of(dict.fromkeys(groups, accuracy), sets)
    compared = serving.compare_rankings(ranked, located_of(increases), selected)
    shown, texts = Shown(tmp_path, "knockout", facts), {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # of seaborn's use of matplotlib
        rho = serving.deep_agreement(compared, n_layers=facts.n_layers)
        given = {
            page.HEADS: {"ranked": ranked, "prompts": 8 * sets},
            page.DOSE: {"curve": curve, "sets": sets},
            page.COST: {"curve": curve, "number": int(ranked["top"].sum())},
            page.GROUPS: {"split": split, "groups": groups},
            page.CHANGE: {"split": split, "serving": chosen},
            page.AGREEMENT: {"compared": compared, "rho": rho},
        }
        for item, inputs in given.items():
            shown.add(item, inputs)
            texts[item] = Shown.read(tmp_path, "knockout").render(item)
    assert all(texts.values())
    assert [found for text in texts.values() if (found := UNWANTED.search(text))] == []
    assert ("no other heads to compare with" in texts[page.COST]) == (others == 0)
    assert ("From one demonstration set" in texts[page.DOSE]) == (sets == 1)
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        f"invented_knockout-{name}.{end}"
        for name in ("heads", "dose", "agreement")
        for end in ("svg", "png", "pdf", "csv", "json")
    }

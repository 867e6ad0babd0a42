"""The page on knock-out: what it says of given results, without a model."""

import re
import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from facts import make_facts

from twotowers.chapters.knockout import group, knockout, page, serving
from twotowers.publishing.publish import call, figure_of
from twotowers.publishing.shown import Shown
from twotowers.statistics import summarise

UNWANTED = re.compile(r"\b(nan|inf|None)\b|-0\.0+\b|-0 ?%|(?<![\d.])1 (prompt|head|draw|point)s|top 1 of")
NAN = float("nan")


def ranked_of(drops):
    """A ranking from the margin lost by each head, layers x heads; accuracy is lost at a tenth of it."""
    table = pd.DataFrame([(layer, head, x / 10, x) for layer, row in enumerate(drops) for head, x in enumerate(row)])
    table.columns = ["layer", "head", "accuracy_drop", "margin_drop"]
    return knockout.with_top(table.sort_values("margin_drop", ascending=False, kind="stable", ignore_index=True))


def removed_of(accuracy, zeroed=None, sets=2):
    """A dose table of two prompts a set from (removed, kind) -> (accuracy of bar, of foo)."""
    rows = [
        (n, kind, 0, (zeroed or {}).get((n, kind), n), i, query, label, value)
        for (n, kind), values in accuracy.items()
        for i in range(sets)
        for query, (label, value) in enumerate(zip(("bar", "foo"), values, strict=True))
    ]
    return pd.DataFrame(rows, columns=["removed", "kind", "draw", "zeroed", "set", "query", "label", "accuracy"])


def prompts_of(accuracy, sets=2):
    """A table of named groups from name -> (accuracy of bar, of foo)."""
    rows = [
        (name, i, label, value)
        for name, values in accuracy.items()
        for i in range(sets)
        for label, value in zip(("bar", "foo"), values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["name", "set", "label", "accuracy"])


def serving_of(rows):
    return pd.DataFrame(rows, columns=["layer", "head", "harm_rank", "raise_rank", "worse_rank", "label"])


def located_of(increases):
    """As `Located.heads`, from the increase of each head, layers x heads, the same for both labels."""
    rows = [(i, j, label, x) for i, row in enumerate(increases) for j, x in enumerate(row) for label in ("bar", "foo")]
    return pd.DataFrame(rows, columns=["layer", "head", "label", "log_increase"])


DROPS = [[0.0, 0.1, -0.2], [0.0, 0.0, 0.3], [2.5, 0.0, 0.0], [1.5, -0.5, 0.0]]  # layers x heads
INCREASES = [[9.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.05, 0.5], [3.0, 0.0, -1.0]]
DOSES = {(0, "top"): (1.0, 0.8), (0, "random"): (1.0, 0.8), (1, "top"): (0.5, 0.3), (1, "random"): (1.0, 0.7)}
SPLIT = {
    "none": (1.0, 0.8),
    "bar-heads": (0.25, 0.9),
    "foo-heads": (1.0, 0.79),
    "random for bar-heads": (1.0, 0.8),
    "random for foo-heads": (0.5, 0.5),
}
GROUPS = {
    "none": [],
    "bar-heads": [(3, 0)],
    "foo-heads": [(3, 0), (2, 2)],
    "random for bar-heads": [(3, 1)],
    "random for foo-heads": [(2, 1), (3, 2)],
}
SERVING = serving_of([(3, 0, 1, 1, 1, "bar"), (3, 0, 2, 1, 2, "foo"), (2, 2, 1, 4, 4, "foo")])


def split_of(accuracy, sets=2):
    return summarise(prompts_of(accuracy, sets), ["name", "label"], "accuracy")


# Measures


@pytest.mark.parametrize(
    ("heads", "number", "doses"), [(0, 0, []), (1, 1, [1]), (16, 1, [1]), (270, 3, [1, 3, 5, 11, 22])]
)
def test_no_more_heads_are_taken_than_exist(heads, number, doses):
    assert knockout.top_number(heads) == number
    assert knockout.doses(heads) == doses


@pytest.mark.parametrize(("share", "number"), [(0.0, 1), (1.0, 4), (3.0, 4)])
def test_shares_are_clamped(share, number):
    assert knockout.top_number(4, share) == number


def test_the_top_is_one_percent_of_the_ranking():
    ranked = ranked_of(np.arange(200.0).reshape(10, 20))
    assert ranked.loc[ranked["top"], "margin_drop"].tolist() == [199.0, 198.0]
    assert ranked["top"].tolist() == [True] * 2 + [False] * 198


def test_a_dose_curve_has_the_accuracy_of_both_labels():
    curve = knockout.dose_curve(removed_of(DOSES))
    assert list(curve.columns) == ["removed", "kind", "label", "mean", "low", "high", "zeroed", "overall"]
    cells = curve.set_index(["removed", "kind", "label"]).sort_index()
    assert cells["mean"][1, "top"].to_dict() == {"bar": 0.5, "foo": 0.3}
    assert cells["overall"][1, "top"].tolist() == pytest.approx([0.4, 0.4])


def swept_of(margins):
    """A sweep from layer.head -> (margin of bar, of foo)."""
    rows = [
        (i, ["bar", "foo"][j], layer, head, 1.0, margin)
        for (layer, head), values in margins.items()
        for i in range(2)
        for j, margin in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["set", "label", "layer", "head", "accuracy", "margin"])


def test_heads_of_each_label_are_chosen_in_the_order_of_labels():
    swept = swept_of({(-1, -1): (5, 5), (0, 0): (0, 0), (0, 1): (5, 5), (1, 0): (1, 5), (1, 1): (5, 2)})
    located = located_of([[5.0, 0.0], [2.0, 0.0]])
    located.loc[(located["label"] == "foo") & (located["head"] == 1), "log_increase"] = 9.0
    table = serving.serving_heads(swept, located, n_layers=2)
    assert table[["label", "layer", "head"]].to_numpy().tolist() == [["bar", 1, 0], ["foo", 1, 1]]
    assert serving.by_label(table, ("foo", "bar")) == {"bar": [(1, 0)], "foo": [(1, 1)]}


def test_one_layer_has_no_heads_that_serve():
    swept = swept_of({(-1, -1): (5, 5), (0, 0): (0, 0)})
    table = serving.serving_heads(swept, located_of([[5.0]]), n_layers=1)
    heads = serving.by_label(table, ("bar", "foo"))
    assert heads == {"bar": [], "foo": []}
    assert serving.with_controls(heads, 1) == {"none": []}
    assert group.own_label_effect(prompts_of({"none": (1.0, 1.0)}))["effect"].isna().tolist() == [True, True]
    compared = serving.compare_rankings(ranked_of([[1.0]]), located_of([[5.0]]), [])
    assert compared["in_context"].tolist() == [False]
    assert serving.deep_agreement(compared, n_layers=1) is None


def test_controls_are_drawn_from_the_same_layers():
    heads = {"bar": [(3, 0)], "foo": [(3, 0), (2, 1)]}
    groups = serving.with_controls(heads, 3, seed=5)
    assert list(groups) == list(GROUPS)
    assert groups["foo-heads"] == [(3, 0), (2, 1)]
    assert [layer for layer, _ in groups["random for foo-heads"]] == [2, 3]
    assert not {*groups["random for foo-heads"]} & {*heads["foo"]}
    assert groups == serving.with_controls(heads, 3, seed=5)
    alone = {"bar": [(1, 0)], "foo": [(3, 0)]}
    assert list(serving.with_controls(alone, 1)) == ["none", "bar-heads", "foo-heads"]


def test_rankings_are_compared_head_by_head():
    compared = serving.compare_rankings(ranked_of(DROPS), located_of(INCREASES), [(3, 0)])
    cells = compared.set_index(["layer", "head"])
    assert cells["log_increase"][2, 2] == 0.5
    assert cells.index[cells["in_context"]].tolist() == [(3, 0)]
    assert serving.deep_agreement(compared.assign(log_increase=compared["margin_drop"]), n_layers=4) == pytest.approx(1)


@pytest.mark.parametrize("increase", [[[0.0], [1.0]], [[0.0] * 3] * 4, [[NAN] * 3] * 4])
def test_without_two_heads_or_two_values_there_is_no_correlation(increase):
    drops = np.arange(12.0)[: np.size(increase)].reshape(np.shape(increase))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compared = serving.compare_rankings(ranked_of(drops), located_of(increase), [])
        assert serving.deep_agreement(compared, n_layers=len(drops)) is None


# Wording and drawing


def test_heads_frames_and_names_the_most_harmful():
    drawing, caption, alt = figure_of(page.HEADS, make_facts(), {"ranked": ranked_of(DROPS), "prompts": 64})
    assert "mean over 64 prompts of the selection half. Framed: the most harmful head (8.3% of all). Blue" in caption
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
    assert rows[2] == "| none | none | 100.0% (90.0% to 105.0%) | 80.0% (70.0% to 85.0%) |"
    assert rows[4] == "| foo-heads | 3.0, 2.2 | 100.0% (90.0% to 105.0%) | 79.0% (69.0% to 84.0%) |"
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
        f"knockout-{name}.{end}" for name in ("heads", "dose", "agreement") for end in ("svg", "png", "csv", "json")
    }

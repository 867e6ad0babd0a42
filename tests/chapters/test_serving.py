"""Heads that are chosen from given scores, and what they are compared with, without a model."""

import warnings

import numpy as np
import pandas as pd
import pytest
from knockout_tables import DOSES, DROPS, GROUPS, INCREASES, NAN, located_of, prompts_of, ranked_of, removed_of

from twotowers.chapters.knockout import group, knockout, serving


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

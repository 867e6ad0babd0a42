"""Heads as a group: removed, at their mean, alone; and the effects of C4 and C5."""

import numpy as np
import pandas as pd
import pytest
import torch

import twotowers
from conftest import make_sets
from twotowers.chapters.knockout import group
from twotowers.prompts.packing import pack
from twotowers.prompts.variants import dealt
from twotowers.tracing import controls
from twotowers.tracing.capture import capture
from twotowers.tracing.heads import deep_heads
from twotowers.tracing.outcomes import outcomes

HEADS = [(2, 1), (3, 0)]


def test_zeroed_is_the_knock_out_beside_random_groups_of_the_same_layers(tiny, two_sets):
    table = group.zeroed(tiny, two_sets, HEADS)
    assert set(table["name"]) == {group.INTACT, group.ZEROED, group.RANDOM}
    ours = table[table["name"] == group.ZEROED]["margin"].to_numpy()
    assert ours == pytest.approx(outcomes(tiny, two_sets, [HEADS])["margin"].to_numpy(), abs=1e-4)
    assert sorted(table["draw"].unique()) == [-1, *range(9)]  # one of three others in each of the two layers


def test_a_model_replaced_by_its_own_z_is_intact(tiny, two_sets):
    """With one prompt, the mean over it is its own z, so nothing changes, whatever is replaced."""
    s = twotowers.prompt_set(tiny, two_sets[0].demonstrations, two_sets[0].queries[:1])
    mean = group.mean_z(tiny, [s])
    assert torch.allclose(mean, capture(tiny, pack([s])).z[:, 0], atol=1e-5)
    intact = outcomes(tiny, s, [[]])["margin"].item()
    table = group.at_mean(tiny, [s], HEADS, mean)
    assert table["margin"].to_numpy() == pytest.approx([intact] * 3, abs=1e-4)
    other = group.at_mean(tiny, two_sets, HEADS, group.mean_z(tiny, two_sets))
    assert other[other["name"] == group.OTHERS]["margin"].std() > 0


def test_all_deep_heads_at_their_mean_leave_nothing_of_the_query_to_them(tiny, two_sets):
    mean = group.mean_z(tiny, two_sets)
    table = group.at_mean(tiny, two_sets, deep_heads(tiny), mean).set_index("name")["margin"]
    assert table[group.AT_MEAN].to_numpy() == pytest.approx(table[group.ALL_DEEP].to_numpy(), abs=1e-5)


def planted(values):
    """A table of named groups: accuracy by name and label, two sets."""
    rows = [(name, label, s, 0, acc) for (name, label), acc in values.items() for s in (0, 1)]
    return pd.DataFrame(rows, columns=["name", "label", "set", "query", "accuracy"])


def test_c5_is_the_least_of_what_the_paper_predicts():
    found = {("none", "foo"): 0.8, ("none", "bar"): 0.7, ("foo-heads", "foo"): 0.3, ("foo-heads", "bar"): 0.9,
             ("bar-heads", "foo"): 0.9, ("bar-heads", "bar"): 0.1}  # fmt: skip
    assert group.own_label_effect(planted(found))["effect"].tolist() == pytest.approx([0.1, 0.1])
    worse = found | {("bar-heads", "foo"): 0.5}  # falls where it should rise
    assert group.own_label_effect(planted(worse))["effect"].tolist() == pytest.approx([-0.3, -0.3])
    none = {key: value for key, value in found.items() if key[0] != "bar-heads"}
    assert group.own_label_effect(planted(none))["effect"].isna().all()


def test_c4_is_what_is_lost_beside_what_random_groups_lose():
    rows = [
        (group.INTACT, -1, 0, 1.0),
        (group.ZEROED, -1, 0, 0.2),
        (group.RANDOM, 0, 0, 0.9),
        (group.RANDOM, 1, 0, 0.7),
    ]
    rows += [(controls.FOLD, 0, 0, 0.25), (controls.FOLD, 1, 0, 1.0)]
    table = pd.DataFrame(rows, columns=["name", "draw", "set", "accuracy_two_way"]).assign(query=0, margin=1.0)
    found = group.evidence(table)
    assert found["effects"]["effect"].tolist() == pytest.approx([0.8])
    assert found["random"] == pytest.approx([0.1, 0.3])
    assert found["folds"] == pytest.approx([0.75, 0.0])
    assert group.evidence(table[table["name"] != controls.FOLD])["folds"] is None
    assert controls.FOLD not in set(group.conditions(table)["name"])


def test_labels_dealt_at_random_stay_as_many(tiny_gpt2):
    s = make_sets(tiny_gpt2)[0]
    other = dealt(tiny_gpt2, s, np.random.default_rng(1))
    assert sorted(label for _, label in other.demonstrations) == sorted(label for _, label in s.demonstrations)
    assert [text for text, _ in other.demonstrations] == [text for text, _ in s.demonstrations]
    assert other.queries == s.queries


def test_the_papers_rule_takes_what_stands_in_both_lists():
    heads = [(layer, head) for layer in range(4) for head in range(12)]
    table = pd.DataFrame(heads, columns=["layer", "head"])
    ranked = table.assign(margin_drop=np.arange(48.0))
    table["label"] = "foo"
    same, other = table.assign(log_increase=np.arange(48.0)), table.assign(log_increase=-np.arange(48.0))
    assert group.paper_rule(ranked, same, 4, "foo") == [(3, head) for head in range(2, 12)]
    assert group.paper_rule(ranked, other, 4, "foo") == []

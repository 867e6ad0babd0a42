"""Knock-out by trace equals knock-out by editing weights, and no shortcut changes a result."""

import numpy as np
import pandas as pd
import pytest
import torch

import twotowers
from conftest import make_sets
from twotowers.chapters.knockout.knockout import dose, doses, rank_heads, sweep
from twotowers.chapters.knockout.serving import in_context_heads, named_groups
from twotowers.errors import HeadError, MemoryLimitError
from twotowers.tracing.check import edited
from twotowers.tracing.heads import every_head, pairs, random_heads
from twotowers.tracing.outcomes import outcomes

KEYS = ["accuracy", "accuracy_two_way", "margin"]


def plain(model, sets):
    """Accuracy, two-way accuracy and margin of every prompt, by one plain forward of transformers each."""
    rows = []
    for s in sets:
        for prompt, gold in zip(s.prompts, s.gold, strict=True):
            with torch.no_grad():
                logits = model.arch.model(torch.tensor([prompt.ids])).logits[0, -1]
            right, other = logits[s.label_ids[gold]], logits[s.label_ids[1 - gold]]
            best = logits.argmax().item() == s.label_ids[gold]
            rows.append((float(best), float(right > other), (right - other).item()))
    return np.array(rows)


def edited_means(model, sets, heads):
    contexts = [edited(model, layer, head) for layer, head in heads]
    for context in contexts:
        context.__enter__()
    try:
        return plain(model, sets).mean(0)
    finally:
        for context in contexts:
            context.__exit__(None, None, None)


def test_every_head_equals_edited_weights(tiny, two_sets):
    table = twotowers.knockout(tiny, two_sets)
    assert pairs(table) == every_head(tiny)
    for row in table.itertuples():
        expected = edited_means(tiny, two_sets, [(row.layer, row.head)])
        np.testing.assert_allclose([row.accuracy, row.accuracy_two_way, row.margin], expected, rtol=1e-4, atol=1e-5)


def test_heads_removed_together_equal_edited_weights(tiny, two_sets):
    heads = [(0, 3), (2, 0), (2, 1), (3, 2)]
    table = twotowers.knockout(tiny, two_sets, heads)
    assert list(table.columns) == KEYS
    np.testing.assert_allclose(table.iloc[0], edited_means(tiny, two_sets, heads), rtol=1e-4, atol=1e-5)


def test_no_heads_give_the_intact_model(tiny, two_sets):
    table = twotowers.knockout(tiny, two_sets, heads=[])
    np.testing.assert_allclose(table.iloc[0], plain(tiny, two_sets).mean(0), rtol=1e-4, atol=1e-5)


def test_real_model_equals_edited_weights(real):
    sets, heads = make_sets(real), [(23, 1), (0, 4), (29, 7)]
    for group in ([heads[0]], heads):
        table = twotowers.knockout(real, sets, group)
        np.testing.assert_allclose(table.iloc[0], edited_means(real, sets, group), rtol=1e-4, atol=1e-4)


def test_weights_are_restored_after_editing(tiny, two_sets):
    before = plain(tiny, two_sets)
    with edited(tiny, 1, 1):
        assert not np.allclose(plain(tiny, two_sets), before)
    np.testing.assert_array_equal(plain(tiny, two_sets), before)


def test_the_budget_changes_no_result(tiny, two_sets):
    groups = [[], *([head] for head in every_head(tiny)), [(1, 1), (3, 0)]]
    one_row, all_rows = (outcomes(tiny, two_sets, groups, budget=budget) for budget in (1, 10**6))
    pd.testing.assert_frame_equal(one_row, all_rows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_out_of_memory_halves_the_rows_and_goes_on(tiny_models, monkeypatch, error):
    """An activation that fails on more than three rows, deep inside a trace, changes no result."""
    model, silu, failed = tiny_models["llama-gqa"], torch.nn.functional.silu, []
    sets, groups = make_sets(model), [[head] for head in every_head(model)]
    expected = outcomes(model, sets, groups)

    def failing(x, *arguments, **options):
        if len(x) > limit:
            failed.append(len(x))
            raise error
        return silu(x, *arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "silu", failing)
    limit = 3
    pd.testing.assert_frame_equal(outcomes(model, sets, groups), expected, rtol=1e-4, atol=1e-5)
    assert failed
    limit = 1  # the intact row and one more are too many: nothing is left to halve
    with pytest.raises(MemoryLimitError, match="use fewer queries"):
        outcomes(model, sets, groups)
    error = ZeroDivisionError("of ours")
    with pytest.raises(ZeroDivisionError):
        outcomes(model, sets, groups)


def test_a_head_that_the_model_lacks_is_named(tiny):
    with pytest.raises(HeadError, match=r"has no head \(4, 0\): layers are 0 to 3"):
        twotowers.knockout(tiny, make_sets(tiny), [(4, 0)])


def test_a_planted_head_is_the_only_one_that_matters(tiny_folders):
    """With every other head's W_O at zero, removing the planted head changes margins and no other head does."""
    model = twotowers.load(tiny_folders["llama-gqa"])
    with torch.no_grad():
        for layer in range(model.arch.n_layers):
            weight = model.arch.out_proj(layer).weight.T
            kept = weight[32:48].clone()
            weight.zero_()
            if layer == 1:
                weight[32:48] = kept
    ranked = rank_heads(sweep(model, make_sets(model)))
    effects = ranked.set_index(["layer", "head"])["margin_drop"]
    assert abs(effects.loc[(1, 2)]) > 1e-3
    assert effects.drop(index=(1, 2)).abs().max() < 1e-4


def test_ranking_is_by_margin_and_by_gold_label():
    def row(head, label, accuracy, margin):
        return {"layer": head, "head": head, "label": label, "accuracy": accuracy, "margin": margin}

    swept = pd.DataFrame(
        [
            *(row(-1, "foo", 1, 3), row(-1, "bar", 1, 2)),
            *(row(0, "foo", 1, 0), row(0, "bar", 1, 2)),
            *(row(1, "foo", 0, 3), row(1, "bar", 0, -3)),
        ]
    )
    assert pairs(rank_heads(swept)) == [(1, 1), (0, 0)]
    assert pairs(rank_heads(swept, "foo")) == [(0, 0), (1, 1)]
    drops = rank_heads(swept, "bar").iloc[0]
    assert (drops["margin_drop"], drops["accuracy_drop"]) == (5, 1)


def test_random_heads_are_others_of_the_same_layers():
    heads = [(0, 1), (0, 2), (3, 0)]
    for seed in range(20):
        control = random_heads(heads, 4, np.random.default_rng(seed))
        assert sorted(layer for layer, _ in control) == [0, 0, 3]
        assert not set(control) & set(heads)
        assert len(set(control)) == 3
    assert random_heads([(0, 0), (0, 1), (0, 2)], 4, np.random.default_rng(0)) == [(0, 3)]


def test_in_context_heads_are_deep_and_high_in_both_lists():
    ranked = pd.DataFrame({"layer": [0, 2, 3, 2, 3], "head": [0, 0, 0, 1, 1]})
    located = pd.DataFrame(
        {
            "layer": [0, 2, 3, 2, 3] * 2,
            "head": [0, 0, 0, 1, 1] * 2,
            "label": ["foo"] * 5 + ["bar"] * 5,
            "log_increase": [9.0, 1.0, 2.0, 3.0, 0.0, 9.0, 0.0, 0.0, 0.0, 5.0],
        }
    )
    foo = in_context_heads(ranked, located, "foo", n_layers=4)
    assert pairs(foo) == [(3, 0)]  # second in both lists; 2.1 is first and third, and 0.0 is not deep
    assert foo.iloc[0][["harm_rank", "raise_rank", "worse_rank"]].tolist() == [2, 2, 2]


def test_as_many_in_context_heads_as_in_the_paper():
    table = pd.DataFrame([(layer, head) for layer in range(32) for head in range(32)], columns=["layer", "head"])
    located = table.assign(label="foo", log_increase=-table["head"] - table["layer"])
    heads = in_context_heads(table, located, "foo", n_layers=32)
    assert len(heads) == 6
    assert heads["layer"].min() >= 16


def test_dose_curve_has_top_and_random_heads_and_the_intact_model(tiny, two_sets):
    ranked = every_head(tiny)
    table = dose(tiny, two_sets, ranked, draws=2, seed=3)
    assert sorted(table["removed"].unique()) == [0, *doses(16)]
    prompts = 6
    assert len(table) == prompts * (2 + 3 * len(doses(16)))
    intact = table[table["removed"] == 0].groupby("kind")[KEYS].mean()
    np.testing.assert_allclose(intact, np.tile(plain(tiny, two_sets).mean(0), (2, 1)), rtol=1e-4, atol=1e-5)
    one = table[(table["removed"] == 1) & (table["kind"] == "top")][KEYS].mean()
    np.testing.assert_allclose(one, edited_means(tiny, two_sets, ranked[:1]), rtol=1e-4, atol=1e-5)


def test_doses_are_shares_of_all_heads():
    assert doses(1024) == [5, 10, 20, 41, 82]
    assert doses(16) == [1]
    assert doses(270) == [1, 3, 5, 11, 22]


def test_named_groups_keep_their_names(tiny, two_sets):
    table = named_groups(tiny, two_sets, {"none": [], "deep": [(3, 0), (3, 1)]})
    means = table.groupby("name")[KEYS].mean()
    np.testing.assert_allclose(means.loc["deep"], edited_means(tiny, two_sets, [(3, 0), (3, 1)]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(means.loc["none"], plain(tiny, two_sets).mean(0), rtol=1e-4, atol=1e-5)

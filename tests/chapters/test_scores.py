"""Scores of heads: each is what it says, and a planted head is found."""

import numpy as np
import pandas as pd
import pytest
import torch

import twotowers
from conftest import make_sets
from twotowers.chapters.knockout.scores import (
    SCORES,
    exchange_by_set,
    exchange_estimates,
    fold_heads,
    head_scores,
    repetition_scores,
)
from twotowers.tracing.heads import every_head, is_deep

REAL = ((18, 6), (24, 4))  # of the default model: one that carries the label, one that works against


@pytest.fixture(scope="module")
def scored(tiny_models):
    model = tiny_models["llama-gqa"]
    return model, make_sets(model), head_scores(model, make_sets(model))


def test_a_row_a_head_and_nothing_missing(scored):
    model, _, table = scored
    assert list(table.columns) == ["layer", "head", *SCORES]
    assert list(zip(table["layer"], table["head"], strict=True)) == every_head(model)
    assert not table.isna().any(axis=None)


def test_the_exchange_score_is_the_exchange_of_that_head_alone(scored):
    model, sets, table = scored
    margins = {}
    for part in ("query-other", "query-same", "values", "none"):
        one = twotowers.exchange(model, sets, [(2, 1)], part)
        margins[part] = one.groupby("label")["margin"].mean().mean()
    row = table[(table["layer"] == 2) & (table["head"] == 1)].iloc[0]
    assert row["exchange"] == pytest.approx(margins["query-same"] - margins["query-other"], abs=1e-4)
    assert row["values"] == pytest.approx(margins["none"] - margins["values"], abs=1e-4)


def test_repetition_is_read_from_plain_attention(tiny):
    table = repetition_scores(tiny, seed=3)
    import numpy as np

    n = min(50, tiny.context_length // 2)
    drawn = np.random.default_rng([3, 13]).integers(tiny.config.vocab_size, size=n)
    with torch.no_grad():
        patterns = tiny.arch.model(torch.tensor([[*drawn, *drawn]]), output_attentions=True).attentions
    for row in table.itertuples():
        pattern = patterns[row.layer][0, row.head]
        induction = sum(float(pattern[n + i, i + 1]) for i in range(n)) / n
        previous = sum(float(pattern[n + i, n + i - 1]) for i in range(n)) / n
        assert (row.induction, row.previous_token) == pytest.approx((induction, previous), abs=1e-5)


def test_heads_are_taken_from_the_deep_half_in_order():
    scores = pd.DataFrame(
        [(layer, head, 10.0 - layer if layer < 2 else layer + head / 10) for layer in range(4) for head in range(5)],
        columns=["layer", "head", "exchange"],
    )
    assert twotowers.in_context_heads(scores, 4) == [(3, 4)]
    assert twotowers.in_context_heads(scores, 4, share=0.15) == [(3, 4), (3, 3), (3, 2)]
    one_layer = scores[scores["layer"] == 0]
    assert twotowers.in_context_heads(one_layer, 1) == [(0, 0)]


def test_of_a_larger_model_only_the_highest_estimates_are_exchanged(scored):
    model, sets, table = scored
    part = head_scores(model, sets, exact=3)
    exact = part.dropna(subset="exchange")
    estimates = exchange_estimates(model, sets)["estimate"].abs()
    assert set(exact.index) == set(estimates.sort_values().index[-3:])
    assert exact["exchange"].to_numpy() == pytest.approx(table.loc[exact.index, "exchange"].to_numpy(), abs=1e-4)


def test_the_estimate_orders_the_heads_of_the_default_model(real):
    from twotowers.study import open_study

    study = open_study("smollm2-135m", scale="smoke")
    estimates = exchange_estimates(real, study.selection).set_index(["layer", "head"])["estimate"]
    assert REAL[0] in set(estimates.sort_values().index[-8:])
    assert estimates[REAL[1]] < 0


def test_folds_are_what_parts_of_the_sets_would_choose(tiny_models):
    model = tiny_models["llama-gqa"]
    sets = [*make_sets(model), *make_sets(model)]
    by_set = exchange_by_set(model, sets)
    whole = head_scores(model, sets, by_set=by_set)
    assert whole["exchange"].to_numpy() == pytest.approx(head_scores(model, sets)["exchange"].to_numpy(), abs=1e-5)
    folds = fold_heads(whole, by_set, model.arch.n_layers)
    alone = [head_scores(model, sets[fold::2]) for fold in (0, 1)]
    assert folds == [twotowers.in_context_heads(scores, model.arch.n_layers) for scores in alone]
    assert fold_heads(whole, by_set[by_set["set"] == 0], model.arch.n_layers) == folds[:1]


def test_heads_of_the_shallow_half_may_be_exchanged_on_fewer_sets_and_the_deep_ones_are_the_same(tiny_models):
    model = tiny_models["llama-gqa"]
    sets = [*make_sets(model), *make_sets(model)]
    whole, fewer = exchange_by_set(model, sets), exchange_by_set(model, sets, shallow=1)
    deep = [is_deep(layer, model.arch.n_layers) for layer in whole["layer"]]
    kept = whole[np.array(deep) | (whole["set"] < 1)].reset_index(drop=True)
    assert len(kept) < len(whole)
    pd.testing.assert_frame_equal(kept, fewer, atol=1e-5)
    chosen = [
        twotowers.in_context_heads(head_scores(model, sets, by_set=t), model.arch.n_layers) for t in (whole, fewer)
    ]
    assert chosen[0] == chosen[1]

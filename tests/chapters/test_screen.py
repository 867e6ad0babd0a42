"""The screen: the estimate is the gradient's, it finds a planted head, and recall counts."""

import numpy as np
import pandas as pd
import pytest
import torch

import twotowers
from conftest import make_sets
from twotowers.chapters.knockout.knockout import rank_heads, sweep
from twotowers.chapters.knockout.screen import highest, recall, screen, verify
from twotowers.models.architecture import weight_in_out
from twotowers.prompts.packing import pack
from twotowers.tracing.ablation import attributions
from twotowers.tracing.capture import capture
from twotowers.tracing.heads import pairs
from twotowers.tracing.outcomes import outcomes


def test_estimates_are_the_derivative_of_the_margin(tiny, two_sets):
    """Scaling a head's slice of W_O by (1 - e) changes the mean margin by -e times its estimate, for small e."""
    estimates = attributions(tiny, pack(two_sets))
    size, step = tiny.arch.d_head, 1e-2
    for layer, head in ((0, 1), (1, 3), (3, 2)):
        weight = weight_in_out(tiny.arch.out_proj(layer))[head * size : (head + 1) * size]
        kept = weight.detach().clone()
        margins = []
        for factor in (1 + step, 1 - step):
            with torch.no_grad():
                weight.copy_(kept * factor)
            table = outcomes(tiny, two_sets, [[]])
            margins.append(table.groupby("set")["margin"].mean().to_numpy())
        with torch.no_grad():
            weight.copy_(kept)
        slope = (margins[0] - margins[1]) / (2 * step)
        np.testing.assert_allclose(estimates[layer, head].numpy(), slope, rtol=2e-2, atol=2e-3)


def test_a_screen_leaves_no_gradient_behind(tiny, two_sets):
    screen(tiny, two_sets)
    assert all(parameter.grad is None for parameter in tiny.arch.model.parameters())
    assert not capture(tiny, pack(two_sets)).resid_pre.requires_grad


def test_the_only_head_that_matters_is_found(tiny_folders):
    model = twotowers.load(tiny_folders["llama-gqa"])
    with torch.no_grad():
        for layer in range(model.arch.n_layers):
            weight = model.arch.out_proj(layer).weight.T
            kept = 0.1 * weight[32:48].clone()
            weight.zero_()
            if layer == 1:
                weight[32:48] = kept
    sets = make_sets(model)
    screened = screen(model, sets)
    effects = screened.set_index(["layer", "head"])["margin_drop"]
    assert effects.drop(index=(1, 2)).abs().max() < 1e-6
    exact = rank_heads(sweep(model, sets)).set_index(["layer", "head"])["margin_drop"]
    assert np.sign(effects.loc[(1, 2)]) == np.sign(exact.loc[(1, 2)])


def test_sets_of_different_sizes_count_by_their_prompts(tiny, two_sets):
    short = type(two_sets[1])(
        two_sets[1].demonstrations, two_sets[1].queries[:1], two_sets[1].labels, two_sets[1].label_ids,
        two_sets[1].prompts[:1], two_sets[1].shared,
    )  # fmt: skip
    both = screen(tiny, [two_sets[0], short]).set_index(["layer", "head"])["margin_drop"]
    parts = [screen(tiny, s).set_index(["layer", "head"])["margin_drop"] for s in (two_sets[0], short)]
    expected = (3 * parts[0] + parts[1]) / 4
    pd.testing.assert_series_equal(both.sort_index(), expected.sort_index(), rtol=1e-3, atol=1e-5)


def test_verified_heads_have_their_exact_losses(tiny, two_sets):
    verified = verify(tiny, two_sets, share=0.25)
    assert set(pairs(verified)) == set(highest(screen(tiny, two_sets), 0.25))
    assert verified["margin_drop"].is_monotonic_decreasing
    exact = rank_heads(sweep(tiny, two_sets)).set_index(["layer", "head"])
    for row in verified.itertuples():
        drop = exact.loc[(row.layer, row.head), ["margin_drop", "accuracy_drop"]]
        np.testing.assert_allclose([row.margin_drop, row.accuracy_drop], drop, rtol=1e-4, atol=1e-4)


def table(values):
    return pd.DataFrame({"layer": range(len(values)), "head": 0, "margin_drop": values})


@pytest.mark.parametrize(("first", "found"), [([0, 1, 9, 8], 1.0), ([0, 9, 8, 7], 0.5), ([9, 8, 7, 6], 0.0)])
def test_recall_counts_the_truly_worst_among_the_highest(first, found):
    order = [*first, *(i for i in range(200) if i not in first)]
    screened = table(range(200)).iloc[order].reset_index(drop=True)
    ranked = table(range(200))
    assert pairs(ranked, 2) == [(0, 0), (1, 0)]
    assert recall(screened, ranked, worst=0.01, share=0.02) == found
    assert highest(screened, 0.02) == [(i, 0) for i in order[:4]]

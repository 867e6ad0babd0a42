"""Transfer: what a position hands over beside its attention weight, by the formula and planted."""

import numpy as np
import pytest
import torch

from planted import synthetic
from twotowers.chapters.towers.transfer import position_increases, transfer, transfer_effects
from twotowers.paper import CLAIMS
from twotowers.prompts.packing import pack
from twotowers.prompts.variants import few_queries
from twotowers.statistics import judge
from twotowers.tracing.capture import capture
from twotowers.tracing.labels import label_positions
from twotowers.tracing.projection import log_probability, project

HEADS = [(1, 0), (3, 2)]


def test_the_increase_of_a_position_equals_the_formula(tiny, two_sets):
    """log p(label | resid_pre + weight vo) - log p(label | resid_pre), with nothing precomputed."""
    table = transfer(tiny, two_sets, HEADS)
    batch, frame = pack(two_sets), label_positions(two_sets)
    captured = capture(tiny, batch, pattern=True, inputs=True)
    prompt, position, token = (torch.tensor(frame[name].to_numpy()) for name in ("prompt", "position", "token"))
    final = captured.resid_pre[-1][prompt]
    for layer, head in HEADS:
        entering = tiny.arch.norm_in(layer, captured.inputs[layer][batch.row[prompt], batch.index[prompt, position]])
        w_v, b_v = tiny.arch.w_v(layer)
        part = captured.pattern[layer][prompt, head, position][:, None] * (
            (entering @ w_v[head] + b_v[head]) @ tiny.arch.w_o(layer)[head]
        )
        before = captured.resid_pre[layer][prompt]
        after = log_probability(project(tiny.arch, before + part, final), token)
        expected = after - log_probability(project(tiny.arch, before, final), token)
        ours = table.query(f"layer == {layer} and head == {head}")["log_increase"]
        np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-3, atol=1e-4)


# planted truth: transfer


def moved(rise, seed=0):
    table = synthetic(lambda same, noise: noise, sets=30, seed=seed)
    rng = np.random.default_rng(seed + 1)
    return table.assign(log_increase=rise(table["weight"].to_numpy(), rng.normal(size=len(table))))


def test_transfer_follows_the_weight_or_not():
    for rise, verdict, mean in (
        (lambda w, noise: w**2, "supported", 1),
        (lambda w, noise: noise, "absent", 0),
        (lambda w, noise: -w, "contradicted", -1),
    ):
        effects = transfer_effects(moved(rise))
        assert judge(effects, CLAIMS["C8"].smallest).verdict == verdict
        assert effects["effect"].mean() == pytest.approx(mean, abs=0.08)


def test_a_head_that_transfers_nothing_has_no_correlation():
    assert transfer_effects(moved(lambda w, noise: 0 * w))["effect"].isna().all()


def test_a_position_that_carries_its_label_raises_it_with_its_weight(tiny):
    """The value is the label's own unembedding direction: more weight, more of the label; and less, if reversed."""
    arch, (n, r) = tiny.arch, (2, 12)
    torch.manual_seed(0)
    final, resid = torch.randn(n, arch.d_model), torch.randn(n, arch.d_model)
    prompt, token = torch.arange(r) % n, torch.randint(0, arch.d_vocab, (r,))
    towards = torch.linalg.lstsq(arch.norm_shape(arch.w_o(2)[1]).T, arch.w_u()[token].T).solution.T
    weight = torch.linspace(0, 0.5, r)[:, None]
    base = project(arch, resid, final)
    rises = position_increases(arch, 2, 1, weight * towards, prompt, base, final, token)
    falls = position_increases(arch, 2, 1, -weight * towards, prompt, base, final, token)
    assert rises[0].abs() < 1e-5  # no weight
    assert (rises[1:] > 0).all()
    assert (falls[1:] < 0).all()


def test_few_queries_keep_both_answers(tiny, two_sets):
    few = few_queries(two_sets[0])
    assert [label for _, label in few.queries] == ["foo", "bar"]
    whole = transfer(tiny, two_sets[0], HEADS).query("query < 2")
    part = transfer(tiny, few, HEADS)
    np.testing.assert_allclose(part["log_increase"], whole["log_increase"], rtol=1e-3, atol=1e-4)

"""The margin is the sum of what its parts write straight into it, in every family."""

import torch

from conftest import make_sets
from twotowers.prompts.packing import pack
from twotowers.tracing.capture import capture
from twotowers.tracing.direct_margin import direct_margin, share_of_margin
from twotowers.tracing.outcomes import outcomes


def close(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


def of(model, sets):
    batch = pack(sets)
    return batch, direct_margin(model.arch, capture(model, batch), batch)


def test_the_parts_add_up_to_the_margin(tiny, two_sets):
    batch, direct = of(tiny, two_sets)
    labels = tiny.arch.logit_bias()[batch.label_ids]
    bias = torch.where(batch.gold == 1, labels[:, 1] - labels[:, 0], labels[:, 0] - labels[:, 1])
    close(direct.embedding + direct.attention.sum(0) + direct.mlp.sum(0) + bias, direct.margin)
    close(direct.margin, torch.tensor(outcomes(tiny, two_sets, [[]])["margin"].to_numpy(), dtype=torch.float32))
    assert direct.margin.abs().min() > 0.01


def test_heads_and_the_bias_add_up_to_attention(tiny, two_sets):
    batch, direct = of(tiny, two_sets)
    captured = capture(tiny, batch)
    for layer in range(tiny.arch.n_layers):
        logits = tiny.arch.norm_shape(tiny.arch.b_o(layer)) * tiny.arch.norm_scale(captured.resid_pre[-1])
        labels = (logits @ tiny.arch.w_u().T).gather(1, batch.label_ids)
        bias = (labels[:, 1] - labels[:, 0]) * (2 * batch.gold - 1)
        close(direct.heads[layer].sum(0) + bias, direct.attention[layer])


def test_batches_are_joined_by_prompt(tiny_gpt2):
    sets = make_sets(tiny_gpt2)
    together = of(tiny_gpt2, sets)[1]
    apart = zip(*(of(tiny_gpt2, [s])[1].tensors() for s in sets), strict=True)
    for tensors, whole in zip(apart, together.tensors(), strict=True):
        close(torch.cat(tensors, dim=-1), whole)


def test_a_share_is_of_the_mean_margin():
    assert share_of_margin([1.0, -2.0], [3.0, 5.0]).tolist() == [0.25, -0.5]
    assert all(share != share for margins in ([1.0, -1.0], [-3.0, 1.0]) for share in share_of_margin([1.0], margins))

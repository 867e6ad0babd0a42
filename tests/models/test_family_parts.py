"""In every family the parts add up as the method page says, and forwards from the middle are those of the whole."""

import pytest
import torch

import twotowers
from conftest import make_sets
from family_configs import CONFIGS, save
from twotowers.chapters.towers.transfer import transfer
from twotowers.chapters.values.words import word_vectors
from twotowers.prompts.packing import pack
from twotowers.prompts.variants import prompt_set_of
from twotowers.tracing.capture import capture
from twotowers.tracing.direct_margin import direct_margin
from twotowers.tracing.hand_over import answer_from
from twotowers.tracing.label_edges import label_edges
from twotowers.tracing.projection import label_direction, log_probability, project, values_minus

PAIRS = [("cat", "foo"), ("seven", "bar"), ("elephant", "foo"), ("cow", "foo")]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    made = tmp_path_factory.mktemp("families")
    return {name: twotowers.load(save(config, made / name)) for name, config in CONFIGS.items()}


@pytest.fixture(params=list(CONFIGS))
def model(request, models):
    return models[request.param]


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * max(1.0, float(b.abs().max())))


def test_the_margin_is_what_its_parts_write(model):
    """Also where a norm behind attention rescales what heads add, at the prompt's own scale."""
    arch, s = model.arch, make_sets(model)[0]
    batch = pack([s], model.pad_id)
    captured = capture(model, batch, pattern=True, inputs=True)
    direct, heads, sign = direct_margin(arch, captured, batch), range(arch.n_heads), 2 * batch.gold - 1
    bias = arch.logit_bias()[batch.label_ids]
    parts = direct.embedding + direct.attention.sum(0) + direct.mlp.sum(0)
    close(parts + (bias[:, 1] - bias[:, 0]) * sign, direct.margin)
    towards = label_direction(arch, captured, batch) * sign[:, None]
    edges = label_edges(model, s)
    for layer in range(arch.n_layers):
        minus = values_minus(arch, captured, batch, layer, heads, towards) * captured.pattern[layer]
        close(minus.sum(-1).T, direct.heads[layer])
        b_o = captured.scaled(layer, arch.b_o(layer).expand(len(sign), -1))
        close(direct.heads[layer].sum(0) + (arch.norm_shape(b_o) * towards).sum(-1), direct.attention[layer])
        prompt, position = (torch.tensor(edges.frame[name].to_numpy()) for name in ("prompt", "position"))
        close(edges.written[layer], minus[prompt, :, position])


def test_what_is_read_in_words_adds_up_to_the_head(model):
    batch = pack([twotowers.prompt_set(model, PAIRS, [("dog", "foo")])])
    captured = capture(model, batch, pattern=True, inputs=True, written=True)
    whole = captured.parts()[1, 0, 2] @ model.arch.w_o(1)[2]
    close(word_vectors(model.arch, captured, 1, 2)["value"].sum(0), whole)
    close(captured.written[:, 0, batch.last[0]], captured.attn_out[:, 0])


def test_the_increase_of_a_position_is_that_of_what_it_writes(model):
    arch, s = model.arch, make_sets(model)[0]
    batch = pack([s], model.pad_id)
    captured = capture(model, batch, pattern=True, inputs=True, written=True)
    found = transfer(model, [s], [(1, 2)])
    first = found[found["query"] == 0].reset_index()
    own = pack([prompt_set_of(s, 0)], model.pad_id)
    alone = capture(model, own, pattern=True, inputs=True, written=True)
    values = word_vectors(arch, alone, 1, 2)["value"]
    final, resid = captured.resid_pre[-1][:1], captured.resid_pre[1][:1]
    for row, position in zip(first.itertuples(), s.prompts[0].label_positions, strict=True):
        token = torch.tensor([s.label_ids[list(s.labels).index(row.label)]])
        before, after = (
            log_probability(arch.capped(project(arch, v, final)), token) for v in (resid, resid + values[position])
        )
        assert row.log_increase == pytest.approx(float(after - before), abs=1e-5)


@pytest.mark.parametrize("layer", [0, 2])
def test_answers_from_a_layer_are_the_intact_ones(model, layer):
    """From all positions, and from a tail alone behind the keys and values of what is before it."""
    batch = pack([make_sets(model)[0]], model.pad_id)
    intact = capture(model, batch, inputs=True)
    close(answer_from(model, batch, layer, intact.inputs[layer]).labels, intact.answers.labels)
    first = int(batch.index[0, 8])
    tail = answer_from(model, batch, layer, intact.inputs[layer], intact, first)
    close(tail.labels, intact.answers.labels)

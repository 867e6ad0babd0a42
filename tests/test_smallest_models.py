"""One layer, one head: every public function answers for the smallest models there can be."""

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

import twotowers
from conftest import make_sets, tiny_config, tiny_tokenizer
from twotowers.tracing.exchange import PARTS


@pytest.fixture(scope="module", params=[(1, 1), (1, 2), (2, 1)], ids=str)
def smallest(request, tmp_path_factory):
    """A model of so many layers and heads."""
    layers, heads = request.param
    config, place = tiny_config("gpt2"), tmp_path_factory.mktemp("smallest") / "model"
    config.n_layer, config.n_head = layers, heads
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    return twotowers.load(place), layers, heads


def test_every_public_function_answers_for_the_smallest_models(smallest):
    model, layers, heads = smallest
    sets, last = make_sets(model), [(layers - 1, heads - 1)]
    prompts = sum(len(s.prompts) for s in sets)
    assert twotowers.check(model)["holds"].all()
    assert len(twotowers.locate(model, sets).heads) == 2 * layers * heads
    assert len(twotowers.knockout(model, sets)) == len(twotowers.screen(model, sets)) == layers * heads
    assert len(twotowers.verify(model, sets)) == 1
    scores = twotowers.head_scores(model, sets)
    chosen = twotowers.in_context_heads(scores, layers)
    assert len(scores) == layers * heads
    assert [layer for layer, _ in chosen] == [layers - 1]
    for part in PARTS:
        assert np.isfinite(twotowers.exchange(model, sets, last, part)["margin"]).all()
    for place in ("text", "label", "query", "last"):
        assert len(twotowers.hand_over(model, sets, place)) == (layers + 1) * prompts
    assert len(twotowers.towers(model, sets, last)) == prompts
    assert len(twotowers.balance_attention(model, sets, last)) == prompts
    assert len(twotowers.imbalance(model, {0.5: sets}, last)) == prompts
    assert set(twotowers.order(model, sets[0], last)["query"]) == set(range(len(sets[0].prompts)))
    assert not twotowers.block(model, sets, layers=[range(0, 1), range(0, layers)]).empty
    assert not twotowers.read_words(model, "cat : foo two :").empty

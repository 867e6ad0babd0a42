"""What is done to a loaded network: an edit counts, however it is made, and a switch to training is refused."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch

import twotowers
from conftest import make_sets, message
from twotowers.errors import ModelError
from twotowers.models.packed import PackedLinear


@pytest.mark.parametrize("part", ["", "transformer.h.1"])
def test_a_network_in_training_is_refused(tiny_folders, part):
    model = twotowers.load(tiny_folders["gpt2"])
    sets = make_sets(model)
    model.nn._module.get_submodule(part).train()
    for call in (twotowers.check, lambda m: twotowers.knockout(m, sets, []), lambda m: twotowers.screen(m, sets)):
        assert "was switched to training" in message(ModelError, lambda call=call: call(model))
    model.nn._module.eval()
    assert twotowers.check(model)["holds"].all()


def by_hand(linear):
    linear.weight.data[:, :16] = 0


def by_view(linear):
    linear.weight.detach().numpy()[3:9] *= 2


def by_rows(linear):
    linear.weight.data = linear.weight.data.clone()
    linear.weight.data[[0, 1]] = linear.weight.data[[1, 0]]


def by_columns(linear):
    linear.weight.data[:, [0, 17]] = linear.weight.data[:, [17, 0]]


@pytest.mark.parametrize("edit", [by_hand, by_view, by_rows, by_columns])
@pytest.mark.parametrize("place", ["model.layers.1.self_attn.o_proj", "lm_head"])
def test_a_weight_that_is_edited_behind_torchs_back_counts_as_it_is(tiny_folders, tmp_path, edit, place):
    model = twotowers.load(tiny_folders["llama-gqa"])
    sets, network = make_sets(model), model.nn._module
    twotowers.knockout(model, sets, [])
    linear = network.get_submodule(place)
    assert isinstance(linear, PackedLinear)
    edit(linear)
    network.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    anew = twotowers.load(tmp_path)
    for call in (lambda m: twotowers.knockout(m, sets, []), lambda m: twotowers.locate(m, sets).heads):
        pd.testing.assert_frame_equal(call(model), call(anew), rtol=1e-5, atol=1e-6)


def test_a_copy_of_a_network_that_has_run_is_a_network(tiny_folders):
    model = twotowers.load(tiny_folders["llama-gqa"])
    ids = torch.tensor([make_sets(model)[0].prompts[0].ids])
    with torch.no_grad():
        expected = model.nn._module(ids).logits
        copied = copy.deepcopy(model.nn._module)
        np.testing.assert_array_equal(copied(ids).logits, expected)


def test_the_check_has_a_tolerance_for_every_dtype_that_loads(tiny_folders):
    model = twotowers.load(tiny_folders["llama-gqa"], dtype=torch.float64)
    assert twotowers.check(model)["holds"].all()


def test_a_model_is_not_copied(tiny_folders):
    """The copy's traces would be those of the first."""
    model = twotowers.load(tiny_folders["gpt2"])
    for _ in range(2):
        assert message(ModelError, lambda: copy.deepcopy(model)).endswith("; load tiny-gpt2 again.")
        twotowers.knockout(model, make_sets(model), [])

"""NaN and infinity: no identity holds over them, and no result is made of them."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

import twotowers
from conftest import make_sets, message
from twotowers.errors import CheckError, ModelError
from twotowers.tracing import check
from twotowers.tracing.check import require

HEADS = "heads and bias add up to the attention output"
VALUES = "attention weights times values are the heads"
SCORES = "queries times keys are the attention weights"
PARTS = "parts add up to the final residual"
PROJECTED = "projected parts add up to the logits"
ROWS = "attention rows sum to one"
CAUSAL = "what follows changes nothing before it"
PACKED = "packed prompts answer as separate ones"
KNOCKED = "knock-out equals edited weights"
CHANGED = "removing all heads of a layer changes the answers"

# Where in a tensor of the capture, behind the first layer, and the identities that compare it.
COMPARED = {
    "resid_pre": ((-1, 1, 0), {PARTS, PROJECTED}),
    "attn_out": ((2, 1, 0), {HEADS, PARTS, PROJECTED}),
    "mlp_out": ((2, 1, 0), {PARTS, PROJECTED}),
    "z": ((2, 1, 1, 0), {HEADS, VALUES}),
    "pattern": ((2, 1, 1, 0), {VALUES, SCORES, ROWS}),
    "logits": ((1, 0), {PROJECTED, PACKED}),
    "inputs": ((2, 0, 0, 0), {VALUES, SCORES, CAUSAL}),
}


@pytest.fixture(params=["gpt2", "llama-gqa"])
def tiny(request, tiny_models):
    return tiny_models[request.param]


@pytest.fixture
def plant():
    """Write a number into the first element of weights, until the test is over."""
    kept = []

    def write(weight, number):
        kept.append((weight, weight.detach().flatten()[0].clone()))
        with torch.no_grad():
            weight[(0,) * weight.ndim] = number

    yield write
    with torch.no_grad():
        for weight, number in kept:
            weight[(0,) * weight.ndim] = number


def failing(model):
    table = twotowers.check(model)
    return set(table[~table["holds"]]["identity"])


@pytest.mark.parametrize("name", COMPARED)
def test_an_identity_fails_over_what_is_no_number(tiny, monkeypatch, name):
    place, expected = COMPARED[name]
    true = check.capture

    def planted(number, *arguments, **options):
        captured = true(*arguments, **options)
        tensor = getattr(captured, name)
        if tensor is None or any(i >= size for i, size in zip(place, tensor.shape, strict=True)):
            return captured
        tensor = tensor.clone()
        tensor[place] = number
        return replace(captured, **{name: tensor})

    for number in (math.nan, math.inf):
        monkeypatch.setattr(check, "capture", partial(planted, number))
        assert failing(tiny) >= expected


@pytest.mark.parametrize("layer", range(4))
def test_no_identity_of_answers_holds_over_a_weight_that_is_no_number(tiny, plant, layer):
    plant(tiny.arch.out_proj(layer).weight, math.nan)
    assert failing(tiny) >= {HEADS, PARTS, PROJECTED, PACKED, KNOCKED, CHANGED}


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("which", range(3))
def test_queries_keys_and_values_that_are_no_numbers_fail(tiny, plant, number, which):
    paths = tiny.arch.family.projections
    plant(tiny.arch.module(tiny.arch.attention_path(1, paths[which % len(paths)])).weight, number)
    assert failing(tiny) >= {PARTS, PROJECTED, CAUSAL, PACKED, KNOCKED, CHANGED}
    assert "cannot be measured" in message(CheckError, lambda: require(tiny))


def test_a_layer_that_writes_nothing_is_no_failure():
    zeros = torch.zeros(3, 2)
    assert check._difference(zeros, zeros) == 0


def test_no_result_is_made_of_what_is_no_number(tiny, plant):
    sets = make_sets(tiny)
    plant(tiny.arch.out_proj(2).weight, math.nan)
    calls = [
        lambda: twotowers.knockout(tiny, sets),
        lambda: twotowers.knockout(tiny, sets, heads=[]),
        lambda: twotowers.locate(tiny, sets),
        lambda: twotowers.screen(tiny, sets),
        lambda: twotowers.towers(tiny, sets, [(1, 0)]),
        lambda: twotowers.block(tiny, sets),
    ]
    for call in calls:
        assert "no number (NaN or infinity)" in message(ModelError, call)

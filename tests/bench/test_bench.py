"""The benchmark: what it compares answers alike, the floor counts by hand, and a result is complete."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from holder import holder
from made_up import WAYS, grown, row

from conftest import make_sets
from twotowers.bench import shapes
from twotowers.bench.bench import bench
from twotowers.bench.floor import floor_seconds, work
from twotowers.bench.measure import peak_alone
from twotowers.bench.peers import NnsightPeer, Padded
from twotowers.cli import main
from twotowers.models.quantised import DequantisedLinear
from twotowers.prompts.variants import alone, shortened
from twotowers.tracing.outcomes import outcomes


def one_head_each(heads):
    return [[head] for head in heads]


def test_the_peak_of_a_job_alone_is_what_it_holds(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # where `holder` is found there
    small, large = (peak_alone(holder, megabytes) / 2**20 for megabytes in (8, 64))
    assert large - small == pytest.approx(56, abs=8)


# --- the floor ----------------------------------------------------------------------------------------------------


def test_the_floor_counts_what_a_sweep_needs_by_hand(tiny_models):
    """Llama with 4 layers, width 32, 4 heads of 16 on 2 key-value heads, MLP 48; a head of layer 1, two of layer 3."""
    arch, length, last = tiny_models["llama-gqa"].arch, 10, 3
    rows = work(arch, [1, 3, 3], length, last)
    # behind a head's own layer: layers 2 and 3 for the first head; the intact row runs everywhere
    attention = length * (1 + 1 + 2) + last * 2
    assert rows[32, 64] == attention  # queries
    assert rows[64, 32] == attention  # output projection
    assert rows[16, length] == attention * 4
    assert rows[length, 16] == attention * 4
    mlp = length * (1 + 2 + 2) + last * 4
    assert rows[32, 48] == 2 * mlp
    assert rows[48, 32] == mlp
    keys_and_values = 2 * length * (1 + 1 + 2 + 2)
    assert rows[32, 32] == keys_and_values
    assert rows[32, arch.d_vocab] == last * 4


def test_floor_seconds_are_multiplications_over_rates():
    assert floor_seconds({(2, 3): 10.0, (5, 7): 1.0}, {(2, 3): 6.0}) == pytest.approx(10 + 35 / 6)


# --- what is compared ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama-mha", "llama-gqa"])
def test_nnsight_head_by_head_answers_as_ours(tiny_models, family):
    model, heads = tiny_models[family], [(0, 1), (2, 3), (3, 0)]
    s = make_sets(model)[0]
    table = outcomes(model, [s], one_head_each(heads))
    peer, padded = NnsightPeer(model.arch.model, model.tokenizer), Padded.of(s, model.device)
    gold = torch.tensor(s.gold)
    for number, head in enumerate(heads):
        labels = peer.without(padded, *head)[:, list(s.label_ids)]
        margin = labels.gather(1, gold[:, None]) - labels.gather(1, 1 - gold[:, None])
        ours = table[table["group"] == number]["margin"].to_numpy()
        np.testing.assert_allclose(ours, margin.squeeze(1).numpy(), rtol=1e-4, atol=1e-4)


def test_a_set_without_shared_prefix_answers_as_its_first_prompt(tiny, two_sets):
    for s in two_sets:
        one, all_ = (outcomes(tiny, [part], [[(1, 1)]])["margin"].to_numpy() for part in (alone(s), s))
        np.testing.assert_allclose(one, all_[:1], rtol=1e-4, atol=1e-5)


def test_a_shortened_set_is_as_long_as_it_says(tiny, two_sets):
    s = two_sets[0]
    part = shortened(s, 2)
    assert part.packed_length < s.packed_length
    assert len(outcomes(tiny, [part], [[(1, 1)]])) == len(s.prompts)


# --- the result and the command -------------------------------------------------------------------------------------


def test_a_result_has_every_way_whatever_the_clock_says(tiny_models, monkeypatch):
    monkeypatch.setattr("twotowers.bench.floor.ROWS", 64)
    model = tiny_models["llama-gqa"]
    result = bench(model, make_sets(model)[:1], repeats=1, peers=False)
    assert {found["way"] for found in result["rows"]} == set(WAYS)
    assert all(set(found) == set(row("ours", 1.0, 1.0)) for found in result["rows"])
    assert 0 <= result["agreement"]["screen_recall"] <= 1
    assert {found["against"] for found in result["scaling"]} == {"heads", "prompts", "length"}
    assert all(set(found) == set(grown()[0]) for found in result["scaling"])
    assert {"model", "dtype", "device", "threads", "packages", "date"} <= set(result["facts"])
    json.dumps(result)


@pytest.mark.parametrize("method", [None, "nf4", "int8"])
def test_random_weights_of_a_shape_are_swept(monkeypatch, method):
    small = lambda: shapes.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=100)  # noqa: E731
    monkeypatch.setitem(shapes.SHAPES, "small", small)
    model = shapes.random_model("small", torch.float32, "cpu", method)
    layers = [m for m in model.arch.model.modules() if isinstance(m, DequantisedLinear)]
    assert len(layers) == (8 if method else 0)
    s = shapes.random_set(model)
    assert {len(prompt.ids) for prompt in s.prompts} == {60}
    table = outcomes(model, [s], [[], [(0, 0)], [(1, 1)]])
    assert np.isfinite(table["margin"]).all()
    assert table.groupby("group")["margin"].mean().nunique() == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shape", "gpt2-larg"], "did you mean 'gpt2-large'"),
        (["--dtype", "float31"], "did you mean 'float32'"),
        (["--device", "tpu"], "There is no device 'tpu'"),
        (["--quantise", "nf4"], "give --quantise with --shape only"),
        (["--shape", "llama-7b", "--quantise", "nf3"], "There is no way to quantise 'nf3'"),
        (["--repeats", "0"], "a whole number from 1"),
        (["--model", "smollm2-135"], "did you mean 'smollm2-135m'"),
    ],
)
def test_bad_options_are_one_sentence(arguments, words, capsys):
    try:
        status = main(["bench", *arguments])
    except SystemExit as stopped:  # argparse
        status = stopped.code
    assert status == 2
    assert words in capsys.readouterr().err

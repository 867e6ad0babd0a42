"""The benchmark: what it compares answers alike, the floor counts by hand, and its page is computed."""

import json
import time

import numpy as np
import pytest
import torch
from torch import nn

import twotowers
from conftest import make_sets
from twotowers import bench_page, linear, shapes
from twotowers.bench import alone, bench, shortened
from twotowers.cli import main
from twotowers.floor import floor_seconds, work
from twotowers.knockout import outcomes
from twotowers.linear import PackedLinear, packed, plain_linears
from twotowers.measure import peak_alone
from twotowers.peers import NnsightPeer, Padded
from twotowers.quantised import DequantisedLinear


def one_head_each(heads):
    return [[head] for head in heads]


def holder(megabytes):
    """A job that holds so much and a little time, for the watcher to see it."""

    def hold():
        held = torch.ones(megabytes, 2**18)
        time.sleep(0.2)
        return held.sum()

    return hold


def test_the_peak_of_a_job_alone_is_what_it_holds():
    small, large = (peak_alone(holder, megabytes) / 2**20 for megabytes in (8, 64))
    assert large - small == pytest.approx(56, abs=8)


# --- packed products ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_layer_multiplies_as_a_plain_one_also_after_an_edit(dtype):
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bfloat16 products")
    layer, x = PackedLinear(48, 96, dtype=dtype), torch.randn(5, 7, 48).to(dtype)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
            layer.weight[3:20].zero_()
            layer.weight.mul_(2)
        assert "_packed" in layer.__dict__
        layer.weight.data = torch.randn(96, 48).to(dtype)
        torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
        torch.testing.assert_close(packed(layer.weight)(x), x @ layer.weight.T)
        with plain_linears():
            assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_gradients_and_other_dtypes_go_the_plain_way():
    layer, x = PackedLinear(48, 96), torch.randn(5, 48)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        double = layer.to(torch.float64)
        assert torch.equal(double(x.double()), nn.functional.linear(x.double(), double.weight, double.bias))


def test_a_loaded_model_is_packed_if_that_takes_little_of_the_memory(tiny_folders, monkeypatch):
    def kinds():
        return {type(module) for module in twotowers.load(tiny_folders["llama-gqa"]).arch.model.modules()}

    assert PackedLinear in kinds()
    assert nn.Linear not in kinds()
    monkeypatch.setattr(linear, "MEMORY_SHARE", 0.0)
    assert PackedLinear not in kinds()
    assert nn.Linear in kinds()


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


# --- the command and its page -------------------------------------------------------------------------------------


@pytest.fixture
def result(tiny_models, monkeypatch):
    monkeypatch.setattr("twotowers.floor.ROWS", 64)
    model = tiny_models["llama-gqa"]
    result = bench(model, make_sets(model)[:1], repeats=2, peers=False)
    result["facts"] |= {"command": "twotowers bench --model tiny", "random": True}
    return result


def test_a_result_has_every_way_and_its_page_shows_them(result, tmp_path):
    assert bench_page.performance(tmp_path).startswith("No benchmark has been run yet")
    bench_page.write(result, tmp_path, "tiny-float32")
    page = bench_page.performance(tmp_path)
    rows = {row["way"]: row for row in result["rows"]}
    assert set(rows) == {
        "ours", "ours, no shared prefix", "ours, PyTorch's own product", "forward", "screen", "locate", "floor",
    }  # fmt: skip
    for name, row in rows.items():
        assert f"| {name} | {row['seconds']:.3g} " in page
        assert 0 < row["low"] <= row["seconds"] <= row["high"]
    assert "random" in page
    assert 0 <= result["agreement"]["screen_recall"] <= 1
    assert {row["against"] for row in result["scaling"]} == {"heads", "prompts", "length"}
    for name in ("ratio", "scaling"):
        assert f":name: fig-performance-tiny-float32-{name}" in page
        for ending in ("svg", "png", "csv", "json"):
            assert (tmp_path / "figures" / f"tiny-float32-{name}.{ending}").stat().st_size
    assert json.loads((tmp_path / "tiny-float32.json").read_text())["rows"] == result["rows"]


def test_the_page_says_what_locate_costs_beside_a_bare_forward(result, tmp_path):
    rows = {row["way"]: row for row in result["rows"]}
    bare = rows["forward"] | {"way": "transformers, bare forward", "peak": 100}
    located = rows["locate"] | {"peak": 125, "ratio": 1.5, "ratio_low": 1.25, "ratio_high": 2.0}
    bench_page.write(result | {"rows": [rows["ours"], rows["floor"], bare, located]}, tmp_path, "tiny")
    said = "Locate takes 1.50 times the time of a bare forward (1.25 to 2.00) and 1.25 times its memory."
    assert said in bench_page.performance(tmp_path)
    bare["peak"] = 0  # too quick to be seen
    bench_page.write(result | {"rows": [rows["ours"], rows["floor"], bare, located]}, tmp_path, "tiny")
    assert "bare forward (1.25 to 2.00).\n" in bench_page.performance(tmp_path)


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

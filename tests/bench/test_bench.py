"""The benchmark: what it compares answers alike, the floor counts by hand, and its page is computed."""

import io
import itertools
import json
import threading
import warnings

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

import twotowers
from conftest import make_sets
from twotowers.bench import page as bench_page
from twotowers.bench import page as figures_bench
from twotowers.bench import shapes
from twotowers.bench.bench import BARE, OURS, bench
from twotowers.bench.floor import floor_seconds, work
from twotowers.bench.measure import peak_alone
from twotowers.bench.peers import NnsightPeer, Padded
from twotowers.cli import main
from twotowers.models import packed as linear
from twotowers.models.packed import PackedLinear, packed, plain_linears
from twotowers.models.quantised import DequantisedLinear
from twotowers.prompts.variants import alone, shortened
from twotowers.tracing.outcomes import outcomes


def one_head_each(heads):
    return [[head] for head in heads]


def holder(megabytes):
    """A job that holds so much, and while it is watched until the watcher has seen it, however long that takes."""
    looks, calls, plain = threading.Semaphore(0), itertools.count(), psutil.Process.memory_info

    def look(process):
        found = plain(process)
        looks.release()
        return found

    psutil.Process.memory_info = look  # the process is the job's own

    def hold():
        held = torch.ones(megabytes, 2**18)
        if next(calls):  # the first time nobody watches
            while looks.acquire(blocking=False):
                pass
            assert all(looks.acquire(timeout=600) for _ in range(2))  # the first look may have begun before
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


WAYS = ("ours", "ours, no shared prefix", "ours, PyTorch's own product", "forward", "screen", "locate", "floor")


def row(way, seconds, ratio, over=OURS, peak=2**20, spread=0.1):
    """A row of a result, whose rounds differ by a share of the median."""
    low, high = 1 - spread, 1 + spread
    return {
        "way": way, "seconds": seconds, "low": low * seconds, "high": high * seconds, "over": over,
        "ratio": ratio, "ratio_low": low * ratio, "ratio_high": high * ratio, "peak": peak,
    }  # fmt: skip


def grown(seconds=0.5, sizes=(16, 32, 64, 128), unit=100):
    """Seconds of ours in proportion to the size, of which two thirds are the floor."""
    return [
        {"against": against, "x": x, "seconds": seconds * x / unit, "floor": seconds * x / unit / 1.5}
        for against in figures_bench.NAMES
        for x in sizes
    ]


@pytest.fixture
def result():
    """A result that was made up: what is drawn and said of it does not depend on this machine."""
    agreement = {
        "margin_difference": {"edited weights": 1e-6}, "screen_recall": 1.0, "screen_heads": 2,
        "screen_rank_agreement": 0.85, "worst": [[1, 2]],
    }  # fmt: skip
    facts = {
        "model": "tiny", "dtype": "float32", "device": "a processor", "threads": 2, "prompts": 3, "tokens": 24,
        "packed_tokens": 40, "packages": {"torch": "2", "nnsight": "0.8"}, "date": "2026-01-02T03:04:05+00:00",
        "repeats": 2, "heads": 16, "sampled_heads": 4, "sets": 1, "command": "twotowers bench --model tiny",
        "random": True,
    }  # fmt: skip
    rows = [
        row("ours", 12.0, 1.0, spread=0.0), row("ours, no shared prefix", 60.0, 5.0),
        row("ours, PyTorch's own product", 13.2, 1.1), row("forward", 0.15, 0.0125),
        row("screen", 0.45, 3.0, "forward"), row("locate", 9.0, 1.5, BARE, peak=125), row(BARE, 6.0, 0.5, peak=100),
        row("floor", 8.0, 0.625, spread=0.2),
    ]  # fmt: skip
    return {"facts": facts, "rows": rows, "agreement": agreement, "scaling": grown()}


def test_a_result_has_every_way_whatever_the_clock_says(tiny_models, monkeypatch):
    monkeypatch.setattr("twotowers.bench.floor.ROWS", 64)
    model = tiny_models["llama-gqa"]
    result = bench(model, make_sets(model)[:1], repeats=2, peers=False)
    assert {found["way"] for found in result["rows"]} == set(WAYS)
    assert all(set(found) == set(row("ours", 1.0, 1.0)) for found in result["rows"])
    assert 0 <= result["agreement"]["screen_recall"] <= 1
    assert {found["against"] for found in result["scaling"]} == {"heads", "prompts", "length"}
    assert all(set(found) == set(grown()[0]) for found in result["scaling"])
    assert {"model", "dtype", "device", "threads", "packages", "date"} <= set(result["facts"])
    json.dumps(result)


def test_the_page_shows_every_way_with_its_figures(result, tmp_path):
    assert bench_page.performance(tmp_path).startswith("No benchmark has been run yet")
    bench_page.write(result, tmp_path, "tiny-float32")
    page = bench_page.performance(tmp_path)
    for found in result["rows"]:
        assert f"| {found['way']} | {found['seconds']:.3g} ({found['low']:.3g} to {found['high']:.3g}) |" in page
    assert "random" in page
    assert "Ours takes 1.60 times the floor (1.33 to 2.00)." in page
    assert "heads removed: 5 ms each (floor 3.33 ms)" in page
    assert "at 1.5 times its height in the median" in page
    for name in ("ratio", "scaling"):
        assert f":name: fig-performance-tiny-float32-{name}" in page
        for ending in ("svg", "png", "csv", "json"):
            assert (tmp_path / "figures" / f"tiny-float32-{name}.{ending}").stat().st_size
    assert json.loads((tmp_path / "tiny-float32.json").read_text())["rows"] == result["rows"]


def test_the_page_says_what_locate_costs_beside_a_bare_forward(result, tmp_path):
    bench_page.write(result, tmp_path, "tiny")
    said = "Locate takes 1.50 times the time of a bare forward (1.35 to 1.65) and 1.25 times its memory."
    assert said in bench_page.performance(tmp_path)
    next(found for found in result["rows"] if found["way"] == BARE)["peak"] = 0  # too quick to be seen
    bench_page.write(result, tmp_path, "tiny")
    assert "bare forward (1.35 to 1.65).\n" in bench_page.performance(tmp_path)


@pytest.mark.parametrize("ratio", [0.0, float("inf"), float("nan")])
def test_the_page_says_nothing_of_what_the_clock_does_not_show(result, tmp_path, ratio):
    """A floor and a bare forward of no time, and one size only, of which there is no slope."""
    kept = [found for found in result["rows"] if found["way"] not in ("floor", "locate")]
    rows = [*kept, row("floor", 0.0, ratio), row("locate", 9.0, ratio, BARE)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bench_page.write(result | {"rows": rows, "scaling": grown(0.0, sizes=(16,))}, tmp_path, "tiny")
        page = bench_page.performance(tmp_path)
    for sentence in ("times the floor", "Locate takes", "Slopes", "in the median"):
        assert sentence not in page


def drawn(figure):
    """The figure's canvas, behind its drawing as a PNG."""
    canvas = FigureCanvasAgg(figure)
    figure.savefig(io.BytesIO(), format="png")
    return canvas


def require_legible(figure, named=False):
    """Two to eight numbers within the limits of every axis (but one of names), none on another; no text is cut off."""
    renderer = drawn(figure).get_renderer()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = axis.get_view_interval()
            ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high and t.label1.get_text()]
            boxes = [tick.label1.get_window_extent(renderer) for tick in ticks]
            assert not [a for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
            assert (named and axis is ax.yaxis) or 2 <= len(ticks) <= 8, [tick.label1.get_text() for tick in ticks]
        for text in ax.texts:
            box = text.get_window_extent(renderer)
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text


RANGES = {
    "narrow": (0.93, 1.1),
    "one decade": (1.0, 10.0),
    "five decades": (1e-3, 1.0, 1e2),
    "ten decades": (1e-5, 1.0, 1e5),
    "equal values": (1.0, 1.0, 1.0),
    "floor 0.013": (0.013,),
    "floor 0.013, peers 20": (0.013, 1.1, 5.3, 20.0),
    "all large": (300.0, 400.0),
    "no ratio": (0.0, float("inf"), float("nan"), 2.0),
    "nothing": (0.0,),
    "no row": (),
}


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("values", RANGES.values(), ids=RANGES)
def test_ratios_of_any_range_are_legible(values, spread):
    rows = [row(way, value, value, spread=spread) for way, value in zip(WAYS, values, strict=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = figures_bench.ratios(pd.DataFrame(rows, columns=list(row("ours", 1.0, 1.0))))
        require_legible(figure, named=True)
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(labels) == sorted(["ours", *(f"{x:.3g}" for x in values if 0 < x < float("inf"))])


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.013, 1.0, 2e4, 1e12, float("nan"), float("inf")])
@pytest.mark.parametrize("sizes", [(1, 2, 4, 8), (16, 1600, 160_000), (10, 10**6, 10**11), (5,), (7, 7), (0,), ()])
def test_scaling_of_any_range_is_legible(seconds, sizes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = pd.DataFrame(grown(seconds, sizes), columns=["against", "x", "seconds", "floor"])
        require_legible(figures_bench.scaling(table))
        assert bench_page._scaling_caption(table).startswith("Seconds of our sweep")
        assert bench_page._scaling_alt(table).startswith("Three panels")


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

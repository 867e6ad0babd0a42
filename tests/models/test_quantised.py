"""Weights in 4 and 8 bits: what is multiplied is the matrix that is read, and it is the matrix that was quantised."""

import json

import bitsandbytes
import pytest
import torch
from transformers import AutoModelForCausalLM

import twotowers
from conftest import make_sets, message
from family_configs import CONFIGS, save
from twotowers.chapters.knockout.knockout import sweep
from twotowers.errors import MemoryLimitError, ModelError, UnknownNameError
from twotowers.models import quantised
from twotowers.models.architecture import weight_in_out
from twotowers.models.model import open_model
from twotowers.models.quantised import DequantisedLinear, dequantise_linears, quantise, settings_for
from twotowers.models.weights import weight_bytes
from twotowers.prompts.packing import pack
from twotowers.tracing.ablation import attributions
from twotowers.tracing.capture import answers
from twotowers.tracing.check import edited

METHODS = {"nf4": 0.2, "int8": 0.03}  # largest error of a weight, relative to the largest weight
PLAIN = ("gpt2", "llama-mha", "llama-gqa")
KINDS = ("gptj", "gpt_neox", "qwen3", "opt", "gpt_neo", "bloom", "phi3", "granite", "olmo2")


@pytest.fixture(scope="module")
def folders(tiny_folders, tmp_path_factory):
    made = tmp_path_factory.mktemp("plain")
    return tiny_folders | {name: save(CONFIGS[name], made / name) for name in KINDS}


@pytest.mark.parametrize("method", METHODS)
def test_a_family_whose_matrices_stay_as_they_are_is_refused(tmp_path, method):
    folder = save(CONFIGS["falcon-groups"], tmp_path / "falcon")
    with pytest.raises(ModelError, match="bitsandbytes leaves layers of its kind as they are"):
        _ = twotowers.load(folder, quantise=method).nn


@pytest.fixture(scope="module", params=[*PLAIN, *KINDS])
def family(request):
    return request.param


@pytest.fixture(scope="module", params=METHODS)
def method(request):
    return request.param


@pytest.fixture(scope="module")
def model(folders, family, method):
    return twotowers.load(folders[family], quantise=method)


@pytest.fixture(scope="module")
def twin(folders, family, model):
    """The same model with plain layers, whose weights are the dequantised ones."""
    plain = twotowers.load(folders[family])
    with torch.no_grad():
        for path, layer in dequantised(model).items():
            weight_in_out(plain.arch.model.get_submodule(path)).copy_(layer.weight.T)
    return plain


def dequantised(model):
    modules = model.arch.model.named_modules()
    return {path: layer for path, layer in modules if isinstance(layer, DequantisedLinear)}


def test_weights_are_those_that_were_quantised(folders, family, method, model):
    plain, layers = twotowers.load(folders[family]).arch.model, dequantised(model)
    assert len(layers) >= 4 * model.arch.n_layers
    for path, layer in layers.items():
        original = weight_in_out(plain.get_submodule(path)).T
        error = (layer.weight - original).abs().max() / original.abs().max()
        assert 1e-4 < error < METHODS[method], path


def test_every_identity_holds(model):
    table = twotowers.check(model)
    assert table["holds"].all(), table
    assert (table["residual"].iloc[:-1] < 1e-4).all(), table


def test_results_are_those_of_plain_layers_with_the_same_weights(model, twin):
    sets = make_sets(model)
    ours, theirs = (sweep(m, sets).select_dtypes("number").to_numpy() for m in (model, twin))
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-4, atol=1e-4)
    ours, theirs = (twotowers.locate(m, sets).heads["log_increase"].to_numpy() for m in (model, twin))
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-4, atol=1e-4)
    ours, theirs = (attributions(m, pack(sets)) for m in (model, twin))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    assert theirs.abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(32, 32), (48, 32), (31, 48), (33, 7), (64, 64), (5, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bits_are_dequantised_by_their_definition(shape, dtype, kind):
    """bitsandbytes 0.50 gives other weights on the CPU where a block of 64 goes over the end of a row."""
    torch.manual_seed(0)
    packed, state = bitsandbytes.functional.quantize_4bit(torch.randn(shape).to(dtype), quant_type=kind)
    with torch.compiler.set_stance("force_eager"):  # bitsandbytes would compile for odd shapes, which takes long
        ours = DequantisedLinear(packed, state, shape, None, dtype).weight
    number = shape[0] * shape[1]
    indices = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], dim=1).flatten()[:number].long()
    weights = state.code[indices] * state.absmax.repeat_interleave(64)[:number]
    assert torch.equal(ours, weights.to(dtype).reshape(shape))


def test_a_product_leaves_the_stored_weights_alone(model, family):
    layers = dequantised(model)
    before = {path: (layer.packed.clone(), layer.weight) for path, layer in layers.items()}
    answers(model, pack(make_sets(model)))
    for path, (packed, weight) in before.items():
        assert torch.equal(layers[path].packed, packed)
        assert torch.equal(layers[path].weight, weight)


def test_what_has_been_saved_loads_as_the_same_weights(folders, family, method, model, tmp_path):
    network = AutoModelForCausalLM.from_pretrained(
        folders[family], quantization_config=settings_for(method), device_map="cpu", dtype=torch.float32
    )
    network.save_pretrained(tmp_path / "stored")
    open_model(folders[family]).tokenizer.save_pretrained(tmp_path / "stored")
    stored = twotowers.load(tmp_path / "stored")
    assert stored.quantised == method
    assert stored.quantise is None
    expected = dequantised(model)
    for path, layer in dequantised(stored).items():
        assert torch.equal(layer.weight, expected[path].weight), path
    assert message(ModelError, lambda: open_model(tmp_path / "stored", quantise="nf4")).startswith(
        f"The weights are quantised already, to {method}"
    )
    predicted = weight_bytes(tmp_path / "stored", torch.float32)
    assert predicted == pytest.approx(size(stored), rel=0.1)


def size(model):
    network = model.arch.model
    total = sum(parameter.nbytes for parameter in network.parameters())
    for layer in dequantised(model).values():
        scales = layer._state if isinstance(layer._state, torch.Tensor) else layer._state.absmax
        total += layer.packed.nbytes + scales.nbytes
    return total


def test_memory_is_predicted_before_loading(folders, family, method, model):
    assert model.weight_bytes == pytest.approx(size(model), rel=0.1)
    matrices = sum(layer.in_features * layer.out_features for layer in dequantised(model).values())
    assert weight_bytes(folders[family], torch.float32) - model.weight_bytes > 2.9 * matrices  # of 4 bytes each


def test_a_model_that_fits_quantised_only_is_told_so(tiny_folders, monkeypatch):
    plain, small = (open_model(tiny_folders["gpt2"], device_map="cpu", quantise=how) for how in (None, "nf4"))
    between = (plain.weight_bytes + small.weight_bytes) // 2
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": between}))
    assert 'quantise it with quantise="nf4"' in message(MemoryLimitError, lambda: plain.nn)
    assert dequantised(small)


def test_edited_weights_are_used_and_restored(model):
    before, batch = model.arch.w_o(1), pack(make_sets(model)[:1])
    intact = answers(model, batch).labels
    with edited(model, 1, 2):
        assert model.arch.w_o(1)[2].eq(0).all()
        assert (answers(model, batch).labels - intact).abs().max() > 1e-4
    assert torch.equal(model.arch.w_o(1), before)
    assert torch.equal(answers(model, batch).labels, intact)


@pytest.mark.parametrize("way", METHODS)
def test_a_gradient_is_that_of_the_matrix_and_keeps_no_matrix(way):
    torch.manual_seed(0)
    layer, x = quantise(torch.randn(48, 32), way), torch.randn(3, 32, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        product = layer(x)
    assert max(kept, default=0) < 48 * 32
    direction = torch.randn(3, 48)
    (gradient,) = torch.autograd.grad((product * direction).sum(), x)
    torch.testing.assert_close(product, x @ layer.weight.T)
    torch.testing.assert_close(gradient, direction @ layer.weight)


def test_hooks_that_move_inputs_go_to_the_new_layer():
    from accelerate.hooks import ModelHook, add_hook_to_module

    class Doubling(ModelHook):
        def pre_forward(self, module, *arguments, **options):
            return (2 * arguments[0],), options

    network = torch.nn.Sequential(bitsandbytes.nn.Linear4bit(64, 64, bias=True, quant_type="nf4"))
    network.to("cpu")
    add_hook_to_module(network[0], Doubling())
    dequantise_linears(network, torch.float32)
    x = torch.randn(2, 64)
    torch.testing.assert_close(network(x), 2 * x @ network[0].weight.T + network[0].bias)


def test_a_rehearsal_of_a_server_gives_the_same(folders):
    rehearsed = twotowers.load(folders["llama-gqa"], quantise="nf4", remote="local")
    table = twotowers.check(rehearsed)
    assert table["holds"].all(), table


@pytest.mark.parametrize(
    ("options", "kind", "part"),
    [
        ({"quantise": "nf5"}, UnknownNameError, "There is no way to quantise 'nf5': did you mean 'nf4'?"),
        ({"quantise": "nf4", "remote": True}, ModelError, "A server has its weights in its own way"),
    ],
)
def test_what_cannot_be_is_refused(tiny_folders, options, kind, part, monkeypatch):
    monkeypatch.setattr("twotowers.models.model.require_key", lambda: None)
    assert part in message(kind, lambda: open_model(tiny_folders["gpt2"], **options))


@pytest.mark.parametrize("method", ["gptq", "awq", "hqq", "fp8", "mxfp4", "compressed-tensors", "aqlm"])
def test_weights_that_are_quantised_in_another_way_are_refused_by_its_name(folder, method):
    settings = json.loads((folder / "config.json").read_text())
    stored = {"quant_method": method, "bits": 4, "group_size": 128}
    (folder / "config.json").write_text(json.dumps(settings | {"quantization_config": stored}))
    for asked in (None, "nf4"):
        text = message(ModelError, lambda asked=asked: open_model(folder, quantise=asked))
        assert f"quantised by {method}, and cannot be read as matrices here" in text


def test_without_bitsandbytes_it_is_named(tiny_folders, monkeypatch):
    monkeypatch.setattr(quantised, "version", lambda: None)
    assert "'.[quantised]'" in message(ModelError, lambda: open_model(tiny_folders["gpt2"], quantise="int8"))


def test_provenance_says_how_weights_are_stored(tiny_folders):
    plain, small = (open_model(tiny_folders["gpt2"], quantise=how).provenance() for how in (None, "nf4"))
    assert small == plain | {"quantised": f"nf4, by bitsandbytes {bitsandbytes.__version__}"}
    assert json.dumps(small)

"""Folders of models as they should not be: each is read as transformers reads it, or refused in one sentence."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import twotowers
from conftest import make_sets, message
from family_configs import CONFIGS, save
from twotowers.cli import main
from twotowers.errors import ModelError
from twotowers.models.model import open_model

pytestmark = pytest.mark.usefixtures("empty_hub_cache")


@pytest.fixture
def said(folder):
    """Change the configuration of a folder."""

    def change(**settings):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))
        return folder

    return change


def refused(folder):
    return message(ModelError, lambda: twotowers.load(folder))


def answers(model):
    return twotowers.knockout(model, make_sets(model), heads=[]).to_numpy()


# Configurations


@pytest.mark.parametrize(
    "settings",
    [
        {"n_layer": 1000, "n_embd": 200_000, "n_head": 8},
        {"n_inner": 2_000_000, "n_embd": 8192, "vocab_size": 10_000_000},
        {"n_positions": 1_000_000_000},
    ],
)
def test_many_more_weights_than_there_are_are_refused_before_they_are_made(said, settings, monkeypatch):
    """Each size can be a model's; all of them together would fill any memory."""
    folder = said(**settings)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *a, **k: pytest.fail("was made"))
    assert "do not fit its config.json: it describes" in refused(folder)


def test_tables_that_would_fill_the_memory_are_refused_before_they_are_made(tmp_path, monkeypatch):
    """GPT-J makes a row for each position; it was told to fetch the weights again."""
    folder = save(CONFIGS["gptj"], tmp_path / "tiny")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"n_positions": 10**9}))
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *a, **k: pytest.fail("was made"))
    assert "asks for tables of 12,000,000,000 numbers beside " in refused(folder)


def test_too_little_memory_for_weights_is_told_as_such(folder, monkeypatch, capsys):
    """It was told as damage, with the advice to fetch them again."""

    def full(*_inputs, **_options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 16 bytes.")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
    assert main(["check", str(folder)]) == 2
    assert "There is too little memory for this" in capsys.readouterr().err


def test_a_configuration_that_says_its_family_alone_is_refused_at_once(folder):
    """What it leaves out is that of a whole model, of billions of weights."""
    (folder / "config.json").write_text('{"model_type": "llama"}')
    assert "it describes 6,738,415,616 of them" in refused(folder)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"activation_function": "nothing"}, "(unknown or missing: 'nothing'); mend its config.json"),
        ({"n_head": 5}, "No model can be made of the configuration"),
        ({"attn_pdrop": 3}, "No model can be made of the configuration"),
        ({"n_layer": "2"}, "expected int, got str"),
        ({"num_labels": 10**9}, "its num_labels is 1,000,000,000"),
        ({"model_type": "gpt_neo", "attention_types": [[["global"], 10**9]]}, "its attention_types"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "quantis"),
    ],
)
def test_a_setting_that_cannot_be_is_told_as_one_of_the_configuration(said, settings, part):
    """Those that only a module finds were told as damaged weights."""
    text = refused(said(**settings))
    assert part in text
    assert "fetch it again" not in text


def test_a_python_without_docstrings_is_not_told_as_a_wrong_configuration(folder, monkeypatch):
    """transformers reads the docstrings of its own models; PYTHONOPTIMIZE=2 drops them."""
    monkeypatch.setattr("twotowers.models.described.sys", SimpleNamespace(flags=SimpleNamespace(optimize=2)))
    text = refused(folder)
    assert "unset PYTHONOPTIMIZE" in text
    assert "config" not in text


@pytest.mark.parametrize(
    "settings",
    [
        {"layer_norm_epsilon": float("nan")},
        {"layer_norm_epsilon": float("inf")},
        {"layer_norm_epsilon": -0.5},
        {"layer_norm_epsilon": 100.0},
        {"initializer_range": float("-inf")},
        {"rope_scaling": {"rope_type": "linear", "factor": 0.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 0}},
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": -1.0}}},
        {"logits_scaling": 0},
        {"task_specific_params": {"a": [{"b": float("nan")}]}},
    ],
)
def test_a_number_that_can_be_no_setting_is_told_before_anything_is_loaded(said, settings):
    """It was found where an answer was no number, with the advice to look at the weights, or not at all."""
    name = re.search(r"'([a-z_]+)': [-\d.a-z]+[}\]]", str(settings))[1]
    text = message(ModelError, lambda: open_model(said(**settings)))
    assert f"cannot be right: its {name} is " in text
    assert "mend its config.json" in text


def test_a_setting_that_is_there_twice_is_named(folder):
    """Readers take the last one, whatever it is."""
    file = folder / "config.json"
    file.write_text(file.read_text().rstrip().removesuffix("}") + ', "layer_norm_epsilon": 0.5}')
    assert "config.json says 'layer_norm_epsilon' twice" in message(ModelError, lambda: open_model(folder))


def test_a_quantisation_without_a_method_is_told_as_such(said):
    text = refused(said(quantization_config={}))
    assert "quantised by a method without name" in text


@pytest.mark.parametrize("dropout", [0.01, 1.0])
def test_a_tokenizer_that_cuts_texts_at_random_is_refused(folder, dropout):
    """Every prompt had other tokens each time that it was made."""
    file = folder / "tokenizer.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"model": settings["model"] | {"dropout": dropout}}))
    assert "cuts a text otherwise each time (dropout" in refused(folder)


@pytest.mark.parametrize("name", ["added_tokens.json", "special_tokens_map.json"])
def test_a_damaged_file_beside_the_tokenizer_is_named(folder, name):
    (folder / name).write_text("{")
    assert f"; {name} is no JSON object" in refused(folder)


@pytest.mark.parametrize("settings", [{"return_dict": False}, {"dtype": "int8"}, {"use_cache": False}])
def test_a_setting_of_how_a_network_answers_changes_nothing(said, tiny_gpt2, settings):
    assert (answers(twotowers.load(said(**settings))) == answers(tiny_gpt2)).all()


@pytest.mark.parametrize("length", ["long", 4, -1, None])
def test_how_much_a_tokenizer_says_that_it_reads_changes_nothing(folder, tiny_gpt2, length):
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": length}))
    assert (answers(twotowers.load(folder)) == answers(tiny_gpt2)).all()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (POINTER, "git lfs pull"),
        (b"<!doctype html>", "is a page of the web"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"\xff\xfe{\0}\0", "is UTF-16"),
        (b"[]", "is no JSON object"),
        (b"[" * 100_000, "is no JSON object"),
        (b'{"model_type": "gp', "is no JSON object"),
    ],
)
def test_a_configuration_is_named_for_what_it_is(folder, content, what):
    (folder / "config.json").write_bytes(content)
    text = message(ModelError, lambda: open_model(folder))
    assert "is no model: its config.json " in text
    assert what in text


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "a\udcffb"])
def test_a_folder_whose_name_no_page_can_show_is_refused(folder, name):
    odd = folder.rename(folder.with_name(name))
    assert "no page can show; rename it" in message(ModelError, lambda: open_model(odd))


# Weights


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (POINTER, "git lfs pull"),
        (b"<html>", "is a page of the web"),
        (b"GGUF\3\0\0\0", "is a GGUF file"),
        (b"\x80\x04\x95", "is a pickle"),
        (b"PK\x03\x04", "is a pickle"),
    ],
)
def test_weights_are_named_for_what_they_are(folder, content, what):
    (folder / "model.safetensors").write_bytes(content)
    assert what in message(ModelError, lambda: open_model(folder))


def test_weights_that_are_cut_off_are_refused_before_they_are_loaded(folder, capsys):
    file = folder / "model.safetensors"
    torch.save({}, folder / "pytorch_model.bin")
    file.write_bytes(file.read_bytes()[:-1])
    assert "not fully covered" in message(ModelError, lambda: open_model(folder))
    assert capsys.readouterr().err == ""  # nothing of the other copy: the sentence stands alone


@pytest.mark.parametrize("name", ["transformer.ln_f.gate", "lm_head.bias", "transformer.norm_in.weight"])
def test_a_tensor_of_the_network_that_has_no_place_in_it_is_refused(folder, name):
    """It was passed over, and the numbers were those of another model."""
    file = folder / "model.safetensors"
    save_file({**load_file(file), name: torch.ones(3)}, file, metadata={"format": "pt"})
    assert f"no place for 1, {name} first" in refused(folder)


def test_a_head_for_another_use_may_lie_beside_the_weights(folder, tiny_gpt2):
    file = folder / "model.safetensors"
    save_file({**load_file(file), "value_head.weight": torch.ones(3)}, file, metadata={"format": "pt"})
    assert (answers(twotowers.load(folder)) == answers(tiny_gpt2)).all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.int8])
def test_a_norm_of_integers_is_refused(folder, dtype):
    file, name = folder / "model.safetensors", "transformer.ln_f.weight"
    own = load_file(file)
    save_file({**own, name: own[name].to(dtype)}, file, metadata={"format": "pt"})
    assert f"({name}), and its config.json does not say" in message(ModelError, lambda: open_model(folder))


# Indices


@pytest.fixture
def parts(folder):
    """The weights of a folder in two files, and the names of the tensors in each."""
    own = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(own)
    found = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, held in found.items():
        save_file({name: own[name] for name in held}, folder / file, metadata={"format": "pt"})
    return found


def index(folder, weights):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))


def test_parts_without_their_index_are_told(folder, parts):
    assert f"there is {next(iter(parts))}, a part of them, but not the index" in refused(folder)


def test_an_index_is_read(folder, parts, tiny_gpt2):
    index(folder, {name: file for file, held in parts.items() for name in held})
    assert (answers(twotowers.load(folder)) == answers(tiny_gpt2)).all()


@pytest.mark.parametrize("shard", ["config.json", "evil.bin", "x\0y", "x" * 300 + ".safetensors", "."])
def test_an_index_of_what_are_no_weights_is_refused(folder, parts, shard, capsys):
    torch.save({}, folder / "evil.bin")
    index(folder, dict.fromkeys(parts["model-00001-of-00002.safetensors"], shard))
    text = message(ModelError, lambda: open_model(folder))
    assert "names the weight file" in text
    assert "fetch the model again" in text
    assert capsys.readouterr().err == ""


def test_an_index_without_what_transformers_asks_for_is_told(folder, parts):
    """Of PyTorch's own files it was told as a pickle that wants to run code."""
    index(folder, {name: file for file, held in parts.items() for name in held})
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": json.loads(file.read_text())["weight_map"]}))
    assert f'{file} has no metadata, which transformers asks for; write "metadata"' in refused(folder)


def test_a_tensor_in_two_parts_is_refused(folder, parts):
    """The part that is read last counted, whatever the index says."""
    one, other = parts
    name = parts[other][0]
    save_file(load_file(folder / one) | {name: load_file(folder / other)[name] + 1}, folder / one)
    index(folder, {held: file for file, names in parts.items() for held in names})
    assert f"have one tensor twice, as {name} in {one} and as {name} in {other}" in refused(folder)


def test_a_part_that_lacks_what_its_index_says_is_refused(folder, parts):
    one, other = parts
    index(folder, {name: one for held in parts.values() for name in held} | {parts[other][0]: other})
    text = message(ModelError, lambda: open_model(folder))
    assert f"{one} lacks {len(parts[other]) - 1} tensors that model.safetensors.index.json says are in it" in text

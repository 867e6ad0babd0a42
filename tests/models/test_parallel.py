"""A model whose matrices are split over two processes gives what it gives in one; what cannot be split is named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transformers.distributed.tensor_parallel as splitting

from conftest import message
from family_configs import CONFIGS, save
from twotowers.cli import main
from twotowers.errors import ModelError
from twotowers.models.model import open_model
from twotowers.models.parallel import TRIED

PLANNED = [name for name in CONFIGS if name.partition("-")[0] in TRIED]


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(tiny_folders, tmp_path_factory):
    made = tmp_path_factory.mktemp("split")
    folders = [tiny_folders["llama-mha"], tiny_folders["llama-gqa"], *(save(CONFIGS[n], made / n) for n in PLANNED)]
    done = torchrun(Path(__file__).parents[1] / "split.py", made / "found.json", *folders)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((made / "found.json").read_text()) | {"said": done.stdout}


@pytest.mark.parametrize("name", ["tiny-llama-mha", "tiny-llama-gqa", *PLANNED])
def test_a_split_model_gives_what_it_gives_in_one_process(found, name):
    differences = dict(found[name])
    assert differences.pop("holds")
    assert 0.4 < differences.pop("share") < 0.9  # each process has a part of what is split
    assert len(differences) == 17
    assert max(differences.values()) < 1e-4, differences


def test_the_check_runs_split_and_speaks_once(found):
    assert found["said"].count("heads and bias add up to the attention output") == 1
    assert "FAILS" not in found["said"]


@pytest.mark.parametrize("size", [None, "abc", "", "0", "-1"])
def test_a_start_without_torchrun_is_told(size, tiny_folders, monkeypatch, capsys):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    assert main(["check", str(tiny_folders["llama-mha"]), "--tensor-parallel"]) == 2
    assert "start them with: torchrun" in capsys.readouterr().err


def test_a_family_without_a_plan_is_refused(tiny_folders, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = message(ModelError, lambda: open_model(tiny_folders["gpt2"], tensor_parallel=True))
    assert refused.startswith("Splitting has not been tried with the family gpt2")


def test_heads_that_cannot_be_shared_evenly_are_refused(tiny_folders, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    refused = message(ModelError, lambda: open_model(tiny_folders["llama-gqa"], tensor_parallel=True))
    assert refused == (
        "2 key-value heads cannot be shared evenly by 4 processes; start a number of them that divides 2."
    )


@pytest.mark.parametrize("option", [{"quantise": "nf4"}, {"device_map": "auto"}, {"remote": "local"}])
def test_it_goes_with_no_other_way_of_loading(tiny_folders, option, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = message(ModelError, lambda: open_model(tiny_folders["llama-mha"], tensor_parallel=True, **option))
    assert refused.startswith("A model is split as it is")


def test_packages_that_do_not_fit_are_named(tiny_folders, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delattr(splitting, "_get_parameter_plan")
    refused = message(ModelError, lambda: open_model(tiny_folders["llama-mha"], tensor_parallel=True))
    assert "cannot split a model with transformers" in refused

"""A family that is taken out of the table is guessed again; what cannot be guessed is told."""

import json

import pytest
from transformers import Gemma2Config

from conftest import message
from family_configs import CONFIGS, LLAMA_LIKE, save
from odd_trees import FAILING, HELD, register
from twotowers.cli import main
from twotowers.errors import FamilyError
from twotowers.models.families import FAMILIES
from twotowers.models.family import Family
from twotowers.tracing.guessing import guess

GUESSED = (
    "gpt_neox",
    "qwen2",
    "qwen3",
    "phi",
    "phi3",
    "olmo",
    "stablelm",
    "mixtral",
    "gemma",
    "olmo2",
    "glm4",
    "biogpt",
)
SAID = ("blocks", "final_norm", "attention", "attention_norm", "mlp", "out_proj", "norm", "gain", "norm_behind")


@pytest.fixture
def forgotten(monkeypatch):
    def forget(name):
        known = FAMILIES[name]
        monkeypatch.delitem(FAMILIES, name)
        return known

    return forget


@pytest.mark.parametrize("name", GUESSED)
def test_a_family_is_guessed_as_it_stands_in_the_table(name, forgotten, tmp_path):
    known = forgotten(name)
    found = guess(str(save(CONFIGS[name], tmp_path / "model")))
    assert found.holds, (found.entry, found.stopped, found.table)
    assert name not in FAMILIES
    for field in SAID:
        value, default = getattr(known, field), Family.__dataclass_fields__[field].default
        assert value == default or f"{field}={value!r}".replace("'", '"') in found.entry


@pytest.mark.parametrize("kind", HELD)
def test_a_decoder_with_other_names_is_read(kind, tmp_path):
    found = guess(str(save(register(kind)(**LLAMA_LIKE), tmp_path / "model")))
    assert found.holds, (found.entry, found.stopped, found.table)


@pytest.mark.parametrize("kind", FAILING)
def test_a_decoder_that_does_one_thing_otherwise_fails_where_it_does(kind, tmp_path):
    found = guess(str(save(register(kind)(**LLAMA_LIKE), tmp_path / "model")))
    assert FAILING[kind] in set(found.table[~found.table["holds"]]["identity"])


def test_the_command_prints_the_entry_and_the_identities(forgotten, tmp_path, capsys):
    forgotten("qwen2")
    assert main(["check", str(save(CONFIGS["qwen2"], tmp_path / "model")), "--guess"]) == 0
    said = capsys.readouterr().out
    assert said.startswith('"qwen2": Family(\n    blocks="model.layers",\n')
    assert "projected parts add up to the logits" in said
    assert "FAILS" not in said


def test_an_entry_that_is_not_right_says_what_fails(forgotten, tmp_path, capsys):
    forgotten("gemma2")
    folder = save(Gemma2Config(**LLAMA_LIKE, final_logit_softcapping=1.0), tmp_path / "gemma2")
    assert main(["check", str(folder), "--guess"]) == 1
    printed = capsys.readouterr()
    failing = [line for line in printed.out.splitlines() if "FAILS" in line]
    assert any(line.startswith("packed prompts answer as separate ones") for line in failing)
    assert "mend it by hand" in printed.err


def test_a_known_family_needs_no_guess(tiny_folders):
    assert "leave out --guess" in message(FamilyError, lambda: guess(str(tiny_folders["gpt2"])))


@pytest.mark.parametrize(
    ("model_type", "why"),
    [
        ("foollama", "transformers has no code for it, and code that comes with a model is never run"),
        ("llama2", "did you mean 'llama'?\n"),
        ("vit", "transformers has no decoder of it"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--guess"]])
def test_what_there_is_no_code_for_is_told_as_such(model_type, why, flags, folder, capsys):
    """It was said that the configuration could not be read, and that transformers was perhaps out of date."""
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert main(["check", str(folder), *flags]) == 2
    said = capsys.readouterr().err
    assert f"no supported model family '{model_type}'" in said
    assert why in said


def test_a_decoder_that_is_only_unknown_here_is_led_to_the_guess(tmp_path, capsys):
    assert main(["check", str(save(register("renamed")(**LLAMA_LIKE), tmp_path / "model"))]) == 2
    assert "twotowers check MODEL --guess tries" in capsys.readouterr().err

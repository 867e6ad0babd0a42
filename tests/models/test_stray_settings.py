"""Settings that stand in a configuration though its family has none of the name, or not there: none misleads us."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import twotowers
from conftest import make_sets, message
from family_configs import CONFIGS, WINDOW, save
from odd_configs import rope
from twotowers.errors import FamilyError
from twotowers.models.families import FAMILIES, require_family
from twotowers.models.family import context_length
from twotowers.models.model import open_model
from twotowers.prompts.packing import pack
from twotowers.tracing.capture import capture

LONG = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


def said(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


def config_of(name, tmp_path, **settings):
    return open_model(said(save(CONFIGS[name], tmp_path), **settings)).config


@pytest.mark.parametrize("name", ["gpt_neox", "mixtral", "bloom", "mpt"])
def test_a_model_that_sees_what_follows_is_refused_whatever_its_family(name, tmp_path):
    """Embedding models are made so of decoders; they answered as if they saw only what comes before, and the check
    held."""
    folder = said(save(CONFIGS[name], tmp_path), is_causal=False)
    assert "attends to what follows (is_causal is false" in message(FamilyError, lambda: open_model(folder))


@pytest.mark.parametrize("name", ["mixtral", "phi3", "starcoder2"])
def test_kinds_of_layers_do_not_hide_a_window_where_the_family_has_one_kind(name, tmp_path):
    """Its layers slide all the same, but prompts were as long as the context, and seen whole."""
    config = config_of(name, tmp_path, layer_types=["full_attention"] * 3)
    assert context_length(FAMILIES[name], config) == WINDOW


@pytest.mark.parametrize(("name", "head_dim"), [("olmo3", 4), ("gemma3_text", 8), ("mellum", 8)])
def test_each_of_several_rotations_may_end_the_prompt(name, head_dim, tmp_path):
    kinds = {"sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}
    long = {key: value[:head_dim] for key, value in LONG.items()}
    kinds["full_attention"] = rope("longrope", original_max_position_embeddings=16, **long)["rope_parameters"]
    assert context_length(FAMILIES[name], config_of(name, tmp_path, rope_parameters=kinds)) == 16


def test_where_the_first_rotation_ends_may_stand_beside_it(tmp_path):
    """transformers puts it into the rotation of most families only when it makes a network."""
    beside = {"rope_scaling": {"type": "longrope", **LONG}, "original_max_position_embeddings": 20}
    model = open_model(said(save(CONFIGS["arcee"], tmp_path), **beside, rope_parameters=None))
    assert model.context_length == 20


@pytest.mark.parametrize("stray", [{"head_dim": 4}, {"num_key_value_heads": 2}])
@pytest.mark.parametrize("name", ["gpt_neox", "gpt_bigcode", "mpt", "opt"])
def test_sizes_are_those_of_the_matrices(name, stray, tmp_path):
    """Each stopped with an error of torch."""
    folder = said(save(CONFIGS[name], tmp_path), **stray)
    model = twotowers.load(folder)
    assert twotowers.check(model)["holds"].all()
    one = make_sets(model)[0]
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        expected = torch.stack([plain(torch.tensor([p.ids])).logits[0, -1] for p in one.prompts])
    found = capture(model, pack([one], model.pad_id), logits=True).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("llava", "it reads more than text; save its text model alone"),
        ("glm4v", "it reads more than text; save its text model alone"),
        ("mistral4", "transformers has no decoder of it"),
        ("t5gemma", "transformers has no decoder of it"),
    ],
)
def test_a_name_that_transformers_knows_is_no_slip_of_the_pen(name, advice):
    """LLaVA was told to be a misspelt llama."""
    text = message(FamilyError, lambda: require_family(name))
    assert "did you mean" not in text
    assert advice in text

"""Fixtures: tiny random models of every family, and the real default model. Array shapes are checked throughout."""
# ruff: noqa: E402

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin make a busy machine ten times slower

from jaxtyping import install_import_hook

install_import_hook("twotowers", "beartype.beartype")  # for good: the package loads its wings when they are used

import gc
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import twotowers
from twotowers.prompts.tasks import load_task
from twotowers.toy.data import make_tokenizer, read_words

pytest_plugins = ["clones", "archives", "browsing", "own_tables", "vocabularies"]

# Properties of inputs made by chance: always the same few cases in `make test`, many new ones on request, with
#     pytest --hypothesis-profile=long
_ANYWHERE = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("short", max_examples=60, derandomize=True, **_ANYWHERE)
settings.register_profile("long", max_examples=10_000, print_blob=True, **_ANYWHERE)
settings.load_profile("short")

VOCABULARY = 700
DEMONSTRATIONS = [("cat", "foo"), ("seven", "bar"), ("two", "bar"), ("elephant", "foo"), ("nine", "bar")]
QUERIES = [("dog", "foo"), ("eleven", "bar"), ("grandmother", "foo")]


def pytest_collection_finish():
    """What is imported stays: a collector that looks through all of torch again and again takes a tenth of the time."""
    gc.collect()
    gc.freeze()


def tiny_config(family: str):
    if family == "gpt2":
        return GPT2Config(vocab_size=VOCABULARY, n_positions=256, n_embd=32, n_layer=4, n_head=4)
    return LlamaConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=256,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads={"llama-mha": 4, "llama-gqa": 2}[family],
        head_dim=16,  # not hidden_size / heads: a formula that assumes so fails
        rms_norm_eps=1e-3,
        tie_word_embeddings=False,
    )


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = [word for halves in load_task("words").texts.values() for half in halves.values() for word in half]
    lines = [f"{word}: {label}\n{word} : {label} " for word in words for label in ("foo", "bar")]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(lines, vocab_size=VOCABULARY, min_frequency=2, show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer)


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory) -> dict[str, Path]:
    """Tiny models in which *every* parameter is random: a bias left at zero would hide a forgotten bias."""
    torch.manual_seed(0)
    tokenizer, folders = tiny_tokenizer(), {}
    for family in ("gpt2", "llama-mha", "llama-gqa"):
        network = (GPT2LMHeadModel if family == "gpt2" else LlamaForCausalLM)(tiny_config(family))
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                centre = 1.0 if "norm" in name or ("ln_" in name and name.endswith("weight")) else 0.0
                parameter.copy_(centre + 0.3 * torch.randn_like(parameter))
        folders[family] = tmp_path_factory.mktemp("models") / f"tiny-{family}"
        network.save_pretrained(folders[family])
        tokenizer.save_pretrained(folders[family])
    return folders


@pytest.fixture(scope="session")
def tiny_models(tiny_folders):
    return {family: twotowers.load(folder) for family, folder in tiny_folders.items()}


@pytest.fixture(params=["gpt2", "llama-mha", "llama-gqa"])
def tiny(request, tiny_models):
    """A tiny random model of each family in turn."""
    return tiny_models[request.param]


@pytest.fixture
def tiny_gpt2(tiny_models):
    return tiny_models["gpt2"]


@pytest.fixture(scope="session")
def real():
    """The default model, from its wheel (converted once into the user's cache)."""
    return twotowers.load("smollm2-135m")


@pytest.fixture
def two_sets(tiny):
    """Two prompt sets of different lengths and templates."""
    return make_sets(tiny)


def make_sets(model):
    return [
        twotowers.prompt_set(model, DEMONSTRATIONS, QUERIES),
        twotowers.prompt_set(model, DEMONSTRATIONS[1:4], QUERIES[::-1], template="{text} : {label}", separator=" "),
    ]


@pytest.fixture
def empty_hub_cache(tmp_path, monkeypatch):
    """What the user has fetched before plays no part."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def folder(tiny_folders, tmp_path, monkeypatch):
    """A copy of a tiny model, to be damaged, and a cache of its own."""
    monkeypatch.setenv("TWOTOWERS_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_folders["gpt2"], tmp_path / "Tiny GPT"))


@pytest.fixture
def light_figures(monkeypatch):
    """Figures are drawn and laid out once, and their files stay empty: `tests/publishing` reads what is written."""

    def write(stem, drawing, **_):
        stem.parent.mkdir(parents=True, exist_ok=True)
        drawing.draw_without_rendering()
        for ending in ("svg", "png", "pdf", "json"):
            stem.with_name(f"{stem.name}.{ending}").touch()

    monkeypatch.setattr("twotowers.publishing.shown.write_figure", write)


ENTRY = {"made_of": {"results": {}, "look": {}}, "seconds": 1.0, "date": "2026-11-30T12:00:00+00:00"}  # of a chapter


def message(kind, action):
    """The one line with which an action is refused."""
    with pytest.raises(kind) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def toy_words():
    return read_words(make_tokenizer())

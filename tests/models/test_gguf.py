"""A GGUF file in place of a folder: the model that was written in it, or refused by name."""

import dataclasses

import gguf
import numpy as np
import pytest
import torch
from gguf_files import Kind, packed, write
from sentencepiece import SentencePieceProcessor
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

import twotowers
from conftest import make_sets, message, tiny_config
from family_configs import CONFIGS, network_of
from twotowers.errors import FamilyError, MemoryLimitError, ModelError
from twotowers.models.files import is_here
from twotowers.models.model import open_model
from twotowers.publishing.provenance import run_name
from twotowers.study import open_study
from vocabularies import carried, narrow

FOLDER = "give the model as a folder in Hugging Face layout"
WRITTEN = {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4"}  # by gguf itself
DREW = {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS"}
WIDE = LlamaConfig(
    vocab_size=700, hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False,
)  # fmt: skip
GEMMA = dataclasses.replace(CONFIGS["gemma3_text"], layer_types=["sliding_attention"] * 3, query_pre_attn_scalar=256)
FAMILIES = {
    "llama": tiny_config("llama-gqa"),
    "gpt2": GPT2Config(vocab_size=700, n_embd=32, n_layer=2, n_head=4),
    "gemma3_text": GEMMA,
    **{name: CONFIGS[name] for name in ("mistral", "qwen2", "starcoder2", "stablelm-parallel", "falcon-one-key")},
    **{name: CONFIGS[name] for name in ("bloom",)},
}
OTHERS = {  # what transformers would read as another model, and what the file says of it
    "stablelm": "says rope.dimension_count = 4, but transformers reads it as 2",
    "qwen3": "says attention.key_length = 16, but transformers reads it as 128",
    "falcon-groups": "says attention.head_count_kv = 2, but transformers reads it as 1",
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOTOWERS_CACHE", str(tmp_path / "cache"))


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def tokenizer(tiny_models):
    return tiny_models["gpt2"].tokenizer


@pytest.fixture(scope="module")
def network():
    return network_of(tiny_config("llama-gqa")).eval()


@pytest.fixture
def made(network, tokenizer, tmp_path):
    """The network as a GGUF file, with what a test does to it."""
    return lambda **options: write(network, tokenizer, tmp_path / "My model.gguf", **options)


def same(model, expected):
    ids = torch.randint(3, 700, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = model.nn._module(ids).logits, expected(ids).logits
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_a_gguf_file_is_the_model_that_was_written_in_it(made, network):
    file = made()
    model = twotowers.load(file)
    assert (model.name, model.key, model.kind) == ("My model", "my-model", "folder")
    same(model, network)
    assert twotowers.check(model)["holds"].all()
    assert is_here(str(file))
    assert run_name(open_study(str(file), scale="smoke")).startswith(f"my-model-{model.identity[:8]}")


# Families


@pytest.mark.parametrize("name", FAMILIES)
def test_the_families_that_transformers_reads_are_what_was_written(name, tokenizer, tmp_path):
    network = network_of(FAMILIES[name]).eval()
    model = twotowers.load(write(network, tokenizer, tmp_path / "family.gguf"))
    same(model, network)
    if name != "gemma3_text":  # transformers reads its tokenizer as one of SentencePiece, which this is not
        assert twotowers.check(model)["holds"].all()


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_which_transformers_would_make_another_model_is_refused(name, tokenizer, tmp_path):
    file = write(network_of(CONFIGS[name]), tokenizer, tmp_path / "family.gguf")
    text = message(ModelError, lambda: open_model(file))
    assert OTHERS[name] in text
    assert FOLDER in text
    assert not any((tmp_path / "cache" / "models").glob("family*"))


def test_a_family_of_no_use_is_refused_before_its_weights_are_read(made, monkeypatch):
    file = made()
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("was read"))
    content = file.read_bytes()
    file.write_bytes(content.replace(b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama", mamba(content)))
    assert "no supported model family 'mamba'" in message(FamilyError, lambda: open_model(file))


def mamba(content):
    assert b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama" in content
    return b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0mamba"


# Ways of storing


@pytest.mark.parametrize("kind", sorted(WRITTEN | DREW))
def test_matrices_are_read_as_plain_transformers_reads_them(kind, tokenizer, tmp_path):
    file = write(network_of(WIDE), tokenizer, tmp_path / "kind.gguf", Kind[kind])
    assert kind in {tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors}
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32).eval()
    model = twotowers.load(file)
    same(model, plain)
    assert twotowers.check(model)["holds"].all()


@pytest.mark.parametrize("kind", sorted(WRITTEN | DREW))
def test_a_matrix_is_what_its_way_of_storing_says(kind, tokenizer, tmp_path):
    network = network_of(WIDE)
    model = twotowers.load(write(network, tokenizer, tmp_path / "kind.gguf", Kind[kind]))
    stored = network.state_dict()["model.layers.0.mlp.up_proj.weight"].numpy()
    if kind in ("F32", "F16"):
        expected = stored.astype({"F32": np.float32, "F16": np.float16}[kind]).astype(np.float32)
    else:
        expected = gguf.dequantize(packed(stored, Kind[kind]), Kind[kind])
    assert torch.equal(model.nn._module.state_dict()["model.layers.0.mlp.up_proj.weight"], torch.tensor(expected))


# What transformers passes over


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"change": lambda own: own | {"rope_freqs.weight": torch.full((8,), 3.0)}}, "leaves rope_freqs.weight out"),
        ({"change": lambda own: own | {"blk.0.attn_q.bias": torch.ones(64)}}, "leaves blk.0.attn_q.bias out"),
        ({"change": lambda own: without(own, "blk.1.attn_q.weight")}, "lacks 1 tensors, model.layers.1.self_attn.q_"),
        ({"change": lambda own: without(own, "blk.1.attn_norm.weight")}, "lacks 1 tensors, model.layers.1.input_lay"),
        (
            {"change": lambda own: own | {"blk.0.attn_q.weight": torch.ones(32, 32)}},
            "are not of the sizes that it says",
        ),
        ({"say": lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)}, "says rope.scaling.type = linear"),
        ({"say": lambda w: w.add_rope_scaling_factor(4.0)}, "says rope.scaling.factor = 4.0"),
        ({"say": lambda w: w.add_logit_scale(0.5)}, "says logit_scale = 0.5"),
        ({"say": lambda w: w.add_add_bos_token(True) or w.add_string("tokenizer.ggml.pre", "default")}, None),
    ],
)
def test_what_transformers_passes_over_is_refused_by_name(made, options, part):
    file = made(**options)
    if part is None:
        assert open_model(file).tokenizer("cat")["input_ids"][0] == 0
        return
    assert part in message(ModelError, lambda: open_model(file))


def without(own, name):
    return {other: tensor for other, tensor in own.items() if other != name}


def test_what_changes_nothing_is_read(made, network):
    file = made(
        change=lambda own: own | {"rope_freqs.weight": torch.ones(8)}, say=lambda w: w.add_rope_scaling_factor(1.0)
    )
    same(twotowers.load(file), network)


def test_what_does_not_fit_while_it_is_dequantised_is_refused(made, monkeypatch):
    file = made()
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    assert "while it is dequantised to float32" in message(MemoryLimitError, lambda: open_model(file))


# Tokenizers


@pytest.mark.parametrize("begins", [None, False])
def test_a_sentencepiece_tokenizer_begins_as_its_file_says(vocabularies, tmp_path, begins):
    """Where the file says nothing, with the first token; transformers leaves it out."""
    own = SentencePieceProcessor(model_file=str(carried("sentencepiece")))
    say = lambda written: None if begins is None else written.add_add_bos_token(begins)  # noqa: E731
    file = write(network_of(narrow("sentencepiece", layers=1)), own, tmp_path / "pieces.gguf", say=say)
    model = open_model(file)
    for text in ("cat: foo\nseven: bar\ncow:", "cat : foo seven : bar cow :"):
        assert model.tokenizer(text)["input_ids"] == [own.bos_id()] * (begins is not False) + own.encode(text)
    assert make_sets(model)[0].prompts == make_sets(open_model(vocabularies("sentencepiece")))[0].prompts or not begins


def test_another_space_before_a_text_is_refused(tmp_path):
    own = SentencePieceProcessor(model_file=str(carried("sentencepiece")))
    network = network_of(narrow("sentencepiece", layers=1))
    file = write(network, own, tmp_path / "pieces.gguf", say=lambda written: written.add_add_space_prefix(False))
    assert "puts another space before a text than it says" in message(ModelError, lambda: open_model(file))


# Files that are no model


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is no GGUF file"),
        (b"\x80\x04", "is no GGUF file"),
        (b"GGUF", "cannot be read"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 16, "cannot be read"),
    ],
)
def test_a_file_that_is_no_gguf_model_is_refused_by_name(tmp_path, content, part):
    (tmp_path / "odd.gguf").write_bytes(content)
    assert part in message(ModelError, lambda: open_model(tmp_path / "odd.gguf"))
    assert not any((tmp_path / "cache").rglob("odd*"))


def test_a_file_cut_short_or_in_parts_is_refused(made, tmp_path):
    file = made()
    (tmp_path / "short.gguf").write_bytes(file.read_bytes()[:-2000])
    assert "short.gguf cannot be read" in message(ModelError, lambda: open_model(tmp_path / "short.gguf"))
    (tmp_path / "big-00001-of-00002.gguf").write_bytes(file.read_bytes())
    assert "merge the parts" in message(ModelError, lambda: open_model(tmp_path / "big-00001-of-00002.gguf"))

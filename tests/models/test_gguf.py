"""A GGUF file in place of a folder: the model that was written in it, or refused by name."""

import dataclasses

import gguf
import numpy as np
import pytest
import torch
from gguf_files import Kind, packed, write
from sentencepiece import SentencePieceProcessor
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

import twotowers
from conftest import make_sets, message, tiny_config
from family_configs import CONFIGS, LLAMA_LIKE, RMS, WINDOW, network_of
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
GEMMA = dataclasses.replace(
    CONFIGS["gemma3_text"], layer_types=["sliding_attention"] * 3, query_pre_attn_scalar=256, head_dim=256
)
GEMMA_2 = dataclasses.replace(
    CONFIGS["gemma2"],
    query_pre_attn_scalar=256,
    head_dim=256,
    attn_logit_softcapping=50.0,
    final_logit_softcapping=30.0,
    tie_word_embeddings=True,
)
FAMILIES = {
    "llama": tiny_config("llama-gqa"),
    "gpt2": GPT2Config(vocab_size=700, n_embd=32, n_layer=2, n_head=4),
    "gemma3_text": GEMMA,
    "gemma2": GEMMA_2,
    **{name: CONFIGS[name] for name in ("mistral", "qwen2", "starcoder2", "stablelm-parallel", "falcon-one-key")},
    "bloom": CONFIGS["bloom"],
    "phi3": Phi3Config(**RMS, sliding_window=WINDOW),  # fused projections, in attention and in the MLP
    # with the sizes of experts that transformers takes whatever the file says
    "qwen2_moe": Qwen2MoeConfig(
        **RMS, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=1408, shared_expert_intermediate_size=5632
    ),
    "qwen3_moe": Qwen3MoeConfig(
        **LLAMA_LIKE, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=768, norm_topk_prob=True
    ),
}
OTHERS = {  # what transformers would read as another model, and what the file says of it
    "stablelm": "says rope.dimension_count = 4, but transformers reads it as 2",
    "qwen3": "says attention.key_length = 16, but transformers reads it as 128",
    "gemma3_text": "does not say what scores are divided by, and transformers takes the root of 256, not of",
    "phi3": "says rope.dimension_count = 4, but transformers reads it as 8",
    "mixtral": "says expert_count = 4, but transformers reads it as 0",
    "qwen3_moe": "says expert_feed_forward_length = 24, but transformers reads it as 768",
    "falcon-one-norm": "says attention.head_count_kv = 2, but transformers reads it as 1",
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
    if not name.startswith("gemma"):  # transformers reads its tokenizer as one of SentencePiece, which this is not
        assert twotowers.check(model)["holds"].all()


@pytest.mark.parametrize("name", ["phi3", "starcoder2"])
def test_a_sliding_attention_reads_no_more_than_the_window_that_its_file_says(name, tokenizer, tmp_path):
    file = write(network_of(FAMILIES[name]), tokenizer, tmp_path / "window.gguf")
    assert open_model(file).context_length == WINDOW


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
    assert architecture("llama") in content
    for name in ("mamba", "gpt_oss"):
        file.write_bytes(content.replace(architecture("llama"), architecture(name)))
        assert f"family {name} are refused" in message(FamilyError, lambda: open_model(file))


def architecture(name):
    """How a file says it: the key, that a text follows, its length and the text."""
    return b"general.architecture\x08\0\0\0" + len(name).to_bytes(8, "little") + name.encode()


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
        ({"say": lambda w: w.add_add_bos_token(True)}, None),
        ({"split": "default"}, "does not say how its tokenizer splits a text (tokenizer.ggml.pre)"),
        ({"split": None}, "does not say how its tokenizer splits a text (tokenizer.ggml.pre)"),
        ({"split": "deepseek-v3"}, "says tokenizer.ggml.pre = deepseek-v3, which is not known here"),
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


def splitter(*first, regex=None):
    """A tokenizer with single bytes and some words, which splits as published ones of this kind do."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("1", "2"), ("\u0120", "\u0120"), ("a", "b"), ("\u0120", "c")]
    pieces = ["<s>", *alphabet, *(one + other for one, other in merges), "xyz"]
    own = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, merges, ignore_merges=regex is not None))
    rules = [*first, *([pre_tokenizers.Split(Regex(regex), "isolated")] if regex else [])]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex is None)
    own.pre_tokenizer = pre_tokenizers.Sequence([*rules, last])
    return PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<s>")


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
PUBLISHED = {
    "gpt-2": splitter(),
    "smollm": splitter(pre_tokenizers.Digits(individual_digits=True)),
    "llama-bpe": splitter(regex=LLAMA_3),
}
ODD_TEXTS = ("ab12 c", "ab  12", "ab   c\n\n c", "12ab, 1212'S c!\n", "xyz xyz", " c")


@pytest.mark.parametrize("split", PUBLISHED)
def test_a_text_is_split_as_the_file_says(split, tmp_path):
    own = PUBLISHED[split]
    config = LlamaConfig(**LLAMA_LIKE | {"vocab_size": len(own), "num_hidden_layers": 1})
    model = open_model(write(network_of(config), own, tmp_path / "split.gguf", split=split))
    for text in ODD_TEXTS:
        begins = [0] if split == "llama-bpe" else []  # where a file says nothing, that is how llama.cpp begins
        assert model.tokenizer(text)["input_ids"] == begins + own(text)["input_ids"], text
    others = [[other(text)["input_ids"] for text in ODD_TEXTS] for name, other in PUBLISHED.items() if name != split]
    assert [own(text)["input_ids"] for text in ODD_TEXTS] not in others


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

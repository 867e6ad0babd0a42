"""A GGUF file in place of a folder: read as plain transformers would, or refused by name."""

import json

import gguf
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

import twotowers
from conftest import make_sets, message
from twotowers.errors import ModelError
from twotowers.models.files import is_here
from twotowers.models.model import open_model
from twotowers.publishing.provenance import run_name
from twotowers.study import open_study

LAYERS, WIDTH, HEADS, INNER = 2, 32, 4, 48


@pytest.fixture(scope="module")
def network(tiny_models):
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tiny_models["gpt2"].tokenizer), hidden_size=WIDTH, intermediate_size=INNER,
            num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=2, max_position_embeddings=256,
            rms_norm_eps=1e-5, tie_word_embeddings=False,
        )
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def file(network, tiny_models, tmp_path_factory):
    """The network as a GGUF file, with the tokenizer of the tiny models in it."""
    place = tmp_path_factory.mktemp("gguf") / "My model.gguf"
    backend = tiny_models["gpt2"].tokenizer.backend_tokenizer
    written = gguf.GGUFWriter(place, "qwen2")
    written.add_context_length(256)
    written.add_embedding_length(WIDTH)
    written.add_block_count(LAYERS)
    written.add_feed_forward_length(INNER)
    written.add_head_count(HEADS)
    written.add_head_count_kv(2)
    written.add_layer_norm_rms_eps(1e-5)
    written.add_rope_freq_base(10_000.0)
    tokens = sorted(backend.get_vocab(), key=backend.get_vocab().get)
    written.add_tokenizer_model("gpt2")
    written.add_token_list(tokens)
    written.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    written.add_token_merges([" ".join(pair) for pair in merges(backend)])
    written.add_bos_token_id(0)
    written.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, LAYERS)
    for name, tensor in network.state_dict().items():
        written.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.numpy())
    written.write_header_to_file()
    written.write_kv_data_to_file()
    written.write_tensors_to_file()
    written.close()
    return place


def merges(backend):
    return json.loads(backend.to_str())["model"]["merges"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOTOWERS_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("cache")
def test_a_gguf_file_is_the_model_that_was_written_in_it(file, network):
    model = twotowers.load(file)
    assert (model.name, model.key, model.kind) == ("My model", "my-model", "folder")
    for s in make_sets(model):
        for prompt in s.prompts:
            ids = torch.tensor([prompt.ids])
            expected = network(ids).logits
            torch.testing.assert_close(model.nn._module(ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert twotowers.check(model)["holds"].all()
    assert is_here(str(file))
    assert run_name(open_study(str(file), scale="smoke")).startswith(f"my-model-{model.identity[:8]}")


@pytest.mark.usefixtures("cache")
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


@pytest.mark.usefixtures("cache")
def test_a_file_cut_short_or_in_parts_is_refused(file, tmp_path):
    (tmp_path / "short.gguf").write_bytes(file.read_bytes()[:-2000])
    assert "short.gguf cannot be read" in message(ModelError, lambda: open_model(tmp_path / "short.gguf"))
    (tmp_path / "big-00001-of-00002.gguf").write_bytes(file.read_bytes())
    assert "merge the parts" in message(ModelError, lambda: open_model(tmp_path / "big-00001-of-00002.gguf"))

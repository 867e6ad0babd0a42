"""What a folder says: tokenizers of SentencePiece's own file, sizes that cannot be, adapters, tokens without a row."""

import base64
import io
import json
import shutil

import pytest
import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import twotowers
from conftest import DEMONSTRATIONS, QUERIES, make_sets, message
from twotowers.errors import ModelError, PromptError
from twotowers.models.model import open_model

pytestmark = pytest.mark.usefixtures("empty_hub_cache")

WORDS = [text for text, _ in (*DEMONSTRATIONS, *QUERIES)] + ["cow", "horse"]


# Only tokenizer.model


def trained(kind):
    """A SentencePiece model, trained on a few words."""
    lines = [form.format(w, label) for w in WORDS for label in ("foo", "bar") for form in ("{}: {}", "{} : {}")] * 3
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=made, vocab_size=340, hard_vocab_limit=False, model_type=kind,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    return made.getvalue()


@pytest.fixture(scope="module")
def pieces():
    """One of the kind that Llama has."""
    return trained("bpe")


@pytest.fixture
def llama(pieces, tmp_path):
    """A tiny Llama as its weights first came: configuration, weights and tokenizer.model."""
    torch.manual_seed(0)
    size = sentencepiece.SentencePieceProcessor(model_proto=pieces).get_piece_size()
    config = LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        head_dim=16, max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    place = tmp_path / "tiny-llama"
    LlamaForCausalLM(config).save_pretrained(place)
    (place / "tokenizer.model").write_bytes(pieces)
    return place


@pytest.mark.parametrize("settings", [None, {}, {"tokenizer_class": "LlamaTokenizer"}])
def test_a_tokenizer_model_alone_is_read_as_its_models_were_trained(llama, pieces, settings):
    if settings is not None:
        (llama / "tokenizer_config.json").write_text(json.dumps(settings))
    own = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    tokenizer = open_model(llama).tokenizer
    for text in ("cat: foo\nseven: bar\ncow:", "cat : foo seven : bar cow :"):
        assert tokenizer(text)["input_ids"] == [own.bos_id(), *own.encode(text)]


def test_what_its_settings_say_of_the_first_token_counts(llama, pieces):
    said = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}
    (llama / "tokenizer_config.json").write_text(json.dumps(said))
    own = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    assert open_model(llama).tokenizer("cat: foo")["input_ids"] == own.encode("cat: foo")


@pytest.mark.parametrize("settings", [None, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}])
@pytest.mark.parametrize("family", ["mistral", "mixtral", "phi3", "seed_oss"])
def test_a_tokenizer_model_alone_is_read_so_whatever_its_family(llama, pieces, family, settings):
    """transformers cuts texts otherwise for some: without the space before them."""
    said = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(said | {"model_type": family}))
    if settings is not None:
        (llama / "tokenizer_config.json").write_text(json.dumps(settings))
    own = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    first = [own.bos_id()] if settings or family in ("mistral", "mixtral") else []
    assert open_model(llama).tokenizer("cat: foo\ncow:")["input_ids"] == first + own.encode("cat: foo\ncow:")


def test_a_tokenizer_model_that_transformers_cuts_otherwise_is_refused(llama):
    """Of the other kind of SentencePiece it made merges, and other tokens, and said nothing."""
    (llama / "tokenizer.model").write_bytes(trained("unigram"))
    text = message(ModelError, lambda: open_model(llama))
    assert "(transformers cuts texts otherwise than SentencePiece itself); tokenizer.model stands alone, so" in text


def test_every_identity_holds_with_a_tokenizer_model_alone(llama):
    model = twotowers.load(llama)
    assert twotowers.check(model)["holds"].all()
    sets = make_sets(model)
    assert all(s.shared > 0 for s in sets)
    assert len(twotowers.knockout(model, sets)) == 8


# Tokenizers that cannot be read


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("tokenizer.model", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("tokenizer.model", b"", "is empty, so fetch it again"),
        ("tokenizer.model", base64.b64encode(b"!") + b" 0\n" + base64.b64encode(b'"') + b" 1\n", "format of tiktoken"),
        ("tokenizer.model", b"\x00\x01\x02 and no more", "is no SentencePiece model"),
        ("tokenizer.json", b"{", "tokenizer.json is no JSON object, so it is damaged"),
        ("tokenizer.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("tokenizer.json", b'{"version": "9"}', "open it with AutoTokenizer"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_says_what_is_wrong_and_what_to_do(llama, name, content, remedy):
    (llama / name).write_bytes(content)
    text = message(ModelError, lambda: open_model(llama))
    assert f"The tokenizer in {llama} cannot be read" in text
    assert remedy in text


# Sizes


@pytest.mark.parametrize(
    ("family", "name", "size"),
    [
        ("gpt2", "n_layer", 1_000_000),
        ("gpt2", "n_layer", 10**30),
        ("gpt2", "n_layer", 0),
        ("gpt2", "n_embd", 10**7),
        ("gpt2", "n_head", -4),
        ("gpt2", "vocab_size", 1e12),
        ("llama-gqa", "num_hidden_layers", 1_000_000),
        ("llama-gqa", "num_key_value_heads", 0),
        ("llama-gqa", "intermediate_size", 10**12),
        ("llama-gqa", "max_position_embeddings", 10**15),
    ],
)
def test_a_size_that_cannot_be_is_refused_at_once(tiny_folders, tmp_path, monkeypatch, family, name, size):
    folder = shutil.copytree(tiny_folders[family], tmp_path / "odd")
    settings = json.loads((folder / "config.json").read_text())
    assert name in settings
    (folder / "config.json").write_text(json.dumps(settings | {name: size}))
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *a, **k: pytest.fail("was read"))
    text = message(ModelError, lambda: open_model(folder))
    assert f"its {name} is {size:,}" in text
    assert "mend its config.json" in text


# Adapters


def test_an_adapter_alone_is_refused_with_its_base(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    save_file({"a": torch.zeros(2)}, folder / "adapter_model.safetensors")
    text = message(ModelError, lambda: open_model(folder))
    assert "is an adapter (adapter_config.json), no whole model; merge it into its base owner/base" in text


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_beside_weights_is_refused_and_by_itself_is_no_weights(folder, name):
    (folder / name).write_text("{}")
    text = message(ModelError, lambda: open_model(folder))
    assert f"has an adapter ({name}) beside its weights; merge it" in text
    (folder / "model.safetensors").unlink()
    assert "no whole model" in message(ModelError, lambda: open_model(folder))


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"cache_implementation": 3}', '{"max_length": "long"}'])
def test_how_a_folder_would_generate_is_not_read_and_cannot_be_broken(folder, content):
    """A broken file was told as damaged weights, though nothing is ever generated."""
    expected = twotowers.load(folder).nn._module.state_dict()
    (folder / "generation_config.json").write_text(content)
    loaded = twotowers.load(folder).nn._module.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


# Tokens


def test_a_token_that_the_model_does_not_embed_is_refused_by_name(folder):
    tokenizer = open_model(folder).tokenizer
    tokenizer.add_tokens(["zeppelin"])
    tokenizer.save_pretrained(folder)
    model = twotowers.load(folder)
    assert len(model.tokenizer) > model.config.vocab_size
    assert len(make_sets(model)) == 2  # other prompts are as they were
    number = f"the token 'zeppelin', number {len(tokenizer) - 1}, but the model embeds 700 only"
    queries = [("zeppelin", "foo")]
    assert number in message(PromptError, lambda: twotowers.prompt_set(model, DEMONSTRATIONS, queries))
    assert number in message(PromptError, lambda: twotowers.read_words(model, "cat : foo zeppelin :"))


def test_a_text_of_which_the_tokenizer_keeps_nothing_is_refused_by_name(folder):
    model = twotowers.load(folder)
    backend = model.tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Replace(Regex("[\N{SNOWMAN}!]"), "")
    for pairs in ((DEMONSTRATIONS, [("\N{SNOWMAN}", "foo")]), ([*DEMONSTRATIONS, ("\N{SNOWMAN}", "foo")], QUERIES)):
        text = message(PromptError, lambda pairs=pairs: twotowers.prompt_set(model, *pairs))
        assert "keeps nothing of '\N{SNOWMAN}'" in text
    gone = message(
        PromptError, lambda: twotowers.prompt_set(model, DEMONSTRATIONS, QUERIES, template="{text}! {label}")
    )
    assert "keeps nothing of '!'" in gone
    assert "keeps nothing of '!!'" in message(PromptError, lambda: twotowers.read_words(model, "!!"))


def test_a_tokenizer_that_stops_at_a_word_it_lacks_is_told_in_one_sentence(folder):
    """It was an error of another library: words by themselves, and none for those that it does not have."""
    backend = Tokenizer(models.WordLevel({"cat": 0, ":": 1}))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    text = message(PromptError, lambda: twotowers.prompt_set(open_model(folder), DEMONSTRATIONS, QUERIES))
    assert "cannot read 'a:' (WordLevel error: Missing [UNK] token from the vocabulary); use words that it" in text

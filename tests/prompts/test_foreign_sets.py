"""Prompt sets that were made for another model: with the same tokenizer they are taken, else refused by name."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import twotowers
from conftest import DEMONSTRATIONS, QUERIES, VOCABULARY, make_sets, message
from twotowers.errors import PromptError
from twotowers.prompts.sets import prompt_set
from twotowers.prompts.variants import swapped

CALLS = {
    "knockout": lambda model, sets: twotowers.knockout(model, sets, []),
    "read_words": lambda model, sets: twotowers.read_words(model, sets[0]),
    "imbalance": lambda model, sets: twotowers.imbalance(model, {0.5: sets}, [(1, 0)]),
}


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A model of another tokenizer with as many tokens, and one of the same tokenizer with a short context."""
    bpe = ByteLevelBPETokenizer()
    lines = [f"{text}: {label}\n" for text, label in DEMONSTRATIONS + QUERIES] * 9 + ["quite another text of words"] * 9
    bpe.train_from_iterator(lines, vocab_size=VOCABULARY, min_frequency=2, show_progress=False)
    folders = {}
    for name, length in (("another", 256), ("short", 16)):
        folders[name] = tmp_path_factory.mktemp(name)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=length,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
        LlamaForCausalLM(config).save_pretrained(folders[name])
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer).save_pretrained(folders["another"])
    return folders


@pytest.fixture(scope="module")
def another(others):
    return twotowers.load(others["another"])


@pytest.fixture(scope="module")
def short(others, tiny_models):
    tiny_models["gpt2"].tokenizer.save_pretrained(others["short"])
    return twotowers.load(others["short"])


@pytest.mark.parametrize("change", [lambda s: s, swapped], ids=["as made", "swapped"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_set_of_another_tokenizer_is_refused(tiny_gpt2, another, call, change):
    sets = [change(s) for s in make_sets(tiny_gpt2)]
    text = message(PromptError, lambda: call(another, sets))
    assert "is of another tokenizer than" in text
    assert "make it with prompt_set for this model" in text


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_set_that_is_longer_than_the_context_is_refused(tiny_gpt2, short, call):
    assert "reads at most 16" in message(PromptError, lambda: call(short, make_sets(tiny_gpt2)))


def test_a_set_of_the_same_tokenizer_is_taken(tiny_models):
    sets = make_sets(tiny_models["gpt2"])
    assert sets == make_sets(tiny_models["llama-gqa"])
    found = [twotowers.knockout(tiny_models["llama-gqa"], own) for own in (sets, make_sets(tiny_models["llama-gqa"]))]
    pd.testing.assert_frame_equal(*found)
    unknown = [replace(s, tokens=()) for s in sets]  # made by hand
    assert unknown == sets
    twotowers.knockout(tiny_models["llama-gqa"], unknown, [])


def test_pairs_may_be_rows_of_an_array(tiny_gpt2):
    table = pd.DataFrame(DEMONSTRATIONS, columns=["text", "label"])
    expected = prompt_set(tiny_gpt2, DEMONSTRATIONS, QUERIES)
    for rows in (table.to_numpy(), np.array(DEMONSTRATIONS), [*table.itertuples(index=False)]):
        assert prompt_set(tiny_gpt2, list(rows), QUERIES) == expected

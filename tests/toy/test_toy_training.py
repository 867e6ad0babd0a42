"""What toy-gpt2 is trained on, and how: labels are random, held-out pairs never come, a step lowers the loss."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import twotowers
from twotowers.errors import PromptError
from twotowers.prompts.encoding import Reader
from twotowers.prompts.sets import TEMPLATES, prompt_set
from twotowers.toy import train as toy
from twotowers.toy.data import (
    TRAINING_LABELS,
    categories,
    draw_held_out_categories,
    draw_training_categories,
    draw_words,
    held_out,
    lists,
    make_tokenizer,
    prompts,
)


def category_of(toy_words):
    """Token id -> number of its category."""
    return {int(i): row for row, ids in enumerate(toy_words.ids) for i in ids if i >= 0}


def test_categories_are_disjoint_and_every_word_is_one_token(toy_words):
    book, own = categories()
    texts = [word for group in (book, own) for members in group.values() for word in members]
    assert len(set(texts) | set(TRAINING_LABELS)) == len(texts) + len(TRAINING_LABELS)
    assert len(category_of(toy_words)) == len(texts)


@pytest.mark.parametrize("begun", [[0], [0, 10], [0, 10, 20], [0, 10, 3000]])
def test_no_training_sequence_has_a_held_out_pair(toy_words, begun):
    number, rng, held = category_of(toy_words), np.random.default_rng(0), held_out(toy_words)
    for _ in range(5):
        tokens, _, _, listed = toy.batch(toy.Recipe(), toy_words, rng, 3500, begun)
        for sequence in [*tokens.tolist(), *([] if listed is None else listed.tolist())]:
            found = sorted({number[i] for i in sequence if i in number})
            assert not held[np.ix_(found, found)].any()


def test_pairs_of_the_book_are_held_out_and_every_category_is_told_from_most_others(toy_words):
    held, n = held_out(toy_words), toy_words.n_book
    assert (held == held.T).all()
    assert not held[n:].any()
    assert (held[:n].sum(1) == 3).all()
    assert not (held.astype(int) @ held.astype(int) * held).any()  # no three from each other
    drawn = draw_held_out_categories(toy_words, np.random.default_rng(0), 500)
    assert held[drawn[:, 0], drawn[:, 1]].all()


def test_labels_are_random_for_each_prompt(toy_words):
    """The same category has many labels over prompts, and one within a prompt."""
    rng = np.random.default_rng(0)
    category = np.tile([toy_words.n_book, toy_words.n_book + 1], (600, 1))
    tokens, which, period = prompts(toy_words, rng, category, 8, 64)
    labels = tokens[:, 2::period]
    for row, classes in zip(labels, which, strict=True):
        assert all(len(set(row[classes == c].tolist())) <= 1 for c in (0, 1))
    counts = torch.bincount(labels[which == 0], minlength=toy_words.labels.max() + 1)[toy_words.labels]
    assert (counts > 0).all()
    assert counts.max() < 4 * counts.min()


def test_lists_are_of_one_category(toy_words):
    number = category_of(toy_words)
    for row in lists(toy_words, np.random.default_rng(0), 50, 16).tolist():
        assert len({number[i] for i in row}) == 1


def test_few_words_are_few_and_do_not_repeat_before_they_are_used_up(toy_words):
    category = draw_training_categories(toy_words, np.random.default_rng(0), 20, 3)
    drawn = draw_words(toy_words, np.random.default_rng(1), category, 4, 8)
    assert (drawn >= 0).all()
    for row in drawn.reshape(-1, 8):
        assert len(set(row[:4])) == len(set(row)) == 4


def test_training_steps_write_a_model_that_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "ROWS", 8)
    recipe = replace(toy.Recipe(), steps=2, growth=1, patience=2, every=3, batch=4, lists=2)
    toy.train(recipe, tmp_path / "model")
    loaded = twotowers.load(tmp_path / "model")
    assert (tmp_path / "model" / "curve.csv").read_text().count("\n") == 4
    untrained = toy.new_model(len(loaded.tokenizer), recipe.seed)
    assert not torch.equal(loaded.nn._module.lm_head.weight, untrained.lm_head.weight.half().float())
    command = json.loads((tmp_path / "model" / "training.json").read_text())["command"]
    assert "--steps 2" in command
    assert "--patience 2" in command


def test_the_steps_of_the_mechanism_are_read_where_they_are_planted():
    """Prompts of three demonstrations and a query; one head takes each step, all others look at themselves."""
    which = torch.tensor([[0, 1, 0, 0], [1, 1, 0, 1]])  # w : l  w : l  w : l  w :
    pattern = torch.eye(11).repeat(2, 2, 2, 1, 1)
    pattern[0, :, 1, 5] = 0.0
    pattern[0, :, 1, 5, 3] = 0.6  # the second label looks at its own word
    pattern[1, :, 0, 9] = pattern[1, :, 1, 10] = 0.0
    for row, own, other in ((0, (2, 8), 5), (1, (2, 5), 8)):
        pattern[1, row, 0, 9, list(own)] = 0.4  # the query's word looks at labels of its class
        pattern[1, row, 0, 9, other] = 0.2
    pattern[1, :, 1, 10, 9] = 0.9  # the last position looks at the query's word
    steps = toy.steps_taken(pattern, which, 3)
    assert steps == pytest.approx({"gather": 0.2, "match_last": 0.0, "match_query": 0.6, "hand_on": 0.9})


def test_a_loss_falls_when_a_batch_is_seen_again(toy_words):
    torch.manual_seed(0)
    network = toy.new_model(len(make_tokenizer()), 0)
    tokens, which, is_label, listed = toy.batch(toy.Recipe(), toy_words, np.random.default_rng(0), 1600, [0, 10, 1500])
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(4):
        loss, right = toy.loss_of(network, tokens, is_label, listed, 0.3)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert right.shape == which.shape == toy.known(which).shape


@dataclass
class Reading:
    """A tokenizer without a model, which is all that prompts need."""

    tokenizer: object
    name: str = "toy"
    context_length: int = 128


@pytest.mark.parametrize("template", TEMPLATES)
def test_prompts_share_their_prefix_and_labels_are_one_token(template):
    reader: Reader = Reading(make_tokenizer())
    text, separator = TEMPLATES[template]
    demonstrations, queries = [("cat", "foo"), ("seven", "bar")], [("dog", "foo"), ("nine", "bar")]
    made = prompt_set(reader, demonstrations, queries, template=text, separator=separator)
    assert made.shared == made.prompts[0].query[0] > made.prompts[0].label_positions[-1]
    assert made.label_ids == tuple(reader.tokenizer.convert_tokens_to_ids(["bar", "foo"]))


def test_a_word_that_the_tokenizer_does_not_know_is_named():
    with pytest.raises(PromptError, match="does not know 'zeppelin'"):
        prompt_set(Reading(make_tokenizer()), [("cat", "foo"), ("zeppelin", "bar")], [("dog", "foo")])

"""Draws of prompt sets: seeded, balanced, of one half, and the same whatever else is asked for."""

from collections import Counter

import pytest

from twotowers.errors import PromptError, TaskError
from twotowers.prompts.sets import TEMPLATES, sample_sets
from twotowers.prompts.tasks import load_task


@pytest.fixture(scope="module")
def words():
    return load_task("words")


def draw(reader, words, **changes):
    asked = {"n_sets": 6, "shots": 3, "n_queries": 4, "seed": 0} | changes
    half = asked.pop("half", "evaluation")
    return sample_sets(reader, words, half, **asked)


@pytest.fixture
def drawn(tiny_gpt2, words):
    return draw(tiny_gpt2, words)


def test_the_same_seed_draws_the_same_and_another_seed_other_sets(tiny_gpt2, words, drawn):
    assert draw(tiny_gpt2, words) == drawn
    assert all(a != b for a, b in zip(draw(tiny_gpt2, words, seed=1), drawn, strict=True))


def test_a_longer_list_begins_with_the_shorter(tiny_gpt2, words, drawn):
    assert draw(tiny_gpt2, words, n_sets=9)[:6] == drawn


def test_sets_differ_in_categories_and_order(drawn):
    assert len({s.demonstrations for s in drawn}) == len(drawn)
    orders = {tuple(label for _, label in s.demonstrations) for s in drawn}
    assert len(orders) > 1


def test_labels_are_balanced_among_demonstrations_and_among_queries(drawn):
    for s in drawn:
        assert Counter(label for _, label in s.demonstrations) == {"foo": 3, "bar": 3}
        assert Counter(label for _, label in s.queries) == {"foo": 2, "bar": 2}


def test_each_label_stands_for_one_category(words, drawn):
    category = {text: name for name, halves in words.texts.items() for half in halves.values() for text in half}
    for s in drawn:
        meant = {(label, category[text]) for text, label in (*s.demonstrations, *s.queries)}
        assert len(meant) == 2
        assert len({name for _, name in meant}) == 2


def test_either_label_may_stand_for_a_category(tiny_gpt2, words):
    order = {t: i for i, halves in enumerate(words.texts.values()) for half in halves.values() for t in half}
    foo_first = 0
    for s in draw(tiny_gpt2, words, n_sets=40, shots=1, n_queries=2):
        place = {label: order[text] for text, label in s.demonstrations}
        foo_first += place["foo"] < place["bar"]
    assert 10 < foo_first < 30


def test_no_text_is_both_demonstration_and_query_nor_shown_twice(drawn):
    for s in drawn:
        texts = [text for text, _ in (*s.demonstrations, *s.queries)]
        assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("half", ["selection", "evaluation"])
def test_only_words_of_the_half_are_drawn(tiny_gpt2, words, half):
    own = {text for halves in words.texts.values() for text in halves[half]}
    for s in draw(tiny_gpt2, words, half=half):
        assert {text for text, _ in (*s.demonstrations, *s.queries)} <= own


def test_queries_are_the_same_for_any_shots_and_fewer_demonstrations_are_among_the_more(tiny_gpt2, words, drawn):
    for fewer, more in zip(draw(tiny_gpt2, words, shots=1), drawn, strict=True):
        assert fewer.queries == more.queries
        assert set(fewer.demonstrations) < set(more.demonstrations)


def test_the_template_changes_no_draw(tiny_gpt2, words, drawn):
    template, separator = TEMPLATES["paper"]
    for other, s in zip(draw(tiny_gpt2, words, template=template, separator=separator), drawn, strict=True):
        assert (other.demonstrations, other.queries) == (s.demonstrations, s.queries)
        assert other.prompts != s.prompts


def test_more_shots_than_words_are_refused(tiny_gpt2, words):
    with pytest.raises(TaskError, match="in its selection half but 40 are needed"):
        draw(tiny_gpt2, words, shots=38)


def test_an_odd_number_of_queries_is_refused(tiny_gpt2, words):
    with pytest.raises(PromptError, match=r"3 queries cannot be balanced .*; ask for an even number"):
        draw(tiny_gpt2, words, n_queries=3)

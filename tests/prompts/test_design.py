"""Every pair of categories comes equally often, and in either role: counted, not believed."""

from collections import Counter
from itertools import chain, combinations

import numpy as np
import pandas as pd
import pytest

from twotowers.prompts.design import category_pairs
from twotowers.prompts.sets import categories_of, sample_sets
from twotowers.prompts.tasks import load_task
from twotowers.prompts.variants import few_queries, prompt_set_of, reorder, swapped


def deal(n, number, seed=0):
    return category_pairs([f"c{i}" for i in range(n)], number, np.random.default_rng(seed))


def spread(counts, n):
    """The most minus the least, categories that never come among them."""
    numbers = [counts[f"c{i}"] for i in range(n)]
    return max(numbers) - min(numbers)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 11, 12])
def test_one_cycle_shows_every_pair_once_and_the_next_with_its_labels_exchanged(n, seed):
    every = n * (n - 1) // 2
    pairs = deal(n, 2 * every, seed)
    wanted = {frozenset(pair) for pair in combinations([f"c{i}" for i in range(n)], 2)}
    assert Counter(map(frozenset, pairs[:every])) == Counter(wanted)
    assert Counter(pairs) == Counter([*pairs[:every], *[(b, a) for a, b in pairs[:every]]])
    assert len(set(pairs)) == 2 * every


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [2, 3, 5, 8, 11, 12])
def test_in_one_cycle_each_category_is_foo_as_often_as_bar_or_once_more_or_less(n, seed):
    pairs = deal(n, n * (n - 1) // 2, seed)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    assert all(abs(first[f"c{i}"] - second[f"c{i}"]) <= 1 for i in range(n))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [8, 12])
def test_a_part_of_a_cycle_shows_categories_as_equally_often_as_it_can(n, seed):
    for number in range(1, n * (n - 1) // 2):
        pairs = deal(n, number, seed)
        assert spread(Counter(chain(*pairs)), n) <= 1
        assert len({frozenset(pair) for pair in pairs}) == number


@pytest.mark.parametrize("n", [5, 11])
def test_an_odd_number_of_categories_leaves_one_out_a_round(n):
    for number in range(1, n * (n - 1) // 2):
        assert spread(Counter(chain(*deal(n, number))), n) <= 2


def test_a_longer_list_begins_with_the_shorter_and_a_seed_decides():
    assert deal(12, 66)[:20] == deal(12, 20)
    assert deal(12, 66) == deal(12, 66)
    assert deal(12, 66) != deal(12, 66, seed=1)
    assert len({tuple(deal(2, 4, seed)) for seed in range(20)}) == 2  # either class may begin as foo


# In prompt sets


@pytest.fixture
def drawn(tiny_gpt2):
    return sample_sets(tiny_gpt2, load_task("words"), "evaluation", n_sets=66, shots=1, n_queries=2, seed=0)


def test_sets_are_of_the_categories_that_they_name(drawn):
    of = {text: name for name, halves in load_task("words").texts.items() for half in halves.values() for text in half}
    for s in drawn:
        for text, label in (*s.demonstrations, *s.queries):
            assert s.categories[s.labels.index(label)] == of[text]


def test_sixty_six_sets_show_every_pair_of_twelve_categories_once(drawn):
    table = categories_of(drawn)
    assert list(table.columns) == ["set", "first", "second"]
    assert table["set"].tolist() == [*range(66)]
    assert len({frozenset(pair) for pair in zip(table["first"], table["second"], strict=True)}) == 66
    assert set(pd.concat([table["first"], table["second"]]).value_counts()) == {11}
    assert set(table["first"].value_counts()) == {5, 6}


def test_selection_and_evaluation_sets_are_dealt_apart(tiny_gpt2, drawn):
    other = sample_sets(tiny_gpt2, load_task("words"), "selection", n_sets=12, shots=1, n_queries=2, seed=0)
    assert [s.categories for s in other] != [s.categories for s in drawn[:12]]
    assert {name for s in other for name in s.categories} == set(load_task("words").categories)


def test_variants_of_a_set_keep_its_categories(tiny_gpt2, drawn):
    s = drawn[0]
    assert few_queries(s).categories == prompt_set_of(s, 0).categories == s.categories
    assert reorder(tiny_gpt2, s, (1, 0)).categories == s.categories
    assert swapped(s).categories == s.categories[::-1]
    assert swapped(swapped(s)) == s

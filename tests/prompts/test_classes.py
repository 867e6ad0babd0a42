"""More than two classes in one prompt: which are shown, with which labels, how a task asks for them."""

import re
from collections import Counter

import numpy as np
import pytest

from conftest import message
from twotowers.errors import LabelError, TaskError
from twotowers.models.model import open_model
from twotowers.prompts.design import category_groups, category_pairs
from twotowers.prompts.label_tokens import label_tokens
from twotowers.prompts.sets import categories_of, sample_sets
from twotowers.prompts.task_labels import MOST, WORDS
from twotowers.prompts.tasks import load_task, portable
from twotowers.prompts.variants import few_queries, swapped
from twotowers.publishing.provenance import run_name, run_title
from twotowers.study import open_study

NAMES = [f"c{i}" for i in range(7)]


@pytest.fixture(scope="module")
def toy():
    return open_model("toy-gpt2")


@pytest.fixture(scope="module")
def reader():
    return open_model("smollm2-135m")


@pytest.fixture
def four(tmp_path):
    """A file of four classes, each with texts of the word task."""
    words = load_task("words").texts
    rows = [
        f"{word},{name}"
        for name in ("animals", "countries", "family", "numbers")
        for half in words[name].values()
        for word in half
    ]
    (tmp_path / "four.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return str(tmp_path / "four.csv")


def deal(n, number, shown, seed=0):
    return category_groups(NAMES[:n], number, np.random.default_rng(seed), shown=shown)


@pytest.mark.parametrize(("n", "shown"), [(3, 3), (4, 4), (7, 3), (7, 5)])
def test_in_as_many_sets_as_there_are_categories_each_has_each_label_once(n, shown):
    groups = deal(n, 3 * n, shown)
    for begin in range(0, 3 * n, n):
        turn = groups[begin : begin + n]
        assert all(len(set(group)) == shown for group in turn)
        for place in range(shown):
            assert Counter(group[place] for group in turn) == Counter(NAMES[:n])
    assert groups[:n] != groups[n : 2 * n]  # the circle is drawn anew
    assert deal(n, n + 1, shown) == groups[: n + 1]


def test_two_at_a_time_are_the_pairs_of_always():
    pairs = category_pairs(NAMES, 30, np.random.default_rng(3))
    assert deal(7, 30, 2, seed=3) == pairs


@pytest.mark.parametrize("classes", [3, 4])
def test_sets_are_balanced_in_demonstrations_and_queries(toy, classes):
    task = load_task(f"words:classes={classes}")
    sets = sample_sets(toy, task, "evaluation", n_sets=12, shots=2, n_queries=2 * classes, seed=1)
    for s in sets:
        assert s.labels == tuple(sorted(WORDS[:classes]))
        assert [len(set(x)) for x in (s.label_ids, s.categories)] == [classes, classes]
        for pairs in (s.demonstrations, s.queries):
            assert set(Counter(label for _, label in pairs).values()) == {2}
        for text, label in (*s.demonstrations, *s.queries):
            assert text in task.texts[s.categories[s.labels.index(label)]]["evaluation"]
    table = categories_of(sets)
    assert list(table.columns) == ["set", "first", "second", "third", "fourth"][: classes + 1]
    for label in table.columns[1:]:
        assert set(table[label].value_counts()) == {1}  # 12 sets of 12 categories


def test_swapped_labels_move_on_by_one_and_come_back(toy):
    (s,) = sample_sets(toy, load_task("words:classes=3"), "selection", n_sets=1, shots=2, n_queries=3, seed=0)
    once = swapped(s)
    following = dict(zip(s.labels, (*s.labels[1:], s.labels[0]), strict=True))
    assert [label for _, label in once.demonstrations] == [following[label] for _, label in s.demonstrations]
    assert dict(zip(once.categories, once.labels, strict=True)) == {
        c: following[label] for c, label in zip(s.categories, s.labels, strict=True)
    }
    for prompt, (_, label) in zip(once.prompts, once.queries, strict=True):
        shown = [toy.tokenizer.decode(prompt.ids[i]).strip() for i in prompt.label_positions]
        assert shown == [label for _, label in once.demonstrations]
        assert label in once.labels
    assert swapped(swapped(once)) == s
    assert [label for _, label in few_queries(s).queries] == [label for _, label in s.queries]


def test_a_task_says_how_many_classes_it_shows_and_two_is_what_it_was(four):
    task = load_task(f"{four}:classes=all")
    assert (task.name, task.classes, task.labels.asked) == ("four.csv:classes=4", 4, "qux,foo,baz,bar")
    assert load_task(f"{four}:classes=4:shots=2").name == "four.csv:classes=4:shots=2"
    assert load_task("words:classes=2") == load_task("words")
    own = load_task("words:labels=up,down,left:classes=3:shots=1")
    assert own.name == "words:classes=3:shots=1:labels=up,left,down"
    assert load_task(own.name) == own
    assert portable(f"{four}:classes=all") == f"{four}:classes=all"
    said = own.account
    assert "The 3 categories of a set are labelled up, left and down" in said


def test_natural_labels_are_the_classes_own_and_flipped_those_of_the_next(four):
    for asked in ("natural", "flipped"):
        task = load_task(f"{four}:classes=all:labels={asked}")
        assert task.labels.names == ("first", "second", "third", "fourth")
        words = task.labels.words(["a", "b", "c", "d"])
        assert list(words.values()) == (["a", "b", "c", "d"] if asked == "natural" else ["b", "c", "d", "a"])


def test_a_run_of_more_classes_has_a_name_and_facts_of_its_own(four):
    two, many = (open_study("toy-gpt2", f"{four}{option}", "smoke") for option in ("", ":classes=all"))
    assert "the classes" not in two.facts()
    assert many.facts()["the classes"] == 4
    assert run_name(many) != run_name(two)
    assert "classes-4" in run_name(many)
    assert run_title(many).endswith("four.csv:classes=4")
    assert (two.scale.queries, many.scale.queries) == (2, 4)  # as many of each label
    assert len(many.evaluation[0].queries) == 4


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("words:classes=1", "whole number from 2 to 8, or all"),
        ("words:classes=some", "whole number from 2 to 8, or all"),
        ("words:classes=all", "has 12 categories, but a prompt set shows 8 at most"),
        (f"words:classes={MOST + 1}", "whole number from 2 to 8, or all"),
        ("words:classes=3:classes=4", "says 'classes' twice"),
        ("words:classes=3:labels=foo,bar", "give 3 different words"),
        ("words:labels=foo,bar,baz", "give two different words"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_sentence(name, part):
    assert part in message(TaskError, lambda: load_task(name))


def test_too_few_categories_are_named(four):
    assert "has 4 categories, so it cannot show 5" in message(TaskError, lambda: load_task(f"{four}:classes=5"))


@pytest.mark.parametrize("classes", [3, 4, 8])
def test_words_of_several_tokens_are_refused_with_as_many_that_are_one(reader, classes):
    asked = f"words:classes={classes}:labels={','.join(WORDS[:classes])}"
    said = message(LabelError, lambda: open_study("smollm2-135m", asked, "smoke").evaluation)
    assert ("'baz' is 2 tokens" if classes < 8 else "'qux' is 2 tokens") in said
    offered = re.findall(r"[a-z]+(?:,[a-z]+)+", said)
    assert len(offered) == 2
    assert len({word for labels in offered for word in labels.split(",")}) == len(offered) * classes
    for labels in offered:
        task = load_task(f"words:classes={classes}:labels={labels}")
        (s,) = sample_sets(reader, task, "evaluation", n_sets=1, shots=1, n_queries=classes, seed=0)
        assert set(s.words) == set(labels.split(","))


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_without_labels_a_task_has_words_of_one_token_and_says_so(classes):
    study = open_study("smollm2-135m", f"words:classes={classes}", "smoke")
    words = set(study.task.labels.names)
    assert all(set(s.words) == words for s in study.evaluation)
    assert {"foo", "bar"} <= words
    assert (":labels=" in study.task.name) == (classes > 2)
    assert all(word in study.task.account for word in words)


def test_a_model_that_has_the_usual_words_keeps_them():
    assert set(open_study("toy-gpt2", "words:classes=8", "smoke").task.labels.names) == set(WORDS)


def test_all_words_of_several_tokens_are_named_at_once(reader):
    asked = "words:classes=3:labels=xylophonist,foo,bassoonists"
    said = message(LabelError, lambda: open_study("smollm2-135m", asked, "smoke").evaluation)
    assert all(f"'{word}' is " in said for word in ("xylophonist", "bassoonists"))
    assert "'foo'" not in said
    assert "choose labels that are one token each with their leading space, as those of foo,bar,red and of " in said


@pytest.mark.parametrize("labels", ["natural", "flipped"])
@pytest.mark.parametrize("classes", [2, 3])
def test_classes_whose_names_are_several_tokens_are_named_whichever_are_drawn(reader, tmp_path, labels, classes):
    """At scale smoke two sets are drawn, which show a few of the classes only; any of them comes in a longer run."""
    words = load_task("words").texts["animals"]["selection"]
    names = ["one", "two", "three", "four", "five", "six", "seven", "xylophonist", "bassoonists"]
    rows = [f"{name} {word},{name}" for name in names for word in words]
    (tmp_path / "own.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    asked = f"{tmp_path / 'own.csv'}:classes={classes}:labels={labels}"
    said = message(LabelError, lambda: open_study("smollm2-135m", asked, "smoke").evaluation)
    assert all(f"'{name}' is " in said for name in names[-2:])
    assert not any(f"'{name}'" in said for name in names[:-2])


def test_labels_of_any_length_are_told_in_a_message_that_one_can_read(reader):
    labels = ["x" * 5000, *(f"word{i} " * 300 for i in range(7))]
    assert len(message(LabelError, lambda: label_tokens(reader, labels, "{text} : {label}"))) < 1500


def test_labels_that_are_the_same_token_are_refused_with_others(reader, monkeypatch):
    monkeypatch.setattr("twotowers.prompts.label_tokens._pieces", lambda _, word, __: [len(word)])
    said = message(LabelError, lambda: label_tokens(reader, ["one", "two"], "{text} : {label}"))
    assert said.startswith("The labels one, two are the same token for smollm2-135m; choose others")
    assert said.endswith("as those of red,blue are.")

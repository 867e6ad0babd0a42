"""Public functions refuse what they cannot use, in one sentence, and take heads as tables and arrays give them."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import twotowers
from conftest import DEMONSTRATIONS, QUERIES, make_sets, message
from twotowers.errors import HeadError, LabelError, PromptError, SeedError, UnknownNameError
from twotowers.prompts.sets import sample_sets
from twotowers.prompts.tasks import load_task
from twotowers.study import open_study


@pytest.fixture
def sets(tiny_gpt2):
    return make_sets(tiny_gpt2)


@pytest.mark.parametrize("label", [3, 1.0, None, True, ("foo",), np.int64(1)])
def test_a_label_that_is_no_text_is_refused(tiny_gpt2, label):
    pairs = [("cat", label), ("seven", "bar")]
    text = message(LabelError, lambda: twotowers.prompt_set(tiny_gpt2, pairs, QUERIES))
    assert text == f"The label {label!r} of 'cat' is no text; give it in quotes."


@pytest.mark.parametrize("pair", ["ab", ("cat",), ("cat", "foo", "bar"), 7, None])
def test_what_is_no_pair_is_refused(tiny_gpt2, pair):
    text = message(PromptError, lambda: twotowers.prompt_set(tiny_gpt2, DEMONSTRATIONS, [pair]))
    assert text == f"Demonstrations and queries are (text, label) pairs, unlike {pair!r}."


def test_a_text_that_is_no_text_is_refused(tiny_gpt2):
    assert "The text 7 is no text" in message(
        PromptError, lambda: twotowers.prompt_set(tiny_gpt2, DEMONSTRATIONS, [(7, "foo")])
    )


def test_pairs_may_be_lists(tiny_gpt2):
    listed = [list(pair) for pair in DEMONSTRATIONS]
    assert twotowers.prompt_set(tiny_gpt2, listed, QUERIES) == twotowers.prompt_set(tiny_gpt2, DEMONSTRATIONS, QUERIES)


CALLS = {
    "locate": lambda model, sets: twotowers.locate(model, sets),
    "knockout": lambda model, sets: twotowers.knockout(model, sets),
    "intact": lambda model, sets: twotowers.knockout(model, sets, heads=[]),
    "screen": lambda model, sets: twotowers.screen(model, sets),
    "verify": lambda model, sets: twotowers.verify(model, sets),
    "block": lambda model, sets: twotowers.block(model, sets),
    "towers": lambda model, sets: twotowers.towers(model, sets, [(1, 0)]),
    "order": lambda model, sets: twotowers.order(model, sets, [(1, 0)]),
    "imbalance": lambda model, sets: twotowers.imbalance(model, {0.5: sets}, [(1, 0)]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_prompt_sets_are_refused(tiny_gpt2, call):
    assert "at least one, each of them made by prompt_set" in message(PromptError, lambda: call(tiny_gpt2, []))


def test_no_shares_are_refused(tiny_gpt2):
    assert "by their share" in message(PromptError, lambda: twotowers.imbalance(tiny_gpt2, {}, [(1, 0)]))


WITH_HEADS = {
    "knockout": lambda model, sets, heads: twotowers.knockout(model, sets, heads=heads),
    "towers": lambda model, sets, heads: twotowers.towers(model, sets, heads),
    "order": lambda model, sets, heads: twotowers.order(model, sets[0], heads),
    "imbalance": lambda model, sets, heads: twotowers.imbalance(model, {0.5: sets}, heads),
    "read_words": lambda model, sets, heads: twotowers.read_words(model, sets[0], heads),
}


@pytest.mark.parametrize("call", WITH_HEADS.values(), ids=WITH_HEADS)
def test_heads_may_be_an_array_and_are_refused_if_they_are_none(tiny_gpt2, sets, call):
    expected = call(tiny_gpt2, sets, [(1, 0), (2, 3)])
    pd.testing.assert_frame_equal(call(tiny_gpt2, sets, np.array([[1, 0], [2, 3]])), expected)
    for odd in ([(9, 0)], [(1, 4)], np.array([[-1, 0]])):
        assert "has no head (" in message(HeadError, lambda odd=odd: call(tiny_gpt2, sets, odd))
    for odd in ((1, 0), [(1.5, 0)], np.zeros((2, 2)), np.zeros((2, 3), dtype=int), [(1, 0, 2)], [None]):
        assert "pairs of whole numbers" in message(HeadError, lambda odd=odd: call(tiny_gpt2, sets, odd))


@pytest.mark.parametrize("call", WITH_HEADS.values(), ids=WITH_HEADS)
@pytest.mark.parametrize(
    "given",
    [lambda heads: zip(*zip(*heads, strict=True), strict=True), iter, lambda heads: map(iter, heads)],
    ids=["zip", "iterator", "pairs of iterators"],
)
def test_heads_that_are_used_up_by_being_read_are_the_same_heads(tiny_gpt2, sets, call, given):
    heads = [(1, 0), (2, 3)]
    pd.testing.assert_frame_equal(call(tiny_gpt2, sets, given(heads)), call(tiny_gpt2, sets, heads))


@pytest.mark.parametrize("call", WITH_HEADS.values(), ids=WITH_HEADS)
def test_a_head_that_is_given_twice_counts_once(tiny_gpt2, sets, call):
    once = call(tiny_gpt2, sets, [(1, 0), (2, 3)])
    pd.testing.assert_frame_equal(call(tiny_gpt2, sets, [(1, 0), (2, 3), (1, 0)]), once)


def test_prompt_sets_may_be_used_up_by_being_read(tiny_gpt2, sets):
    pd.testing.assert_frame_equal(twotowers.verify(tiny_gpt2, iter(sets)), twotowers.verify(tiny_gpt2, sets))


@pytest.mark.parametrize("name", ["towers", "order"])
def test_a_reading_of_no_heads_is_refused(tiny_gpt2, sets, name):
    assert "At least 1 head" in message(HeadError, lambda: WITH_HEADS[name](tiny_gpt2, sets, []))


def test_an_odd_seed_or_half_is_refused(tiny_gpt2, tiny_folders, sets):
    task, size = load_task("words"), {"n_sets": 1, "shots": 2, "n_queries": 2}
    assert "-1 is no seed" in message(SeedError, lambda: sample_sets(tiny_gpt2, task, "selection", seed=-1, **size))
    assert "-1 is no seed" in message(SeedError, lambda: open_study(str(tiny_folders["gpt2"]), seed=-1))
    assert "-1 is no seed" in message(SeedError, lambda: twotowers.block(tiny_gpt2, sets, seed=-1))
    text = message(UnknownNameError, lambda: sample_sets(tiny_gpt2, task, "evalution", seed=0, **size))
    assert "no half 'evalution': did you mean 'evaluation'?" in text


def outcomes(script, folder):
    """In a process of its own: here the types of all arguments are checked before our functions see them."""
    environment = os.environ | {"PYTHONPATH": str(Path(twotowers.__file__).parents[1])}
    command = [sys.executable, Path(__file__).with_name(script), folder]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    found = json.loads(ran.stdout)
    for name, refused in found.items():
        if not isinstance(refused, str):
            assert len(refused["message"].splitlines()) == 1, name
            assert len(refused["message"]) < 600, name
    return found


def test_every_argument_of_no_use_is_refused_in_one_sentence(tiny_folders):
    found = outcomes("odd_arguments.py", tiny_folders["gpt2"])
    assert len(found) > 250
    assert {name: outcome for name, outcome in found.items() if isinstance(outcome, str)} == {}


LARGE, NONE_AT_ALL = "int 10000000000000", {"list []", "tuple ()", "DataFrame Empty DataFram"}
OF_USE = {  # by the name of a parameter; None is where it is the default
    "heads": NONE_AT_ALL,
    "random": {*NONE_AT_ALL, "ndarray array([1.5])", "range range(0, 3)"},
    "folds": {*NONE_AT_ALL, "ndarray array([1.5])", "range range(0, 3)"},
    "seed": {"int 0", LARGE},
    "query": {"int 0", LARGE},  # of a prompt that is a text, no other is asked for
    "exact": {LARGE},
    "smallest": {"float 1.5", LARGE},
    "chance": {"int 0"},
    "verdicts": {"dict {}"},
    "layers": {"range range(0, 3)", "list_iterator <list_iterator"},
    "within": {"bool True"},
    "prompt": {"str 'no such word'"},
    "separator": {"str ''", "str 'no such word'"},
    "device_map": {"str ''", "dict {}", "dict {'a': 1}"},
}


def test_every_public_function_takes_or_refuses_whatever_it_is_given(tiny_folders):
    """Walked, so that a new one is, too."""
    found = outcomes("walked_arguments.py", tiny_folders["gpt2"])
    taken = {}
    for name, outcome in found.items():
        if isinstance(outcome, str):
            function, parameter, value = name.split(" ", 2)
            default = inspect.signature(getattr(twotowers, function)).parameters[parameter].default
            if not outcome.startswith("no error") or value not in OF_USE.get(parameter, ()):
                taken[name] = outcome
            if value == "NoneType None" and default is None and outcome.startswith("no error"):
                taken.pop(name)
    assert taken == {}
    functions = {name for name in twotowers.__all__ if inspect.isfunction(getattr(twotowers, name))}
    assert {name.split()[0] for name in found} == functions

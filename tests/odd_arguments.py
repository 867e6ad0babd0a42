"""Calls of every public function with arguments of no use there, outside the type checks of the other tests.

As a script, with a model's folder: prints what became of each call, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import twotowers as tt
from twotowers.errors import UserError
from twotowers.prompts.sets import sample_sets
from twotowers.prompts.tasks import load_task
from twotowers.study import open_study

SHOWN, ASKED = [("cat", "foo"), ("seven", "bar"), ("two", "bar")], [("dog", "foo"), ("nine", "bar"), ("six", "bar")]
EFFECTS = pd.DataFrame({"set": range(4), "effect": [0.1, 0.2, 0.3, 0.25]})
HEADS, NOTHING = [(1, 0)], pd.DataFrame()


def calls(folder):
    """Name -> a function of no arguments that has to refuse."""
    model = tt.load(folder)
    sets = [tt.prompt_set(model, SHOWN, ASKED)]
    words, drawn = load_task("words"), {"n_sets": 1, "shots": 2, "n_queries": 2, "seed": 0}
    scores = pd.DataFrame({"layer": [0, 1], "head": [0, 0], "exchange": [0.1, 0.2]})
    foreign = tt.PromptSet(**{**vars(sets[0]), "prompts": (type(sets[0].prompts[0])((10**6, 1), (), (), (0, 1)),)})
    of_sets = {
        "locate": tt.locate,
        "knockout": tt.knockout,
        "screen": tt.screen,
        "verify": tt.verify,
        "block": tt.block,
        "head_scores": tt.head_scores,
        "towers": lambda m, s: tt.towers(m, s, HEADS),
        "order": lambda m, s: tt.order(m, s, HEADS),
        "balance_attention": lambda m, s: tt.balance_attention(m, s, HEADS),
        "exchange": lambda m, s: tt.exchange(m, s, HEADS, "values"),
        "hand_over": lambda m, s: tt.hand_over(m, s, "texts"),
        "imbalance": lambda m, s: tt.imbalance(m, {0.5: s}, HEADS),
    }
    of_heads = {
        "knockout": lambda heads: tt.knockout(model, sets, heads),
        "exchange": lambda heads: tt.exchange(model, sets, heads, "values"),
        "towers": lambda heads: tt.towers(model, sets, heads),
        "balance_attention": lambda heads: tt.balance_attention(model, sets, heads),
        "order": lambda heads: tt.order(model, sets[0], heads),
        "read_words": lambda heads: tt.read_words(model, "cat : foo two :", heads),
        "imbalance": lambda heads: tt.imbalance(model, {0.5: sets}, heads),
    }
    of_one = {
        **{f"{name} sets": (lambda odd, call=call: call(model, odd)) for name, call in of_sets.items()},
        **{f"{name} model": (lambda odd, call=call: call(odd, sets)) for name, call in of_sets.items()},
        **{f"{name} heads": call for name, call in of_heads.items()},
        "prompt_set model": lambda odd: tt.prompt_set(odd, SHOWN, ASKED),
        "check model": tt.check,
        "read_words model": lambda odd: tt.read_words(odd, "a : foo"),
        "demonstrations": lambda odd: tt.prompt_set(model, odd, ASKED),
        "queries": lambda odd: tt.prompt_set(model, SHOWN, odd),
        "template": lambda odd: tt.prompt_set(model, SHOWN, ASKED, template=odd),
        "separator": lambda odd: tt.prompt_set(model, SHOWN, ASKED, separator=odd),
        "words": lambda odd: tt.prompt_set(model, SHOWN, ASKED, words=odd),
        "text": lambda odd: tt.prompt_set(model, [(odd, "foo"), *SHOWN], ASKED),
        "label": lambda odd: tt.prompt_set(model, [("a", odd), *SHOWN], ASKED),
        "read_words text": lambda odd: tt.read_words(model, odd),
        "part": lambda odd: tt.exchange(model, sets, HEADS, odd),
        "place": lambda odd: tt.hand_over(model, sets, odd),
        "shares": lambda odd: tt.imbalance(model, odd, HEADS),
        "share of foo": lambda odd: tt.imbalance(model, {odd: sets}, HEADS),
        "block seed": lambda odd: tt.block(model, sets, seed=odd),
        "head_scores seed": lambda odd: tt.head_scores(model, sets, seed=odd),
        "sample seed": lambda odd: sample_sets(model, words, "selection", **{**drawn, "seed": odd}),
        "half": lambda odd: sample_sets(model, words, odd, **drawn),
        **{
            name: (lambda odd, name=name: sample_sets(model, words, "selection", **{**drawn, name: odd}))
            for name in ("n_sets", "shots", "n_queries")
        },
        "exact": lambda odd: tt.head_scores(model, sets, exact=odd),
        "by_set": lambda odd: tt.head_scores(model, sets, by_set=odd),
        "scores": lambda odd: tt.in_context_heads(odd, 4),
        "n_layers": lambda odd: tt.in_context_heads(scores, odd),
        "share": lambda odd: tt.in_context_heads(scores, 4, odd),
        "effects": lambda odd: tt.judge(odd, 0.1),
        "smallest": lambda odd: tt.judge(EFFECTS, odd),
        "alpha": lambda odd: tt.judge(EFFECTS, 0.1, alpha=odd),
        "frame": lambda odd: tt.judge(EFFECTS, 0.1, control=odd),
        "random": lambda odd: tt.judge(EFFECTS, 0.1, random=odd),
        "categories": lambda odd: tt.judge(EFFECTS, 0.1, categories=odd),
        "verdicts": tt.holm,
        "holm alpha": lambda odd: tt.holm({"a": tt.judge(EFFECTS, 0.1)}, alpha=odd),
        "ledger": tt.ledger,
        "load": tt.load,
        "load dtype": lambda odd: tt.load(folder, dtype=odd),
        "load device_map": lambda odd: tt.load(folder, device_map=odd),
        "load revision": lambda odd: tt.load(folder, revision=odd),
        "load remote": lambda odd: tt.load(folder, remote=odd),
        "load quantise": lambda odd: tt.load(folder, quantise=odd),
        "task": load_task,
        "scale": lambda odd: open_study(str(folder), scale=odd),
    }
    return {
        f"{name}={' '.join(repr(odd)[:30].split())}": (lambda call=call, odd=odd: call(odd))
        for name, call in of_one.items()
        for odd in odd_for(name, sets, foreign, scores)
    }


def odd_for(name, sets, foreign, scores):
    """Values that are of no use for an argument."""
    last, whole = name.split()[-1], (-1, 1.5, None, "0", True, float("nan"), [1])
    odd = {
        "sets": (None, 3, "x", {}, [[sets[0]]], [None], [foreign]),
        "model": (None, 3, "gpt2", object()),
        "heads": (3, "x", [[]], {}, [("1", "0")], [(True, False)], float("nan"), [(10**30, 0)]),
        "demonstrations": (None, 3, "", (), {}, [None], [("a",)], "ab", {"a": "foo"}, np.array([["a"]])),
        "template": (None, 3, "", "{text}", "{text}{label}", b"{text}: {label}", "{text} {text} {label}", "\ud800"),
        "separator": (None, 3, b"\n", "\ud800"),
        "words": ({}, 3, {"foo": "a"}, {"foo": 1, "bar": "x"}, {"foo": "foo", "bar": "foo"}, [("foo", "bar")]),
        "text": (None, 3, "", " ", "\ud800", "x" * 3000, [], b"x"),
        "label": (None, 3, "", " ", "\ud800", "a\nb", ("foo",)),
        "part": (None, 3, "", "value", ["keys"]),
        "shares": (None, {}, sets, {0.5: []}),
        "foo": (-1, 2, "x", None, float("nan"), True),
        "seed": whole,
        "half": (None, 3, "", ["selection"], "Selection"),
        "exact": whole,
        "by_set": (NOTHING, 3, scores),
        "scores": (NOTHING, None, [], scores.drop(columns="exchange"), scores.assign(exchange=np.nan, layer=3)),
        "n_layers": whole,
        "share": (-1, 0, 2, float("nan"), "x", None),
        "effects": (None, [1, 2], NOTHING, EFFECTS.assign(effect="x"), 3),
        "smallest": (0, -1, float("nan"), float("inf"), None, "x", True),
        "alpha": (0, -1, 2, float("nan"), "x", None),
        "frame": (3, NOTHING, [0.1]),
        "random": ("x", [None], 3, ["x"]),
        "categories": (3, NOTHING, pd.DataFrame({"set": [0], "first": ["a"], "second": ["b"]})),
        "verdicts": (None, 3, {"a": 1}, [1]),
        "ledger": ("nowhere", "", None, 3, "/dev/null", "\0"),
        "load": (None, 3, "", "\0", "x" * 5000, "/dev/null", "/dev/zero", "a/b/c", b"x", [], "\ud800"),
        "dtype": ("float64", "", 3, [], "int8"),
        "device_map": ("meta", {"": "meta"}),
        "revision": ("main", 3),
        "remote": ("x", 1, None, []),
        "quantise": ("x", 4, True),
        "task": (None, 3, [], b"words", "", "\0", "nowhere.csv", Path("nowhere.csv"), "words:shots=" + "9" * 5000),
        "scale": (None, 3, "", "Book", ["book"]),
    }
    odd |= {"queries": odd["demonstrations"], "place": odd["part"]}
    odd |= dict.fromkeys(("n_sets", "shots", "n_queries"), whole)
    return odd[last]


def outcome(call):
    try:
        return f"no error: {call()!r}"[:200]
    except UserError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]


if __name__ == "__main__":
    print(json.dumps({name: outcome(call) for name, call in calls(Path(sys.argv[1])).items()}))

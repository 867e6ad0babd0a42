"""Every public function with values of other kinds in each of its parameters, found by walking what is public.

As a script, with a model's folder: prints as JSON, by function, parameter and value, what became of each call. A new
public function is called, too: what it needs is known by the names of its parameters (`valid`).
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import twotowers
from odd_arguments import ASKED, EFFECTS, SHOWN, outcome


def wrong():
    """Values of many kinds, new ones each time: some are used up."""
    return [
        None, True, -1, 0, 1.5, float("nan"), 10**30, "no such word", "", "\ud800", b"bytes", [], {}, (), [None], [[]],
        ["no such word"], {"a": 1}, {1: {}}, object(), object, np.array([1.5]), np.array([["a"]]), np.array(3),
        pd.DataFrame(), pd.DataFrame({"set": ["a"], "effect": [None]}), range(3), iter([1]), len, complex(1, 1),
    ]  # fmt: skip


def label(odd):
    return f"{type(odd).__name__} {' '.join(repr(odd).split())[:14]}"


def functions():
    """What is public and called: not the classes, which are made by them."""
    named = {name: getattr(twotowers, name) for name in twotowers.__all__}
    return {name: found for name, found in named.items() if inspect.isfunction(found)}


def valid(folder):
    """A value of use for each parameter that has no default, by its name, or by that of its function and its own."""
    model = twotowers.load(folder)
    sets = [twotowers.prompt_set(model, SHOWN, ASKED)]
    return {
        "model": model,
        "prompt_sets": sets,
        "prompt_sets_by_share": {0.5: sets},
        "heads": [(1, 0)],
        "demonstrations": SHOWN,
        "queries": ASKED,
        "prompt": "cat : foo two :",
        "part": "values",
        "place": "text",
        "scores": pd.DataFrame({"layer": [0, 1], "head": [0, 0], "exchange": [0.1, 0.2]}),
        "n_layers": 2,
        "effects": EFFECTS,
        "smallest": 0.1,
        "verdicts": {"C1": twotowers.judge(EFFECTS, 0.1)},
        "folder": folder,
        "name": folder,
    }


def calls(folder):
    """Name of the call -> a function of no arguments."""
    known = valid(folder)
    found = {}
    for name, function in functions().items():
        parameters = inspect.signature(function).parameters
        needed = {p.name: known[p.name] for p in parameters.values() if p.default is inspect.Parameter.empty}
        for parameter in parameters:
            for odd in wrong():
                given = needed | {parameter: odd}
                found[f"{name} {parameter} {label(odd)}"] = lambda function=function, given=given: function(**given)
    return found


if __name__ == "__main__":
    print(json.dumps({name: outcome(call) for name, call in calls(Path(sys.argv[1])).items()}))

"""Facts of an invented run, for pages that are drawn without a model."""

from typing import Any

from twotowers.publishing.publish import Facts


def make_facts(**changes: Any) -> Facts:
    """Facts of a small run; `changes` replaces fields."""
    usual: dict[str, Any] = {
        "run": "invented",
        "title": "invented",
        "model": "invented",
        "family": "gpt2",
        "template": "lines",
        "rotary": False,
        "labels": ("bar", "foo"),
        "n_layers": 4,
        "n_heads": 3,
        "scale": "book",
        "selection_sets": 8,
        "evaluation_sets": 32,
        "shots": 8,
        "queries": 8,
        "draws": 3,
        "seed": 0,
        "task": "words",
        "account": "The source is a list of 12 words.",
        "provenance": {"model": "invented", "seed": 0},
    }
    return Facts(**{**usual, **changes})

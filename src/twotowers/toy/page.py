"""The page of the toy model: its figure, and the text about it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..models.model import open_model
from ..publishing.plots import accuracy_axis, panels
from ..publishing.provenance import revision_of
from ..publishing.record import Place
from ..publishing.shown import text_alone, write_alone
from ..publishing.style import GREY, MEASURES
from .data import held_out, make_tokenizer, read_words

ACCURACY = {"held_out": "held-out pairs", "seen_pairs": "pairs of training", "repetition": "repeated words"}
ATTENTION = {
    "gather": "label to its own text",
    "match_last": "last to own class minus other",
    "match_query": "query to own class minus other",
    "hand_on": "last to query",
}


def training(curve: pd.DataFrame, stages: Mapping[str, int]) -> Figure:
    """Accuracy and attention of the best heads by step, a dotted line where a stage begins.

    Args:
        curve: a row an evaluation, `step` and the columns named above.
        stages: name of each stage and its first step.
    """
    figure, axes = panels(columns=2, height=3.9)
    accuracy_axis(axes[0])
    for ax, names in zip(axes, (ACCURACY, ATTENTION), strict=True):
        _lines(ax, curve, names)
        for step in stages.values():
            ax.axvline(step, color=GREY, linestyle=":", linewidth=1)
        ax.set_xlabel("training step")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.02), fontsize=8)  # no corner is free of lines
    axes[0].set_ylabel("accuracy")
    axes[1].set_ylabel("attention weight of the best head")
    return figure


def _lines(ax: Axes, curve: pd.DataFrame, names: Mapping[str, str]) -> None:
    for (column, label), colour, style in zip(names.items(), MEASURES, ("-", "--", "-.", ":"), strict=False):
        ax.plot(curve["step"], curve[column], color=colour, linestyle=style, label=label)


FIGURE = "toy-training"
PLACE = Place("toy.html", FIGURE)
NAME = "toy-gpt2"
SAID = (  # what a reader finds in chapters of its run
    ("shallow", "shallow layers", "in which layer the last position needs the query"),
    ("knockout", "knock-out", "which heads it needs"),
)


def page(folder: Path, *, chapters: Collection[str] = ()) -> str:
    """Write the training curve into `figures/` of a folder inside the book, and return the MyST text about it.

    Args:
        chapters: of its run, those that are in the book: the text leads to some of them.
    """
    source = resources.files(__package__) / NAME
    facts = json.loads((source / "training.json").read_text(encoding="utf-8"))
    with (source / "curve.csv").open(encoding="utf-8") as file:
        curve = pd.read_csv(file)
    write_alone(
        folder / "figures", FIGURE, lambda table: training(table, facts["stages"]), curve,
        caption=_caption(facts), alt=_alt(curve), facts=_made(facts), place=PLACE,
    )  # fmt: skip
    figure = text_alone(folder.parent, f"{folder.name}/figures/{FIGURE}")
    return f"{_summary(curve, facts)}\n\n{figure}\n\n{_reading(curve)}\n\n{_links(chapters)}"


def _made(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the figure's record says of the model beside what its training has written."""
    model = open_model(NAME)
    return {**model.provenance(), "revision": revision_of(model), "seed": facts["recipe"]["seed"], **facts}


def _links(chapters: Collection[str]) -> str:
    said = [f"the chapter {{doc}}`on {on} <runs/{NAME}/{c}>` says {what}" for c, on, what in SAID if c in chapters]
    if not said:
        return "Its chapters are not in this book: run them with `twotowers run --model toy-gpt2`."
    return f"T{', and '.join(said)[1:]}."


def _summary(curve: pd.DataFrame, facts: dict[str, Any]) -> str:
    last, recipe = curve.iloc[-1], facts["recipe"]
    shape = facts["shape"]
    return (
        f"It has {shape['n_layer']} layers of {shape['n_head']} heads, width {shape['n_embd']} and "
        f"{facts['parameters']:,} parameters, and was trained for {int(last['step']):,} steps in "
        f"{facts['seconds'] / 60:.0f} minutes on {facts['device']} with `{facts['command']}` (seed {recipe['seed']}). "
        f"At the end it answers {last['held_out']:.1%} of {facts['rows']} prompts with held-out pairs right, over the "
        f"full vocabulary, beside {last['seen_pairs']:.1%} with pairs that training may have; if a prompt has only "
        f"one word a category, {last['repetition']:.1%}. The held-out pairs: {_pairs()}."
    )


def _reading(curve: pd.DataFrame) -> str:
    last = curve.iloc[-1]
    at_last, at_query = last["match_last"], last["match_query"]
    numbers = (
        f"At the end, each in its best head, the last position looks at labels of the query's class by {at_last:.2f} "
        f"more than at others, and the query's word by {at_query:.2f}."
    )
    if at_query <= at_last:
        return f"{numbers} The larger is at the last position, where the paper's analyses look for the comparison."
    return (
        f"{numbers} The last position looks at the query's word with a weight of {last['hand_on']:.2f}. It seems that "
        f"this model compares before the position at which the paper's analyses look, and hands the result on; "
        f"attention weights alone do not prove it."
    )


def _pairs() -> str:
    words = read_words(make_tokenizer())
    pairs = np.argwhere(np.triu(held_out(words)))
    return ", ".join(f"{words.names[a]} and {words.names[b]}".replace("_", " ") for a, b in pairs)


def _caption(facts: dict[str, Any]) -> str:
    stages = "; ".join(f"from step {step:,} {name}" for name, step in facts["stages"].items())
    return (
        f"Training of toy-gpt2, measured every {facts['recipe']['every']} steps on {facts['rows']} random prompts of "
        f"{facts['demonstrations']} demonstrations. Left: accuracy over the full vocabulary. Right: attention weight, "
        f"each time in the head where it is largest: of label positions to the text of their own demonstration; of the "
        f"last position, and of the query's word, to labels of the query's class less that to the other class; of the "
        f"last position to the query's word. Dotted lines: {stages}. "
        f"One seed; no intervals."
    )


def _alt(curve: pd.DataFrame) -> str:
    first = curve[curve["held_out"] >= 0.8]
    rise = f"first passes 80 % at step {int(first['step'].iloc[0])} and" if len(first) else "never passes 80 %; it"
    last = curve.iloc[-1]
    return (
        f"Two line charts over training steps. Accuracy on held-out pairs {rise} ends at {last['held_out']:.0%}. "
        f"The best head's attention to its own text ends at {last['gather']:.2f}. Attention to labels of the "
        f"query's class minus the other ends at {last['match_last']:.2f} from the last position and at "
        f"{last['match_query']:.2f} from the query's word; attention from the last position to that word at "
        f"{last['hand_on']:.2f}."
    )

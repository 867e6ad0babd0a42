"""What the page of query and key is given in tests: tables made by hand, and texts that are looked through."""

import re
import warnings

import pandas as pd

from facts import make_facts
from twotowers.chapters.towers.metric import (
    CONTROL,
    IN_CONTEXT,
    SCORES,
    SHARPEST,
)
from twotowers.publishing.publish import call, figure_of

NAN = float("nan")


GROUPS = {IN_CONTEXT: [[2, 0], [3, 1]], SHARPEST: [[2, 0], [3, 2]], CONTROL: [[2, 1], [2, 2], [3, 0]]}


ONE = {IN_CONTEXT: [[3, 1]], SHARPEST: [[2, 0]]}


ALONE = {IN_CONTEXT: [[0, 0]]}


NAMES = ["name", "measure", "mean", "low", "high"]


def rows_of(means, groups=GROUPS, half=0.05):
    """A row for each head, group and measure, as `metric.by_head` gives them; `means` of each measure."""
    names = [f"{layer}.{head}" for layer, head in groups[IN_CONTEXT]] + list(groups)
    rows = [(name, m, mean, mean - half, mean + half) for name in names for m, mean in means.items()]
    return pd.DataFrame(rows, columns=NAMES)


def attention(same=0.5, other=0.25, groups=GROUPS, half=0.05):
    return {"means": rows_of({"same class": same, "other class": other}, groups, half), "groups": groups}


def areas(auc=0.75, unrotated=0.8, cosine=0.5, groups=GROUPS, half=0.05):
    means = dict(zip(SCORES.values(), (auc, unrotated, cosine), strict=True))
    return {"areas": rows_of(means, groups, half), "groups": groups}


def points_of(heads=((3, 1), (2, 0)), spread=1.0):
    rows = [
        (text, label, x * spread, y * spread, layer, head, kind, 0.9)
        for layer, head in heads
        for text, label, x, y, kind in (
            ("cat", "foo", 1.0, 0.5, "query"),
            ("two", "bar", -1.0, 0.0, "query"),
            ("dog", "foo", 2.0, -0.01, "key"),
            ("six", "bar", -2.0, 0.0, "key"),
        )
    ]
    points = pd.DataFrame(rows, columns=["text", "label", "x", "y", "layer", "head", "kind", "share"])
    arrows = [(*head, x * spread, 0.0, 2 * x * spread, 0.0) for head in heads for x in (1.0, -1.0)]
    return {
        "points": points,
        "arrows": pd.DataFrame(arrows, columns=["layer", "head", "x", "y", "to_x", "to_y"]),
    }


def moved(weights=(0.0, 0.25, 0.5, 0.125), rises=(-0.001, 1.0, 2.0, 0.5), means=(0.75, 0.5, 0.25), groups=None):
    groups = groups or {IN_CONTEXT: [[3, 1], [2, 0]], CONTROL: [[2, 1]]}
    example = pd.DataFrame(
        [
            (0, i // 2, "foo", i % 2, "foo", i % 2 == 0, 3, 1, w, r)
            for i, (w, r) in enumerate(zip(weights, rises, strict=True))
        ],
        columns=["set", "query", "gold", "demonstration", "label", "same", "layer", "head", "weight", "log_increase"],
    )
    names = ["3.1", IN_CONTEXT, CONTROL]
    rows = [(name, "rank correlation", m, m - 0.1, m + 0.1) for name, m in zip(names, means, strict=False)]
    return {"example": example, "correlations": pd.DataFrame(rows, columns=NAMES), "groups": groups}


SIGNED = [
    ("foo-heads, answer foo", "attention", -0.25, -0.5, -0.125),
    ("foo-heads, answer bar", "attention", 0.5, 0.25, 0.75),
    ("foo-heads, answer foo", "value", 0.0, -0.1, 0.1),
    ("bar-heads, answer foo", "attention", 1.0, 0.5, 1.5),
    ("bar-heads, answer foo", "value", -0.001, -0.001, 0.0),
]


def signed_of(rows=SIGNED):
    return {"signed": pd.DataFrame(rows, columns=NAMES)}


USUAL = {
    "ATTENTION": attention(),
    "GAPS": attention(),
    "METRIC": areas(),
    "CHANCE": {"areas": areas()["areas"], "above": {"mean": 0.25, "low": 0.125, "high": 0.375}},
    "PLANE": points_of(),
    "TRANSFER": moved(),
    "SWAP": signed_of(),
    "SWAP_TABLE": signed_of(),
    "CHANGES": {
        "unsigned": {"attention": 0.5, "value": 0.25},
        "follows": {"mean": 0.125, "low": -0.25, "high": 0.5},
    },
    "SAME_DEMONSTRATIONS": {"unsigned": {"attention": 0.5, "value": 1.75}},
}


def text_of(text, facts=None, **inputs):
    return call(text.write, facts or make_facts(), inputs)


def drawn(figure, inputs, **facts):
    """Drawing, caption and alt text, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing, caption, alt = figure_of(figure, make_facts(**facts), inputs)
        drawing.canvas.draw()
    harmless(caption)
    harmless(alt)
    return drawing, caption, alt


def harmless(text):
    assert text.strip()
    assert "\n\n\n" not in text
    assert not re.search(r"\bnan\b|\binf\b|-0(\.0+)?(?![\d.])|\b1 (random deep )?heads|\b1 positions|\(\)", text), text

"""Figures of the chapter on query and key with more than two labels: nothing leaves the picture or covers another."""

import itertools

import numpy as np
import pandas as pd
import pytest

from drawings import SHOWN
from twotowers.chapters.knockout.page import dose_figure
from twotowers.chapters.towers.explore_page import MOVED_WEIGHTS, explore_figure, rows_of
from twotowers.chapters.towers.page import swap_figure
from twotowers.chapters.towers.plane_page import plane_figure
from twotowers.prompts.task_labels import ROLES
from twotowers.publishing.style import styled


@pytest.mark.parametrize("labels", [("foo", "bar"), ROLES[:2], ROLES[:4], ROLES])
def test_the_legend_of_the_plane_is_within_the_picture(labels):
    rows = [(3, 1, kind, "text", label, i, -i, 0.9) for i, label in enumerate(labels) for kind in ("query", "key")]
    points = pd.DataFrame(rows, columns=["layer", "head", "kind", "text", "label", "x", "y", "share"])
    arrows = pd.DataFrame(columns=["layer", "head", "x", "y", "to_x", "to_y"])
    with styled():
        figure = plane_figure(points, arrows)
        figure.draw_without_rendering()
        (legend,) = figure.legends
        assert len(legend.get_texts()) == 2 * len(labels) + 1
        assert legend.get_window_extent().width <= figure.bbox.width


@pytest.mark.parametrize("labels", [["foo", "bar"], ["foo", "bar", "baz", "qux"]])
def test_values_of_bars_that_are_cut_off_do_not_cover_each_other(labels):
    names = [f"{own}-heads, answer {answer}" for own, answer in itertools.product(labels, labels)]
    rows = [(name, measure, sign * 147.67, np.nan, np.nan)
            for measure, sign in (("attention", 1), ("value", -1)) for name in names]  # fmt: skip
    with styled():
        figure = swap_figure(pd.DataFrame(rows, columns=["name", "measure", "mean", "low", "high"]))
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == len(rows)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def numbers_apart(figure):
    """Whether no two numbers below an axis touch, of a figure that is drawn."""
    figure.draw_without_rendering()
    for ax in figure.axes:
        low, high = ax.get_xlim()
        shown = [t for x, t in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True) if low <= x <= high]
        boxes = [text.get_window_extent().padded(2) for text in shown if text.get_text()]
        if any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2)):
            return False
    return True


@pytest.mark.parametrize("labels", [["foo", "bar"], ROLES[:4]])
def test_numbers_of_heads_removed_do_not_touch(labels):
    rows = [
        (n, kind, label, 0.5, 0.0, 1.0) for kind in ("top", "random") for label in labels for n in (0, 1, 5, 11, 22)
    ]
    with styled():
        assert numbers_apart(
            dose_figure(pd.DataFrame(rows, columns=["removed", "kind", "label", "mean", "low", "high"]))
        )


@pytest.mark.parametrize("largest", [0.02, 0.345, 0.95])
def test_shares_of_attention_beside_long_texts_do_not_touch(largest):
    shown = SHOWN["towers"]
    taken = ("roles", "prompts", "labels", "exchanged")
    inputs = {name: shown.inputs("towers-explore")[name].copy() for name in taken}
    labels = inputs["labels"]
    weights = [name for name in labels if "weight" in name]
    drawn = rows_of(labels, inputs["prompts"].iloc[0], inputs["roles"]["head"].iloc[0])
    labels[weights] *= largest / drawn[["weight", MOVED_WEIGHTS["query-other"]]].to_numpy(dtype=float).max()
    labels["text"] = "The coach draws a noisy crowd again"
    with styled():
        assert numbers_apart(explore_figure(shown.facts, **inputs))

"""Figure of the page on `toy-gpt2`."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .figures import BLACK, BLUE, GREEN, GREY, ORANGE, _accuracy_axis, _axes

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
    figure, axes = _axes(columns=2, height=3.9)
    _accuracy_axis(axes[0])
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
    for (column, label), colour, style in zip(
        names.items(), (BLUE, ORANGE, GREEN, BLACK), ("-", "--", "-.", ":"), strict=False
    ):
        ax.plot(curve["step"], curve[column], color=colour, linestyle=style, label=label)

"""What the chapter on the task shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...publishing.plots import accuracy_axis, banded_line, panels
from ...publishing.style import BLUE, GREEN, LABEL_COLOURS, MARKERS


def shots(table: pd.DataFrame) -> Figure:
    """Accuracy by demonstrations a label. Columns `shots, measure, mean, low, high`."""
    figure, (ax,) = panels()
    for (measure, part), colour, marker in zip(
        table.groupby("measure", sort=False), (BLUE, GREEN), MARKERS, strict=False
    ):
        banded_line(ax, part, "shots", label=str(measure), colour=colour, marker=marker)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(table["shots"].unique()), [str(n) for n in sorted(table["shots"].unique())])
    ax.set(xlabel="demonstrations of each label", ylabel="accuracy")
    accuracy_axis(ax)
    ax.legend(loc="lower right")
    return figure


def templates(table: pd.DataFrame) -> Figure:
    """Accuracy by template and gold label. Columns `template, label, mean, low, high`."""
    names, labels = list(dict.fromkeys(table["template"])), sorted(table["label"].unique())
    figure, (ax,) = panels(height=3.2)
    for i, label in enumerate(labels):
        part = table[table["label"] == label].set_index("template").loc[names]
        x = np.arange(len(names)) + (i - (len(labels) - 1) / 2) * 0.34
        errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
        ax.bar(x, part["mean"], 0.3, color=LABEL_COLOURS[i], yerr=errors, capsize=3, label=f"gold label {label}",
               error_kw={"ecolor": "#333333", "elinewidth": 1.2}, hatch=("//", "")[i], edgecolor="white")  # fmt: skip
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel="template", ylabel="accuracy")
    ax.grid(visible=False, axis="x")
    accuracy_axis(ax)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=9)
    return figure

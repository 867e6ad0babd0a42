"""What the chapter on locating shows."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ...publishing.plots import panels
from ...publishing.style import BLUE, ORANGE


def layers(table: pd.DataFrame) -> Figure:
    """Log-probability increase by layer. Columns `layer, component, mean, low, high`."""
    figure, axes = panels(2, sharey=True)
    for ax, (component, part), colour in zip(axes, table.groupby("component", sort=False), (BLUE, ORANGE), strict=True):
        errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
        ax.bar(part["layer"], part["mean"], color=colour, yerr=errors, width=0.8,
               error_kw={"ecolor": "#333333", "elinewidth": 0.8})  # fmt: skip
        ax.axhline(0, color="#333333", linewidth=0.8)
        ax.set(xlabel="layer", title={"mlp": "MLP"}.get(str(component), str(component)))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(visible=False, axis="x")
    axes[0].set_ylabel("log-probability increase (nats)")
    return figure

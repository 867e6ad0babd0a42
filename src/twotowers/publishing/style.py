"""One style for all figures: colours that colour-blind readers can tell apart, markers, sizes."""

from __future__ import annotations

from typing import Any

BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "#767676", "#222222"
LABEL_COLOURS = (ORANGE, BLUE)  # labels in sorted order: bar, foo
MARKERS = ("o", "s", "^", "D")
WIDTH = 6.4  # inches

STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
}

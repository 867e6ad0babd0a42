"""One style for all figures: what each colour means, markers, sizes. No other module names a colour.

Of two labels blue is foo and orange is bar, and neither is anything else. The colours differ for colour-blind readers;
of two that look alike in grey, what they draw differs by marker, line or hatch, too. Each has a counterpart for dark
pages.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.colors import Colormap, ListedColormap

# Labels, and nothing else
FOO, BAR = "#0072b2", "#d55e00"
LABEL_COLOURS = (BAR, FOO)  # labels in sorted order

_VIOLET, _GREEN, _WINE, _OLIVE = "#be2fb4", "#12854a", "#8a1538", "#8c8200"

# What is drawn whatever is measured
INK, GREY, FAINT, PAPER = "#222222", "#767676", "#e3e3e3", "#ffffff"

# Heads and edges: those that are tested, the strongest of them, all others of their kind, random ones, none or all, and
# one that a reader looks into
TESTED, STRONGEST, OTHERS, RANDOM, WHOLE, ONE = _VIOLET, _WINE, _GREEN, GREY, INK, _OLIVE
# Label positions of the query's class and of the other one
SAME, OTHER = _GREEN, _WINE
# Parts of a layer or of a head
ATTENTION, MLP, VALUES = _WINE, _OLIVE, _OLIVE
# Places of a prompt
TEXT, SEPARATOR, LABEL, QUERY, LAST = _GREEN, _WINE, _VIOLET, _OLIVE, INK
# Measures beside each other
MEASURES = (_WINE, _GREEN, _OLIVE, _VIOLET)
# Verdicts
SUPPORTED, CONTRADICTED, OPEN = _GREEN, INK, GREY

DARK = {
    FOO: "#56b4e9",
    BAR: "#ff8c42",
    _VIOLET: "#c65bf0",
    _GREEN: "#3fe0a0",
    _WINE: "#f0505c",
    _OLIVE: "#e3e04a",
    INK: "#e6e6e6",
    GREY: "#9a9a9a",
    FAINT: "#383838",
    PAPER: "#121212",  # as the pages of the theme
}  # on dark pages

MARKERS = ("o", "s", "^", "D")
# Of labels, where there are more than two: no colour of theirs is another's, and hatches and markers differ, too
_OF_MANY = (BAR, FOO, _VIOLET, _GREEN, _WINE, _OLIVE, INK, GREY)
_HATCHES = ("//", "", "..", "xx", "--", "++", "oo", "||")
_LABEL_MARKERS = ("s", "o", "^", "D", "v", "P", "X", "*")
WIDTH = 6.4  # inches
NARROW = 4.0  # inches: of a phone, or of half a page
HEIGHT = 3.4  # inches, if a figure asks for no other
SMALLEST = 8.0  # points of any text in a figure
SHADES = 47  # of a map; as few as are drawn as vectors, and odd, so that zero is white


def label_looks(labels: Sequence[str]) -> list[tuple[str, str, str, str]]:
    """For each label, in sorted order: it, its colour, its hatch and its marker."""
    return list(zip(labels, _OF_MANY, _HATCHES, _LABEL_MARKERS, strict=False))


STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # comes with matplotlib; as wide, where that is not there
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in somebody's text is a dollar sign
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "figure.facecolor": PAPER,
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,
}


@contextlib.contextmanager
def styled(width: float = WIDTH) -> Iterator[None]:
    """Draw and save in this style, whatever the user's own settings of matplotlib are.

    Args:
        width: in inches, of drawings that `plots.panels` begins: with `NARROW`, their panels stand below each other.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        mpl.rcParams["figure.figsize"] = (width, HEIGHT)
        yield


def narrow() -> bool:
    """Whether what is drawn now is for a narrow place."""
    return bool(mpl.rcParams["figure.figsize"][0] < WIDTH)


def diverging() -> Colormap:
    """From green by white, which is zero, to violet."""
    return mpl.colormaps["PRGn_r"].resampled(SHADES)


def depth() -> Colormap:
    """From light to dark grey, for layers."""
    return ListedColormap(mpl.colormaps["Greys"]([0.25 + 0.7 * n / (SHADES - 1) for n in range(SHADES)]), "depth")

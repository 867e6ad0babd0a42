"""What the chapter on query and key shows of single prompts in single heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ...publishing.markdown import escape
from ...publishing.plots import legend_above, panels
from ...publishing.publish import Facts, Figure
from ...publishing.style import GREY, INK, ONE, PAPER, TESTED, label_looks
from ...publishing.wording import counted, percent
from .exchange_page import ROWS
from .exchanging import CHOSEN, INTACT
from .explore import ENTRY, MOVED_WEIGHTS, PROMPT

LONGEST = 22  # letters of a text beside its bar
LEAST = 0.01  # attention: an axis of less has no room for its numbers


def explore_figure(
    facts: Facts, roles: pd.DataFrame, prompts: pd.DataFrame, labels: pd.DataFrame, exchanged: pd.DataFrame
) -> Drawing:
    """The first prompt in the first head. Left: weights of label positions. Right: margins by what is exchanged."""
    head, first = roles["head"].iloc[0], prompts.iloc[0]
    rows, margins = rows_of(labels, first, head), margins_of(exchanged, first)
    figure, (ax, right) = panels(2, height=max(3.4, 0.21 * len(rows) + 1.3))
    y, parts = np.arange(len(rows)), [part for part in ROWS if part != "none"]
    for label, colour, hatch, _ in label_looks(facts.labels):
        own = (rows["label"] == label).to_numpy()
        ax.barh(y[own], rows["weight"][own], 0.7, color=colour, hatch=hatch, edgecolor=PAPER, label=label)
    ax.plot(rows[MOVED_WEIGHTS["query-other"]], y, "D", color=INK, markersize=4.5, markerfacecolor="none",
            label="query exchanged")  # fmt: skip
    ax.set_yticks(y, [shortened(text) for text in rows["text"]], fontsize=8.5, parse_math=False)
    ax.set_ylim(max(len(rows), 1) - 0.5, -0.6)
    drawn = rows[["weight", MOVED_WEIGHTS["query-other"]]].to_numpy(dtype=float)
    ax.set_xlim(0, max(LEAST, 1.08 * drawn[np.isfinite(drawn)].max(initial=0)))
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.xaxis.set_major_locator(MaxNLocator(3 if ax.get_xlim()[1] > 0.03 else 2))  # small shares have longer labels
    ax.set(xlabel=f"attention weight, head {head}")
    for name, colour, marker, shift in ((head, ONE, "^", -0.12), (CHOSEN, TESTED, "o", 0.12)):
        place = [parts.index(part) + shift for part in margins[name]]
        right.plot([*margins[name].values()], place, marker, color=colour, markersize=6,
                   label=f"head {name}" if name == head else name)  # fmt: skip
    right.axvline(margins[INTACT]["none"], color=GREY, linewidth=1.2)
    right.axvline(0, color=GREY, linestyle=":", linewidth=1.3)
    right.set_yticks(range(len(parts)), [ROWS[part] for part in parts], fontsize=8.5)
    right.set_ylim(len(parts) - 0.5, -0.6)
    right.set(xlabel="margin (logits)")
    handles = [ax.get_legend_handles_labels(), right.get_legend_handles_labels()]
    marks, names = (a + b for a, b in zip(*handles, strict=True))
    legend_above(figure, marks, names, 5, fontsize=8.5, columnspacing=1.2, handletextpad=0.4)
    return figure


def _caption(facts: Facts, roles: pd.DataFrame, prompts: pd.DataFrame) -> str:
    (head, role), first = roles.iloc[0][["head", "role"]], prompts.iloc[0]
    number = counted(len(prompts[PROMPT].drop_duplicates()), "prompt")
    return (
        f"One prompt in one head. Its query is *{escape(first['text'])}*, whose right label is "
        f"*{escape(first['label'])}*. Left: attention weight of the last position in head {head} ({role}) at each "
        f"label position, beside the text that the label belongs to; diamonds: with the query of "
        f"*{escape(first['other'])}*, whose label is *{escape(first['towards'])}*. Right: margin (the right label's "
        "logit minus that label's) with one part exchanged between the classes, in this head and in all in-context "
        f"heads; grey line: nothing exchanged. The numbers below are of {number} and {counted(len(roles), 'head')}."
    )


def _alt(
    facts: Facts, roles: pd.DataFrame, prompts: pd.DataFrame, labels: pd.DataFrame, exchanged: pd.DataFrame
) -> str:
    head, first = roles["head"].iloc[0], prompts.iloc[0]
    rows, margins = rows_of(labels, first, head), margins_of(exchanged, first)
    sums = {name: rows[name].groupby(rows["label"]).sum() for name in ("weight", MOVED_WEIGHTS["query-other"])}
    before, after = (
        " and ".join(f"{percent(sums[name].get(label, 0.0))} to {label} labels" for label in facts.labels)
        for name in sums
    )
    cells = [f"{ROWS[part]} {margin:z.2f}" for part, margin in margins[CHOSEN].items()]
    return (
        f"Left: bars of attention of head {head} at {counted(len(rows), 'label position')} of a prompt whose answer is "
        f"{first['label']}: {before}; with a query of another class {after}. Right: margins in all in-context "
        f"heads: nothing exchanged {margins[INTACT]['none']:z.2f}, {', '.join(cells)}."
    )


EXPLORE = Figure("towers-explore", draw=explore_figure, caption=_caption, alt=_alt)


def shortened(text: str) -> str:
    """A text for the margin of a figure."""
    shown = visible(text)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"


def visible(text: str) -> str:
    """A text on one line, without what has no shape of its own or turns the direction of what follows."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


def rows_of(table: pd.DataFrame, prompt: Any, head: str | None = None) -> pd.DataFrame:
    """The rows of a table that belong to a row of `prompts`, or to one head of it."""
    keys = [key for key in ENTRY if key in table]
    own = (table[keys] == prompt[keys]).all(axis=1)
    return table[own if head is None else own & (table["head"] == head)]


def margins_of(exchanged: pd.DataFrame, prompt: Any) -> dict[str, dict[str, float]]:
    """Margins of a prompt by head and part, in the order of the parts."""
    rows = rows_of(exchanged, prompt)
    made = {name: dict(zip(own["part"], own["margin"], strict=True)) for name, own in rows.groupby("head")}
    return {str(name): {part: own[part] for part in ROWS if part in own} for name, own in made.items()}

"""What the chapter on values shows."""

from __future__ import annotations

import functools

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.figure import Figure

from ...publishing.markdown import escape
from ...publishing.plots import panels
from ...publishing.style import GREEN, GREY, LABEL_COLOURS, STYLE, WIDTH

KIND_MARKERS = ("o", "s", "^")
SHOWN = 3  # words of each cell
LONGEST = 9  # characters of a word
FALLBACK = "□"  # stands for a character that the font lacks


def logit_minus(table: pd.DataFrame) -> Figure:
    """Logit minus by group of heads and kind of position, a panel a measure.

    Columns `measure, group, kind, mean, low, high`; a kind is a label or "other".
    """
    measures, groups = list(dict.fromkeys(table["measure"])), list(dict.fromkeys(table["group"]))
    labels = sorted(set(table["kind"]) - {"other"})
    colours = dict(zip(labels, LABEL_COLOURS, strict=False)) | {"other": GREEN}
    figure, axes = panels(len(measures), height=1.5 + 0.52 * len(groups), sharey=True)
    for ax, measure in zip(axes, measures, strict=True):
        for i, kind in enumerate([*reversed(labels), "other"]):
            part = table[(table["measure"] == measure) & (table["kind"] == kind)].set_index("group").reindex(groups)
            name = f"{kind} positions"
            ax.errorbar(part["mean"], np.arange(len(groups)) + (i - 1) * 0.2, color=colours[kind],
                        xerr=[part["mean"] - part["low"], part["high"] - part["mean"]], marker=KIND_MARKERS[i],
                        linestyle="", capsize=2.5, markersize=5.5, label=name)  # fmt: skip
        ax.axvline(0, color=GREY, linewidth=1)
        ax.set(xlabel="logit minus (logits)", title=measure)
        ax.title.set_fontsize(10.5)
        ax.grid(visible=False, axis="y")
    axes[0].set_yticks(range(len(groups)), groups)
    axes[0].set_ylim(len(groups) - 0.5, -0.5)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return figure


def words(table: pd.DataFrame) -> Figure:
    """One head in words, a row a position; weights are shaded. Columns as of `words.read_words`, for one head."""
    wide = table.replace({"part": {"query": "key"}}).pivot(index="position", columns="part", values="words")
    facts = table.drop_duplicates("position")
    columns = (("token", 0.0), ("weight", 0.115), ("value", 0.21), ("key", 0.47), ("layer input", 0.735))
    n = len(facts)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.25 * (n + 1) + 0.15))
        ax = figure.subplots()
    ax.set(xlim=(0, 1), ylim=(n, -1))
    ax.axis("off")
    for name, x in columns:
        title = f"{name} (last: query)" if name == "key" else name
        ax.text(x, -0.5, title, fontsize=9, fontweight="bold", va="center")
    largest = float(facts["weight"].max()) or 1.0
    for row, (position, token, weight) in enumerate(facts[["position", "token", "weight"]].to_numpy()):
        box = mpl.patches.Rectangle((0, row), 1, 1, color=LABEL_COLOURS[1], alpha=0.3 * weight / largest, linewidth=0)
        ax.add_patch(box)
        ax.axhline(row, color="#dddddd", linewidth=0.6)
        cells = [_short(token), f"{weight:.3f}"]
        cells += [
            "  ".join(_short(word) for word in wide[part][position][:SHOWN]) for part in ("value", "key", "layer input")
        ]
        for text, (_, x) in zip(cells, columns, strict=True):
            ax.text(x, row + 0.5, text, fontsize=8, va="center", parse_math=False)
    return figure


def words_markdown(table: pd.DataFrame) -> str:
    """One head's rows of `read_words` as a Markdown table, a row per position; query words stand under key."""
    parts = table.replace({"part": {"query": "key"}})
    wide = parts.pivot(index="position", columns="part", values="words")
    facts = table.drop_duplicates("position")
    lines = ["| position | token | weight | value | key | layer input |", "|---|---|---|---|---|---|"]
    for position, token, weight in zip(facts["position"], facts["token"], facts["weight"], strict=True):
        cells = [" ".join(map(escape, wide[part][position])) for part in ("value", "key", "layer input")]
        lines.append(f"| {position} | {escape(token)} | {weight:.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _short(word: str) -> str:
    """A token that fits its cell, with a placeholder for every character that the font cannot draw."""
    word = "".join(c if _has_glyph(c) else FALLBACK for c in word)
    return word if len(word) <= LONGEST else word[: LONGEST - 1] + "…"


@functools.cache
def _has_glyph(character: str) -> bool:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return font.get_char_index(ord(character)) != 0

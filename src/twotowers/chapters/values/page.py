"""What the chapter on values shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from ...paper import PAPER_WEIGHTED
from ...publishing.markdown import code, escape, table_text
from ...publishing.plots import legend_above, panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.style import ATTENTION, FAINT, GREY, label_looks, narrow
from ...publishing.wording import counted, intervals, plural, said, share
from ...statistics import Estimate
from .direct import DEEP, OWN, SHARE
from .logit_minus import CONTROL, OTHER

KIND_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p")
SHOWN = 3  # words of each cell
LONGEST = 8  # characters of a word
PARTS = ("value", "key", "layer input")  # columns of words
# Of a row that is read, how far from the left each of its texts stands, and in which of its lines
BESIDE = {"token": (0.0, 0), "weight": (0.115, 0), "value": (0.21, 0), "key": (0.47, 0), "layer input": (0.735, 0)}
STACKED = {"token": (0.0, 0), "weight": (0.0, 1), "value": (0.26, 0), "key": (0.26, 1), "layer input": (0.26, 2)}
NOT_MEASURED = "not measured"
NOTHING = 1e-6  # of what an interval reaches: a mean that is smaller is a rounding error of zero

# Which label arrives with the values?


def _exchanged(facts: Facts, exchanged: Mapping[str, Any], heads: Sequence[object]) -> str:
    """What is lost when values of the two labels change places, beside random groups."""
    first, second, *more = map(escape, facts.labels)
    before, after, mean = (float(exchanged[name]) for name in ("intact", "exchanged", "mean"))
    whose = "in-context head" if len(heads) == 1 else f"{len(heads)} in-context heads"
    between = "the right label's and the next one's" if more else f"*{second}* and *{first}*"
    begin = f"With the values of the {whose} exchanged between {between} positions, the mean margin "
    if not np.isfinite([before, after]).all():
        return f"{begin}is {NOT_MEASURED}."
    begin += f"goes from {before:z.2f} to {after:z.2f} logits"
    if not np.isfinite(mean):
        return f"{begin}; the intact margin is not above zero, so there is nothing of which a share could be lost."
    # Without an interval: that of the claim, which may be wider, follows.
    return f"{begin}: a loss of **{mean:z.0%}** of it. {_beside_random(exchanged['random'])}"


def _beside_random(losses: Sequence[float]) -> str:
    if not losses:
        return "There are not as many other deep heads, so there is no random group to compare with."
    low, high = f"{min(losses):z.0%}", f"{max(losses):z.0%}"
    between = f"is between {low} and {high}" if low != high else f"is {low}"
    return f"In {counted(len(losses), 'random group')} of as many other deep heads the loss {between}."


def _written(direct: pd.DataFrame, share_of_heads: float) -> str:
    """What the in-context heads write straight into the margin, of all that deep attention does."""
    rows = direct.set_index("what")
    own, deep, share = (Estimate(*map(float, rows.loc[name, ["mean", "low", "high"]])) for name in (OWN, DEEP, SHARE))
    if not np.isfinite([own.mean, deep.mean]).all():
        return f"What these heads write straight into the margin is {NOT_MEASURED}."
    begin = (
        f"Straight into the margin these heads, {share_of_heads:.1%} of the deep half's, write {said(own, '+z.2f')} "
        f"logits and all attention of the deep half {said(deep, '+z.2f')}"
    )
    if not np.isfinite(share.mean):
        return f"{begin}; as that is not above zero, there is nothing of which to be a share."
    return f"{begin}: a share of {said(share, 'z.0%')}."


EXCHANGED = Text("values-exchanged", write=_exchanged)
WRITTEN = Text("values-written", write=_written)

# Which label does a value favour?


def logit_minus_figure(summary: pd.DataFrame) -> Drawing:
    """Logit minus by group of heads and kind of position, a panel a measure.

    Columns `measure, group, kind, mean, low, high`; a kind is a label or "other".
    """
    measures, groups = list(dict.fromkeys(summary["measure"])), list(dict.fromkeys(summary["group"]))
    labels = sorted(set(summary["kind"]) - {OTHER})
    colours = {label: colour for label, colour, *_ in label_looks(labels)} | {OTHER: GREY}
    figure, axes = panels(len(measures), height=1.5 + 0.52 * len(groups), sharey=True)
    for ax, measure in zip(axes, measures, strict=True):
        for i, kind in enumerate([*reversed(labels), OTHER]):
            chosen = (summary["measure"] == measure) & (summary["kind"] == kind)
            part = summary[chosen].set_index("group").reindex(groups)
            errors = [(part["mean"] - part["low"]).clip(lower=0), (part["high"] - part["mean"]).clip(lower=0)]
            y = np.arange(len(groups)) + (i - len(labels) / 2) * 0.4 / len(labels)
            ax.errorbar(part["mean"], y, color=colours[kind], xerr=errors,
                        marker=KIND_MARKERS[i], linestyle="", capsize=2.5, markersize=5.5,
                        label=f"{kind} positions")  # fmt: skip
        ax.axvline(0, color=GREY, linewidth=1)
        ax.set(xlabel="logit minus (logits)", title=measure)
        ax.title.set_fontsize(10.5)
        ax.grid(visible=False, axis="y")
    axes[0].set_yticks(range(len(groups)), groups)
    axes[0].set_ylim(len(groups) - 0.5, -0.5)
    handles, names = axes[0].get_legend_handles_labels()
    legend_above(figure, handles, names)
    return figure


def _logit_minus_caption(facts: Facts, groups: Mapping[str, Sequence[object]]) -> str:
    control = f"Control: {counted(len(groups[CONTROL]), 'other head')} of the deep half." if CONTROL in groups else ""
    return (
        f"Logit minus of values by the kind of position, on {counted(facts.evaluation_sets * facts.queries, 'prompt')} "
        "of the evaluation half. Left: of vo alone, mean over the positions of a kind. Right: of vo times its "
        "attention weight, summed over them. "
        f"{_towards(facts)}{control or 'There is no control, as every head of the deep half was selected.'} "
        f"{intervals('Bars', facts.evaluation_sets)}"
    )


def _towards(facts: Facts) -> str:
    """Of more than two labels, which of them a value is read towards."""
    if len(facts.labels) == 2:
        return ""
    return (
        "At a label's positions a value is read towards that label, elsewhere towards the right one: its logit minus "
        "the mean of all others. "
    )


def _logit_minus_alt(summary: pd.DataFrame) -> str:
    known = summary.dropna(subset="mean").sort_values("kind", kind="stable")
    rows = [
        f"{measure}, {group}: "
        + ", ".join(f"{r.mean:+z.2f} at {r.kind} positions" for r in part.itertuples(index=False))
        + "."
        for (measure, group), part in known.groupby(["measure", "group"])
    ]
    return " ".join([f"{_panels(summary)} of points, a row for each group of heads.", *rows])


def _panels(summary: pd.DataFrame) -> str:
    return {1: "A panel", 2: "Two panels"}.get(summary["measure"].nunique(), "Panels")


def _differences(facts: Facts, differences: pd.DataFrame) -> str:
    first, second, *more = facts.labels
    where = f"at {second} positions minus at {first} positions"
    if more:
        where = "towards a label at its own positions minus at those of others"
    header = ["heads", "number", f"$M(\\mathrm{{vo}})$ {where}"]
    rows = [(escape(r.group), r.heads, _logits(r.mean, r.low, r.high)) for r in differences.itertuples()]
    return table_text(header, rows)


def _beside_paper(facts: Facts, beside: pd.DataFrame) -> str:
    if len(facts.labels) > 2:
        return "The paper's numbers are of two labels, and so is their sign."
    if beside.empty:
        groups = " and ".join(dict.fromkeys(group for group, *_ in PAPER_WEIGHTED))
        return f"The paper's numbers are of {groups}, which this run does not have."
    header = ["heads", "positions", "here, weighted", "paper (summaries of version 3)", "sign"]
    rows = [
        (escape(r.heads), escape(r.positions), _logits(r.mean, r.low, r.high), r.paper, r.sign)
        for r in beside.itertuples()
    ]
    same, opposite = (int((beside["sign"] == verdict).sum()) for verdict in ("the same", "the opposite"))
    ours = "Our interval has" if facts.evaluation_sets > 1 else "Our number, of one demonstration set, has"
    return (
        f"{table_text(header, rows)}\n\n{ours} the paper's sign in {same} of "
        f"{len(beside)} {plural(len(beside), 'comparison')} and the opposite one in {opposite}."
    )


LOGIT_MINUS = Figure("values-logit-minus", draw=logit_minus_figure, caption=_logit_minus_caption, alt=_logit_minus_alt)
DIFFERENCES = Text("values-differences", write=_differences)
BESIDE_PAPER = Text("values-beside-paper", write=_beside_paper)

# Is the label among a value's words?


def _top_shares(shares: pd.DataFrame) -> str:
    rows = [
        (
            escape(r.group),
            _share(r.mean_own, r.low_own, r.high_own),
            _share(r.mean_other, r.low_other, r.high_other),
        )
        for r in shares.itertuples()
    ]
    return table_text(["heads", "own label in the top 10", "other label in the top 10"], rows)


def _top_gap(facts: Facts, gap: Mapping[str, float]) -> str:
    if not gap:
        return "There are no other deep heads to compare with."
    points = Estimate(*(100 * gap[name] for name in ("mean", "low", "high")))
    if not points.known:
        return f"In-context heads minus {CONTROL}: {NOT_MEASURED}."
    if facts.evaluation_sets < 2:
        agrees = "which decides nothing, as there is one demonstration set"
    else:
        agrees = (
            "as the paper predicts" if points.low > 0 else "against the paper" if points.high < 0 else
            "which does not decide"
        )  # fmt: skip
    low, high = f"{points.low:+z.1f}", f"{points.high:+z.1f}"
    return f"In-context heads minus {CONTROL}: {points.mean:+z.1f} percentage points ({low} to {high}), {agrees}."


TOP_SHARES = Text("values-top-words", write=_top_shares)
TOP_GAP = Text("values-top-words-gap", write=_top_gap)

# A head in words


def words_figure(read: pd.DataFrame) -> Drawing:
    """One head in words, a row a position; weights are shaded. Columns as of `words.joined`, for one head.

    In a narrow place the words of a position stand below each other, those of its key in italics.
    """
    wide, facts = _by_position(read)
    places, lines, height = (STACKED, 3, 0.6) if narrow() else (BESIDE, 1, 0.25)
    n = len(facts)
    figure, (ax,) = panels(height=height * (n + 1) + 0.15)
    ax.set(xlim=(0, 1), ylim=(n, -1))
    ax.axis("off")

    def write(row: int, text: str, part: str, **more: Any) -> None:
        x, line = places[part]
        slant = "italic" if part == "key" and lines > 1 else "normal"
        ax.text(x, row + (line + 0.5) / lines, text, va="center", style=slant, **more)

    for part in places:
        write(-1, f"{part} (last: query)" if part == "key" else part, part, fontsize=9, fontweight="bold")
    largest = float(facts["weight"].max()) or 1.0
    for row, (position, token, weight) in enumerate(facts[["position", "token", "weight"]].to_numpy()):
        box = mpl.patches.Rectangle((0, row), 1, 1, color=ATTENTION, alpha=0.3 * weight / largest, linewidth=0)
        ax.add_patch(box)
        ax.axhline(row, color=FAINT, linewidth=0.6)
        cells = [_short(token), f"{weight:.3f}"]
        cells += ["  ".join(_short(word) for word in wide[part][position].split()[:SHOWN]) for part in PARTS]
        for text, part in zip(cells, places, strict=True):
            write(row, text, part, fontsize=8)
    return figure


def _words_caption(read: pd.DataFrame, prompt: str) -> str:
    layer, head = read[["layer", "head"]].iloc[0]
    return (
        f"Head {layer}.{head} in words on the prompt {code(prompt)}: three most likely tokens of each projection. "
        "Shading: attention weight from the last position. In the last row, key is the query."
    )


def _words_alt(read: pd.DataFrame) -> str:
    top = read[read["part"] == "value"].nlargest(SHOWN, "weight")
    weights = "; ".join(
        f"{r.weight:.2f} on {r.token}, whose value reads {' '.join(str(r.words).split()[:SHOWN]) or 'nothing'}"
        for r in top.itertuples()
    )
    largest = "The largest weights" if len(top) > 1 else "The only weight"
    return f"Table with a row for each of {counted(read['position'].nunique(), 'position')}. {largest}: {weights}."


def _at_labels(facts: Facts, at_labels: pd.DataFrame) -> str:
    if at_labels.empty:
        first, second, *more = map(escape, facts.labels)
        holds = "none of the labels" if more else f"neither *{second}* nor *{first}*"
        return f"The prompt holds {holds}, so no label position is read."
    hits, n, weight = int(at_labels["hit"].sum()), len(at_labels), at_labels["weight"].sum()
    hold = "Together these positions hold" if n > 1 else "This position holds"
    return (
        f"The label is among the top ten words of the value at {hits} of {n} {plural(n, 'label position')}. "
        f"{hold} {weight:.0%} of the head's attention."
    )


def words_markdown(read: pd.DataFrame) -> str:
    """One head's rows of `words.joined` as a Markdown table, a row per position; query words stand under key."""
    wide, facts = _by_position(read)
    rows = [
        (position, escape(token), f"{weight:.3f}", *(_escaped(wide[part][position]) for part in PARTS))
        for position, token, weight in zip(facts["position"], facts["token"], facts["weight"], strict=True)
    ]
    return table_text(["position", "token", "weight", *PARTS], rows)


def _escaped(words: str) -> str:
    return " ".join(map(escape, words.split()))


def _words_table(read: pd.DataFrame) -> str:
    lengths = [len(words.split()) for words in read["words"]]
    keys = [part in ("key", "query") for part in read["part"]]
    value, key = (max(n for n, is_key in zip(lengths, keys, strict=True) if is_key == want) for want in (False, True))
    title = f"The whole table: {counted(value, 'word')} of value and layer input, {key or 'none'} of key and query"
    return f":::{{admonition}} {title}\n:class: dropdown\n{words_markdown(read)}\n:::"


WORDS = Figure("values-words", draw=words_figure, caption=_words_caption, alt=_words_alt)
AT_LABELS = Text("values-words-at-labels", write=_at_labels)
WORDS_TABLE = Text("values-words-table", write=_words_table)


def _by_position(read: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Words by position and part, the query's under key; and a row for each position."""
    wide = read.replace({"part": {"query": "key"}}).pivot(index="position", columns="part", values="words")
    return wide, read.drop_duplicates("position")


def _short(word: str) -> str:
    """A token that fits its cell."""
    return word if len(word) <= LONGEST else word[: LONGEST - 1] + "…"


def _interval(mean: Any, low: Any, high: Any, form: str) -> str:
    """Mean and interval in a format; words where there is no number."""
    measured = Estimate(mean, low, high)
    return format(measured, form) if measured.known else NOT_MEASURED


def _share(mean: Any, low: Any, high: Any) -> str:
    return share(Estimate(mean, low, high))


def _logits(mean: Any, low: Any, high: Any) -> str:
    """Mean and interval in logits, with more digits, up to six, where one of them would lose its sign."""
    widest = max(abs(low), abs(high))
    values = [float(x) for x in (mean, low, high) if abs(x) > NOTHING * widest]
    digits = next((n for n in range(3, 6) if all(round(x, n) for x in values)), 6)
    seen = mean == 0 or any(round(x, digits) for x in values)
    return _interval(mean, low, high, f"+z.{digits}f" if seen else "+.0e")

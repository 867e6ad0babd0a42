"""What the chapter on locating shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from ...paper import PAPER_SUMS
from ...publishing.markdown import escape, table_text
from ...publishing.plots import banded_line, head_map, panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.style import ATTENTION, GREY, INK, MARKERS, MLP
from ...publishing.wording import counted, estimate_of, intervals, said
from ...statistics import Estimate
from .locate import GOLD
from .margin import APART, DEEP, EMBEDDING, MARGIN, MLPS, SHALLOW, SHARE

NAMED = 5  # heads that the alt text names

# Layers


def layers_figure(layers: pd.DataFrame) -> Drawing:
    """Log-probability increase by layer. Columns `layer, component, mean, low, high`."""
    figure, axes = panels(2, sharey=True)
    for ax, (component, part), colour in zip(
        axes, layers.groupby("component", sort=False), (ATTENTION, MLP), strict=True
    ):
        errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
        ax.bar(part["layer"], part["mean"], color=colour, yerr=errors, width=0.8,
               error_kw={"ecolor": INK, "elinewidth": 0.8})  # fmt: skip
        ax.axhline(0, color=INK, linewidth=0.8)
        ax.set(xlabel="layer", title=_named(component))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(visible=False, axis="x")
    axes[0].set_ylabel("log-probability increase (nats)")
    return figure


def _layers_caption(facts: Facts) -> str:
    return (
        f"Log-probability increase of the right label at the last position, by layer, for attention (left) and MLP "
        f"(right), in nats. Means over {_prompts(facts)}. "
        f"{intervals('Whiskers', facts.evaluation_sets)} "
        f"Layer 0 starts from the bare token embedding and is shown for completeness."
    )


def _layers_alt(layers: pd.DataFrame) -> str:
    attention, mlp = (_largest(layers[layers["component"] == name]) for name in ("attention", "mlp"))
    return f"Two bar charts by layer. The largest attention layer is {attention}; the largest MLP is {mlp}."


LAYERS = Figure("locate-layers", draw=layers_figure, caption=_layers_caption, alt=_layers_alt)


def _sums(facts: Facts, totals: pd.DataFrame) -> str:
    """What attention and the MLPs add over all layers."""
    if facts.evaluation_sets < 2:
        attention, mlp = (f"**{_nats(_total(totals, name).mean, 2)}**" for name in ("attention", "mlp"))
        return f"Over all layers, attention adds {attention} nats and the MLPs {mlp}."
    attention, mlp = (
        f"**{_total(totals, name):z.2f}**" if _total(totals, name).known else "an unknown number of"
        for name in ("attention", "mlp")
    )
    return f"Over all layers, attention adds {attention} nats and the MLPs {mlp} (95% intervals in brackets)."


SUMS = Text("locate-sums", write=_sums)


def _elsewhere(totals: pd.DataFrame) -> str:
    """The sums of the authors' own example, and whether attention or the MLPs add more there and here."""
    (first, attention, mlp), *others = PAPER_SUMS
    numbers = f"{attention} nats (attention) and {mlp} (MLPs) for {first}"
    numbers += "".join(f", and {a} and {m} for {name}" for name, a, m in others)
    there = [_compared(a, m) for _, a, m in PAPER_SUMS]
    here = _compared(_total(totals, "attention").mean, _total(totals, "mlp").mean)
    and_here = ", and so it does here" if set(there) == {here} else f"; here it adds {here} the MLPs"
    return (
        f"On a factual prompt, whose answer is the sport of a player, the sums over layers are {numbers}. "
        f"There attention adds {' or '.join(dict.fromkeys(there))} the MLPs{and_here}."
    )


ELSEWHERE = Text("locate-elsewhere", write=_elsewhere)


# The margin as a sum


def margin_figure(layers: pd.DataFrame, facts: Facts) -> Drawing:
    """What attention and MLPs write into the margin, by layer. Columns `layer, component, mean, low, high`."""
    figure, (ax,) = panels()
    parts = layers.groupby("component", sort=False)
    for (component, part), colour, marker in zip(parts, (ATTENTION, MLP), MARKERS, strict=False):
        banded_line(ax, part, "layer", label=_named(component), colour=colour, marker=marker)
    ax.axhline(0, color=INK, linewidth=0.8)
    if facts.n_layers > 1:
        ax.axvline(facts.half - 0.5, color=GREY, linestyle=":", linewidth=1.3, label="deep half begins")
    ax.set(xlabel="layer", ylabel="direct margin (logits)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="best", fontsize=9)
    return figure


def _margin_caption(facts: Facts, totals: pd.DataFrame) -> str:
    margin, embedding = (_nats(_total(totals, part).mean, 2) for part in (MARGIN, EMBEDDING))
    return (
        f"What the attention and the MLP of each layer write straight into the margin, i.e. the right label's logit "
        f"minus {facts.against}, in logits. Means over {_prompts(facts)}. Together with the embedding ({embedding}) "
        f"the parts add up to the margin ({margin}), up to biases of the logits. "
        f"{intervals('Bands', facts.evaluation_sets)}"
    )


def _margin_alt(layers: pd.DataFrame) -> str:
    attention, mlp = (_largest(layers[layers["component"] == name], "logits") for name in ("attention", "mlp"))
    return (
        f"Two lines by layer around zero. The attention layer that writes most into the margin is {attention}; the MLP "
        f"that does is {mlp}."
    )


def _depths(facts: Facts, totals: pd.DataFrame) -> str:
    """What deep and shallow attention write into the margin, and the difference as a share of it."""
    deep, shallow, apart, mlps = (said(_total(totals, part), "z.2f") for part in (DEEP, SHALLOW, APART, MLPS))
    halves = (
        f"Attention in the deep half of the layers writes {deep} logits straight into the margin, in the shallow half "
        f"{shallow}"
    )
    if facts.n_layers == 1:
        halves = f"The only layer counts as deep; its attention writes {deep} logits straight into the margin"
    share = _total(totals, SHARE)
    if not np.isfinite(share.mean):
        of_margin = "There is no margin above zero for this to be a share of"
    else:
        of_margin = f"That is {share.mean:z.0%} of the margin"  # the interval is that of the claim, which follows
    intervals = " (95% intervals in brackets)" if facts.evaluation_sets > 1 else ""
    return f"{halves}; deep minus shallow is **{apart}**{intervals}. {of_margin}. The MLPs write {mlps}."


MARGINS = Figure("locate-margin", draw=margin_figure, caption=_margin_caption, alt=_margin_alt)
DEPTHS = Text("locate-depths", write=_depths)


# Heads


def heads_figure(heads: pd.DataFrame) -> Drawing:
    """Log-probability increase by head, the largest deep ones framed. Columns `layer, head, log_increase, largest`."""
    framed = [(layer, head) for layer, head, _ in _largest_heads(heads)]
    return head_map(heads, "log_increase", title="log-probability increase (nats)", marked=framed)


def _heads_caption(facts: Facts, heads: pd.DataFrame) -> str:
    framed, deep = int(heads["largest"].sum()), int((heads["layer"] >= facts.half).sum())
    if not framed:
        which = "No head is framed, since the deep half of the layers has none to rank"
    elif framed == deep:
        which = f"Framed: {'the only head' if deep == 1 else f'all {deep} heads'} in the deep half of the layers"
    else:
        which = f"Framed: the {'' if framed == 1 else f'{framed} '}largest in the deep half of the layers"
    return (
        f"Log-probability increase of the right label by each head alone, mean over {_prompts(facts)}, in nats. "
        f"{which}. Colour is centred on zero; green heads lower the right label."
    )


def _heads_alt(heads: pd.DataFrame) -> str:
    size = heads["log_increase"].abs()
    near = int((size <= size.max() / 10).sum())
    what = (
        f"Heat map of heads by layer. {near} of {len(heads)} cells lie within a tenth of the largest value around zero."
    )
    if not size.max() > 0:
        what = "Heat map of heads by layer. No cell differs from zero."
    names = [f"{layer}.{head}" for layer, head, _ in _largest_heads(heads)[:NAMED]]
    if not names:
        return what
    begin = "The largest head of the deep half, as layer.head, is" if len(names) == 1 else (
        "The largest heads of the deep half, as layer.head, are"
    )  # fmt: skip
    return f"{what} {begin} {', '.join(names)}."


HEADS = Figure("locate-heads", draw=heads_figure, caption=_heads_caption, alt=_heads_alt)


def _top(heads: pd.DataFrame) -> str:
    """The largest deep heads by gold label, and how much of all that heads add is theirs."""
    found = _largest_heads(heads)
    if not found:
        return "The deep half of the layers has no heads to rank."
    labels = [str(column) for column in heads.columns if str(column).startswith(GOLD)]
    rows = [
        (f"{layer}.{head}", *(_nats(row[column], 3) for column in ("log_increase", *labels)))
        for layer, head, row in found
    ]
    table = table_text(["head", "mean", *map(escape, labels)], rows)
    these = "This head" if len(found) == 1 else f"These {len(found)} heads"
    share = f"{these}, {len(found) / len(heads):.1%} of all,"
    above = heads.loc[heads["layer"] > 0, "log_increase"].clip(lower=0).sum()
    if not above > 0:
        return f"{table}\n\nNo head above layer 0 adds to the right label."
    own = heads.loc[heads["largest"], "log_increase"].clip(lower=0).sum() / above
    return (
        f"{table}\n\n{share} {'holds' if len(found) == 1 else 'hold'} {own:.0%} of everything that heads above layer 0 "
        f"add, counting only heads that add."
    )


TOP = Text("locate-top", write=_top)


# Wording


def _largest_heads(heads: pd.DataFrame) -> list[tuple[int, int, pd.Series]]:
    """Layer, head and row of the heads that are marked as largest, the largest first."""
    table = heads[heads["largest"]].sort_values("log_increase", ascending=False, kind="stable")
    return [(int(row["layer"]), int(row["head"]), row) for _, row in table.iterrows()]


def _named(component: object) -> str:
    return {"mlp": "MLP"}.get(str(component), str(component))


def _largest(part: pd.DataFrame, unit: str = "nats") -> str:
    known = part.dropna(subset="mean")
    if known.empty:
        return "not known"
    row = known.iloc[int(known["mean"].argmax())]
    return f"layer {row['layer']} with {_nats(row['mean'], 2)} {unit}"


def _total(totals: pd.DataFrame, component: str) -> Estimate:
    return estimate_of(totals[totals["component"] == component].iloc[0].to_dict())


def _compared(attention: float, mlp: float) -> str:
    """How attention's sum compares with that of the MLPs, as far as two decimals tell."""
    if not np.isfinite([attention, mlp]).all():
        return "an amount that cannot be compared with that of"
    apart = round(attention - mlp, 2)
    if apart == 0:
        return "as much as"
    return f"{'more' if apart > 0 else 'less'} than"


def _nats(value: float, digits: int) -> str:
    return format(float(value), f"z.{digits}f") if np.isfinite(value) else "not known"


def _prompts(facts: Facts) -> str:
    return counted(facts.evaluation_sets * facts.queries, "prompt")

"""What the chapter on shallow layers shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ...publishing import style
from ...publishing.plots import accuracy_axis, banded_line, legend_above, panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.wording import counted, intervals, joined, percent, plural, said
from ...statistics import Estimate

PANELS = {"text_to_label": "text to label", "query_to_last": "query to last", "label_to_last": "label to last"}
COUNTS = {2: "Two", 3: "Three"}
PLACES = {
    "text": ("at the text", style.TEXT, "^", "-"),
    "label": ("at its label", style.LABEL, "o", "-"),
    "shuffled": ("at another's label", style.RANDOM, "s", "--"),
}
THIRDS = ("first", "middle", "last")
NAMED = 3  # layers that share a maximum and are still named

# Cutting attention edges


def blocking_figure(curve: pd.DataFrame, facts: Facts | None = None) -> Drawing:
    """Accuracy by first layer of the window, intact where it is empty.

    Columns `kind, start, stop, control, mean, low, high`.
    """
    kinds = _kinds(curve)
    figure, axes = panels(len(kinds), height=3.6, sharey=True)
    for ax, kind in zip(axes, kinds, strict=True):
        part = curve[curve["kind"] == kind].sort_values("start")
        intact = part[part["stop"] == part["start"]]
        cuts = part[part["stop"] > part["start"]]
        for mean in intact["mean"]:
            ax.axhline(mean, color=style.INK, linewidth=1.2, label="nothing cut")
        for control, name, colour, marker, line in (
            (False, "these edges cut", style.TESTED, "o", "-"),
            (True, "random edges cut", style.RANDOM, "s", "--"),
        ):
            banded_line(
                ax, cuts[cuts["control"] == control], "start", label=name, colour=colour, marker=marker, line=line
            )
        ax.set(xlabel="first layer of the window", title=PANELS[kind])
        ax.xaxis.label.set_fontsize("small")  # three of them beside each other
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        accuracy_axis(ax, len(facts.labels) if facts else 2)
    axes[0].set_ylabel("accuracy")
    handles, names = axes[0].get_legend_handles_labels()
    legend_above(figure, handles, names, columns=2)
    return figure


def _blocking_caption(curve: pd.DataFrame, sets: int) -> str:
    width = int((curve["stop"] - curve["start"]).max())
    return (
        f"Accuracy over the full vocabulary with edges cut in "
        f"{'one layer' if width == 1 else f'a window of {width} layers'}, by the window's first layer, beside as many "
        f"random edges of the same positions. {intervals('Bands', sets)}"
    )


def _blocking_alt(facts: Facts, curve: pd.DataFrame) -> str:
    number = len(_kinds(curve))
    charts = f"{COUNTS[number]} line charts, one per kind of edge," if number > 1 else "Line chart"
    return (
        f"{charts} of accuracy by first layer of the window, with a line for random edges and a level for the intact "
        f"model. {_costliest(facts, curve)}"
    )


BLOCKING = Figure("shallow-blocking", draw=blocking_figure, caption=_blocking_caption, alt=_blocking_alt)


def _costliest(facts: Facts, curve: pd.DataFrame) -> str:
    """Where cutting each kind of edge costs most."""
    return " ".join(_costliest_of(facts, curve[curve["kind"] == kind], PANELS[kind]) for kind in _kinds(curve))


COSTLIEST = Text("shallow-costliest", write=_costliest)

# What a label position knows


def probe_figure(places: pd.DataFrame, categories: int, facts: Facts | None = None) -> Drawing:
    """Accuracy of the probe by layer. Columns `layer, where, mean, low, high`; `categories` sets the chance line."""
    figure, (ax,) = panels(height=3.8)
    for where, (name, colour, marker, line) in PLACES.items():
        part = places[places["where"] == where].sort_values("layer")
        banded_line(ax, part, "layer", label=name, colour=colour, marker=marker, line=line)
    shown = len(facts.labels) if facts else 2
    of_set = f"one of the set's {'two' if shown == 2 else shown} categories"
    ax.axhline(1 / shown, color=style.GREY, linestyle="--", linewidth=1.0, label=of_set)
    if categories > shown:
        ax.axhline(
            1 / categories, color=style.GREY, linestyle=":", linewidth=1.3, label=f"one of {categories} categories"
        )
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="residual entering layer", ylabel="category read correctly")
    legend_above(figure, *ax.get_legend_handles_labels())
    return figure


def _probe_caption(facts: Facts, places: pd.DataFrame) -> str:
    number, bands = int(places["demonstrations"].max()), intervals("Bands", facts.evaluation_sets)
    return (
        f"How often a linear probe names the category of a demonstration's text, for words and demonstration sets that "
        f"it was not trained on, by layer: at the text's last token, at its label, and at the label of another "
        f"demonstration of the set. {number} {plural(number, 'demonstration')}. {bands}"
    )


def _probe_alt(facts: Facts, places: pd.DataFrame, categories: int) -> str:
    levels = "two chance levels" if categories > len(facts.labels) else "one chance level"
    found = [_highest(name, places[places["where"] == where]) for where, (name, *_) in PLACES.items()]
    return f"Line chart of probe accuracy by layer with {levels}. {' '.join(found)}"


PROBE = Figure("shallow-probe", draw=probe_figure, caption=_probe_caption, alt=_probe_alt)


def _lead(facts: Facts, leads: pd.DataFrame) -> str:
    """Where a label position reads its own text better than another's."""
    if facts.evaluation_sets > 1:
        ahead = [str(layer) for layer in leads[leads["low"] > 0]["layer"]]
        text = (
            f"The label position reads its own text better than another's, with an interval above zero, "
            f"{_entering(ahead) if ahead else 'entering no layer that was read'}."
        )
    else:
        text = "One demonstration set gives no intervals."
    early = leads[leads["early"]].dropna(subset="mean")
    if early.empty:
        return f"{text} Within the first third the lead is not known."
    best = early[early["mean"] == early["mean"].max()]
    top = next(best.itertuples(index=False))
    lead = said(Estimate(float(top.mean), float(top.low), float(top.high)), "+z.1%")
    if top.mean <= 0:
        read = f"entering layer {top.layer} it is {lead}" if len(early) == 1 else f"at most it is {lead}"
        return f"{text} Within the first third there is no lead: {read}. {_alone(top)}"
    where = _entering([str(layer) for layer in best["layer"]])
    largest = "was read" if len(early) == 1 else "is largest"
    return f"{text} Within the first third the lead {largest} {where}: {lead}. {_alone(top)}"


LEAD = Text("shallow-lead", write=_lead)

# Wording


def _kinds(curve: pd.DataFrame) -> list[str]:
    return [kind for kind in PANELS if kind in set(curve["kind"])]


def _costliest_of(facts: Facts, part: pd.DataFrame, edges: str) -> str:
    cuts = part[(part["stop"] > part["start"]) & ~part["control"]].dropna(subset="mean")
    intact = part.loc[part["stop"] == part["start"], "mean"]
    if cuts.empty or not np.isfinite(intact).any():
        return f"What cutting {edges} costs is not known."
    before, lowest = float(intact.iloc[0]), cuts["mean"].min()
    same = cuts[cuts["mean"] == lowest].sort_values("start")
    worst = same.iloc[0]
    layers = _layers(worst["start"], worst["stop"])
    if lowest >= before:
        costs = f"Cutting {edges} costs no accuracy in {'any' if len(cuts) > 1 else 'the only'} window"
        return f"{costs}: intact it is {percent(before, 1)}, with these edges cut {percent(lowest, 1)} or more."
    change = f"accuracy goes from {percent(before, 1)} to {percent(lowest, 1)}"
    controls = part[part["control"]].dropna(subset="mean").set_index("start")["mean"]
    random = ""
    if worst["start"] in controls:
        random = f", with random edges cut to {percent(controls[worst['start']], 1)}"
    if len(cuts) == 1:
        return f"Cutting {edges} in {layers}, the only window: {change}{random}."
    if len(same) == len(cuts):
        least = f", with random edges cut to {percent(controls.min(), 1)} or more" if len(controls) else ""
        return f"Cutting {edges} costs the same in every window: {change}{least}."
    third = THIRDS[3 * int(worst["start"] + worst["stop"]) // (2 * facts.n_layers)]
    where = f"in {layers}, whose centre lies in the {third} third"
    if len(same) > 1:
        others = len(same) - 1
        where += f", and as costly in {counted(others, 'other window')}"
    return f"Cutting {edges} is costliest {where}: {change}{random}."


def _layers(start: Any, stop: Any) -> str:
    return f"layer {start}" if stop - start == 1 else f"layers {start} to {stop - 1}"


def _highest(place: str, part: pd.DataFrame) -> str:
    """Where the probe reads best at one place."""
    known, begin = part.dropna(subset="mean").sort_values("layer"), f"{place[0].upper()}{place[1:]}"
    if known.empty:
        return f"{begin} it is not known."
    best = known["mean"].max()
    layers = [str(layer) for layer in known.loc[known["mean"] == best, "layer"]]
    if len(layers) == len(known):
        where = f"layer {layers[0]}, the only one" if len(known) == 1 else "every layer"
        return f"{begin} it is {percent(best)} at {where}."
    at = f"layer {layers[0]}" if len(layers) == 1 else f"layers {joined(layers)}"
    if len(layers) > NAMED:
        at = f"{len(layers)} layers, the first of them {layers[0]},"
    return f"{begin} it is highest at {at} with {percent(best)}."


def _alone(top: Any) -> str:
    """The lead on those demonstrations that no earlier one can tell of."""
    lead = said(Estimate(float(top.alone), float(top.alone_low), float(top.alone_high)), "+z.1%")
    firsts = "the one demonstration that is the first of its label"
    if top.firsts != 1:
        firsts = f"the {top.firsts} demonstrations that are the first of their label"
    return f"Entering layer {top.layer}, on {firsts}, where no earlier one can tell, it is {lead}."


def _entering(layers: Sequence[str]) -> str:
    return f"entering layer {layers[0]}" if len(layers) == 1 else f"entering layers {joined(layers)}"

"""What the chapter on imbalance shows of remedies."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ...paper import PAPER_FLUCTUATION
from ...publishing.markdown import escape, table_text
from ...publishing.plots import panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.style import GREY, MEASURES
from ...publishing.wording import estimate_of, intervals, joined, relative, said
from ...statistics import Estimate
from .mitigation import CONTROL, NONE, OWN, PAPER

QUANTITIES = {  # panels: title, what is drawn, colour, marker
    "shift": ("lean towards the majority", "its size, in probability", MEASURES[0], "o"),
    "accuracy": ("accuracy", "two-way accuracy", MEASURES[1], "s"),
}


def mitigation_figure(compared: pd.DataFrame) -> Drawing:
    """Size of the majority shift and accuracy with each remedy.

    Columns `remedy, strength` (nan or 0: none), `quantity` (shift, removed, accuracy), `mean, low, high`.
    """
    titles = _titles(compared)
    figure, axes = panels(2, height=1.3 + 0.42 * len(titles), sharey=True)
    for ax, (quantity, (title, unit, colour, marker)) in zip(axes, QUANTITIES.items(), strict=True):
        part = compared[compared["quantity"] == quantity].set_index("remedy").loc[list(titles)]
        errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
        ax.errorbar(part["mean"], range(len(part)), xerr=errors, color=colour, marker=marker, linestyle="", capsize=3)
        ax.axvline(part["mean"].iloc[0], color=GREY, linewidth=1, linestyle=":")
        ax.set(title=title, xlabel=unit)
        ax.title.set_fontsize(10.5)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))  # as many decimals as the range needs
        ax.grid(visible=False, axis="y")
    axes[0].set_xlim(left=0)
    axes[1].set_xlim(right=min(1.02, axes[1].get_xlim()[1]))
    axes[0].set_yticks(range(len(titles)), list(titles.values()))
    axes[0].invert_yaxis()
    return figure


def _mitigation_caption(facts: Facts, compared: pd.DataFrame, demonstrations: int, groups: int, sets: int) -> str:
    second = escape(facts.labels[1])
    random = f" Random heads: mean over {groups} groups of as many." if CONTROL in set(compared["remedy"]) else ""
    return (
        f"Prompts with 1 and with {demonstrations - 1} of {demonstrations} demonstrations labelled {second}. Left: "
        f"size of the majority shift, half the difference of P({second}) between the two. Right: two-way accuracy. "
        f"Dotted: intact. Strength {_strength(compared, OWN):g} was chosen on the selection half.{random} "
        f"{intervals('Bars', sets)}"
    )


def _mitigation_alt(compared: pd.DataFrame) -> str:
    parts = [
        f"{_found(compared, remedy, 'shift').mean:z.1%} and {_found(compared, remedy, 'accuracy').mean:z.1%} ({title})"
        for remedy, title in _titles(compared).items()
    ]
    return f"Two dot charts by remedy. Size of the shift towards the majority and two-way accuracy: {', '.join(parts)}."


MITIGATION = Figure("imbalance-mitigation", draw=mitigation_figure, caption=_mitigation_caption, alt=_mitigation_alt)


def _remedies(compared: pd.DataFrame) -> str:
    """What every remedy takes off the shift, and what it does to accuracy."""
    before, rows = _found(compared, NONE, "accuracy").mean, []
    for remedy, title in _titles(compared).items():
        if remedy != NONE:
            gain = _found(compared, remedy, "removed")
            change = 100 * (_found(compared, remedy, "accuracy").mean - before)
            rows.append((title, said(gain, "+z.1%"), _word(gain), f"{change:+z.1f} points"))
    header = ("remedy", "taken off the size of the shift", "the interval says", "two-way accuracy itself")
    intact = f"Intact, the shift has a size of {said(_found(compared, NONE, 'shift'), 'z.1%')}."
    return f"{intact}\n\n{table_text(header, rows)}"


REMEDIES = Text("imbalance-remedies", write=_remedies)


def _fluctuations(fluctuations: pd.DataFrame, compared: pd.DataFrame) -> str:
    """The paper's number: how far a data set's accuracy moves when a demonstration is dropped."""
    moved = {float(row["strength"]): float(row["fluctuation"]) for row in fluctuations.to_dict("records")}
    own, paper = (_strength(compared, remedy) for remedy in (OWN, PAPER))
    before = moved[0.0]
    text = f"Accuracy of all prompts together, over the full vocabulary, moves by {before:z.1%} in the intact model"
    if own == paper:
        text += f" and {moved[own]:z.1%} at the chosen strength, the paper's {own:g} ({relative(before, moved[own])})"
    else:
        text += (
            f", {moved[own]:z.1%} at the chosen strength {own:g} ({relative(before, moved[own])}) and "
            f"{moved[paper]:z.1%} at the paper's {paper:g} ({relative(before, moved[paper])})"
        )
    paper_has = joined([f"{change:+g}% ({source})" for change, source in PAPER_FLUCTUATION])
    return f"{text}. The paper has {paper_has}."


FLUCTUATIONS = Text("imbalance-fluctuations", write=_fluctuations)


# Wording


def _titles(compared: pd.DataFrame) -> dict[str, str]:
    """Remedies in their order with what they are called, their strength included."""
    rows = compared.drop_duplicates("remedy").to_dict("records")
    return {str(r["remedy"]): f"{r['remedy']}, {r['strength']:g}" if r["strength"] > 0 else r["remedy"] for r in rows}


def _strength(compared: pd.DataFrame, remedy: str) -> float:
    return float(compared.loc[compared["remedy"] == remedy, "strength"].iloc[0])


def _found(compared: pd.DataFrame, remedy: str, quantity: str) -> Estimate:
    place = (compared["remedy"] == remedy) & (compared["quantity"] == quantity)
    return estimate_of(compared[place].to_dict("records")[0])


def _word(gain: Estimate) -> str:
    if not gain.known:
        return "no interval of one set"
    return {1: "less biased", -1: "more biased", 0: "undecided"}[int(gain.low > 0) - int(gain.high < 0)]

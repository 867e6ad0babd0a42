"""What the chapter on the task shows."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from ...paper import PAPER_ACCURACY
from ...publishing import style
from ...publishing.markdown import code, escape, fenced
from ...publishing.plots import accuracy_axis, banded_line, fitting, panels
from ...publishing.publish import Facts, Figure, Text
from ...publishing.style import INK, MARKERS, MEASURES
from ...publishing.wording import counted, intervals, percent
from ...statistics import CHANCE
from .accuracy import FULL, TWO_WAY


def _account(facts: Facts) -> str:
    """What the task says of itself, as it is: names of files and categories may hold anything."""
    return re.sub(r"[^\s.,;]+|[.,;](?=\S)", lambda word: escape(word[0]), " ".join(facts.account.split()))


ACCOUNT = Text("task-account", write=_account)


def _prompt(prompt: str, answer: str) -> str:
    return f"{fenced(prompt)}\n\nThe right next token is {code(f'␣{answer}')}."


PROMPT = Text("task-prompt", write=_prompt)


# Accuracy by the number of demonstrations


def shots_figure(shots: pd.DataFrame, facts: Facts | None = None) -> Drawing:
    """Accuracy by demonstrations a label. Columns `shots, measure, mean, low, high`."""
    figure, (ax,) = panels()
    named = {TWO_WAY: facts.between if facts else TWO_WAY}
    for (measure, part), colour, marker in zip(shots.groupby("measure", sort=False), MEASURES, MARKERS, strict=False):
        name = named.get(str(measure), str(measure))
        banded_line(ax, part, "shots", label=name, colour=colour, marker=marker)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(shots["shots"].unique()), [str(n) for n in sorted(shots["shots"].unique())])
    ax.set(xlabel="demonstrations of each label", ylabel="accuracy")
    accuracy_axis(ax, len(facts.labels) if facts else 2)
    ax.legend(loc="lower right")
    return figure


def _shots_caption(facts: Facts, shots: pd.DataFrame) -> str:
    fewest, most = _ends(shots, FULL)
    first, last = int(shots["shots"].min()), int(shots["shots"].max())
    if first == last:
        what = f"Accuracy with {_of_each(last)}: {percent(most, 1)} over the full vocabulary."
    else:
        what = (
            f"Accuracy by the number of demonstrations of each label: {percent(most, 1)} over the full vocabulary "
            f"with {last}, {percent(fewest, 1)} with {'one' if first == 1 else first}. The queries are the same at "
            f"every point."
        )
    return f"{what} {intervals('Bands', facts.evaluation_sets)}"


def _shots_alt(facts: Facts, shots: pd.DataFrame) -> str:
    full, two_way = _ends(shots, FULL), _ends(shots, TWO_WAY)
    first, last = int(shots["shots"].min()), int(shots["shots"].max())
    if first == last:
        what = (
            f"Chart with one point a measure, for {_of_each(last)}: full-vocabulary accuracy is {percent(full[1])}, "
            f"accuracy {facts.between} {percent(two_way[1])}."
        )
    else:
        what = (
            f"Line chart. Full-vocabulary accuracy goes from {percent(full[0])} with {_of_each(first)} to "
            f"{percent(full[1])} with {last}; accuracy {facts.between} goes from {percent(two_way[0])} to "
            f"{percent(two_way[1])}."
        )
    return f"{what} A dotted line marks chance at {100 * facts.chance:.0f}%."


SHOTS = Figure("task-shots", draw=shots_figure, caption=_shots_caption, alt=_shots_alt)


def _can(facts: Facts, accuracy: Mapping[str, float]) -> str:
    """Whether the model does the task, as the verdicts on the claims take it."""
    mean, *ends = (accuracy[name] for name in ("mean", "low", "high"))
    low, high = (float(np.clip(end, 0, 1)) for end in ends)  # a t interval may reach beyond what a share can be
    chance = "one half" if facts.chance == CHANCE else f"chance, {percent(facts.chance, 1)}"
    untestable = "so the claims of the following chapters are not testable on this model"
    interval = f" ({percent(low, 1)} to {percent(high, 1)})"
    if not np.isfinite(mean):
        interval, verdict = "", f"it could not be measured, {untestable}"
    elif not np.isfinite([low, high]).all():
        interval, verdict = "", f"one demonstration set gives no interval, {untestable}"
    elif low > facts.chance:
        verdict = f"its interval lies above {chance}, so the chapters that follow have a decision to explain"
    else:
        verdict = f"its interval {'lies below' if high < facts.chance else 'includes'} {chance}, {untestable}"
    return f"With {_of_each(facts.shots)} the accuracy {facts.between} is **{percent(mean, 1)}**{interval}: {verdict}."


CAN = Text("task-can", write=_can)


# Accuracy by template


def templates_figure(templates: pd.DataFrame) -> Drawing:
    """Accuracy by template and gold label. Columns `template, label, mean, low, high`."""
    names, labels = list(dict.fromkeys(templates["template"])), sorted(templates["label"].unique())
    figure, (ax,) = panels(height=3.2)
    width = 0.68 / len(labels)
    for i, (label, colour, hatch, _) in enumerate(style.label_looks(labels)):
        part = templates[templates["label"] == label].set_index("template").loc[names]
        x = np.arange(len(names)) + (i - (len(labels) - 1) / 2) * width
        errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
        ax.bar(x, part["mean"], width - 0.04, color=colour, yerr=errors, capsize=3, label=f"gold label {label}",
               error_kw={"ecolor": INK, "elinewidth": 1.2}, hatch=hatch, edgecolor=style.PAPER)  # fmt: skip
    ax.set_xticks(range(len(names)), names)
    ax.set(xlabel="template", ylabel="accuracy")
    ax.grid(visible=False, axis="x")
    accuracy_axis(ax, len(labels))
    _, shown = ax.get_legend_handles_labels()
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=fitting(figure, shown, 3, 9.0), fontsize=9)
    return figure


def _templates_caption(facts: Facts) -> str:
    return (
        f"Accuracy over the full vocabulary by template and gold label, with {_of_each(facts.shots)}. *lines*: "
        f"`text: label`, one to a line; *paper*: `text : label`, all on one line. "
        f"{intervals('Whiskers', facts.evaluation_sets)}"
    )


def _templates_alt(templates: pd.DataFrame) -> str:
    rows = zip(templates["template"], templates["label"], templates["mean"], strict=True)
    parts = [f"{template}, gold label {label}: {percent(mean)}" for template, label, mean in rows]
    return f"Bar chart of accuracy by template and gold label. {'; '.join(parts)}."


TEMPLATES = Figure("task-templates", draw=templates_figure, caption=_templates_caption, alt=_templates_alt)


def _taste(facts: Facts, templates: pd.DataFrame) -> str:
    """What the template changes, and which label the model is better at."""
    means = templates.groupby("template", sort=False)["mean"].mean()
    (first, reached), *others = means.items()
    reaches = f"*{escape(first)}* reaches {percent(reached, 1)}"
    reaches += "".join(f" and *{escape(name)}* {percent(mean, 1)}" for name, mean in others)
    used = templates[templates["template"] == facts.template].dropna(subset="mean")
    own = dict(zip(used["label"], used["mean"], strict=True))
    which = "both" if len(facts.labels) == 2 else "all"
    text = f"Averaged over {which} labels, {reaches}. The chapters of this model use *{escape(facts.template)}*."
    if not own:
        return text
    better, worse = max(own, key=own.__getitem__), min(own, key=own.__getitem__)
    more, less = percent(own[better], 1), percent(own[worse], 1)
    if own[better] == own[worse]:
        return f"{text} With it, the model is right on {percent(own[better], 1)} of the prompts, whichever the answer."
    points = round(100 * (own[better] - own[worse]))
    apart = counted(points, "point") if points else "less than one point"
    return (
        f"{text} With it, the model is right on {more} of the prompts whose answer is *{escape(better)}* "
        f"and on {less} of those whose answer is *{escape(worse)}*, a difference of {apart}."
    )


TASTE = Text("task-taste", write=_taste)


def _paper(accuracy: Mapping[str, float]) -> str:
    return (
        f"The paper's abstract (version 3) reports {100 * PAPER_ACCURACY:.1f}% accuracy before any head is removed, "
        f"for its own models on five sentence data sets. This model reaches {percent(accuracy['mean'], 1)} on this "
        f"task."
    )


PAPER = Text("task-paper", write=_paper)


# Wording


def _ends(shots: pd.DataFrame, measure: str) -> tuple[float, float]:
    """The mean with the fewest and with the most demonstrations."""
    means = shots[shots["measure"] == measure].sort_values("shots")["mean"]
    return float(means.iloc[0]), float(means.iloc[-1])


def _of_each(number: int) -> str:
    return f"{counted(number, 'demonstration')} of each label"

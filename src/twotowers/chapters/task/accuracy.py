"""How well the intact model does the task: accuracy by number of demonstrations and by template."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ...prompts.sets import TEMPLATES
from ...statistics import summarise
from ...study import Study
from ...tracing.outcomes import outcomes

FULL, TWO_WAY = "full vocabulary", "between the two labels"
MEASURES = {"accuracy": FULL, "accuracy_two_way": TWO_WAY}


def answers(study: Study) -> pd.DataFrame:
    """`outcomes` by `shots`: 1, 2, 4, ... demonstrations of each label, and the study's own number, the largest.

    The queries are the same for every number.
    """
    most = study.scale.shots
    numbers = sorted({2**i for i in range(most.bit_length())} | {most})
    return pd.concat(outcomes(study.model, study.sets("evaluation", shots=n), [[]]).assign(shots=n) for n in numbers)


def by_shots(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by the number of demonstrations, of `answers`. Columns `shots, measure, mean, low, high`."""
    parts = [summarise(table, ["shots"], column).assign(measure=name) for column, name in MEASURES.items()]
    return pd.concat(parts, ignore_index=True)[["shots", "measure", "mean", "low", "high"]]


def with_most(shots: pd.DataFrame, measure: str = FULL) -> dict[str, float]:
    """`mean, low, high` of a measure with the largest number of demonstrations, of `by_shots`."""
    last = shots[shots["measure"] == measure].sort_values("shots").iloc[-1]
    return {name: float(last[name]) for name in ("mean", "low", "high")}


def gate(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Two-way accuracy of each set with the largest number of demonstrations, of `answers`: columns `set, effect`.

    Whether the model does the task at all, which every verdict asks.
    """
    most = table[table["shots"] == table["shots"].max()]
    means = most.groupby("set")["accuracy_two_way"].mean()
    return {"set": [int(number) for number in means.index], "effect": [float(mean) for mean in means]}


def by_template(study: Study) -> pd.DataFrame:
    """Full-vocabulary accuracy for each template and gold label. Columns `template, label, mean, low, high`."""
    table = pd.concat(
        outcomes(study.model, study.sets("evaluation", template=name), [[]]).assign(template=name) for name in TEMPLATES
    )
    return summarise(table, ["template", "label"], "accuracy")

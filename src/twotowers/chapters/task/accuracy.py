"""How well the intact model does the task: accuracy by number of demonstrations and by template."""

from __future__ import annotations

import pandas as pd

from ...prompts.sets import TEMPLATES
from ...statistics import summarise
from ...study import Study
from ...tracing.outcomes import outcomes

FULL, TWO_WAY = "full vocabulary", "between the two labels"
MEASURES = {"accuracy": FULL, "accuracy_two_way": TWO_WAY}


def by_shots(study: Study) -> pd.DataFrame:
    """Accuracy for 1, 2, 4, ... demonstrations of each label, and for the study's own number, the largest.

    The queries are the same for every number. Columns `shots, measure, mean, low, high`.
    """
    most = study.scale.shots
    numbers = sorted({2**i for i in range(most.bit_length())} | {most})
    table = pd.concat(outcomes(study.model, study.sets("evaluation", shots=n), [[]]).assign(shots=n) for n in numbers)
    parts = [
        summarise(table, ["shots"], column, seed=study.seed).assign(measure=name) for column, name in MEASURES.items()
    ]
    return pd.concat(parts, ignore_index=True)[["shots", "measure", "mean", "low", "high"]]


def with_most(shots: pd.DataFrame) -> dict[str, float]:
    """`mean, low, high` of the full-vocabulary accuracy with the largest number of demonstrations, of `by_shots`."""
    last = shots[shots["measure"] == FULL].sort_values("shots").iloc[-1]
    return {name: float(last[name]) for name in ("mean", "low", "high")}


def by_template(study: Study) -> pd.DataFrame:
    """Full-vocabulary accuracy for each template and gold label. Columns `template, label, mean, low, high`."""
    table = pd.concat(
        outcomes(study.model, study.sets("evaluation", template=name), [[]]).assign(template=name) for name in TEMPLATES
    )
    return summarise(table, ["template", "label"], "accuracy", seed=study.seed)

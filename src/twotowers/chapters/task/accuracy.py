"""How well the intact model does the task: accuracy by number of demonstrations and by template."""

from __future__ import annotations

import pandas as pd

from ...prompts.sets import TEMPLATES
from ...statistics import summarise
from ...study import Study
from ...tracing.outcomes import outcomes

MEASURES = {"accuracy": "full vocabulary", "accuracy_two_way": "between the two labels"}


def by_shots(study: Study) -> pd.DataFrame:
    """Accuracy for 1, 2, 4, ... demonstrations of each label, up to the study's own number.

    The queries are the same for every number. Columns `shots, measure, mean, low, high`.
    """
    numbers = [2**i for i in range(study.scale.shots.bit_length()) if 2**i <= study.scale.shots]
    table = pd.concat(outcomes(study.model, study.sets("evaluation", shots=n), [[]]).assign(shots=n) for n in numbers)
    parts = [
        summarise(table, ["shots"], column, seed=study.seed).assign(measure=name) for column, name in MEASURES.items()
    ]
    return pd.concat(parts, ignore_index=True)[["shots", "measure", "mean", "low", "high"]]


def by_template(study: Study) -> pd.DataFrame:
    """Full-vocabulary accuracy for each template and gold label. Columns `template, label, mean, low, high`."""
    table = pd.concat(
        outcomes(study.model, study.sets("evaluation", template=name), [[]]).assign(template=name) for name in TEMPLATES
    )
    return summarise(table, ["template", "label"], "accuracy", seed=study.seed)

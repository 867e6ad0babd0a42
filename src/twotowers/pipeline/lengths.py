"""How long the prompts of a study are, counted before weights load: nothing is cut short or left out later."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..chapters.imbalance.designs import draws, longest_query, number_of_demonstrations, sources
from ..errors import PromptError
from ..prompts.sets import CONTENT_FREE, TEMPLATES, PromptSet
from ..prompts.tasks import Half
from ..prompts.variants import rebuilt
from ..study import Study


def longest(study: Study) -> int:
    """Tokens of the longest prompt that any chapter makes of a study, whatever the model's context.

    Raises:
        UserError: labels or texts of which no prompt can be made.
    """
    return max(len(prompt.ids) for s in _sets(study.of_any_length()) for prompt in s.prompts)


def require_fit(study: Study) -> None:
    """Raise `PromptError` unless every prompt of every chapter fits the model's context.

    The message names both lengths and the largest number of shots, halved from the study's, with which all fit.
    """
    context, shots = study.model.context_length, study.scale.shots
    length = longest(study)
    if length <= context:
        return
    advice = "give a task with shorter texts"
    for fewer in (shots // 2**i for i in range(1, shots.bit_length())):
        if longest(replace(study, scale=replace(study.scale, shots=fewer))) <= context:
            asked = re.sub(r":shots=\d+", "", study.task.name)
            advice = f"ask for fewer demonstrations with --task {asked}:shots={fewer}, or {advice}"
            break
    raise PromptError(
        f"The longest prompt of task '{study.task.name}' has {length:,} tokens with {shots} demonstrations of each "
        f"label but {study.model.name} reads at most {context:,}; {advice}."
    )


def _sets(study: Study) -> Iterator[PromptSet]:
    """The prompt sets of all chapters; other orders and fewer shots make no prompt longer."""
    yield from study.selection
    for template in TEMPLATES:
        yield from study.sets("evaluation", template=template)
    if study.task.classes > 2:  # chapters that change the shares of two labels do not run
        return
    n = number_of_demonstrations(study)
    counts: dict[Half, Iterable[int]] = {"selection": [n // 2], "evaluation": range(1, n)}
    for half, shares in counts.items():
        sets = sources(study, half)
        for n_foo in shares:
            for s, pairs in draws(study, half, n_foo, sets):
                yield rebuilt(study.model, s, pairs, [longest_query(s), (CONTENT_FREE, s.labels[0])])

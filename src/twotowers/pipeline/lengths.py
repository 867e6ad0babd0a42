"""How long the prompts of a study are, counted before weights load: nothing is cut short or left out later."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..chapters.imbalance.designs import draws, longest_query, number_of_demonstrations, sources
from ..errors import PromptError, TaskError
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
    """Refuse a study of which a chapter can make no prompts: too long for the model's context, or of too few texts.

    The message names the largest number of shots, halved from the study's, with which every prompt of every chapter can
    be made, if there is one.

    Raises:
        PromptError: a prompt is longer than the context; both lengths are named.
        TaskError: a category has too few texts.
    """
    context, shots = study.model.context_length, study.scale.shots
    try:
        length = longest(study)
    except TaskError as error:
        what, _, _ = str(error).rpartition("; ")
        asked = f", or ask for fewer demonstrations with {found}" if (found := _with_fewer(study)) else ""
        raise TaskError(f"{what}; add texts{asked}.") from None
    if length <= context:
        return
    asked = f"ask for fewer demonstrations with {found}, or " if (found := _with_fewer(study)) else ""
    raise PromptError(
        f"The longest prompt of task '{study.task.name}' has {length:,} tokens with {shots} demonstrations of each "
        f"label but {study.model.name} reads at most {context:,}; {asked}give a task with shorter texts."
    )


def _with_fewer(study: Study) -> str:
    """The option that asks for as many shots, halved from the study's, as fit; empty if none do."""
    shots = study.scale.shots
    for fewer in (shots // 2**i for i in range(1, shots.bit_length())):
        with contextlib.suppress(TaskError):
            if longest(replace(study, scale=replace(study.scale, shots=fewer))) <= study.model.context_length:
                return f"--task {re.sub(r':shots=[0-9]+', '', study.task.name)}:shots={fewer}"
    return ""


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

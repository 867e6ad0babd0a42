"""A study: one model, one task, one scale, one seed, and the prompt sets that follow from them.

Every chapter opens the same study, so all chapters of a run speak of the same prompts.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from .arguments import require_seed
from .errors import LabelError, UnknownNameError
from .models.loading import Loading
from .models.model import Model, open_model
from .prompts.encoding import marked
from .prompts.label_tokens import label_tokens, words_of_one_token
from .prompts.sets import TEMPLATES, PromptSet, sample_sets
from .prompts.tasks import Task, asks_for_labels, load_task


@dataclass(frozen=True)
class Scale:
    """How much is computed. The word task has 12 categories, so 66 pairs of them, and 6 sets show each category once.

    Attributes:
        selection_sets: demonstration sets on which heads are selected (every head's query is exchanged on each).
        evaluation_sets: demonstration sets, of other words, on which everything is reported.
        shots: demonstrations of each label, fewer if the task says so; `queries` per demonstration set, balanced over
            two labels: of each of more labels there are as many as there would be of each of two.
        draws: random choices of control heads for each number of heads removed.
    """

    name: str
    selection_sets: int
    evaluation_sets: int
    shots: int
    queries: int
    draws: int


SCALES = {
    scale.name: scale
    for scale in (
        Scale("smoke", selection_sets=2, evaluation_sets=2, shots=2, queries=2, draws=1),
        Scale("book", selection_sets=12, evaluation_sets=66, shots=8, queries=4, draws=3),
        Scale("paper", selection_sets=66, evaluation_sets=132, shots=8, queries=8, draws=10),
    )
}


@dataclass(frozen=True)
class Study:
    """What a chapter works on. Weights load with the first use of `model.nn`."""

    model: Model
    task: Task
    scale: Scale
    seed: int
    loading: Loading = field(default_factory=Loading)

    @functools.cached_property
    def selection(self) -> list[PromptSet]:
        """Prompt sets on which heads are chosen."""
        return self.sets("selection")

    @functools.cached_property
    def evaluation(self) -> list[PromptSet]:
        """Prompt sets, of other words, on which everything is reported."""
        return self.sets("evaluation")

    def sets(
        self, half: str, *, shots: int | None = None, template: str | None = None, n_sets: int | None = None
    ) -> list[PromptSet]:
        """Prompt sets of this study with other shots, template (a key of `TEMPLATES`) or number."""
        text, separator = TEMPLATES[template or self.model.template]
        number = self.scale.selection_sets if half == "selection" else self.scale.evaluation_sets
        return sample_sets(
            self.model,
            self.task,
            half,
            n_sets=n_sets or number,
            shots=self.scale.shots if shots is None else shots,
            n_queries=self.scale.queries,
            seed=self.seed,
            template=text,
            separator=separator,
        )

    def facts(self) -> dict[str, Any]:
        """Everything that decides a number of this study, but code, by names that a reader understands."""
        return {
            **self.model.facts(),
            "the way of loading": self.loading.words() or "the usual",
            "the task's texts": self.task.digest,
            "the labels": self.task.labels.asked,
            **({"the classes": self.task.classes} if self.task.classes != 2 else {}),
            "the scale": str(self.scale),
            "the seed": self.seed,
        }

    @functools.cached_property
    def digest(self) -> str:
        """Of all `facts`: what a result was made of."""
        return hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()

    def of_any_length(self) -> Study:
        """The same study, whose prompts may be longer than the model's context; its weights are not to be used."""
        model = _AnyLength(**{field.name: getattr(self.model, field.name) for field in fields(self.model)})
        return replace(self, model=model)


class _AnyLength(Model):
    """A model's tokenizer without the limit of its context, to count what would be too long."""

    @property
    def context_length(self) -> int:
        return sys.maxsize


def find_scale(name: str) -> Scale:
    if not isinstance(name, str) or name not in SCALES:
        raise UnknownNameError("scale", name, SCALES)
    return SCALES[name]


def open_study(
    model: str, task: str = "words", scale: str = "book", seed: int = 0, loading: Loading | None = None
) -> Study:
    """Open a study by names, as the parameters of a chapter give them; its scale has no more shots than its task.

    Most tokenizers have the usual words for more than two labels in several tokens; where a task asks for no others,
    words of one token stand there instead.

    Raises:
        UserError: an unknown model, task or scale; a task that is too small.
    """
    require_seed(seed)
    asked, size, how = load_task(task), find_scale(scale), loading or Loading()
    opened = open_model(model, **asdict(how))  # behind the task, since it may take longer
    texts = _with_account(_with_labels(task, asked, opened), opened)
    queries = size.queries // 2 * texts.classes
    fewer = replace(size, shots=min(size.shots, texts.shots or size.shots), queries=queries)
    return Study(opened, texts, fewer, seed, how)


def _with_account(task: Task, model: Model) -> Task:
    """A task that says of its texts, too, what this model's tokenizer makes of them."""
    texts = [text for halves in task.texts.values() for half in halves.values() for text in half]
    return replace(task, account=" ".join(filter(None, (task.account, marked(model, texts)))))


def _with_labels(name: str, task: Task, model: Model) -> Task:
    """A task, with labels that are one token each where its name asks for none and the usual ones are not."""
    template, _ = TEMPLATES[model.template]
    if task.classes == 2 or asks_for_labels(name):
        return task
    try:
        label_tokens(model, task.labels.names, template)
    except LabelError:
        words = words_of_one_token(model, template)[: task.classes]
        return load_task(f"{name}:labels={','.join(words)}") if len(words) == task.classes else task
    return task

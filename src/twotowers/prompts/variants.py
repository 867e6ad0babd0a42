"""One prompt set made into another: labels exchanged, demonstrations reordered, queries left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import PromptError
from ..models.model import Model
from .sets import TEMPLATES, Pair, Prompt, PromptSet, prompt_set


def alone(s: PromptSet) -> PromptSet:
    """The first query of a set by itself, so that no prefix is shared."""
    return replace(s, queries=s.queries[:1], prompts=s.prompts[:1], shared=len(s.prompts[0].ids) - 1)


def shortened(s: PromptSet, share: int) -> PromptSet:
    """The set with only the last part of its shared prefix; it no longer is a real prompt, but as long as one."""
    drop = s.shared - s.shared // share
    cut = [replace(p, ids=p.ids[drop:]) for p in s.prompts]
    return replace(s, prompts=tuple(cut), shared=s.shared - drop)


def prompt_set_of(s: PromptSet, query: int) -> PromptSet:
    """One query of a set by itself, as one plain prompt."""
    prompt = s.prompts[query]
    return replace(s, queries=(s.queries[query],), prompts=(prompt,), shared=len(prompt.ids) - 1)


Order = tuple[int, ...]  # which demonstration stands in the first place, in the second, ...


def rotations(n: int, number: int) -> list[Order]:
    """At most `number` orders of n demonstrations: evenly spaced rotations, each followed by its reversal.

    The first is the order as given; with number = 2 n there is every rotation and every reversal. If n is a multiple
    of half of `number`, each demonstration stands equally often in each stretch of 2 n / number neighbouring places.
    """
    half = max(1, min(n, number // 2))
    turned = [tuple((place + start) % n for place in range(n)) for start in (i * n // half for i in range(half))]
    return list(dict.fromkeys(way for rotation in turned for way in (rotation, rotation[::-1])))


def reorder(model: Model, s: PromptSet, permutation: Order, template: str | None = None) -> PromptSet:
    """The same demonstrations in another order, before the same queries.

    Args:
        template: a key of `TEMPLATES`; left out, the model's own.

    Raises:
        PromptError: the order is no permutation of the demonstrations.
    """
    n = len(s.demonstrations)
    if sorted(permutation) != list(range(n)):
        raise PromptError(f"An order of {n} demonstrations names each of 0 to {n - 1} once, unlike {permutation}.")
    return rebuilt(model, s, [s.demonstrations[i] for i in permutation], template=template)


def rebuilt(
    model: Model,
    s: PromptSet,
    demonstrations: Sequence[Pair],
    queries: Sequence[Pair] | None = None,
    *,
    template: str | None = None,
) -> PromptSet:
    """A set of other demonstrations before the same queries, or before others.

    Args:
        template: a key of `TEMPLATES`; left out, the model's own.
    """
    text, separator = TEMPLATES[template or model.template]
    made = prompt_set(model, demonstrations, queries or s.queries, template=text, separator=separator, words=s.written)
    return replace(made, categories=s.categories)


def swapped(s: PromptSet) -> PromptSet:
    """The prompt set with its two labels exchanged, in the demonstrations and so in the right answers.

    Of more labels each becomes the next, the last the first. Labels are one token each, so the tokens are exchanged in
    place and nothing else can change.
    """
    names = dict(zip(s.labels, (*s.labels[1:], s.labels[0]), strict=True))
    tokens = dict(zip(s.label_ids, (*s.label_ids[1:], s.label_ids[0]), strict=True))

    def exchange(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
        return tuple((text, names[label]) for text, label in pairs)

    def retokenise(prompt: Prompt) -> Prompt:
        ids = list(prompt.ids)
        for position in prompt.label_positions:
            ids[position] = tokens[ids[position]]
        return dataclasses.replace(prompt, ids=tuple(ids))

    return dataclasses.replace(
        s,
        demonstrations=exchange(s.demonstrations),
        queries=exchange(s.queries),
        prompts=tuple(retokenise(prompt) for prompt in s.prompts),
        categories=(s.categories[-1], *s.categories[:-1]),
    )


def few_queries(s: PromptSet, each: int = 1) -> PromptSet:
    """The prompt set with its first `each` queries of each label."""
    kept = sorted(i for label in set(s.gold) for i in [n for n, gold in enumerate(s.gold) if gold == label][:each])
    return dataclasses.replace(s, queries=tuple(s.queries[i] for i in kept), prompts=tuple(s.prompts[i] for i in kept))


def dealt(model: Model, s: PromptSet, rng: np.random.Generator) -> PromptSet:
    """The set with its labels dealt to the demonstrations at random, so that they say nothing of the texts."""
    labels = rng.permutation([label for _, label in s.demonstrations])
    pairs = [(text, str(label)) for (text, _), label in zip(s.demonstrations, labels, strict=True)]
    return rebuilt(model, s, pairs)


def all_dealt(model: Model, sets: Sequence[PromptSet], seed: int = 0) -> list[PromptSet]:
    """Every set as `dealt`."""
    rng = np.random.default_rng([seed, 6])
    return [dealt(model, s, rng) for s in sets]

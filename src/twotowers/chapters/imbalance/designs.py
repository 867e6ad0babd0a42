"""Prompt sets of the chapter on imbalance: other shares of a label, one demonstration less, a query without content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...prompts.sets import CONTENT_FREE, TEMPLATES, Pair, PromptSet, prompt_set
from ...prompts.tasks import Half
from ...study import Study

DEMONSTRATIONS = 8  # of an imbalanced prompt; fewer if the study has fewer, never fewer than 4


# Prompt sets


def share_sets(study: Study, half: Half = "evaluation") -> dict[float, list[PromptSet]]:
    """Prompt sets of n demonstrations by their share of foo: 1/n, 2/n, ..., (n - 1)/n.

    Set i has the same queries, words and categories at every share; the order is drawn anew at each.
    """
    n, sets = number_of_demonstrations(study), sources(study, half)
    return {k / n: [rebuilt(study, s, pairs) for s, pairs in draws(study, half, k, sets)] for k in range(1, n)}


def number_of_demonstrations(study: Study) -> int:
    return max(4, min(DEMONSTRATIONS, 2 * study.scale.shots))


def sources(study: Study, half: Half) -> list[PromptSet]:
    """Sets with demonstrations to choose from, n - 1 of each label: longer than any prompt that is made of them."""
    n = number_of_demonstrations(study)
    return getattr(study, half) if study.scale.shots >= n - 1 else study.of_any_length().sets(half, shots=n - 1)


def draws(
    study: Study, half: Half, n_foo: int, sets: Sequence[PromptSet] | None = None
) -> Iterator[tuple[PromptSet, list[Pair]]]:
    """Each set of a half with `n_foo` of its foo demonstrations and the rest bar, chosen and shuffled at random.

    `sets` are the half's `sources`, if they are at hand.
    """
    n = number_of_demonstrations(study)
    sets = sources(study, half) if sets is None else sets
    for i, s in enumerate(sets):
        rng = np.random.default_rng([study.seed, 3, half == "selection", i])
        chosen: list[Pair] = []
        for label, count in zip(s.labels, (n - n_foo, n_foo), strict=True):
            own = [pair for pair in s.demonstrations if pair[1] == label]
            chosen += [own[j] for j in rng.permutation(len(own))[:count]]
        order = np.random.default_rng([study.seed, 4, half == "selection", i, n_foo]).permutation(n)
        yield s, [chosen[j] for j in order]


def rebuilt(
    study: Study, s: PromptSet, demonstrations: Sequence[Pair], queries: Sequence[Pair] | None = None
) -> PromptSet:
    text, separator = TEMPLATES[study.model.template]
    made = prompt_set(study.model, demonstrations, queries or s.queries, template=text, separator=separator)
    return replace(made, categories=s.categories)


def longest_query(s: PromptSet) -> Pair:
    """Of prompts with the same demonstrations, that query makes the longest one behind any others, too."""
    return max(zip(s.queries, s.prompts, strict=True), key=lambda pair: len(pair[1].ids))[0]


BALANCED = "balanced"


def dropped_sets(study: Study, half: Half = "evaluation", drops: int = 2) -> dict[str, list[PromptSet]]:
    """Balanced prompt sets, and the same sets with one demonstration less.

    Args:
        drops: how many different demonstrations of each label are dropped, one at a time.

    Returns:
        `"balanced"` and, for each label, `"foo dropped 1"` and so on; the other demonstrations keep their order.
    """
    n = number_of_demonstrations(study)
    drawn = list(draws(study, half, n // 2))
    variants = {BALANCED: [rebuilt(study, s, pairs) for s, pairs in drawn]}
    for label in drawn[0][0].labels:
        for i in range(min(drops, n // 2)):
            variants[f"{label} dropped {i + 1}"] = [rebuilt(study, s, _without(pairs, label, i)) for s, pairs in drawn]
    return variants


def content_free_sets(study: Study, variants: Mapping[str, Sequence[PromptSet]]) -> dict[str, list[PromptSet]]:
    """`content_free` of every variant that `dropped_sets` gives."""
    return {name: content_free(study, sets) for name, sets in variants.items()}


def content_free(study: Study, prompt_sets: Sequence[PromptSet]) -> list[PromptSet]:
    """The same demonstrations with one query that has no content; its label counts for nothing."""
    return [rebuilt(study, s, s.demonstrations, [(CONTENT_FREE, s.labels[0])]) for s in prompt_sets]


def _without(demonstrations: Sequence[Pair], label: str, index: int) -> list[Pair]:
    """All but the index-th demonstration of a label in alphabetical order, which has nothing to do with position."""
    dropped = sorted(pair for pair in demonstrations if pair[1] == label)[index]
    return [pair for pair in demonstrations if pair != dropped]

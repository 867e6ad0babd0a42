"""Prompt sets of the chapter on imbalance: other shares of a label, one demonstration less, a query without content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from ...prompts.sets import CONTENT_FREE, Pair, PromptSet, require_two
from ...prompts.tasks import Half
from ...prompts.variants import all_dealt, rebuilt
from ...study import Study

V = TypeVar("V", str, float)
SETS = 32  # evaluation sets that are enough, of more an evenly spaced part is run
DEMONSTRATIONS = 8  # of an imbalanced prompt; fewer if the study has fewer, never fewer than 4


# Prompt sets


def share_sets(study: Study, half: Half = "evaluation") -> dict[float, list[PromptSet]]:
    """Prompt sets of n demonstrations by their share of foo: 1/n, 3/n, ..., (n - 1)/n; n is even.

    Set i has the same queries, words and categories at every share; the order is drawn anew at each. Of the evaluation
    sets it is the part that `numbers` names.
    """
    return _with_foo(study, half, range(1, number_of_demonstrations(study), 2))


def uneven_sets(study: Study, half: Half = "evaluation") -> dict[float, list[PromptSet]]:
    """`share_sets` with the smallest and the largest share alone."""
    return _with_foo(study, half, (1, number_of_demonstrations(study) - 1))


def dealt_sets(study: Study, by_share: Mapping[float, Sequence[PromptSet]]) -> dict[float, list[PromptSet]]:
    """The same sets with labels dealt to the demonstrations at random: the share stays, the texts say nothing of it."""
    return {share: all_dealt(study.model, sets, study.seed) for share, sets in by_share.items()}


def _with_foo(study: Study, half: Half, counts: Iterable[int]) -> dict[float, list[PromptSet]]:
    n, sets = number_of_demonstrations(study), sources(study, half)
    return {k / n: _built(study, half, draws(study, half, k, sets)) for k in counts}


def numbers(study: Study) -> list[int]:
    """Numbers of the evaluation sets that this chapter runs: an evenly spaced part, at least `SETS` where there are."""
    return list(range(0, study.scale.evaluation_sets, max(1, study.scale.evaluation_sets // SETS)))


def renumbered(found: Mapping[str, Any], study: Study) -> dict[str, Any]:
    """Results by name; tables whose sets are counted from 0 get the numbers of the evaluation sets that they are."""
    known = dict(enumerate(numbers(study)))
    tables = {name: x for name, x in found.items() if isinstance(x, pd.DataFrame)}
    return {**found, **{name: table.assign(set=table["set"].map(known)) for name, table in tables.items()}}


def _built(study: Study, half: Half, drawn: Iterable[tuple[PromptSet, list[Pair]]]) -> list[PromptSet]:
    """Of the evaluation half those that this chapter runs."""
    kept = set(numbers(study)) if half == "evaluation" else None
    return [rebuilt(study.model, s, pairs) for i, (s, pairs) in enumerate(drawn) if kept is None or i in kept]


def number_of_demonstrations(study: Study) -> int:
    return max(4, min(DEMONSTRATIONS, 2 * study.scale.shots))


def sources(study: Study, half: Half) -> list[PromptSet]:
    """Sets with demonstrations to choose from, n - 1 of each label: longer than any prompt that is made of them."""
    require_two(getattr(study, half), "A share of one label")
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


def longest_query(s: PromptSet) -> Pair:
    """Of prompts with the same demonstrations, that query makes the longest one behind any others, too."""
    return max(zip(s.queries, s.prompts, strict=True), key=lambda pair: len(pair[1].ids))[0]


BALANCED = "balanced"


def dropped_sets(study: Study, half: Half = "evaluation", drops: int = 1) -> dict[str, list[PromptSet]]:
    """Balanced prompt sets, and the same sets with one demonstration less.

    Args:
        drops: how many different demonstrations of each label are dropped, one at a time.

    Returns:
        `"balanced"` and, for each label, `"foo dropped 1"` and so on; the other demonstrations keep their order.
    """
    n = number_of_demonstrations(study)
    drawn = list(draws(study, half, n // 2))
    variants = {BALANCED: _built(study, half, drawn)}
    for label in drawn[0][0].labels:
        for i in range(min(drops, n // 2)):
            less = [(s, _without(pairs, label, i)) for s, pairs in drawn]
            variants[f"{label} dropped {i + 1}"] = _built(study, half, less)
    return variants


def content_free_sets(study: Study, variants: Mapping[V, Sequence[PromptSet]]) -> dict[V, list[PromptSet]]:
    """`content_free` of every variant or share."""
    return {name: content_free(study, sets) for name, sets in variants.items()}


def content_free(study: Study, prompt_sets: Sequence[PromptSet]) -> list[PromptSet]:
    """The same demonstrations with one query that has no content; its label counts for nothing."""
    return [rebuilt(study.model, s, s.demonstrations, [(CONTENT_FREE, s.labels[0])]) for s in prompt_sets]


def _without(demonstrations: Sequence[Pair], label: str, index: int) -> list[Pair]:
    """All but the index-th demonstration of a label in alphabetical order, which has nothing to do with position."""
    dropped = sorted(pair for pair in demonstrations if pair[1] == label)[index]
    return [pair for pair in demonstrations if pair != dropped]

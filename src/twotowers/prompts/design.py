"""Which categories each demonstration set shows, and which of them has which label: a balanced design.

Sets are dealt like the matches of a tournament in which every category meets every other once (the circle method): a
round shows every category once, all rounds together every pair once, and the roles of foo and bar change within each
category. So whatever the number of sets, categories are shown as equally often as that number allows.

Of more than two categories at a time, sets are dealt by turning a circle: in as many sets as there are categories, each
of them has each label once. Then the circle is drawn anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def category_pairs(categories: Sequence[str], number: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """The categories of so many sets, that of the first label first; a longer list begins with the shorter.

    Every unordered pair comes once before any comes twice, and then with its labels exchanged.
    """
    drawn = [str(name) for name in rng.permutation(np.array(categories, dtype=object))]
    cycle = [pair for matches in _rounds(drawn) for pair in matches]
    if rng.integers(2):
        cycle = [(b, a) for a, b in cycle]
    both = cycle + [(b, a) for a, b in cycle]
    return [both[i % len(both)] for i in range(number)]


def category_groups(
    categories: Sequence[str], number: int, rng: np.random.Generator, *, shown: int = 2
) -> list[tuple[str, ...]]:
    """The categories of so many sets that show so many each, in the order of labels; a longer list begins with the
    shorter. Two at a time are `category_pairs`."""
    if shown == 2:
        return list(category_pairs(categories, number, rng))
    groups: list[tuple[str, ...]] = []
    while len(groups) < number:
        circle = [str(name) for name in rng.permutation(np.array(categories, dtype=object))]
        n = len(circle)
        groups += [tuple(circle[(start + place) % n] for place in range(shown)) for start in range(n)]
    return groups[:number]


def _rounds(names: Sequence[str]) -> list[list[tuple[str, str]]]:
    """The rounds of a tournament; each name is first as often as second, or once more or less.

    One name stays, the others go round it; those that meet are equally far from the place opposite to it. Who is first
    alternates with that distance, and from round to round for the one that stays.
    """
    circle, still = list(names), None
    if len(names) % 2 == 0:
        still = circle.pop()
    n, rounds = len(circle), []
    for turn in range(n):
        matches = []
        if still is not None:
            matches.append((circle[turn], still) if turn % 2 else (still, circle[turn]))
        for apart in range(1, (n + 1) // 2):
            a, b = circle[(turn + apart) % n], circle[(turn - apart) % n]
            matches.append((a, b) if apart % 2 else (b, a))
        rounds.append(matches)
    return rounds

"""Numbers in words, as every page says them: shares, changes, counts, intervals, names of heads."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ..statistics import Estimate

NOT_KNOWN = "not known"
TINY = 1e-9  # what is smaller is a rounding error of zero
TENFOLD = 10  # a larger relative change says only that the start was near zero


def percent(share: float, digits: int = 0) -> str:
    """A share in percent, never "-0%"; words where it is not finite."""
    return format(float(share), f"z.{digits}%") if np.isfinite(share) else NOT_KNOWN


def plural(number: int, noun: str, nouns: str = "") -> str:
    """The noun of a number, without the number; `nouns` where an "s" does not do."""
    return noun if number == 1 else nouns or f"{noun}s"


def counted(number: int, noun: str, nouns: str = "") -> str:
    """A number with its noun; one as a word."""
    return f"{'one' if number == 1 else number} {plural(number, noun, nouns)}"


def joined(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`; empty of nothing."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def groups_as_good(number: int, groups: int) -> str:
    """How many random groups do as well as the heads that they are compared with."""
    if groups == 1:
        return f"the one random group does {'as well' if number else 'not do as well'}"
    if number in (0, 1):
        return f"{'one' if number else 'none'} of {groups:,} random groups does as well"
    return f"{f'all {groups:,}' if number == groups else f'{number:,} of {groups:,}'} random groups do as well"


def head_names(heads: Sequence[Sequence[int]]) -> str:
    """Heads as layer.head, with commas between them."""
    return ", ".join(f"{layer}.{head}" for layer, head in heads) or "none"


def estimate_of(row: Mapping[Hashable, Any]) -> Estimate:
    """The estimate that a row of a table holds, `mean, low, high`."""
    return Estimate(float(row["mean"]), float(row["low"]), float(row["high"]))


def said(number: Estimate, spec: str) -> str:
    """A mean with its interval, if it has one, each in a format such as `+z.1%`; words where there is no mean."""
    if number.known:
        return format(number, spec)
    return format(float(number.mean), spec) if np.isfinite(number.mean) else NOT_KNOWN


def share(number: Estimate, digits: int = 1) -> str:
    """A share in percent with its interval; a t interval may reach beyond what a share can be, and ends there."""
    low, high = (float(np.clip(end, 0, 1)) for end in (number.low, number.high))
    return said(Estimate(number.mean, low, high), f"z.{digits}%")


def relative(before: float, after: float, digits: int = 0) -> str:
    """By how much a size has changed, in percent, where it had anything to change from."""
    if not np.isfinite([before, after]).all():
        return NOT_KNOWN
    if before < TINY:
        return "none to shrink" if after < TINY else "from a start of zero"
    change = after / before - 1
    return "from a start near zero" if change >= TENFOLD else f"{change:+z.{digits}%}"


def intervals(drawn: str, sets: int) -> str:
    """What a figure's bands, bars or whiskers are; that there are none, if there is one demonstration set."""
    if sets < 2:
        return "From one demonstration set, so without intervals."
    return f"{drawn}: 95% intervals over {sets} demonstration sets."

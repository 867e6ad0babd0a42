"""Statistics of results: intervals over demonstration sets, verdicts on claims, agreement of rankings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.special
import scipy.stats

from .arguments import as_numbers, require_judged, require_ledger
from .clustering import clustered_error

Values = Sequence[Any] | np.ndarray | pd.Series | pd.Index  # numbers, one per prompt or per head

SUPPORTED, NEGLIGIBLE, ABSENT = "supported", "supported, negligible", "absent"
INCONCLUSIVE, CONTRADICTED, UNSTABLE = "inconclusive", "contradicted", "unstable"
NOTHING_TO_CURE, UNTESTABLE = "nothing to cure", "not testable"
DECIDED = (SUPPORTED, NEGLIGIBLE, CONTRADICTED)  # what one of many claims can be by chance

ALPHA = 0.05  # of an interval, two-sided, and of a ledger; of a control, one-sided
FEWEST = 8  # demonstration sets of which a verdict can be made
CHANCE = 0.5  # of two labels: a model whose accuracy may be that does not do the task


@dataclass(frozen=True)
class Estimate:
    """A mean over demonstration sets with its 95 % t interval, in the units of its values."""

    mean: float
    low: float
    high: float

    @classmethod
    def unknown(cls) -> Estimate:
        """Of nothing: there are no values."""
        return cls(*[float("nan")] * 3)

    @property
    def known(self) -> bool:
        return bool(np.isfinite([self.mean, self.low, self.high]).all())

    def __format__(self, spec: str) -> str:
        """`f"{estimate:.1%}"` gives mean and interval, each in that format."""
        mean, low, high = (format(float(x), spec or ".2f") for x in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})"


@dataclass(frozen=True)
class Verdict:
    """What a claim's effects say, and why.

    Attributes:
        verdict: one of the words above.
        mean, low, high: of the effect over sets, with its interval (95 % unless judged at another alpha).
        p: two-sided, of that interval: below alpha if and only if it excludes zero.
        reason: why it is not more than that, in words; empty where nothing needs to be said.
        sets, left_out: demonstration sets that have an effect; missing effects, of sets or of their prompts.
        error: the standard error over sets.
        smallest: the smallest effect of interest.
        random_p: share of random groups that do as well, the heads themselves counted; None without random groups.
        control, before, accuracy: of those that were given.
        chance: what that accuracy has to be above: one over the number of labels.
    """

    verdict: str
    mean: float
    low: float
    high: float
    p: float
    reason: str = ""
    sets: int = 0
    left_out: int = 0
    error: float = float("nan")
    smallest: float = float("nan")
    alpha: float = ALPHA
    random_p: float | None = None
    control: Estimate | None = None
    before: Estimate | None = None
    accuracy: Estimate | None = None
    chance: float = CHANCE

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.mean, self.low, self.high)

    @property
    def within(self) -> bool:
        """Whether the whole interval lies within the smallest effect of interest."""
        return -self.smallest < self.low and self.high < self.smallest

    def withdrawn(self, reason: str) -> Verdict:
        """The same effect without the claim to a sign: *absent* if it is within the smallest effect."""
        return replace(self, verdict=ABSENT if self.within else INCONCLUSIVE, reason=reason)


def judge(
    effects: pd.DataFrame,
    smallest: float,
    *,
    random: Collection[Any] | None = None,
    categories: pd.DataFrame | None = None,
    control: pd.DataFrame | None = None,
    folds: Collection[Any] | None = None,
    before: pd.DataFrame | None = None,
    accuracy: pd.DataFrame | None = None,
    chance: float = CHANCE,
    alpha: float = ALPHA,
) -> Verdict:
    """The verdict on one claim by itself, before `holm`.

    Frames have a row per demonstration set, or per prompt, whose effects are averaged within their set first. A missing
    effect is left out and counted. Nothing passes by missing: a random group without effect counts as doing as well, a
    control that lacks a set is not passed, a fold without effect is unstable.

    Args:
        effects: `set, effect`; positive if the claim is right.
        smallest: the smallest effect of interest, above zero.
        random: one effect for each random group of heads.
        categories: `set, first, second`: the two categories of each set; of more, `third` and so on.
        control: `set, effect`: a second contrast, which must be above zero as well.
        folds: one effect for each selection fold or seed.
        before: `set, effect`: the size of a bias before its cure.
        accuracy: `set, effect`: two-way accuracy at the shots at which the effect is measured.
        chance: of that accuracy: one over the number of labels.

    Raises:
        ArgumentError: a frame lacks a column or a set its categories; a number is none, or not above zero.
    """
    require_judged(smallest, alpha, chance, (effects, control, before, accuracy), categories)
    smallest, alpha, chance = float(smallest), float(alpha), float(chance)
    random, folds = (
        None if given is None else as_numbers(name, given) for name, given in (("random", random), ("folds", folds))
    )
    means = _means(effects)
    mean, low, high, error, p = _interval(means, categories, alpha)
    left_out = int(np.isnan(effects["effect"].to_numpy(float)).sum())
    verdict = replace(
        Verdict(INCONCLUSIVE, mean, low, high, p, "", len(means.sets), left_out, error, smallest, alpha),
        random_p=None if random is None else _random_p(random, mean),
        before=None if before is None else _estimate(_means(before), categories),
        accuracy=None if accuracy is None else _estimate(_means(accuracy), categories),
        chance=chance,
    )
    if reason := _untestable(verdict):
        return replace(verdict, verdict=UNTESTABLE, reason=reason)
    if verdict.before is not None and verdict.before.mean < smallest:
        return replace(verdict, verdict=NOTHING_TO_CURE, reason="what it would cure is below the smallest effect")
    if folds is not None and (reason := _unstable(folds, verdict)):
        return replace(verdict, verdict=UNSTABLE, reason=reason)
    failed = []
    if random is not None and verdict.random_p is not None and verdict.random_p > alpha:
        failed.append(_as_good(_number_as_good(random, verdict.mean), len(random)))
    if control is not None:
        estimated, problem = _control(means, control, categories, alpha)
        verdict, failed = replace(verdict, control=estimated), failed + [problem] * bool(problem)
    return _by_interval(verdict, failed)


def _by_interval(verdict: Verdict, failed: Sequence[str]) -> Verdict:
    """What the interval says, if nothing else speaks against it; `failed` are controls, in words."""
    if verdict.low > 0 and not failed:
        if verdict.mean < verdict.smallest:
            return replace(verdict, verdict=NEGLIGIBLE, reason="its mean is below the smallest effect of interest")
        return replace(verdict, verdict=SUPPORTED)
    if verdict.high < 0 and not verdict.within:
        return replace(verdict, verdict=CONTRADICTED)
    if verdict.low > 0:
        return verdict.withdrawn("; ".join(failed))
    reason = "lies within the smallest effect of interest" if verdict.within else "includes zero"
    return verdict.withdrawn(f"its interval {reason}")


def _untestable(verdict: Verdict) -> str:
    """Why there can be no verdict, in words; nothing if there can."""
    if verdict.sets < FEWEST:
        return f"fewer than {FEWEST} demonstration sets have an effect"
    if not verdict.estimate.known:
        return "an effect is not finite"
    if verdict.before is not None and not verdict.before.known:
        return "it is not known what there was to cure"
    if verdict.accuracy is None or verdict.accuracy.low > verdict.chance:
        return ""
    if not verdict.accuracy.known:
        return "the accuracy of the model is not known"
    lies = "lies below" if verdict.accuracy.high < verdict.chance else "includes"
    what = "two-way accuracy" if verdict.chance == CHANCE else "accuracy between the labels"
    return (
        f"the interval of {what} {lies} {'one half' if verdict.chance == CHANCE else f'chance, {verdict.chance:.1%}'}"
    )


def _unstable(folds: Values, verdict: Verdict) -> str:
    """How folds contradict each other, in words; differences of sign within what is absent are none."""
    numbers = np.asarray(folds, dtype=float)
    if np.isnan(numbers).any():
        return f"{np.isnan(numbers).sum()} of {len(numbers)} folds have no effect"
    small = verdict.within and np.abs(numbers).max(initial=0) < verdict.smallest
    if small or not ((numbers > 0).any() and (numbers < 0).any()):
        return ""
    return f"its sign changes between {len(numbers)} folds"


def _random_p(random: Values, mean: float) -> float:
    """Share of the groups, the observed one among them, that do as well; one without effect counts as doing so."""
    return (1 + _number_as_good(random, mean)) / (1 + len(random))


def _number_as_good(random: Values, mean: float) -> int:
    return int((~(np.asarray(random, dtype=float) < mean)).sum())


def _as_good(number: int, groups: int) -> str:
    """Why random groups speak against a claim, in words: some do as well, or there are too few of them to tell."""
    if number:
        return f"{number} of {groups} random groups {'does' if number == 1 else 'do'} as well"
    if not groups:
        return "there are no random groups to compare with"
    return f"there are only {groups} random groups, too few to tell, though none does as well"


def _control(
    means: _Means, control: pd.DataFrame, categories: pd.DataFrame | None, alpha: float
) -> tuple[Estimate, str]:
    """The control's interval and, if it is not passed, why, in words."""
    own = _means(control)
    lacking = len(np.setdiff1d(means.sets, own.sets))
    mean, low, high, _, p = _interval(own, categories, alpha)
    found = Estimate(mean, low, high)
    if lacking:
        return found, f"its control has no effect in {lacking} of {len(means.sets)} sets"
    if mean > 0 and p / 2 <= alpha:
        return found, ""
    return found, f"its control is not above zero: {found:+z.3f}"


def holm(verdicts: Mapping[str, Verdict], *, alpha: float = ALPHA) -> dict[str, Verdict]:
    """The verdicts of a ledger by Holm's step-down over all its claims that have a p, in both directions.

    Intervals stay those of each claim by itself. A claim that was supported or contradicted, and is not among many, is
    inconclusive (or absent, if its interval lies within the smallest effect). `verdicts` are by claim, of `judge`.
    """
    require_ledger(verdicts, Verdict, alpha)
    family = sorted((name for name in verdicts if np.isfinite(verdicts[name].p)), key=lambda name: verdicts[name].p)
    adjusted, so_far = {}, 0.0
    for rank, name in enumerate(family):
        so_far = max(so_far, min(1.0, (len(family) - rank) * verdicts[name].p))
        adjusted[name] = so_far
    return {
        name: verdict.withdrawn(f"not among {len(family)} claims: p = {adjusted[name]:.3f} by Holm")
        if verdict.verdict in DECIDED and not adjusted[name] <= alpha
        else verdict
        for name, verdict in verdicts.items()
    }


def estimate(values: Values, sets: Values) -> Estimate:
    """Mean of per-prompt values, with a 95 % t interval over demonstration sets: the one that verdicts are made of.

    Args:
        values: one per prompt.
        sets: the demonstration set of each prompt: what they share makes them dependent, so sets count, not prompts.

    Returns:
        one set has no interval (nan); sets that are all the same have one that is not of width zero.
    """
    names, place = np.unique(np.asarray(sets), return_inverse=True)
    return _estimate(_Means(names, np.bincount(place, np.asarray(values, dtype=float)) / np.bincount(place)))


class _Means(NamedTuple):
    """One effect a set."""

    sets: np.ndarray
    effects: np.ndarray


def _means(effects: pd.DataFrame) -> _Means:
    """Missing effects left out, the rest averaged within their set."""
    values = effects["effect"].to_numpy(float)
    known = ~np.isnan(values)
    names, place = np.unique(effects["set"].to_numpy()[known], return_inverse=True)
    return _Means(names, np.bincount(place, values[known]) / np.bincount(place))


def _estimate(means: _Means, categories: pd.DataFrame | None = None) -> Estimate:
    return Estimate(*_interval(means, categories, ALPHA)[:3])


def _interval(means: _Means, categories: pd.DataFrame | None, alpha: float) -> tuple[float, float, float, float, float]:
    """Mean, interval, standard error and two-sided p; nan where there is none.

    Where all sets are the same, c, no standard error can be computed. A share q of sets that differ would go unseen
    in n sets with probability (1 - q)^n, so q may be up to 1 - alpha^(1/n), about 3/n; a set that differs is taken to
    differ by one unit: the whole range of an accuracy, AUC or share.
    """
    x = means.effects
    n, nan = len(x), float("nan")
    if n < 2 or not np.isfinite(x).all():
        return (float(x.mean()) if n else nan), nan, nan, nan, nan
    centre = float(x.mean())
    if np.ptp(x) <= 1e-12 * max(1.0, abs(centre)):
        width = 1 - alpha ** (1 / n)
        return centre, centre - width, centre + width, 0.0, float(max(0.0, 1 - abs(centre)) ** n)
    error, freedom = float(x.std(ddof=1) / np.sqrt(n)), n - 1
    if categories is not None:
        clustered, number = clustered_error(means.sets, x - centre, categories)
        error, freedom = (clustered, number - 1) if clustered > error else (error, freedom)
    half = error * float(scipy.special.stdtrit(freedom, 1 - alpha / 2))
    p = 2 * float(scipy.special.stdtr(freedom, -abs(centre) / error))
    return centre, centre - half, centre + half, error, p


def per_set(effects: pd.DataFrame) -> pd.DataFrame:
    """Effects of demonstration sets, `set, effect`, from a row for each or each prompt; sets without any have none."""
    return pd.DataFrame(_means(effects)._asdict()).rename(columns={"sets": "set", "effects": "effect"})


def rank_agreement(a: Values, b: Values) -> float:
    """Spearman's rank correlation, -1 to 1; nan if either list is constant."""
    if np.ptp(np.asarray(a, dtype=float)) == 0 or np.ptp(np.asarray(b, dtype=float)) == 0:
        return float("nan")
    return float(scipy.stats.spearmanr(a, b).statistic)


def summarise(table: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Mean and interval, as `estimate`, of a per-prompt `value` for each combination of the columns `by`.

    Args:
        table: has a column `set` beside `by` and `value`.

    Returns:
        the columns `by`, then `mean, low, high`, in the order of appearance.
    """
    rows = []
    for key, part in table.groupby(list(by), sort=False):
        e = estimate(part[value], part["set"])
        rows.append((*(key if isinstance(key, tuple) else (key,)), e.mean, e.low, e.high))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high"])

"""Effects of the order of demonstrations, from the tables of `order`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...statistics import Estimate, estimate, summarise
from ...tracing.heads import CHOSEN
from .order import Ordered

MEASURES = ("accuracy", "margin", "attention")  # whose standard deviation over orders is taken


def intact(ordered: Ordered) -> Ordered:
    """The rows of strength 0."""
    return Ordered(*(table[table["strength"] == 0] for table in (ordered.prompts, ordered.attention)))


def chosen_slopes(ordered: Ordered, strength: float = 0.0, *, seed: int = 0) -> pd.DataFrame:
    """`slopes` of the answers at one strength of the in-context heads."""
    prompts = ordered.prompts
    return slopes(prompts[(prompts["heads"] == CHOSEN) & (prompts["strength"] == strength)], seed=seed)


def slopes(prompts: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """C12: how the prediction of foo follows the place of foo, at fixed demonstrations; a row per set.

    Within a set, the covariance over orders of P(foo) with `recency`, divided by the mean variance of `recency` over
    all sets. The mean over sets is then the slope pooled over sets, and a set whose orders hardly move its labels
    counts little. It is nan if recency never varies.

    Args:
        prompts: rows of `Ordered.prompts` of one group and strength.

    Returns:
        `set, effect` (P(foo) a demonstration), `logits` (the same of `logit_minus`) and `shuffled` (as `effect`,
        with the recencies of a set dealt to its orders at random: the control).
    """
    means = prompts.groupby(["set", "order"])[["p_foo", "logit_minus", "recency"]].mean()
    centred = means - means.groupby("set").transform("mean")
    rng = np.random.default_rng([seed, 3])
    centred["dealt"] = centred.groupby("set")["recency"].transform(lambda x: rng.permutation(x.to_numpy()))
    variance = centred["recency"].pow(2).mean()
    products = pd.DataFrame(
        {
            "effect": centred["p_foo"] * centred["recency"],
            "logits": centred["logit_minus"] * centred["recency"],
            "shuffled": centred["p_foo"] * centred["dealt"],
        }
    )
    return (products.groupby("set").mean() / (variance or float("nan"))).reset_index()


def pooled(effects: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Means of `slopes` over sets with 95 % intervals, nan if recency never varies.

    Returns:
        `slope` (effect, logits, shuffled), `mean, low, high`.
    """
    return _means("slope", {name: effects.set_index("set")[name] for name in ("effect", "logits", "shuffled")}, seed)


def pull(before: pd.DataFrame, after: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """What the position term does to the slope of C12: `slopes` intact and with position removed, paired by set.

    Returns:
        `slope` ("removed": what is left of it, "difference": intact minus removed), `mean, low, high`.
    """
    paired = before.merge(after, on="set", suffixes=("", "_after")).set_index("set")
    left = paired["effect_after"]
    return _means("slope", {"removed": left, "difference": paired["effect"] - left}, seed)


def _means(column: str, values: dict[str, pd.Series], seed: int) -> pd.DataFrame:
    """Means and intervals of values that are indexed by set; missing ones are left out."""
    present = [(name, part.dropna()) for name, part in values.items()]
    rows = [(name, estimate(x, x.index, seed=seed) if len(x) else Estimate.unknown()) for name, x in present]
    return pd.DataFrame([(name, e.mean, e.low, e.high) for name, e in rows], columns=[column, "mean", "low", "high"])


def response(prompts: pd.DataFrame, *, bins: int = 5, seed: int = 0) -> pd.DataFrame:
    """Change of P(foo) and of attention with the place of foo, each set's own mean over its orders taken away.

    Returns:
        `heads, measure` (`p_foo`, or `attention`: summed attention to foo's labels minus bar's), `recency` (mean of
        a bin of about equally many orders), `mean, low, high`.
    """
    table = prompts.assign(attention=prompts["attention_foo"] - prompts["attention_bar"])
    columns = ["p_foo", "attention", "recency"]
    means = table.groupby(["heads", "set", "order"])[columns].mean()
    means[columns[:2]] -= means[columns[:2]].groupby(["heads", "set"]).transform("mean")
    means = means.reset_index()
    bin_ = pd.qcut(means["recency"], min(bins, means["recency"].nunique()), duplicates="drop")
    means["recency"] = means.groupby(bin_.cat.codes)["recency"].transform("mean")
    long = means.melt(["heads", "set", "recency"], columns[:2], var_name="measure").sort_values("recency")
    return summarise(long, ["heads", "measure", "recency"], "value", seed=seed)


def by_distance(attention: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Attention to a label position by its distance from the query, for the query's class and for the other.

    Distances are grouped so that every demonstration is as often in each group (see `rotations`): groups hold the
    same content, at different places.

    Args:
        attention: rows of `Ordered.attention` of one strength.

    Returns:
        `heads, same, distance` (mean of the group), `mean, low, high`.
    """
    width = max(1, attention["distance"].max() // attention["order"].nunique())
    group = (attention["distance"] - 1) // width
    table = attention.assign(distance=attention.groupby(group)["distance"].transform("mean")).sort_values("distance")
    return summarise(table, ["heads", "same", "distance"], "attention", seed=seed)


def near_minus_far(attention: pd.DataFrame) -> pd.DataFrame:
    """Attention to the nearer half of the places minus the farther half: `heads, same, set, effect`, per set."""
    near = np.where(attention["distance"] <= attention["distance"].max() / 2, "near", "far")
    keys = ["heads", "same", "set"]
    halves = attention.assign(half=near).groupby([*keys, "half"])["attention"].mean().unstack("half")
    return (halves["near"] - halves["far"]).rename("effect").reset_index()


def gaps(attention: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Means of `near_minus_far` over sets with 95 % intervals: `heads, same, mean, low, high`."""
    return summarise(near_minus_far(attention), ["heads", "same"], "effect", seed=seed)


def spread(ordered: Ordered) -> pd.DataFrame:
    """Standard deviations over the orders of each set, for each group of heads and strength.

    Returns:
        `heads, strength, set`; standard deviations of `accuracy` (over the set's queries, as in the paper), `margin`
        (of one query, mean over queries) and `attention` (of one query to one demonstration's label, mean over
        both); and the means over all orders `mean_accuracy` and `mean_attention` (summed over the label positions).
    """
    keys = ["heads", "strength", "set"]
    accuracy = ordered.prompts.groupby([*keys, "order"])[["accuracy"]].mean()
    table = accuracy.groupby(keys).std(ddof=0)
    # Of one query: in the mean over both gold labels a lean towards one label would cancel.
    table["margin"] = ordered.prompts.groupby([*keys, "query"])["margin"].std(ddof=0).groupby(keys).mean()
    each = ordered.attention.groupby([*keys, "query", "demonstration"])["attention"].std(ddof=0)
    table["attention"] = each.groupby(keys).mean()
    whole = ordered.prompts.assign(total=ordered.prompts["attention_foo"] + ordered.prompts["attention_bar"])
    table[["mean_accuracy", "mean_attention"]] = whole.groupby(keys)[["accuracy", "total"]].mean()
    return table.reset_index()


def before_after(spreads: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Mean standard deviations of `spread` with intervals: `heads, measure, when (before|after), mean, low, high`.

    Args:
        spreads: with strength 0 (before) and one other (after).
    """
    table = spreads.assign(when=np.where(spreads["strength"] > 0, "after", "before"))
    long = table.melt(["heads", "set", "when"], list(MEASURES), var_name="measure")
    return summarise(long, ["heads", "measure", "when"], "value", seed=seed)


def choose_strength(spreads: pd.DataFrame) -> float:
    """The strength above 0 with the smallest standard deviation of accuracy, mean over sets; the weakest of equals.

    Args:
        spreads: result of `spread` on the *selection* half, one group of heads.
    """
    means = spreads[spreads["strength"] > 0].groupby("strength")["accuracy"].mean()
    return float(means.index[int(means.round(9).argmin())])


def steadied(spreads: pd.DataFrame, heads: str, measure: str = "accuracy") -> pd.DataFrame:
    """C14: standard deviation over orders before minus after position is removed in a group; a row per set.

    Args:
        spreads: result of `spread` with strength 0 and one other.
        measure: `accuracy` for the claim, as in the paper; `margin` or `attention`.

    Returns:
        `set, before, after, effect`; the effect is positive if the mitigation steadies.
    """
    part = spreads[spreads["heads"] == heads].sort_values("strength")
    ends = part.groupby("set")[measure].agg(before="first", after="last")
    return ends.assign(effect=ends["before"] - ends["after"]).reset_index()


def gains(spreads: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Every standard deviation of `steadied`, for every group of heads, as a mean over sets.

    Returns:
        `heads, measure, before, after`, and `mean, low, high` of before minus after, paired by set.
    """
    rows = []
    for heads in spreads["heads"].unique():
        for measure in MEASURES:
            table = steadied(spreads, heads, measure)
            e = estimate(table["effect"], table["set"], seed=seed)
            rows.append((heads, measure, table["before"].mean(), table["after"].mean(), e.mean, e.low, e.high))
    return pd.DataFrame(rows, columns=["heads", "measure", "before", "after", "mean", "low", "high"])


def levels(spreads: pd.DataFrame) -> pd.DataFrame:
    """What the in-context heads' remedy does to accuracy and attention themselves, means over sets.

    Args:
        spreads: result of `spread` with strength 0 and one other.

    Returns:
        a row per strength, the weaker first: `strength, mean_accuracy, mean_attention`.
    """
    part = spreads[spreads["heads"] == CHOSEN]
    return part.groupby("strength")[["mean_accuracy", "mean_attention"]].mean().reset_index()


def relative_change(effects: pd.DataFrame) -> float:
    """Change of a mean standard deviation as a share of what it was before; nan if it was 0.

    Args:
        effects: result of `steadied`.
    """
    before = effects["before"].mean()
    return float(effects["after"].mean() / before - 1) if before else float("nan")

"""Order: the same demonstrations in many orders, and what is left of their effect without the position term.

The demonstrations of a set never change, only their places. So whatever changes within a set over its orders is an
effect of place, and every set is its own control. Places are counted in demonstrations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from .errors import PromptError
from .interventions import without_position
from .models import Model
from .packing import Batch
from .prompts import TEMPLATES, PromptSet, prompt_set
from .statistics import summarise
from .study import Study
from .trace import Answers, batches, capture

Head = tuple[int, int]
Order = tuple[int, ...]  # which demonstration stands in the first place, in the second, ...

ORDERS = 8  # orders of a set below scale `paper`
STRENGTHS = (0.25, 0.5, 0.75, 1.0)  # of the mitigation, tried on the selection half


@dataclass(frozen=True)
class Ordered:
    """What a model answers and attends to in every order. "foo" is the second label in sorted order, "bar" the first.

    Attributes:
        prompts: a row per group of heads, strength, order and prompt: `heads, strength, set, order, query, label`
            (gold), `accuracy, accuracy_two_way` (0 or 1), `margin` (logits), `p_foo` (between the two labels),
            `logit_minus` (logits, foo minus bar), `recency` (mean place of foo's demonstrations minus that of
            bar's, positive if foo stands nearer the query), `attention_foo, attention_bar` (of the last position,
            summed over the label positions, mean over the heads).
        attention: a row per label position of those: `heads, strength, set, order, query, demonstration` (its number
            in the set as given), `distance` (1: next to the query), `same` (its label is the gold label),
            `attention` (mean over the heads).
    """

    prompts: pd.DataFrame
    attention: pd.DataFrame


def order(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    heads: Sequence[Head],
    orders: Sequence[Order] | None = None,
) -> pd.DataFrame:
    """Answers of every prompt with its demonstrations in many orders, and the attention of some heads to the labels.

    Args:
        heads: (layer, head) pairs, at least one.
        orders: permutations of the demonstrations' numbers; left out, eight rotations and reversals.

    Returns:
        `Ordered.prompts`.

    Raises:
        PromptError: an order that is no permutation of a set's demonstrations.
    """
    sets = [prompt_sets] if isinstance(prompt_sets, PromptSet) else list(prompt_sets)
    chosen = rotations(len(sets[0].demonstrations), ORDERS) if orders is None else orders
    return in_orders(model, sets, {"chosen": heads}, chosen).prompts.drop(columns=["heads", "strength"])


def rotations(n: int, number: int) -> list[Order]:
    """At most `number` orders of n demonstrations: evenly spaced rotations, each followed by its reversal.

    The first is the order as given; with number = 2 n there is every rotation and every reversal. If n is a multiple
    of half of `number`, each demonstration stands equally often in each stretch of 2 n / number neighbouring places.
    """
    half = max(1, min(n, number // 2))
    turned = [tuple((place + start) % n for place in range(n)) for start in (i * n // half for i in range(half))]
    return list(dict.fromkeys(way for rotation in turned for way in (rotation, rotation[::-1])))


def study_orders(study: Study) -> list[Order]:
    """The orders of a study: all rotations and reversals at scale `paper`, otherwise eight, evenly spaced.

    Eight are all there are at `smoke`, whose sets have four demonstrations.
    """
    n = 2 * study.scale.shots
    return rotations(n, 2 * n if study.scale.name == "paper" else ORDERS)


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
    text, separator = TEMPLATES[template or model.template]
    demonstrations = [s.demonstrations[i] for i in permutation]
    return prompt_set(model, demonstrations, s.queries, template=text, separator=separator)


def recency(labels: Sequence[str], label: str) -> float:
    """Mean place of a label's demonstrations minus that of the others', in demonstrations; 0 if either is missing."""
    own = np.array([name == label for name in labels])
    places = np.arange(len(labels))
    return float(places[own].mean() - places[~own].mean()) if own.any() and not own.all() else 0.0


def in_orders(
    model: Model,
    prompt_sets: Sequence[PromptSet],
    groups: Mapping[str, Sequence[Head]],
    orders: Sequence[Order],
    *,
    strengths: Sequence[float] = (0.0,),
    template: str | None = None,
) -> Ordered:
    """Run every set in every order: intact (strength 0), and with position removed in a group of heads.

    Args:
        groups: named lists of heads; at strengths above 0 the position term is taken out of one group at a time.
        strengths: see `trace.without_position`.
        template: as in `reorder`.
    """
    groups = {name: list(heads) for name, heads in groups.items() if heads}
    jobs = pd.DataFrame(
        [(i, s, permutation) for i, permutation in enumerate(orders) for s in range(len(prompt_sets))],
        columns=["order", "set", "permutation"],
    )
    reordered = [
        reorder(model, prompt_sets[s], way, template) for s, way in zip(jobs["set"], jobs["permutation"], strict=True)
    ]
    tables: tuple[list[pd.DataFrame], list[pd.DataFrame]] = [], []
    done = 0
    with tqdm(total=len(jobs), desc="order", unit="prompt set", delay=2, leave=False) as bar:
        for batch in batches(model, reordered):
            here = slice(done, done + len(batch.input_ids))
            for name, strength, answered, weights in _runs(model, batch, groups, strengths):
                for table, rows in zip(tables, _tables(reordered[here], jobs[here], answered, weights), strict=True):
                    table.append(rows.assign(heads=name, strength=strength))
            done = here.stop
            bar.update(len(batch.input_ids))
    prompts, attention = (pd.concat(table, ignore_index=True) for table in tables)
    return Ordered(prompts, attention)


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
    long = table.melt(["heads", "set", "when"], ["accuracy", "margin", "attention"], var_name="measure")
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


def relative_change(effects: pd.DataFrame) -> float:
    """Change of a mean standard deviation as a share of what it was before; nan if it was 0.

    Args:
        effects: result of `steadied`.
    """
    before = effects["before"].mean()
    return float(effects["after"].mean() / before - 1) if before else float("nan")


def _runs(
    model: Model, batch: Batch, groups: Mapping[str, Sequence[Head]], strengths: Sequence[float]
) -> Iterator[tuple[str, float, Answers, Float[Tensor, "N S"]]]:
    """Answers of a batch for each group and strength, with the group's mean attention."""
    intact = capture(model, batch, pattern=True, inputs=not model.remote)
    assert intact.pattern is not None
    for name, heads in groups.items():
        for strength in strengths:
            if strength:
                answered, weights = without_position(model, batch, heads, strength, intact)
            else:
                answered = intact.answers
                weights = torch.stack([intact.pattern[layer, :, head] for layer, head in heads], dim=1)
            yield name, strength, answered, weights.mean(1)


def _tables(
    members: Sequence[PromptSet], jobs: pd.DataFrame, answered: Answers, weights: Float[Tensor, "N S"]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of `Ordered` for the reordered sets of one batch; `jobs` has the `set, order, permutation` of each."""
    keys = jobs.loc[np.repeat(jobs.index, [len(s.queries) for s in members])].reset_index(drop=True)
    at_labels = weights.gather(1, torch.tensor([p.label_positions for s in members for p in s.prompts])).double()
    shown = torch.tensor([[label == s.labels[1] for _, label in s.demonstrations] for s in members for _ in s.queries])
    gold = torch.tensor([gold for s in members for gold in s.gold])
    gold_id = torch.tensor([s.label_ids[g] for s in members for g in s.gold])
    logit_minus = (answered.labels[:, 1] - answered.labels[:, 0]).double()
    margin = torch.where(gold == 1, logit_minus, -logit_minus)
    prompts = keys[["set", "order"]].assign(
        query=[query for s in members for query in range(len(s.queries))],
        label=[label for s in members for _, label in s.queries],
        accuracy=(answered.best == gold_id).double().numpy(),
        accuracy_two_way=(margin > 0).double().numpy(),
        margin=margin.numpy(),
        p_foo=logit_minus.sigmoid().numpy(),
        logit_minus=logit_minus.numpy(),
        recency=[recency([label for _, label in s.demonstrations], s.labels[1]) for s in members for _ in s.queries],
        attention_foo=(at_labels * shown).sum(1).numpy(),
        attention_bar=(at_labels * ~shown).sum(1).numpy(),
    )
    prompt, place = np.indices(at_labels.shape).reshape(2, -1)
    positions = prompts.loc[prompt, ["set", "order", "query"]].assign(
        demonstration=np.array(list(keys["permutation"]))[prompt, place],
        distance=at_labels.shape[1] - place,
        same=(shown == (gold == 1)[:, None]).numpy().ravel(),
        attention=at_labels.numpy().ravel(),
    )
    return prompts, positions

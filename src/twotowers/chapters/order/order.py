"""Order: the same demonstrations in many orders, and what is left of their effect without the position term.

The demonstrations of a set never change, only their places. So whatever changes within a set over its orders is an
effect of place, and every set is its own control. Places are counted in demonstrations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ...arguments import listed, require_whole
from ...models.model import Model
from ...models.parts import Tables
from ...models.surroundings import undisturbed
from ...prompts.packing import Batch
from ...prompts.sets import PromptSet, as_sets, require_two
from ...prompts.variants import Order, reorder, rotations
from ...study import Study
from ...tracing.answers import Answers
from ...tracing.capture import capture
from ...tracing.heads import Head, Heads, as_heads, beside_random
from ...tracing.position_free import without_position
from ...tracing.sweep import sweep_batches

ORDERS = 8  # orders of a set below scale `paper`


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


@undisturbed
def order(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    heads: Heads,
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
    sets = as_sets(model, prompt_sets)
    chosen = rotations(len(sets[0].demonstrations), ORDERS) if orders is None else _as_orders(orders)
    return in_orders(model, sets, {"chosen": as_heads(model, heads, least=1)}, chosen).prompts.drop(
        columns=["heads", "strength"]
    )


def _as_orders(orders: Any) -> list[Order]:
    """Orders as they are given from Python; that they are permutations is told where they are used."""
    found = [listed("An order", order, "numbers of demonstrations") for order in listed("orders", orders, "orders")]
    for order in found:
        for number in order:
            require_whole("The number of a demonstration", number, 0)
    return [tuple(map(int, order)) for order in found]


def head_groups(heads: Sequence[Head], n_heads: int, seed: int) -> dict[str, list[Head]]:
    """`heads.beside_random` with the chapter's own draw."""
    return beside_random(heads, n_heads, [seed, 6])


def study_orders(study: Study) -> list[Order]:
    """The orders of a study: all rotations and reversals at scale `paper`, otherwise eight, evenly spaced.

    Eight are all there are at `smoke`, whose sets have four demonstrations.
    """
    n = 2 * study.scale.shots
    return rotations(n, 2 * n if study.scale.name == "paper" else ORDERS)


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
    require_two(prompt_sets, "The order of labels")
    groups = {name: list(heads) for name, heads in groups.items() if heads}
    jobs = pd.DataFrame(
        [(i, s, permutation) for i, permutation in enumerate(orders) for s in range(len(prompt_sets))],
        columns=["order", "set", "permutation"],
    )
    reordered = [
        reorder(model, prompt_sets[s], way, template) for s, way in zip(jobs["set"], jobs["permutation"], strict=True)
    ]

    def of_batch(members: list[PromptSet], first: int, batch: Batch) -> Tables:
        tables: tuple[list[pd.DataFrame], list[pd.DataFrame]] = [], []
        for name, strength, answered, weights in _runs(model, batch, groups, strengths):
            for table, rows in zip(
                tables, _tables(members, jobs[first : first + len(members)], answered, weights), strict=True
            ):
                table.append(rows.assign(heads=name, strength=strength))
        return tuple(pd.concat(table, ignore_index=True) for table in tables)

    asked = [[*orders], [*groups.items()], [*strengths]]
    tables = zip(*sweep_batches(model, reordered, "order", asked, of_batch), strict=True)
    prompts, attention = (pd.concat(table, ignore_index=True) for table in tables)
    return Ordered(prompts, attention)


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

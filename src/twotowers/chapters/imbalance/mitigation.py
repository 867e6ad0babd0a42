"""The majority label: how far an answer leans towards it, and what takes that off.

The paper adds to the last position what in-context heads write there from the positions of the rarer label.
Beside it stand contextual calibration, which looks at answers only, and count-balanced attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from scipy.special import expit
from torch import Tensor

from ...models.architecture import Architecture
from ...models.model import Model
from ...models.parts import Tables
from ...paper import PAPER_STRENGTH
from ...prompts.sets import PromptSet
from ...statistics import estimate
from ...tracing.answers import SAME, Answers, answer_table, two_way
from ...tracing.capture import Batch, Capture, answers
from ...tracing.controls import FOLD, OTHERS, is_fold
from ...tracing.heads import CHOSEN, Head, by_layer
from ...tracing.labels import position_kinds
from ...tracing.projection import written
from ...tracing.sweep import sweep_batches, sweep_captures
from .designs import BALANCED, V
from .response import named

STRENGTHS = (PAPER_STRENGTH, 0.1, 0.3, 1.0, 3.0)
NONE = "none"  # the intact model
PAPER, OWN, CONTROL = "paper's strength", "chosen strength", "random heads"  # remedies: weighted minority values
CALIBRATION, BALANCING = "calibration", "count-balanced attention"  # others


def mitigate(
    model: Model,
    variants: Mapping[V, Sequence[PromptSet]],
    heads: Sequence[Head] | Mapping[str, Sequence[Head]],
    strengths: Sequence[float] = (PAPER_STRENGTH,),
) -> pd.DataFrame:
    """Answers when weighted values at minority-label positions are added to the last position's final residual.

    For every given head and every position of the rarer label, a * pattern * vo is added before the final norm,
    with a = strength * (majority count / minority count); the norm then runs on the sum, not frozen. A balanced
    set has no rarer label and is left as it is. Strength 0 is the intact model and is always included.

    Args:
        variants: name or share of foo -> prompt sets, as `dropped_sets` and `uneven_sets` give them.
        heads: (layer, head) pairs, or named groups of them.

    Returns:
        a row per group of heads, strength, variant and prompt: `heads, strength, variant, set, query, label,
        p_foo, p_foo_two_way, p_gold` (two-way), `accuracy, accuracy_two_way, logit_difference`.
    """
    groups: dict[str, list[Head]] = named(model, heads)
    every = list(dict.fromkeys((0.0, *strengths)))

    def of_capture(members: list[PromptSet], first: int, batch: Batch, captured: Capture) -> list[pd.DataFrame]:
        tables = []
        for name, own in groups.items():
            added = minority_values(model.arch, batch, captured, own, members)
            for strength in every:
                final = captured.resid_pre[-1] + strength * added
                changed = answers_from(model, final, batch) if strength and added.any() else captured.answers
                tables.append(answer_table(changed, members, first).assign(heads=name, strength=strength))
        return tables

    asked = [[*groups.items()], every]
    tables = [
        sweep_captures(model, sets, f"mitigation, {variant}", asked, of_capture).assign(variant=variant)
        for variant, sets in variants.items()
    ]
    return pd.concat(tables, ignore_index=True)


def minority_values(
    arch: Architecture, batch: Batch, captured: Capture, heads: Sequence[Head], sets: Sequence[PromptSet]
) -> Float[Tensor, "N d"]:
    """What strength 1 adds: majority / minority times pattern * vo, summed over heads and minority positions."""
    assert captured.pattern is not None
    kinds = position_kinds(sets, batch)
    is_label = torch.stack([kinds == 0, kinds == 1], dim=-1)  # [N, S, 2]
    counts = is_label.sum(1)
    minority = (is_label & (counts < counts.max(1, keepdim=True).values)[:, None]).any(-1)
    ratio = counts.max(1).values / counts.min(1).values.clamp(min=1)
    share = (minority * ratio[:, None])[:, None]
    added = torch.zeros(len(kinds), arch.d_model)
    for layer, numbers in by_layer(heads).items():
        added += written(arch, captured, batch, layer, numbers, captured.pattern[layer][:, numbers] * share)
    return added


def calibrate(model: Model, intact: pd.DataFrame, free: Mapping[V, Sequence[PromptSet]]) -> pd.DataFrame:
    """Contextual calibration: each label's probability divided by what it is for a query without content.

    Two-way only: there the division is a difference of logits. It needs no access to any head.

    Args:
        intact: answers of the intact model, rows of `mitigate` at strength 0 for one group of heads.
        free: for each variant its sets with the content-free query, as `content_free` gives them.

    Returns:
        a row per variant and prompt: `heads, variant, set, query, label, logit_difference, p_foo_two_way, p_gold,
        accuracy_two_way`, after calibration.
    """

    def of_batch(members: list[PromptSet], first: int, batch: Batch) -> Tables:
        return (answer_table(answers(model, batch), members, first),)

    tables = []
    for variant, sets in free.items():
        answered = sweep_batches(model, sets, "calibration", None, of_batch)
        base = pd.concat([rows for (rows,) in answered]).set_index("set")["logit_difference"]
        own = intact[intact["variant"] == variant]
        difference = own["logit_difference"] - own["set"].map(base)
        tables.append(own[["heads", "variant", *SAME]].assign(**two_way(difference, own["label"], sets[0])))
    return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class Remedied:
    """Answers of the same prompts without and with remedies; rows of `mitigate`, `calibrate` or of count balancing.

    Attributes:
        intact: rows of `mitigate` at strength 0.
        remedies: the same prompts by `PAPER`, `OWN`, `CONTROL` (all random groups, if there are any), `FOLD` (heads
            as each fold of the selection sets would choose them), `CALIBRATION` and `BALANCING`.
    """

    intact: pd.DataFrame
    remedies: dict[str, pd.DataFrame]


def remedied(
    model: Model,
    by_share: Mapping[float, Sequence[PromptSet]],
    free: Mapping[float, Sequence[PromptSet]],
    groups: Mapping[str, Sequence[Head]],
    chosen: float,
    balanced: pd.DataFrame,
) -> Remedied:
    """Try every remedy: the paper's strength, the chosen one, that one in random heads, calibration and balancing.

    Args:
        by_share: uneven prompt sets.
        free: of each share its sets with the content-free query.
        groups: result of `control_groups`.
        chosen: result of `choose_strength` on the selection half.
        balanced: result of `balanced_answers` for these shares, and perhaps others.
    """
    own = mitigate(model, by_share, {CHOSEN: groups[CHOSEN]}, [PAPER_STRENGTH, chosen])
    by_strength = {strength: own[own["strength"] == strength] for strength in (0.0, PAPER_STRENGTH, chosen)}
    remedies = {PAPER: by_strength[PAPER_STRENGTH], OWN: by_strength[chosen]}
    beside = {name: heads for name, heads in groups.items() if name not in (CHOSEN, OTHERS)}
    if beside:
        table = mitigate(model, by_share, beside, [chosen])
        table = table[table["strength"] == chosen]
        for name, part in table.groupby(is_fold(table["heads"]).map({False: CONTROL, True: FOLD})):
            remedies[str(name)] = part
    remedies[CALIBRATION] = calibrate(model, by_strength[0.0], free)
    fair = balanced[(balanced["heads"] == CHOSEN) & balanced["share"].isin(list(by_share))]
    remedies[BALANCING] = fair.rename(columns={"share": "variant"})
    return Remedied(by_strength[0.0], remedies)


# What a remedy does


def majority_shift(table: pd.DataFrame) -> pd.DataFrame:
    """How far the answer leans towards the majority, per group of heads and set: `heads, set, effect`.

    Half of P(foo), between the two labels, where foo has more demonstrations minus where it has fewer, mean over
    queries: the same queries on both sides, so that a lean towards one label cancels. 0 without a bias, at most 1/2.
    """
    more = table.assign(more=table["variant"] > 1 / 2)
    means = more.groupby(["heads", "set", "more"])["p_foo_two_way"].mean().unstack("more")
    return ((means[True] - means[False]) / 2).rename("effect").reset_index()


def shift_size(table: pd.DataFrame) -> pd.DataFrame:
    """Size of `majority_shift`, per set, mean over the groups of heads: `set, effect`."""
    shift = majority_shift(table)
    return shift.assign(effect=shift["effect"].abs()).groupby("set")["effect"].mean().reset_index()


def mitigation_effects(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Size of the shift before minus after, per set: `set, effect` (claim C13); tables of the same prompts."""
    both = shift_size(before).merge(shift_size(after), on="set", suffixes=("_before", "_after"))
    return both.assign(effect=both["effect_before"] - both["effect_after"])[["set", "effect"]]


def offset_effects(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """What a constant takes off, that is added to every logit difference: `set, effect`, the contrast of C13.

    It is as large as what the remedy changes in the mean over all prompts. It knows no majority, but pushes answers to
    where probabilities hardly move. Mean over both of its signs.
    """
    keys = ["variant", *SAME]
    change = after.set_index(keys)["logit_difference"] - before.set_index(keys)["logit_difference"]
    size = float(change.abs().mean())
    moved = [before.assign(p_foo_two_way=expit(before["logit_difference"] + sign * size)) for sign in (1, -1)]
    parts = [mitigation_effects(before, table) for table in moved]
    return pd.concat(parts).groupby("set")["effect"].mean().reset_index()


def evidence(tried: Remedied, accuracy: pd.DataFrame) -> dict[str, Any]:
    """What C13 is judged by, named as in `statistics.judge`: the chosen strength, and what controls it.

    `accuracy` is two-way, per set. `random` has what each random group takes off, mean over sets; `control` is the
    remedy minus a constant offset.
    """
    own = mitigation_effects(tried.intact, tried.remedies[OWN])
    offset = offset_effects(tried.intact, tried.remedies[OWN])
    drawn = {name: tried.remedies.get(name) for name in (CONTROL, FOLD)}
    taken = {
        name: [] if table is None else [_mean_taken(tried.intact, part) for _, part in table.groupby("heads")]
        for name, table in drawn.items()
    }
    return {
        "effects": own,
        "random": taken[CONTROL],
        "folds": taken[FOLD] or None,
        "control": own.assign(effect=own["effect"] - offset["effect"]),
        "before": shift_size(tried.intact),
        "accuracy": accuracy,
    }


def _mean_taken(intact: pd.DataFrame, remedied: pd.DataFrame) -> float:
    return float(mitigation_effects(intact, remedied)["effect"].mean())


def choose_strength(mitigated: pd.DataFrame) -> float:
    """The positive strength that leaves the smallest shift, the weakest of equals; for the selection half."""
    strengths = [float(strength) for strength in mitigated["strength"].unique() if strength > 0]
    tried = [(round(shift_size(mitigated[mitigated["strength"] == s])["effect"].mean(), 9), s) for s in strengths]
    return min(tried)[1]


def compare(tried: Remedied) -> pd.DataFrame:
    """Shift and two-way accuracy without and with each remedy, mean and 95 % interval over sets.

    Returns:
        `remedy` ("none" first), `quantity` ("shift": its size; "removed": before minus after, paired by set;
        "accuracy"), `mean, low, high, strength` (0 of the intact model, nan where a remedy has none).
    """
    rows = []
    for remedy, table in {NONE: tried.intact, **tried.remedies}.items():
        if remedy == FOLD:
            continue
        parts = {
            "shift": shift_size(table),
            "removed": mitigation_effects(tried.intact, table),
            "accuracy": table.groupby("set")["accuracy_two_way"].mean().rename("effect").reset_index(),
        }
        strength = float(table["strength"].iloc[0]) if "strength" in table else float("nan")
        for quantity, part in parts.items():
            e = estimate(part["effect"], part["set"])
            rows.append((remedy, quantity, e.mean, e.low, e.high, strength))
    return pd.DataFrame(rows, columns=["remedy", "quantity", "mean", "low", "high", "strength"])


def fluctuation(mitigated: pd.DataFrame) -> pd.DataFrame:
    """How far accuracy over all prompts moves when a demonstration is dropped, the paper's number, by strength.

    Args:
        mitigated: result of `mitigate` for `dropped_sets` and one group of heads.

    Returns:
        `strength, fluctuation`: |accuracy with all demonstrations - accuracy with one less|, full vocabulary, mean over
        the demonstrations that are dropped. It has no interval: the data set is one.
    """
    means = mitigated.groupby(["strength", "variant"])["accuracy"].mean().unstack("variant")
    change = means.drop(columns=BALANCED).sub(means[BALANCED], axis=0).abs().mean(axis=1)
    return change.rename("fluctuation").reset_index()


def answers_from(model: Model, final: Float[Tensor, "N d"], batch: Batch) -> Answers:
    """What the model's own norm and unembedding answer to a final residual."""
    arch = model.arch
    norm, unembed, like = (arch.module(path) for path in (arch.family.final_norm, arch.family.unembed, arch.like))
    with torch.no_grad():
        logits = unembed(norm(final.to(like.weight.device, like.weight.dtype))).float().cpu()
    return Answers(logits.gather(1, batch.label_ids), logits.logsumexp(-1), logits.argmax(-1))

"""The majority label: how much an answer fluctuates when one demonstration is dropped, and what steadies it.

The paper adds to the last position what in-context heads write there from the positions of the rarer label.
Beside it stands contextual calibration, which looks at answers only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ...models.architecture import Architecture
from ...models.model import Model
from ...paper import PAPER_STRENGTH
from ...prompts.sets import PromptSet
from ...statistics import estimate
from ...tracing.answers import SAME, Answers, answer_table, two_way
from ...tracing.capture import Batch, Capture, answers, batches, captures
from ...tracing.heads import CHOSEN, RANDOM, Head, by_layer
from ...tracing.labels import position_kinds
from ...tracing.projection import written
from .designs import BALANCED
from .response import named

STRENGTHS = (PAPER_STRENGTH, 0.1, 0.3, 1.0, 3.0)
MEASURES = {  # columns in which a remedy is judged, with their names on a page
    "accuracy": "accuracy, full vocabulary",
    "accuracy_two_way": "accuracy, two-way",
    "p_gold": "two-way P(right label)",
}
NONE = "none"  # the intact model
PAPER, OWN, CONTROL, CALIBRATION = "paper's strength", "chosen strength", "random heads", "calibration"  # remedies


def mitigate(
    model: Model,
    variants: Mapping[str, Sequence[PromptSet]],
    heads: Sequence[Head] | Mapping[str, Sequence[Head]],
    strengths: Sequence[float] = (PAPER_STRENGTH,),
) -> pd.DataFrame:
    """Answers when weighted values at minority-label positions are added to the last position's final residual.

    For every given head and every position of the rarer label, a * pattern * vo is added before the final norm,
    with a = strength * (majority count / minority count); the norm then runs on the sum, not frozen. A balanced
    set has no rarer label and is left as it is. Strength 0 is the intact model and is always included.

    Args:
        variants: name -> prompt sets, as `dropped_sets` gives them.
        heads: (layer, head) pairs, or named groups of them.

    Returns:
        a row per group of heads, strength, variant and prompt: `heads, strength, variant, set, query, label,
        p_foo, p_foo_two_way, p_gold` (two-way), `accuracy, accuracy_two_way, logit_difference`.
    """
    groups = named(model, heads)
    tables = []
    for variant, sets in variants.items():
        for part, start, batch, captured in captures(model, sets, f"mitigation, {variant}"):
            for name, members in groups.items():
                added = minority_values(model.arch, batch, captured, members, part)
                for strength in dict.fromkeys((0.0, *strengths)):
                    final = captured.resid_pre[-1] + strength * added
                    changed = answers_from(model, final, batch) if strength and added.any() else captured.answers
                    row = answer_table(changed, part, start)
                    tables.append(row.assign(heads=name, strength=strength, variant=variant))
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


def calibrate(model: Model, intact: pd.DataFrame, free: Mapping[str, Sequence[PromptSet]]) -> pd.DataFrame:
    """Contextual calibration: each label's probability divided by what it is for a query without content.

    Two-way only: there the division is a difference of logits. It needs no access to any head.

    Args:
        intact: answers of the intact model, rows of `mitigate` at strength 0 for one group of heads.
        free: for each variant its sets with the content-free query, as `content_free` gives them.

    Returns:
        a row per variant and prompt: `variant, set, query, label, logit_difference, p_foo_two_way, p_gold,
        accuracy_two_way`, after calibration.
    """
    tables = []
    for variant, sets in free.items():
        rows = Answers.cat([answers(model, batch) for batch in batches(model, sets)])
        base = answer_table(rows, sets, 0).set_index("set")["logit_difference"]
        own = intact[intact["variant"] == variant]
        difference = own["logit_difference"] - own["set"].map(base)
        tables.append(own[[*SAME, "variant"]].assign(**two_way(difference, own["label"], sets[0])))
    return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class Remedied:
    """Answers of the same prompts without and with remedies.

    Attributes:
        intact: rows of `mitigate` at strength 0.
        remedies: the same rows, or those of `calibrate`, by `PAPER`, `OWN`, `CONTROL` (where there are random heads)
            and `CALIBRATION`.
    """

    intact: pd.DataFrame
    remedies: dict[str, pd.DataFrame]


def remedied(
    model: Model,
    variants: Mapping[str, Sequence[PromptSet]],
    free: Mapping[str, Sequence[PromptSet]],
    groups: Mapping[str, Sequence[Head]],
    chosen: float,
) -> Remedied:
    """Try every remedy: the paper's strength, the chosen one, that one in random heads, and calibration.

    Args:
        free: of each variant its sets with the content-free query.
        groups: the in-context heads, and random heads if there are any, as `head_groups` gives them.
        chosen: result of `choose_strength` on the selection half.
    """
    table = mitigate(model, variants, groups, [PAPER_STRENGTH, chosen])

    def rows(heads: str, strength: float) -> pd.DataFrame:
        return table[(table["heads"] == heads) & (table["strength"] == strength)]

    intact = rows(CHOSEN, 0.0)
    remedies = {PAPER: rows(CHOSEN, PAPER_STRENGTH), OWN: rows(CHOSEN, chosen)}
    if RANDOM in groups:
        remedies[CONTROL] = rows(RANDOM, chosen)
    return Remedied(intact, {**remedies, CALIBRATION: calibrate(model, intact, free)})


def fluctuation(table: pd.DataFrame, value: str = "accuracy") -> pd.DataFrame:
    """|mean of a column on the balanced set - the same with a demonstration dropped|, per set: `set, fluctuation`.

    The mean over the set's queries comes first, the mean over dropped demonstrations last.
    """
    means = table.groupby(["variant", "set"])[value].mean().unstack("variant")
    change = means.drop(columns=BALANCED).sub(means[BALANCED], axis=0).abs().mean(axis=1)
    return change.rename("fluctuation").reset_index()


def mitigation_effects(before: pd.DataFrame, after: pd.DataFrame, value: str = "accuracy") -> pd.DataFrame:
    """Fluctuation before minus after, per set: `set, effect` (claim C13); tables of the same prompts."""
    both = fluctuation(before, value).merge(fluctuation(after, value), on="set", suffixes=("_before", "_after"))
    return both.assign(effect=both["fluctuation_before"] - both["fluctuation_after"])[["set", "effect"]]


def majority_shift(intact: pd.DataFrame) -> pd.DataFrame:
    """What dropping a demonstration gives to the other label, which is then the majority, per set: `set, effect`.

    The effect is the change of its two-way probability, mean over queries and dropped demonstrations. Only this part
    of a fluctuation is a bias towards the majority; the rest depends on which demonstration went.
    """
    foo = sorted(intact["label"].unique())[-1]
    means = intact.groupby(["variant", "set"])["p_foo_two_way"].mean().unstack("variant")
    change = means.drop(columns=BALANCED).sub(means[BALANCED], axis=0)
    towards = change.mul([-1 if name.startswith(foo) else 1 for name in change.columns], axis=1)
    return towards.mean(axis=1).rename("effect").reset_index()


def choose_strength(mitigated: pd.DataFrame) -> float:
    """The positive strength with the least fluctuation of accuracy, the weakest of equals; for the selection half."""
    strengths = [float(strength) for strength in mitigated["strength"].unique() if strength > 0]
    tried = [(fluctuation(mitigated[mitigated["strength"] == s])["fluctuation"].mean(), s) for s in strengths]
    return min(tried)[1]


def compare(before: pd.DataFrame, after: Mapping[str, pd.DataFrame], *, seed: int = 0) -> pd.DataFrame:
    """Fluctuation of every measure without and with each remedy, mean and 95 % interval over sets.

    Returns:
        `remedy` ("none" first), `measure` (a column of `MEASURES` that the remedy has), `quantity` ("fluctuation",
        or "removed": before minus after, paired by set), `mean, low, high`.
    """
    rows = []
    for remedy, table in {NONE: before, **after}.items():
        for measure in [m for m in MEASURES if m in table]:
            own, removed = fluctuation(table, measure), mitigation_effects(before, table, measure)
            for name, part, column in (("fluctuation", own, "fluctuation"), ("removed", removed, "effect")):
                e = estimate(part[column], part["set"], seed=seed)
                rows.append((remedy, measure, name, e.mean, e.low, e.high))
    return pd.DataFrame(rows, columns=["remedy", "measure", "quantity", "mean", "low", "high"])


def compare_remedies(tried: Remedied, *, seed: int = 0) -> pd.DataFrame:
    """`compare` of all remedies, with the column `strength`: 0 of the intact model, nan where a remedy has none."""
    strengths = {name: rows["strength"].iloc[0] for name, rows in tried.remedies.items() if "strength" in rows}
    compared = compare(tried.intact, tried.remedies, seed=seed)
    return compared.assign(strength=compared["remedy"].map({NONE: 0.0, **strengths}).astype(float))


def levels(tried: Remedied, value: str = "accuracy_two_way") -> pd.DataFrame:
    """Mean of a column over all prompts without and with each remedy: `remedy` ("none" first), `mean`."""
    tables = {NONE: tried.intact, **tried.remedies}
    return pd.DataFrame([(name, table[value].mean()) for name, table in tables.items()], columns=["remedy", "mean"])


def mean_shift(intact: pd.DataFrame, *, seed: int = 0) -> dict[str, float]:
    """`majority_shift` over all sets, with its 95 % interval: `mean, low, high`."""
    shift = majority_shift(intact)
    return asdict(estimate(shift["effect"], shift["set"], seed=seed))


def answers_from(model: Model, final: Float[Tensor, "N d"], batch: Batch) -> Answers:
    """What the model's own norm and unembedding answer to a final residual."""
    norm, unembed = (model.arch.module(path) for path in (model.arch.family.final_norm, model.arch.family.unembed))
    with torch.no_grad():
        logits = unembed(norm(final.to(norm.weight.device, norm.weight.dtype))).float().cpu()
    return Answers(logits.gather(1, batch.label_ids), logits.logsumexp(-1), logits.argmax(-1))

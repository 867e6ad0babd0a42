"""What prompts answer: logits of the labels, and tables of a row a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.special import expit
from torch import Tensor

from ..errors import ModelError
from ..prompts.packing import Batch
from ..prompts.sets import PromptSet, require_two
from .contrasts import differences, margin_against

SAME = ("set", "query", "label")  # what names a prompt, whatever its demonstrations are


def require_finite(*numbers: Tensor) -> None:
    """Refuse what a mean would pass over and a comparison call wrong.

    Raises:
        ModelError: one of the numbers is NaN or infinite.
    """
    if not all(bool(x.isfinite().all()) for x in numbers):
        raise ModelError(
            "The model answers with what is no number (NaN or infinity); look at its weights with twotowers check, or "
            "load it in float32."
        )


def answer_table(rows: Answers, sets: Sequence[PromptSet], start: int) -> pd.DataFrame:
    """A row per prompt: answers, probabilities and accuracies; sets are numbered from `start`.

    Raises:
        LabelError: a set has more than two labels.
    """
    require_two(sets, "The probability of the second label")
    require_finite(rows.labels, rows.log_norm)
    gold = torch.tensor([s.label_ids[g] for s in sets for g in s.gold])
    labels = rows.labels.double()
    prompts = [(start + i, q, label) for i, s in enumerate(sets) for q, (_, label) in enumerate(s.queries)]
    table = pd.DataFrame(prompts, columns=list(SAME))
    return table.assign(
        p_foo=(labels[:, 1] - rows.log_norm).exp().numpy(),
        accuracy=(rows.best == gold).double().numpy(),
        **two_way(pd.Series((labels[:, 1] - labels[:, 0]).numpy()), table["label"], sets[0]),
    )


def two_way(difference: pd.Series, gold: pd.Series, s: PromptSet) -> dict[str, pd.Series]:
    """Measures that need the logit difference only: sigmoid gives the two-way probability of foo."""
    towards = difference.where(gold == s.labels[1], -difference)
    return {
        "logit_difference": difference,
        "p_foo_two_way": expit(difference),
        "p_gold": expit(towards),
        "accuracy_two_way": (towards > 0).astype(float),
    }


def outcome_table(
    rows: Answers, s: PromptSet, group: int, index: int, target: Int[Tensor, " N"] | None = None
) -> pd.DataFrame:
    """Rows of `outcomes` for one group and one prompt set, the `index`-th.

    Args:
        target: the label of each prompt that the margin is taken against; left out, the mean of all others.
    """
    require_finite(rows.labels, rows.log_norm)
    prompts, gold = torch.arange(len(s.gold)), torch.tensor(s.gold)
    apart = differences(rows.labels, gold)
    correct = rows.best == torch.tensor(s.label_ids)[gold]
    return pd.DataFrame(
        {
            "group": group,
            "set": index,
            "query": prompts.numpy(),
            "label": [label for _, label in s.queries],
            "accuracy": correct.double().numpy(),
            "accuracy_two_way": (apart > 0).all(-1).double().numpy(),
            "margin": margin_against(apart, gold, target).double().numpy(),
        }
    )


def two_way_table(
    apart: Float[Tensor, "G N k1"], s: PromptSet, index: int, target: Int[Tensor, " N"] | None = None
) -> pd.DataFrame:
    """As `outcome_table` of G groups, from labels' `differences` alone: without `accuracy`, which needs all logits."""
    require_finite(apart)
    groups, n, _ = apart.shape
    margins = margin_against(apart, torch.tensor(s.gold), target)
    return pd.DataFrame(
        {
            "group": np.repeat(np.arange(groups), n),
            "set": index,
            "query": np.tile(np.arange(n), groups),
            "label": [label for _, label in s.queries] * groups,
            "accuracy_two_way": (apart > 0).all(-1).double().flatten().numpy(),
            "margin": margins.double().flatten().numpy(),
        }
    )


def outcome_tables(rows: Answers, sets: Sequence[PromptSet], first: int) -> list[pd.DataFrame]:
    """`outcome_table` of each of some sets that were answered together, numbered from `first`; group 0."""
    sizes = [len(s.prompts) for s in sets]
    parts = zip(*(x.split(sizes) for x in (rows.labels, rows.log_norm, rows.best)), strict=True)
    return [outcome_table(Answers(*part), s, 0, first + i) for i, (part, s) in enumerate(zip(parts, sets, strict=True))]


COLUMNS = ("set", "query", "label", "accuracy", "accuracy_two_way", "margin")


def window_rows(
    rows: Answers, sets: Sequence[PromptSet], index: int, kind: str, window: range, control: bool
) -> pd.DataFrame:
    """A row a prompt, for sets numbered from `index`."""
    tables = outcome_tables(rows, sets, index)
    keys: dict[str, Any] = {"kind": kind, "start": window.start, "stop": window.stop, "control": control}
    return pd.concat(tables, ignore_index=True).drop(columns="group").assign(**keys)[[*keys, *COLUMNS]]


@dataclass(frozen=True)
class Answers:
    """What N prompts answer. Logits are natural, over the full vocabulary.

    Attributes:
        labels: logits of each prompt's labels.
        log_norm: log of the sum of exponentials over the vocabulary, so that `labels - log_norm` is log p.
        best: the most probable token.
    """

    labels: Float[Tensor, "N k"]
    log_norm: Float[Tensor, " N"]
    best: Int[Tensor, " N"]

    @classmethod
    def cat(cls, parts: Sequence[Answers]) -> Answers:
        return cls(
            torch.cat([part.labels for part in parts]),
            torch.cat([part.log_norm for part in parts]),
            torch.cat([part.best for part in parts]),
        )


Reading = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def reading(batch: Batch) -> Reading:
    """What is kept of logits [N, V]: the parts of `Answers`."""
    label_ids = batch.label_ids
    return lambda logits: (
        logits.gather(1, label_ids.to(logits.device)).cpu(),
        logits.logsumexp(-1).cpu(),
        logits.argmax(-1).cpu(),
    )

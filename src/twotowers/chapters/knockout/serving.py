"""Heads that serve one label: their selection, and what removing them costs either label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ...models.model import Model
from ...paper import PAPER_SHARE
from ...prompts.sets import PromptSet
from ...statistics import rank_agreement
from ...tracing.heads import Head, is_in, pairs, random_heads
from ...tracing.outcomes import outcomes
from .knockout import rank_heads


def named_groups(model: Model, prompt_sets: Sequence[PromptSet], groups: Mapping[str, Sequence[Head]]) -> pd.DataFrame:
    """Outcomes of named groups of heads, each removed together, with the column `name`."""
    result = outcomes(model, prompt_sets, list(groups.values()))
    return result.assign(name=np.array(list(groups))[result["group"]])


def in_context_heads(ranked: pd.DataFrame, located: pd.DataFrame, label: str, *, n_layers: int) -> pd.DataFrame:
    """Heads of the deep half that stand high in both lists for one gold label: *foo-heads* for "foo".

    The paper takes heads in the top 10 of both lists, 6 a label among the 1,024 of Llama 7B. For any number of heads
    we take the same share, at least one: those whose worse rank is best.

    Args:
        ranked: `rank_heads` on the prompts of that gold label.
        located: `Located.heads`.

    Returns:
        `layer, head, harm_rank, raise_rank, worse_rank`, ranks from 1 among deep heads, best first.
    """
    deep = n_layers / 2
    harm = ranked[ranked["layer"] >= deep].copy()
    harm["harm_rank"] = np.arange(1, len(harm) + 1)
    rises = located[(located["label"] == label) & (located["layer"] >= deep)]
    rises = rises.sort_values("log_increase", ascending=False).copy()
    rises["raise_rank"] = np.arange(1, len(rises) + 1)
    both = harm.merge(rises[["layer", "head", "raise_rank"]], on=["layer", "head"])
    both["worse_rank"] = both[["harm_rank", "raise_rank"]].max(axis=1)
    number = max(1, round(PAPER_SHARE * len(ranked)))
    columns = ["layer", "head", "harm_rank", "raise_rank", "worse_rank"]
    return both.sort_values(["worse_rank", "raise_rank"], ignore_index=True)[columns].head(number)


def serving_heads(swept: pd.DataFrame, located: pd.DataFrame, *, n_layers: int) -> pd.DataFrame:
    """The `in_context_heads` of every label, each with its `label`, in the order of the labels.

    Args:
        swept: result of `knockout.sweep`; `located`: `Located.heads`.
    """
    tables = [
        in_context_heads(rank_heads(swept, label), located, label, n_layers=n_layers).assign(label=label)
        for label in sorted(swept["label"].unique())
    ]
    return pd.concat(tables, ignore_index=True)


def by_label(serving: pd.DataFrame, labels: Sequence[str]) -> dict[str, list[Head]]:
    """The heads of a `serving_heads` table by the label that they serve, best first."""
    return {label: pairs(serving[serving["label"] == label]) for label in sorted(labels)}


def with_controls(heads: Mapping[str, Sequence[Head]], n_heads: int, *, seed: int = 0) -> dict[str, list[Head]]:
    """Groups to remove: "none", "<label>-heads", and as many random heads of the same layers.

    Args:
        heads: result of `by_label`; `n_heads`: heads of one layer.

    Returns:
        no group is empty but "none": a label without heads has none, nor has one whose layers have no other heads.
    """
    rng = np.random.default_rng([seed, 2])
    own = {f"{label}-heads": list(chosen) for label, chosen in heads.items() if chosen}
    random = {f"random for {name}": random_heads(chosen, n_heads, rng) for name, chosen in own.items()}
    return {"none": [], **own, **{name: drawn for name, drawn in random.items() if drawn}}


def compare_rankings(ranked: pd.DataFrame, located: pd.DataFrame, selected: Sequence[Head]) -> pd.DataFrame:
    """A ranking by margin lost with `log_increase` (mean of the labels' means) and `in_context` (is selected)."""
    score = located.groupby(["layer", "head"], as_index=False)["log_increase"].mean()
    table = ranked.merge(score, on=["layer", "head"])
    return table.assign(in_context=is_in(table, selected))


def deep_agreement(compared: pd.DataFrame, *, n_layers: int) -> float | None:
    """Spearman's rank correlation of `log_increase` and `margin_drop` over heads of the deep half.

    Returns:
        None where there is none: fewer than two heads, or a score that is the same for all.
    """
    deep = compared[compared["layer"] >= n_layers / 2].dropna(subset=["log_increase", "margin_drop"])
    rho = rank_agreement(deep["log_increase"], deep["margin_drop"]) if len(deep) > 1 else float("nan")
    return rho if np.isfinite(rho) else None

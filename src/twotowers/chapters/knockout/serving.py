"""Heads that serve one label: their selection, and what removing them costs either label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ...models.model import Model
from ...paper import PAPER_SHARE
from ...prompts.sets import PromptSet
from ...tracing.heads import Head
from ...tracing.outcomes import outcomes


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


def own_label_effect(prompts: pd.DataFrame) -> pd.DataFrame:
    """C5 from a `named_groups` table with "none" and "<label>-heads": accuracy lost on prompts of the heads' own
    label minus that on prompts of the other label, mean over both labels; a row per demonstration set."""
    means = prompts.groupby(["name", "label", "set"])["accuracy"].mean().unstack("set")
    labels = sorted(prompts["label"].unique())
    lost = {own: means.loc["none"] - means.loc[f"{own}-heads"] for own in labels}
    effect = sum(lost[own].loc[own] - lost[own].drop(index=own).iloc[0] for own in labels) / len(labels)
    return effect.rename("effect").reset_index()

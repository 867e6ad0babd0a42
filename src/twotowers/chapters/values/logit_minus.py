"""Values: what the value and output matrices of a head carry from each position.

The value of a position p is `vo` (method page, equation eq-vo), weighted by attention it is what p adds to the last
position. Logit minus M (equation eq-logit-minus) says which of the two labels a vector favours. The final norm's scale
is frozen at the prompt's own final residual, so M is linear and needs two rows of the unembedding only.

Of more than two labels there is an M towards each of them: its logit minus the mean of all others.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ...models.model import Model
from ...paper import PAPER_WEIGHTED
from ...prompts.packing import Batch
from ...prompts.sets import PromptSet
from ...statistics import summarise
from ...tracing.capture import Capture
from ...tracing.contrasts import mean_of_others
from ...tracing.heads import Head, as_heads, by_layer, deep_heads, is_in
from ...tracing.labels import position_kinds
from ...tracing.projection import label_direction, values_minus
from ...tracing.sweep import sweep_captures

OTHER = "other"  # the kind of every position that holds no label
CONTROL_HEADS = 40  # other deep heads looked at, drawn at random if there are more
IN_CONTEXT, CONTROL = "in-context heads", "other deep heads"  # groups of heads beside those of each label
VALUE, WEIGHTED = "vo, mean", "weight × vo, sum"  # the two measures


def position_logit_minus(
    model: Model, prompt_sets: PromptSet | Sequence[PromptSet], heads: Sequence[Head]
) -> pd.DataFrame:
    """Logit minus of each head's values, by the kind of position: M(x) = log p(second label) - log p(first label).

    Labels are in sorted order, so with "foo" and "bar" a positive M favours foo. Of more than two labels there are rows
    for each label that M may be `towards`, in a column of that name.

    Returns:
        a row per head, kind of position (the label it holds, or "other") and prompt: `layer, head, kind, set, query`,
        `label` (gold), `weighted` (sum of M(pattern * vo) over the positions of that kind) and `unweighted` (mean
        of M(vo) over them, nan if there are none); logits.

    Raises:
        HeadError: a head that the model does not have.
    """
    heads = as_heads(model, heads)

    def of_capture(members: list[PromptSet], first: int, batch: Batch, captured: Capture) -> list[pd.DataFrame]:
        tables = []
        kinds, labels = position_kinds(members, batch), members[0].labels
        for (layer, numbers), label in itertools.product(by_layer(heads).items(), _towards(labels)):
            counts = mean_of_others(torch.full_like(batch.gold, labels.index(label)), len(labels))
            towards = label_direction(model.arch, captured, batch, counts)
            minus = values_minus(model.arch, captured, batch, layer, numbers, towards)
            assert captured.pattern is not None
            weights = captured.pattern[layer][:, numbers]
            for code, kind in enumerate((*labels, OTHER)):
                here = (kinds == code)[:, None]
                weighted = (weights * minus * here).sum(-1)
                unweighted = (minus * here).sum(-1) / here.sum(-1)
                rows = _rows(members, first, layer, numbers, kind, weighted, unweighted)
                tables.append(rows if len(labels) == 2 else rows.assign(towards=label))
        return tables

    return sweep_captures(model, prompt_sets, "logit minus", heads, of_capture)


def _towards(labels: Sequence[str]) -> Sequence[str]:
    """The labels that M is read towards: of two the second, since M towards the first is minus that."""
    return labels[1:] if len(labels) == 2 else labels


def own_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Of more than two labels, M towards the label that a position holds, and at others towards the gold label."""
    if "towards" not in table:
        return table
    meant = table["kind"].where(table["kind"] != OTHER, table["label"])
    return table[table["towards"] == meant]


def logit_minus_effect(table: pd.DataFrame, heads: Sequence[Head], column: str = "unweighted") -> pd.DataFrame:
    """M at positions of the second label (foo) minus M at those of the first (bar), mean over heads.

    Of more than two labels: M towards a label at its own positions minus at those of the others, mean over labels.

    Args:
        table: result of `position_logit_minus`.

    Returns:
        `set, query, label, effect`, a row per prompt, in logits; nan if a prompt has no position of one of them.
    """
    part = table[is_in(table, heads)]
    if "towards" in table:
        return _own_minus_others(part, column)
    first, second = sorted(set(table["kind"]) - {OTHER})
    wide = part.pivot_table(index=["set", "query", "label"], columns="kind", values=column)
    wide = wide.reindex(columns=[first, second])
    return (wide[second] - wide[first]).rename("effect").reset_index()


def _own_minus_others(part: pd.DataFrame, column: str) -> pd.DataFrame:
    prompt, effects = ["set", "query", "label"], []
    for label, rows in part[part["kind"] != OTHER].groupby("towards"):
        wide = rows.pivot_table(index=prompt, columns="kind", values=column)
        effects.append(wide[label] - wide.drop(columns=str(label)).mean(axis=1))
    return pd.concat(effects, axis=1).mean(axis=1, skipna=False).rename("effect").reset_index()


def beside_paper(weighted: pd.DataFrame) -> pd.DataFrame:
    """Our weighted logit minus beside the paper's, where its number is known.

    Args:
        weighted: `group, kind, mean, low, high`, a summary of the column `weighted` by group of heads.

    Returns:
        `heads, positions, mean, low, high, paper, sign`; `sign` says whether our interval has the paper's sign.
    """
    rows = []
    for group, kind, paper, sign in PAPER_WEIGHTED:
        part = weighted[(weighted["group"] == group) & (weighted["kind"] == kind)]
        for mean, low, high in part[["mean", "low", "high"]].to_numpy():
            nearest, farthest = sorted((sign * low, sign * high))
            verdict = "the same" if nearest > 0 else "the opposite" if farthest < 0 else "not decided"
            rows.append((group, kind, mean, low, high, paper, verdict))
    return pd.DataFrame(rows, columns=["heads", "positions", "mean", "low", "high", "paper", "sign"])


def head_groups(
    selected: Mapping[str, Sequence[Head]], model: Model, *, seed: int = 0, limit: int = CONTROL_HEADS
) -> dict[str, list[Head]]:
    """Groups of heads to compare; a group without heads is left out.

    Args:
        selected: the heads that serve each label, and as `all` the in-context heads, as `Page.selected` gives them.
        limit: how many other deep heads serve as control, drawn at random from the deep half.

    Returns:
        `<label>-heads` for each label, `in-context heads`, and `other deep heads`, which are in none of these.
    """
    groups = {f"{label}-heads": list(heads) for label, heads in sorted(selected.items()) if label != "all"}
    groups[IN_CONTEXT] = list(selected["all"])
    taken = {head for heads in groups.values() for head in heads}
    others = [head for head in deep_heads(model) if head not in taken]
    drawn = np.random.default_rng([seed, 3]).permutation(len(others))[:limit]
    groups[CONTROL] = [others[i] for i in sorted(drawn)]
    return {name: heads for name, heads in groups.items() if heads}


def by_measure(prompts: pd.DataFrame, groups: Mapping[str, Sequence[Head]]) -> pd.DataFrame:
    """Logit minus of values alone and of weighted values, by group of heads and kind of position.

    Args:
        prompts: result of `position_logit_minus`.

    Returns:
        `group, kind, mean, low, high, measure`, means and intervals; a kind without positions has no row.
    """
    grouped = by_group(own_rows(prompts), groups)
    parts = [
        summarise(grouped.dropna(subset=column), ["group", "kind"], column).assign(measure=measure)
        for measure, column in ((VALUE, "unweighted"), (WEIGHTED, "weighted"))
    ]
    return pd.concat(parts, ignore_index=True)


def label_differences(prompts: pd.DataFrame, groups: Mapping[str, Sequence[Head]]) -> pd.DataFrame:
    """`logit_minus_effect` of each group of heads: `group, heads` (how many), `mean, low, high`."""
    parts = [logit_minus_effect(prompts, heads).assign(group=name, heads=len(heads)) for name, heads in groups.items()]
    effects = pd.concat(parts, ignore_index=True).dropna(subset="effect")
    return summarise(effects, ["group", "heads"], "effect")


def by_group(table: pd.DataFrame, groups: Mapping[str, Sequence[Head]]) -> pd.DataFrame:
    """Rows of a table of heads for each group that a head is in, with the column `group` in front."""
    parts = [table[is_in(table, heads)].assign(group=name) for name, heads in groups.items()]
    result = pd.concat(parts, ignore_index=True)
    return result[["group", *table.columns]]


def _rows(
    sets: Sequence[PromptSet],
    first: int,
    layer: int,
    heads: Sequence[int],
    kind: str,
    weighted: Float[Tensor, "N h"],
    unweighted: Float[Tensor, "N h"],
) -> pd.DataFrame:
    prompts = [(first + i, query, gold) for i, s in enumerate(sets) for query, (_, gold) in enumerate(s.queries)]
    table = pd.DataFrame(prompts, columns=["set", "query", "label"])
    parts = [
        table.assign(head=head, weighted=weighted[:, i].double().numpy(), unweighted=unweighted[:, i].double().numpy())
        for i, head in enumerate(heads)
    ]
    columns = ["layer", "head", "kind", "set", "query", "label", "weighted", "unweighted"]
    return pd.concat(parts, ignore_index=True).assign(layer=layer, kind=kind)[columns]

"""Is the label among the first words of what a label position's value says?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...models.model import Model
from ...prompts.packing import Batch
from ...prompts.sets import PromptSet
from ...statistics import estimate, summarise
from ...tracing.capture import Capture
from ...tracing.heads import Head, as_heads, by_layer
from ...tracing.labels import label_places
from ...tracing.projection import values_of
from ...tracing.sweep import sweep_captures
from .logit_minus import CONTROL, IN_CONTEXT, by_group

CHUNK = 256  # positions projected onto the whole vocabulary at a time


def label_in_top(
    model: Model, prompt_sets: PromptSet | Sequence[PromptSet], heads: Sequence[Head], *, k: int = 10
) -> pd.DataFrame:
    """Is the label of a label position among the k most likely words of its `vo`, projected onto the vocabulary?

    The label counts in any case, with or without its leading space. The frozen scale is positive, so it changes no
    ranking, and one row stands for all queries of a set.

    Returns:
        a row per head and label position: `layer, head, set, position` (packed), `label` (the position's), `rank`
        (tokens ahead of the best form of the label), `in_top`, and `other_in_top`, the same for the other label, or the
        share of all other labels for which it is so.

    Raises:
        HeadError: a head that the model does not have.
    """
    heads = as_heads(model, heads)
    forms: dict[str, list[int]] = {}
    w_u = model.arch.w_u()

    def of_capture(members: list[PromptSet], first: int, batch: Batch, captured: Capture) -> list[pd.DataFrame]:
        tables = []
        for s in members:
            words = zip(s.words, s.label_ids, strict=True)
            forms.update({word: label_forms(model, word, token) for word, token in words if word not in forms})
        places, labels = label_places(members, batch)
        own = [forms[members[int(row)].words[code]] for (row, _), code in zip(places, labels, strict=True)]
        others = [
            [forms[_behind(members[int(row)].words, code, n)] for (row, _), code in zip(places, labels, strict=True)]
            for n in range(1, len(members[0].words))
        ]
        facts = pd.DataFrame(
            {
                "set": first + places[:, 0].numpy(),
                "position": places[:, 1].numpy(),
                "label": [members[int(row)].labels[code] for (row, _), code in zip(places, labels, strict=True)],
            }
        )
        for layer, numbers in by_layer(heads).items():
            value = values_of(model.arch, captured, layer, numbers)[places[:, 0], places[:, 1]]  # [P, h, d_h]
            shaped = model.arch.norm_shape(model.arch.w_o(layer))
            for i, head in enumerate(numbers):
                rank, *other_ranks = ranks(value[:, i], shaped[head] @ w_u.T, own, *others)
                found = facts.assign(layer=layer, head=head, rank=rank.numpy())
                tables.append(
                    found.assign(
                        in_top=(rank < k).double().numpy(),
                        other_in_top=(torch.stack(other_ranks) < k).double().mean(0).numpy(),
                    )
                )
        return tables

    table = sweep_captures(model, prompt_sets, "labels in values", [heads, k], of_capture)
    return table[["layer", "head", "set", "position", "label", "rank", "in_top", "other_in_top"]]


def _behind(words: Sequence[str], code: int, steps: int) -> str:
    """The word that stands so many steps behind another, in a circle."""
    return words[(code + steps) % len(words)]


def top_shares(found: pd.DataFrame, groups: Mapping[str, Sequence[Head]]) -> pd.DataFrame:
    """How often a label is among the first words of a value, for each group of heads.

    Args:
        found: result of `label_in_top`.

    Returns:
        `group`, then mean, low and high of the position's own label and of the other one: `mean_own` to `high_other`.
    """
    grouped = by_group(found, groups)
    own, other = (summarise(grouped, ["group"], column) for column in ("in_top", "other_in_top"))
    return own.merge(other, on="group", suffixes=("_own", "_other"))


def top_gap(found: pd.DataFrame, groups: Mapping[str, Sequence[Head]]) -> dict[str, float]:
    """How much more often in-context heads have the label among the first words than other deep heads do.

    Returns:
        `mean, low, high`; empty where there are no other deep heads.
    """
    if not {IN_CONTEXT, CONTROL} <= set(groups):
        return {}
    shares = by_group(found, groups).groupby(["group", "set"])["in_top"].mean().unstack("group")
    return asdict(estimate(shares[IN_CONTEXT] - shares[CONTROL], shares.index))


def label_forms(model: Model, label: str, token: int) -> list[int]:
    """Every token that reads as the label once stripped and in lower case; `token` is one in any case."""
    texts = model.tokenizer.batch_decode([[i] for i in range(min(len(model.tokenizer), model.arch.d_vocab))])
    return sorted({token, *(i for i, text in enumerate(texts) if text.strip().lower() == label.lower())})


def ranks(
    value: Float[Tensor, "P d_h"], readout: Float[Tensor, "d_h V"], *forms: Sequence[Sequence[int]]
) -> list[Int[Tensor, " P"]]:
    """For each `forms`, a list of tokens a position: how many tokens have a larger logit than the best of them."""
    found: list[list[Tensor]] = [[] for _ in forms]
    for start in range(0, len(value), CHUNK):
        logits = value[start : start + CHUNK] @ readout
        for kept, tokens in zip(found, forms, strict=True):
            best = torch.stack([row[list(own)].max() for row, own in zip(logits, tokens[start:], strict=False)])
            kept.append((logits > best[:, None]).sum(-1))
    return [torch.cat(kept) for kept in found]

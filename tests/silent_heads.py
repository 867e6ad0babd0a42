"""Functions that say what heads are worth, and the same from plain transformers: a pair of functions a case."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

import twotowers
from plain import Plain
from plain_changes import (
    donor_of,
    every_prompt,
    margin_gradients,
    with_queries_of,
    with_values_exchanged,
    without_heads,
)
from silent_numbers import HEADS, Numbers, Sets, answers, numbers
from twotowers.chapters.knockout.scores import REPEATED
from twotowers.models.model import Model
from twotowers.prompts.sets import Prompt, PromptSet

# Knock-out


def ours_knockout(model: Model, sets: Sets) -> Numbers:
    each, group = twotowers.knockout(model, sets), twotowers.knockout(model, sets, heads=HEADS)
    return numbers(each=each["margin"], group=group["margin"], decided=each["accuracy"])


@functools.cache
def theirs_knockout(plain: Plain, sets: Sets) -> Numbers:
    every = [[(i, h)] for i in range(plain.n_layers) for h in range(plain.n_heads)]
    found = [
        answers(sets, lambda _q, _s, p, heads=heads: without_heads(plain, p.ids, heads)) for heads in (*every, HEADS)
    ]
    means = [float(one["margin"].mean()) for one in found]
    return numbers(each=means[:-1], group=means[-1:], decided=[one["decided"].mean() for one in found[:-1]])


def ours_screen(model: Model, sets: Sets) -> Numbers:
    return numbers(drop=twotowers.screen(model, sets).sort_values(["layer", "head"])["margin_drop"])


@functools.cache
def theirs_screen(plain: Plain, sets: Sets) -> Numbers:
    found = []
    for _, query, s, _ in every_prompt(sets):
        read, gradients = margin_gradients(plain, s, query)
        products = read.z * torch.stack(gradients)
        found.append(products.sum((1, 3)).flatten())
    return numbers(drop=torch.stack(found).mean(0))


def ours_verify(model: Model, sets: Sets) -> Numbers:
    table = twotowers.verify(model, sets, share=1.0).sort_values(["layer", "head"])
    return numbers(exact=[*table["margin_drop"], intact(model, sets)], estimate=table["estimate"])


def intact(model: Model, sets: Sets) -> float:
    """The mean margin: what differences of margins are small or large beside."""
    return float(twotowers.knockout(model, sets, heads=[])["margin"].iloc[0])


def theirs_verify(plain: Plain, sets: Sets) -> Numbers:
    margin = answers(sets, lambda _q, _s, p: plain.logits(p.ids))["margin"].mean()
    return numbers(
        exact=[*(margin - theirs_knockout(plain, sets)["each"]), margin], estimate=theirs_screen(plain, sets)["drop"]
    )


def ours_scores(model: Model, sets: Sets) -> Numbers:
    table = twotowers.head_scores(model, sets)
    chosen = twotowers.in_context_heads(table, model.arch.n_layers, 0.25)
    exchanged = table[[(layer, head) in HEADS for layer, head in zip(table["layer"], table["head"], strict=True)]]
    beside = intact(model, sets)
    return numbers(
        exchange=[*exchanged["exchange"], beside], values=[*exchanged["values"], beside], edge=table["label_edge"],
        direct=table["direct_margin"], induction=table["induction"], previous=table["previous_token"],
        decided=np.array(chosen) - np.array(_deepest(table, model.arch.n_layers)),
    )  # fmt: skip


def _deepest(table: pd.DataFrame, n_layers: int) -> list[tuple[int, int]]:
    """The quarter of all heads in layers from the middle on that has the highest scores, from the table alone."""
    rows = sorted(
        (-score, layer, head)
        for layer, head, score in zip(table["layer"], table["head"], table["exchange"], strict=True)
        if layer >= n_layers / 2
    )
    return [(layer, head) for _, layer, head in rows[: max(1, round(len(table) / 4))]]


def theirs_scores(plain: Plain, sets: Sets) -> Numbers:
    def mean(logits: Callable[[int, PromptSet, Prompt], torch.Tensor]) -> float:
        """Over sets, over both gold labels alike."""
        return float(np.mean([_alike(s, answers([s], logits)["margin"]) for s in sets]))

    margin = mean(lambda _q, _s, p: plain.logits(p.ids))
    exchanged, values = [], []
    for head in HEADS:
        other, same = (
            mean(
                lambda query, s, p, head=head, other=other: with_queries_of(
                    plain, p.ids, s.prompts[donor_of(s, query, other=other)].ids, [head]
                )
            )
            for other in (True, False)
        )
        exchanged.append(same - other)
        values.append(margin - mean(lambda _q, s, p, head=head: with_values_exchanged(plain, s, p, head)))
    edges = [_edges(plain, s) for s in sets]
    whole = answers(sets, lambda _q, _s, p: plain.logits(p.ids))["margin"].mean()
    return numbers(
        exchange=[*exchanged, whole], values=[*values, whole], edge=np.mean([e for e, _ in edges], 0),
        direct=np.mean([d for _, d in edges], 0), **_repetition(plain), decided=np.zeros((_quarter(plain), 2)),
    )  # fmt: skip


def _quarter(plain: Plain) -> int:
    deep = sum(layer >= plain.n_layers / 2 for layer in range(plain.n_layers)) * plain.n_heads
    return min(deep, round(plain.n_layers * plain.n_heads / 4))


def _alike(s: PromptSet, values: np.ndarray) -> np.ndarray:
    """The mean over prompts of each gold label, and then over labels."""
    gold = np.array(s.gold)
    return np.mean([values[gold == label].mean(0) for label in sorted(set(s.gold))], axis=0)


def _edges(plain: Plain, s: PromptSet) -> tuple[np.ndarray, np.ndarray]:
    """First-order share of label positions in the margin, and what they write into it, for every head."""
    moved, written = [], []
    for _, query, _, prompt in every_prompt([s]):
        read, gradients = margin_gradients(plain, s, query)
        gradient = torch.stack(gradients)[:, -1]  # [L, H, d_h]
        places = list(prompt.label_positions)
        arriving = torch.einsum("lhp,lphe->lhe", read.pattern[:, :, -1, places], read.value[:, places])
        moved.append((arriving * gradient).sum(-1).flatten())
        parts = [
            plain.projected(read, plain.written(read, i, h, arriving[i, h]))
            for i in range(plain.n_layers)
            for h in range(plain.n_heads)
        ]
        gold = s.gold[query]
        written.append(torch.stack([p[s.label_ids[gold]] - p[s.label_ids[1 - gold]] for p in parts]))
    return tuple(_alike(s, torch.stack(found).numpy()) for found in (moved, written))


def _repetition(plain: Plain) -> Numbers:
    """Attention on random tokens that stand there twice, to behind the earlier copy and to the token before."""
    window = getattr(plain.config, "sliding_window", None) or getattr(plain.config, "window_size", None) or 256
    n = min(REPEATED, window // 2)
    drawn = np.random.default_rng([0, 13]).integers(plain.config.vocab_size, size=n)
    pattern, ends = plain.read([*drawn, *drawn]).pattern, torch.arange(n, 2 * n)
    induction, previous = (pattern[:, :, ends, to].mean(-1).flatten() for to in (ends - n + 1, ends - 1))
    return numbers(induction=induction, previous=previous)

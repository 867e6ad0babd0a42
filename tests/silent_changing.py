"""Functions that exchange, cut and balance, and the same from plain transformers: a pair of functions a case."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import twotowers
from plain import Plain, before
from plain_changes import (
    balanced,
    donor_of,
    with_cache_exchanged,
    with_queries_of,
    with_residual,
    with_z,
    without_edges,
)
from silent_numbers import HEADS, LAYER, Numbers, Sets, answered, answers, joined
from twotowers.models.model import Model
from twotowers.prompts.sets import Prompt, PromptSet

# Exchanges


def ours_exchange(model: Model, sets: Sets) -> Numbers:
    every = [(LAYER, head) for head in range(model.arch.n_heads)]
    choices = {"none": HEADS, "query-other": HEADS, "query-same": HEADS, "keys": every, "values": every}
    choices["keys-values"] = every
    return joined(**{part: answered(twotowers.exchange(model, sets, own, part)) for part, own in choices.items()})


def theirs_exchange(plain: Plain, sets: Sets) -> Numbers:
    found = {"none": answers(sets, lambda _q, _s, p: plain.logits(p.ids))}
    for part in ("query-other", "query-same"):
        found[part] = answers(
            sets, lambda query, s, p, part=part: exchanged_queries(plain, s, query, part == "query-other")
        )
    for part in ("keys", "values", "keys-values"):
        found[part] = answers(sets, lambda _q, s, p, part=part: with_cache_exchanged(plain, s, p, LAYER, part))
    return joined(**found)


def exchanged_queries(plain: Plain, s: PromptSet, query: int, other: bool) -> torch.Tensor:
    """Queries of heads of several layers are all of the intact run: each is taken and written as it was there."""
    donor = s.prompts[donor_of(s, query, other=other)]
    return with_queries_fixed(plain, s.prompts[query], donor, HEADS)


def with_queries_fixed(plain: Plain, prompt: Prompt, donor: Prompt, heads: Sequence[tuple[int, int]]) -> torch.Tensor:
    """z of each head as one forward with its query alone exchanged has it; then all of them are put in."""
    taken = {}
    for layer, head in heads:

        def take(_module, inputs, _options, layer=layer, head=head):
            taken[layer, head] = inputs[0].unflatten(-1, (plain.n_heads, -1))[0, -1, head].clone()

        with before(plain.outs[layer], take):
            with_queries_of(plain, prompt.ids, donor.ids, [(layer, head)])
    return with_z(plain, prompt.ids, taken)


# Where the class is


PLACES = ("text", "text+separator", "label", "query", "last")


def ours_hand_over(model: Model, sets: Sets) -> Numbers:
    found = {}
    for place, within, layers in handed(model.arch.n_layers):
        table = twotowers.hand_over(model, sets, place, layers, within=within)
        for layer in layers:
            found[f"{place} {within} {layer}"] = answered(table[table["layer"] == layer])
    return joined(**found)


def handed(n_layers: int) -> list[tuple[str, bool, list[int]]]:
    """Places, whether within a class, and layers."""
    return [
        (place, within, [LAYER] if within else [0, LAYER, n_layers]) for place in PLACES for within in (False, True)
    ]


def theirs_hand_over(plain: Plain, sets: Sets) -> Numbers:
    found = {}
    for place, within, layers in handed(plain.n_layers):
        for layer in layers:

            def logits(query, s, prompt, place=place, within=within, layer=layer):
                new = {}
                for to, donor, origin in taken_from(s, query, place, within):
                    vector = plain.read(donor).resid[layer, origin]
                    if place in ("text", "text+separator", "label"):  # the place keeps its own embedding
                        own, theirs = plain.positions([to, origin])
                        vector = vector + own - theirs
                    if to == prompt.last or layer < plain.n_layers:
                        new[to] = vector
                return with_residual(plain, prompt.ids, layer, new)

            found[f"{place} {within} {layer}"] = answers(sets, logits)
    return joined(**found)


def taken_from(s: PromptSet, query: int, place: str, within: bool) -> list[tuple[int, Sequence[int], int]]:
    """Positions that change, and from which tokens and which position of them each one's residual is taken."""
    prompt = s.prompts[query]
    if place in ("query", "last"):
        donor = s.prompts[donor_of(s, query, other=not within)]
        if place == "last":
            return [(prompt.last, donor.ids, donor.last)]
        return [(to, donor.ids, origin) for to, origin in from_the_end(prompt.query, donor.query)]
    if place == "label" and not within:
        token = dict(zip(s.label_ids, s.label_ids[::-1], strict=True))
        ids = [token[t] if i in prompt.label_positions else t for i, t in enumerate(prompt.ids)]
        return [(i, ids, i) for i in prompt.label_positions]
    numbers_of = [[i for i, (_, own) in enumerate(s.demonstrations) if own == label] for label in s.labels]
    if within:
        pairs = [(a, own[(rank + 1) % len(own)]) for own in numbers_of for rank, a in enumerate(own)]
    else:
        pairs = [(a, b) for pair in zip(*numbers_of, strict=False) for a, b in (pair, pair[::-1])]
    found = []
    for a, b in pairs:
        found += [
            (to, prompt.ids, origin) for to, origin in from_the_end(span(prompt, a, place), span(prompt, b, place))
        ]
    return found


def span(prompt: Prompt, number: int, place: str) -> tuple[int, int]:
    start, end = prompt.demonstrations[number]
    label = prompt.label_positions[number]
    return {"label": (label, label + 1), "text": (start, end), "text+separator": (start, label)}[place]


def from_the_end(a: tuple[int, int], b: tuple[int, int]) -> list[tuple[int, int]]:
    return [(a[1] - i, b[1] - i) for i in range(1, 1 + min(a[1] - a[0], b[1] - b[0]))]


WINDOWS = [range(0, 1), range(1, 3)]
EDGES = ("text_to_label", "query_to_last", "label_to_last")


def ours_block(model: Model, sets: Sets) -> Numbers:
    table = twotowers.block(model, sets, EDGES, WINDOWS)
    real = table[~table["control"]]
    return joined(
        **{
            f"{kind} {start}": answered(real[(real["kind"] == kind) & (real["start"] == start) & (real["stop"] > 0)])
            for kind in EDGES
            for start in (0, 1)
        }
    )


def theirs_block(plain: Plain, sets: Sets) -> Numbers:
    def lost(prompt: Prompt, kind: str) -> list[tuple[int, int]]:
        if kind == "query_to_last":
            return [(prompt.last, i) for i in range(prompt.query[0], prompt.last)]
        if kind == "label_to_last":
            return [(prompt.last, i) for i in prompt.label_positions]
        pairs = zip(prompt.demonstrations, prompt.label_positions, strict=True)
        return [(label, i) for (start, _), label in pairs for i in range(start, label)]

    return joined(
        **{
            f"{kind} {layers.start}": answers(
                sets, lambda _q, _s, p, kind=kind, layers=layers: without_edges(plain, p.ids, layers, lost(p, kind))
            )
            for kind in EDGES
            for layers in WINDOWS
        }
    )


def ours_balance(model: Model, sets: Sets) -> Numbers:
    return answered(twotowers.balance_attention(model, sets, HEADS))


def theirs_balance(plain: Plain, sets: Sets) -> Numbers:
    return answers(sets, lambda _q, s, p: balanced(plain, s, p, HEADS))

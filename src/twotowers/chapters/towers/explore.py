"""A few prompts, token by token: where some heads look, what stands there, and what each exchange makes of the answer.

Numbers are rounded to a millionth: they are read by eye, and stored in every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ...models.model import Model
from ...models.parts import Tables
from ...prompts.packing import Batch
from ...prompts.sets import PromptSet
from ...tracing.capture import Capture, capture
from ...tracing.exchange import (
    PARTS,
    attention,
    exchanges,
    keys_and_values,
    label_partners,
    queries,
    query_donors,
    take,
)
from ...tracing.heads import Head
from ...tracing.label_edges import label_edges
from ...tracing.labels import label_positions
from ...tracing.sweep import sweep, sweep_batches
from ..values.words import readable
from .exchanging import CHOSEN, INTACT
from .reading import read_heads

MOST = 4  # in-context heads: those that are chosen first
DIGITS = 6
IN_CONTEXT, LOWEST, MIDDLE, SHARPEST = "in-context", "lowest exchange score", "middle exchange score", "largest AUC"
# Exchanges that change where a head looks, and the columns of the weights that it then gives.
MOVED_WEIGHTS = {"query-other": "query_other", "query-same": "query_same", "keys": "keys"}
PROMPT = ["set", "query"]


def heads_to_explore(heads: Sequence[Head], ranking: Sequence[Head], sharpest: Sequence[Head] = ()) -> dict[Head, str]:
    """Which heads can be looked into, each with what it was chosen for; none stands there twice.

    Args:
        heads: the in-context heads, of which the first few are taken.
        ranking: deep heads by exchange score, the highest first: the last and the one in the middle are taken.
        sharpest: deep heads by AUC, best first: the first is taken.
    """
    found = dict.fromkeys(list(heads)[:MOST], IN_CONTEXT)
    others = [head for head in ranking if head not in heads]
    sharp = [head for head in sharpest[:1] if head not in heads]
    for role, own in ((SHARPEST, sharp), (LOWEST, others[-1:]), (MIDDLE, others[len(others) // 2 :][:1])):
        for head in own:
            found.setdefault(head, role)
    return found


def explore(
    model: Model, sets: Sequence[PromptSet], heads: Mapping[Head, str], together: Sequence[Head]
) -> dict[str, pd.DataFrame]:
    """The first query of each label of some prompt sets, in some heads. Heads are named layer.head.

    Args:
        heads: as `heads_to_explore`.
        together: the in-context heads, all of them, which are exchanged together, too.

    Returns:
        `roles`: `head, role`;
        `prompts`: `set, query, text, label`, and `other` and `same`: the texts whose queries are exchanged for its own;
        `tokens`: `set, query, position, token`, `demonstration` (its line; one past the last for the query), `kind`
        (`text`, `label` or `between`), and for each head the attention weight from the last position;
        `labels`: `set, query, head, demonstration, text, label, same`; `weight`; the weight with the query of the other
        or the same class, or with keys exchanged, `query_other, query_same, keys`; `score` (q.k as it enters the
        softmax); `value` (logit minus of vo towards the position's own label); `moved` (what arrives from there, as its
        first-order share in the margin);
        `exchanged`: `set, query, head` (or `in-context heads`; `intact` with nothing exchanged), `part, margin`.

    Raises:
        PromptError: a set whose queries share one label.
    """

    def of_set(members: list[PromptSet], number: int, batch: Batch) -> Tables:
        return _of_set(model, number, members[0], batch, list(heads))

    parts = sweep_batches(model, sets, "explore", list(heads), of_set, budget=1)
    prompts, tokens, weights = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    tables = {
        "prompts": prompts,
        "tokens": tokens,
        "labels": _labels(model, sets, list(heads)).merge(weights),
        "exchanged": _exchanged(model, sets, list(heads), together),
    }
    tables = {name: table.merge(prompts[PROMPT]).round(DIGITS) for name, table in tables.items()}
    return {"roles": pd.DataFrame({"head": map(name_of, heads), "role": heads.values()}), **tables}


def name_of(head: Head) -> str:
    return f"{head[0]}.{head[1]}"


def first_of_each(s: PromptSet) -> list[int]:
    """The first query of each label of a set, in their order."""
    return sorted({s.gold.index(label) for label in s.gold})


def _of_set(
    model: Model, number: int, s: PromptSet, batch: Batch, heads: Sequence[Head]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """`prompts` and `tokens` of one set, and of its `labels` the weights after an exchange."""
    intact = capture(model, batch, pattern=True, inputs=True)
    chosen, donors = first_of_each(s), [query_donors(s, other=other).tolist() for other in (True, False)]
    texts = [text for text, _ in s.queries]
    rows = [(number, n, *s.queries[n], *(texts[donor[n]] for donor in donors)) for n in chosen]
    prompts = pd.DataFrame(rows, columns=[*PROMPT, "text", "label", "other", "same"])
    tokens = [_tokens(model, intact, number, s, n, heads) for n in chosen]
    frame = label_positions([s], number)
    prompt, position = (torch.tensor(frame[name].to_numpy()) for name in ("prompt", "position"))
    frame["text"] = [s.demonstrations[i][0] for i in frame["demonstration"]]
    after = []
    for head in heads:
        moved = {name: weights_after(model, s, batch, intact, head, part) for part, name in MOVED_WEIGHTS.items()}
        columns = {name: weight[prompt, position].double().numpy() for name, weight in moved.items()}
        after.append(frame[[*PROMPT, "demonstration", "text"]].assign(head=name_of(head), **columns))
    return prompts, pd.concat(tokens, ignore_index=True), pd.concat(after, ignore_index=True)


def _tokens(
    model: Model, intact: Capture, number: int, s: PromptSet, query: int, heads: Sequence[Head]
) -> pd.DataFrame:
    """Every token of one prompt, its line, and how much each head looks at it from the last position."""
    assert intact.pattern is not None
    prompt = s.prompts[query]
    texts, length = [*prompt.demonstrations, prompt.query], len(prompt.ids)
    lines = [sum(start <= place for start, _ in texts[1:]) for place in range(length)]
    inside = {place for start, end in texts for place in range(start, end)}
    kinds = {**dict.fromkeys(inside, "text"), **dict.fromkeys(prompt.label_positions, "label")}
    columns = {
        "set": number, "query": query, "position": range(length), "token": readable(model, prompt.ids),
        "demonstration": lines, "kind": [kinds.get(place, "between") for place in range(length)],
    }  # fmt: skip
    weights = {name_of(h): intact.pattern[h[0]][query, h[1], :length].double().numpy() for h in heads}
    return pd.DataFrame({**columns, **weights})


def weights_after(
    model: Model, s: PromptSet, batch: Batch, intact: Capture, head: Head, part: str
) -> Float[Tensor, "N S"]:
    """Attention of the last positions of one packed set in one head, with its queries or keys exchanged."""
    layer, own = head[0], [head[1]]
    stays = torch.arange(len(s.prompts))
    donor = query_donors(s, other=part == "query-other") if part.startswith("query") else stays
    k, _ = keys_and_values(model, batch, intact, layer, own)
    if part == "keys":
        k = take(k, label_partners(s, batch))
    return attention(model, batch, layer, own, queries(model, batch, intact, layer, own)[donor], k)[:, 0]


def _labels(model: Model, sets: Sequence[PromptSet], heads: Sequence[Head]) -> pd.DataFrame:
    """`labels`, intact: what `read_heads` reads, and what each position moves by the gradient of the whole model."""
    read = read_heads(model, sets, heads)
    read["head"] = read["layer"].astype(str) + "." + read["head"].astype(str)

    def of_set(number: int, s: PromptSet) -> pd.DataFrame:
        edges = label_edges(model, s, number)
        keys = edges.frame[[*PROMPT, "demonstration"]]
        moved = {(layer, head): edges.moved[layer, :, head].double().numpy() for layer, head in heads}
        return pd.concat([keys.assign(head=name_of(h), moved=x) for h, x in moved.items()], ignore_index=True)

    parts = sweep(model, sets, "explore, moved", list(heads), of_set)
    names = [*PROMPT, "head", "demonstration", "label", "same", "weight", "score", "value"]
    return read[names].merge(pd.concat(parts, ignore_index=True))


def _exchanged(
    model: Model, sets: Sequence[PromptSet], heads: Sequence[Head], together: Sequence[Head]
) -> pd.DataFrame:
    groups = {**{name_of(head): [head] for head in heads}, CHOSEN: list(together)}
    choices: list[tuple[str, str, list[Head]]] = [(INTACT, "none", [])]
    choices += [(name, part, own) for name, own in groups.items() for part in PARTS[1:]]
    table = exchanges(model, sets, [(own, part) for _, part, own in choices])
    names = pd.DataFrame([choice[:2] for choice in choices], columns=["head", "part"])
    return table.join(names, on="group")[[*PROMPT, "head", "part", "margin"]]

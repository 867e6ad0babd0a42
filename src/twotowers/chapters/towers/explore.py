"""A few prompts, token by token: where some heads look, what stands there, and what each exchange makes of the answer.

Numbers are rounded to a millionth: they are read by eye, and stored in every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...models.model import Model
from ...models.parts import Tables
from ...prompts.packing import Batch
from ...prompts.sets import PromptSet
from ...tracing.capture import Capture, capture
from ...tracing.contrasts import following, one_other
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
from ...tracing.label_edges import margin_gradients
from ...tracing.labels import label_positions, values_at_labels, weights
from ...tracing.sweep import sweep_batches
from ..values.words import readable
from .exchanging import CHOSEN, INTACT
from .reading import read_heads

MOST = 4  # in-context heads: those that are chosen first
DIGITS = 6
IN_CONTEXT, LOWEST, MIDDLE, SHARPEST = "in-context", "lowest exchange score", "middle exchange score", "largest AUC"
# Exchanges that change where a head looks, and the columns of the weights that it then gives.
MOVED_WEIGHTS = {"query-other": "query_other", "query-same": "query_same", "keys": "keys"}
PROMPT = ["set", "query"]
ENTRY = [*PROMPT, "towards"]  # of more than two labels, each prompt has an entry for each label it can be moved to


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
        `prompts`: `set, query, text, label, towards` (the other label, of more than two each in turn), and `other` and
        `same`: the texts whose queries are exchanged for its own;
        `tokens`: `set, query, position, token`, `demonstration` (its line; one past the last for the query), `kind`
        (`text`, `label` or `between`), and for each head the attention weight from the last position;
        `labels`: `set, query, towards, head, demonstration, text, label, same`; `weight`; the weight with the query of
        the other or the same class, or with keys exchanged, `query_other, query_same, keys`; `score` (q.k as it enters
        the softmax); `value` (logit minus of vo towards the position's own label); `moved` (what arrives from there, as
        its first-order share in the margin);
        `exchanged`: `set, query, towards, head` (or `in-context heads`; `intact` with nothing exchanged), `part,
        margin`.

    Raises:
        PromptError: a set whose queries share one label.
    """

    def of_set(members: list[PromptSet], number: int, batch: Batch) -> Tables:
        return _of_set(model, number, members[0], batch, list(heads))

    parts = sweep_batches(model, sets, "explore", list(heads), of_set, budget=1)
    prompts, tokens, changed = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    tables = {
        "prompts": prompts,
        "tokens": tokens,
        "labels": _intact(model, sets, list(heads)).merge(changed),
        "exchanged": _exchanged(model, sets, list(heads), together),
    }
    for name, table in tables.items():
        wanted = prompts[[key for key in ENTRY if key in table]].drop_duplicates()
        tables[name] = table.merge(wanted).round(DIGITS)
    return {"roles": pd.DataFrame({"head": map(name_of, heads), "role": heads.values()}), **tables}


def name_of(head: Head) -> str:
    return f"{head[0]}.{head[1]}"


def first_of_each(s: PromptSet) -> list[int]:
    """The first query of each label of a set, in their order."""
    return sorted({s.gold.index(label) for label in s.gold})


def _of_set(
    model: Model, number: int, s: PromptSet, batch: Batch, heads: Sequence[Head]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """`prompts` and `tokens` of one set, and what depends on the other label of its `labels`."""
    intact = capture(model, batch, pattern=True, inputs=True)
    chosen, others = first_of_each(s), range(1, len(s.labels))
    prompts = pd.concat([_entries(s, number, chosen, steps) for steps in others]).sort_values(PROMPT, kind="stable")
    tokens = [_tokens(model, intact, number, s, n, heads) for n in chosen]
    changed = [_changed(model, s, number, batch, intact, heads, steps) for steps in others]
    return prompts, pd.concat(tokens, ignore_index=True), pd.concat(changed, ignore_index=True)


def _entries(s: PromptSet, number: int, chosen: Sequence[int], steps: int) -> pd.DataFrame:
    """Rows of `prompts`, against the label so many steps on."""
    target, texts = following(s, steps), [text for text, _ in s.queries]
    donors = [query_donors(s, other=other, target=target).tolist() for other in (True, False)]
    rows = [(number, n, s.labels[target[n]], *s.queries[n], *(texts[donor[n]] for donor in donors)) for n in chosen]
    return pd.DataFrame(rows, columns=[*ENTRY, "text", "label", "other", "same"])


def _changed(
    model: Model, s: PromptSet, number: int, batch: Batch, intact: Capture, heads: Sequence[Head], steps: int
) -> pd.DataFrame:
    """Weights of label positions after each exchange, and what they move, against the label so many steps on."""
    target, frame = following(s, steps), label_positions([s], number)
    gradients = margin_gradients(model, batch, intact, one_other(batch.gold, target, len(s.labels)))
    prompt, position = (torch.tensor(frame[name].to_numpy()) for name in ("prompt", "position"))
    frame["text"] = [s.demonstrations[i][0] for i in frame["demonstration"]]
    frame["towards"] = [s.labels[target[n]] for n in frame["prompt"]]
    tables = []
    for layer, head in heads:
        own = {
            name: weights_after(model, s, batch, intact, (layer, head), part, target)[prompt, position]
            for part, name in MOVED_WEIGHTS.items()
        }
        values = values_at_labels(model.arch, intact, batch, frame, layer, [head])[:, 0]
        own["moved"] = weights(intact, frame, layer, head) * (values * gradients[layer, prompt, head]).sum(-1)
        columns = {name: column.double().numpy() for name, column in own.items()}
        tables.append(frame[[*ENTRY, "demonstration", "text"]].assign(head=name_of((layer, head)), **columns))
    return pd.concat(tables)


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
    model: Model,
    s: PromptSet,
    batch: Batch,
    intact: Capture,
    head: Head,
    part: str,
    target: Int[Tensor, " N"] | None = None,
) -> Float[Tensor, "N S"]:
    """Attention of the last positions of one packed set in one head, with its queries or keys exchanged.

    Args:
        target: the label of each prompt that it is exchanged with; left out, the next.
    """
    layer, own = head[0], [head[1]]
    stays = torch.arange(len(s.prompts))
    donor = query_donors(s, other=part == "query-other", target=target) if part.startswith("query") else stays
    k, _ = keys_and_values(model, batch, intact, layer, own)
    if part == "keys":
        k = take(k, label_partners(s, batch, target))
    return attention(model, batch, layer, own, queries(model, batch, intact, layer, own)[donor], k)[:, 0]


def _intact(model: Model, sets: Sequence[PromptSet], heads: Sequence[Head]) -> pd.DataFrame:
    """What of `labels` is there with nothing exchanged, as `read_heads` reads it."""
    read = read_heads(model, sets, heads)
    read["head"] = read["layer"].astype(str) + "." + read["head"].astype(str)
    return read[[*PROMPT, "head", "demonstration", "label", "same", "weight", "score", "value"]]


def _exchanged(
    model: Model, sets: Sequence[PromptSet], heads: Sequence[Head], together: Sequence[Head]
) -> pd.DataFrame:
    groups = {**{name_of(head): [head] for head in heads}, CHOSEN: list(together)}
    choices: list[tuple[str, str, list[Head]]] = [(INTACT, "none", [])]
    choices += [(name, part, own) for name, own in groups.items() for part in PARTS[1:]]
    names = pd.DataFrame([choice[:2] for choice in choices], columns=["head", "part"])
    labels, tables = list(sets[0].labels), []
    for steps in range(1, len(labels)):
        table = exchanges(model, sets, [(own, part) for _, part, own in choices], steps).join(names, on="group")
        table["towards"] = [labels[(labels.index(own) + steps) % len(labels)] for own in table["label"]]
        tables.append(table[[*ENTRY, "head", "part", "margin"]])
    return pd.concat(tables, ignore_index=True)

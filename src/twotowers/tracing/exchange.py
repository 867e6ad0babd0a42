"""The exchange test: queries, keys or values of some heads exchanged between the classes, at the last position only.

z of each head is computed from queries, keys and values of the intact run, of which one part is exchanged, and written
in; later layers run on (method page, equation eq-exchange). Donors are fixed, so that anyone can check a result: the
query of rank r among its label takes the other label's query of rank r, or its own label's of rank r + 1; the i-th
position of one label is exchanged with the i-th of the other, and what is left over stays.

Of more than two labels the other one is each prompt's target (`contrasts`): the next label, or a chosen one. Positions
of the gold label and of the target change places, those of further labels stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import PromptError, UnknownNameError
from ..models.model import Model
from ..models.surroundings import undisturbed
from ..prompts.packing import Batch, pack
from ..prompts.sets import PromptSet, as_sets
from .answers import Answers, outcome_table, two_way_table
from .capture import Capture, capture
from .contrasts import NEXT, following, margin_against, targets
from .heads import Head, Heads, as_heads, by_layer
from .projection import values_of
from .rewriting import Choice, rewrite, rewritten_differences
from .sweep import sweep

PARTS = ("none", "query-other", "query-same", "keys", "values", "keys-values")


@undisturbed
def exchange(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    heads: Heads,
    part: str,
    towards: str = NEXT,
) -> pd.DataFrame:
    """Answer every prompt with one part of some heads exchanged.

    | part | what is exchanged |
    |---|---|
    | `query-other` | the query, with that of a prompt of the same set that has the other gold label |
    | `query-same` | the query, with that of another prompt that has the same gold label |
    | `keys` | keys of the i-th position of one label and the i-th of the other, each rotated at its new place |
    | `values` | values of the same pairs |
    | `keys-values` | both |
    | `none` | nothing: the intact z is computed and written back |

    Args:
        heads: (layer, head) pairs, all exchanged together.
        towards: which label is the other one: `next` in the order of the set's labels (of two, simply the other), or a
            label by its name; then prompts whose answer it is are left out.

    Returns:
        a row per prompt: `group` (0), `set, query, label, accuracy, accuracy_two_way, margin`, as `outcomes`, but the
        margin is the gold label's logit minus that of the other one.

    Raises:
        HeadError, UnknownNameError, PromptError: no such head; no such part or label; a set without queries of one of
            the labels.
    """
    sets = as_sets(model, prompt_sets)
    choices = _as_choices(model, [(heads, part)])
    if not isinstance(towards, str):
        raise UnknownNameError("label", towards, (NEXT, *sets[0].labels))

    def of_set(index: int, s: PromptSet) -> pd.DataFrame:
        target = targets(s, towards)
        return outcome_table(rewrite(model, *_rewritings(model, s, choices, target)), s, 0, index, target)

    table = pd.concat(sweep(model, sets, "exchange one", [choices, towards], of_set), ignore_index=True)
    return table if towards == NEXT else table[table["label"] != towards].reset_index(drop=True)


def exchanges(
    model: Model, sets: Sequence[PromptSet], choices: Sequence[tuple[Heads, str]], steps: int = 1
) -> pd.DataFrame:
    """As `exchange` for several choices of heads and part, which are the groups, in one pass over the sets.

    `accuracy` is left out: it needs logits of the whole vocabulary, about half the work. The other label is the next,
    or the one so many steps on.
    """
    found = enumerate(zip(sets, _differences(model, sets, choices, steps), strict=True))
    tables = [two_way_table(apart, s, i, following(s, steps)) for i, (s, apart) in found]
    return pd.concat(tables, ignore_index=True)


def exchanged_margins(
    model: Model, sets: Sequence[PromptSet], choices: Sequence[tuple[Heads, str]]
) -> list[Float[Tensor, "choices N"]]:
    """Margins of `exchanges`, set by set."""
    found = _differences(model, sets, choices)
    return [margin_against(apart, torch.tensor(s.gold), targets(s)) for s, apart in zip(sets, found, strict=True)]


def _differences(
    model: Model, sets: Sequence[PromptSet], choices: Sequence[tuple[Heads, str]], steps: int = 1
) -> list[Float[Tensor, "choices N k1"]]:
    """`contrasts.differences` of each choice, set by set."""
    known = _as_choices(model, choices)

    def of_set(index: int, s: PromptSet) -> pd.DataFrame:
        apart = rewritten_differences(model, *_rewritings(model, s, known, following(s, steps)))
        return pd.DataFrame({str(n): column for n, column in enumerate(apart.flatten(1).T.numpy())})

    found = sweep(model, sets, "exchange", [known, steps], of_set)
    return [
        torch.tensor(table.to_numpy()).unflatten(1, (len(s.prompts), -1)) for s, table in zip(sets, found, strict=True)
    ]


def _as_choices(model: Model, choices: Sequence[tuple[Heads, str]]) -> list[tuple[list[Head], str]]:
    for _, part in choices:
        if not isinstance(part, str) or part not in PARTS:
            raise UnknownNameError("part", part, PARTS)
    return [(as_heads(model, heads), part) for heads, part in choices]


def _rewritings(
    model: Model, s: PromptSet, choices: Sequence[tuple[Sequence[Head], str]], target: Int[Tensor, " N"]
) -> tuple[Batch, Capture, list[Choice]]:
    """What is written where in one set, for each of the choices."""
    batch = pack([s], model.pad_id)
    intact = capture(model, batch, inputs=True)
    wanted: dict[str, set[Head]] = {part: set() for part in PARTS}
    for own, part in choices:
        wanted[part].update(own)
    z = exchanged_parts(model, s, batch, intact, wanted, target)
    return batch, intact, [{head: z[part][head] for head in own} for own, part in choices]


def in_choices(rows: Answers, number: int) -> list[Answers]:
    """The answers of `rewrite`, one for each choice."""
    return [
        Answers(*part) for part in zip(*(x.chunk(number) for x in (rows.labels, rows.log_norm, rows.best)), strict=True)
    ]


def exchanged_z(
    model: Model,
    s: PromptSet,
    batch: Batch,
    intact: Capture,
    heads: Sequence[Head],
    part: str,
    target: Int[Tensor, " N"] | None = None,
) -> dict[Head, Float[Tensor, "N d_h"]]:
    """z of each head at the last position of one packed prompt set, with a part exchanged.

    Args:
        target: the label of each prompt that it is exchanged with; left out, the next.
    """
    return exchanged_parts(model, s, batch, intact, {part: heads}, target)[part]


def exchanged_parts(
    model: Model,
    s: PromptSet,
    batch: Batch,
    intact: Capture,
    wanted: Mapping[str, Collection[Head]],
    target: Int[Tensor, " N"] | None = None,
) -> dict[str, dict[Head, Float[Tensor, "N d_h"]]]:
    """`exchanged_z` of several parts, of some heads each, for which keys and values are computed once.

    Args:
        wanted: part -> heads.
        target: as of `exchanged_z`.
    """
    donors = {part: _donors(s, part, target) for part, heads in wanted.items() if heads}
    stays, moved = torch.arange(batch.index.shape[1]).expand_as(batch.index), label_partners(s, batch, target)
    found: dict[str, dict[Head, Tensor]] = {part: {} for part in wanted}
    for layer, every in by_layer(sorted({head for heads in wanted.values() for head in heads})).items():
        q = queries(model, batch, intact, layer, every)
        keys, values = keys_and_values(model, batch, intact, layer, every)
        for part, donor in donors.items():
            own = [i for i, head in enumerate(every) if (layer, head) in wanted[part]]
            if not own:
                continue
            k = take(keys[:, :, own], moved if part in ("keys", "keys-values") else stays)
            v = take(values[:, :, own], moved if part in ("values", "keys-values") else stays)
            weights = attention(model, batch, layer, [every[i] for i in own], q[donor][:, own], k)
            z = torch.einsum("nhs,nshe->nhe", weights, v)
            found[part] |= {(layer, every[i]): z[:, place] for place, i in enumerate(own)}
    return found


def _donors(s: PromptSet, part: str, target: Int[Tensor, " N"] | None) -> Int[Tensor, " N"]:
    if not part.startswith("query"):
        return torch.arange(len(s.prompts))
    return query_donors(s, other=part == "query-other", target=target)


def queries(model: Model, batch: Batch, intact: Capture, layer: int, heads: Sequence[int]) -> Float[Tensor, "N h d_h"]:
    """Queries of the last positions, not rotated."""
    normed = model.arch.norm_in(layer, intact.resid_pre[layer])
    return model.arch.queries(layer, normed)[:, list(heads)]


def keys_and_values(
    model: Model, batch: Batch, intact: Capture, layer: int, heads: Sequence[int]
) -> tuple[Float[Tensor, "N S h d_h"], Float[Tensor, "N S h d_h"]]:
    """Keys, not rotated, and values of every position of every prompt; arbitrary beyond a prompt's end."""
    assert intact.inputs is not None
    k = model.arch.keys(layer, model.arch.norm_in(layer, intact.inputs[layer]))[:, :, list(heads)]
    v = values_of(model.arch, intact, layer, heads)
    rows, own = batch.row[:, None], batch.index.clamp(min=0)
    return k[rows, own], v[rows, own]


def attention(
    model: Model,
    batch: Batch,
    layer: int,
    heads: Sequence[int],
    q: Float[Tensor, "N h d_h"],
    k: Float[Tensor, "N S h d_h"],
) -> Float[Tensor, "N h S"]:
    """Weights of the last positions in some heads, from queries and keys that are rotated here, each at its place."""
    arch, inside = model.arch, batch.index >= 0
    places = torch.arange(inside.shape[1]).expand(*k.shape[:1], k.shape[2], -1)
    ends = (inside.sum(1) - 1)[:, None, None].expand(-1, k.shape[2], 1)
    q, k = arch.rotate(layer, q[:, :, None], ends), arch.rotate(layer, k.transpose(1, 2), places)
    scores = arch.scores(layer, torch.einsum("nhqe,nhse->nhs", q, k))
    if (added := arch.added_to_scores(places[:, 0])) is not None:
        scores = scores + added[:, list(heads)]
    return scores.masked_fill(~inside[:, None], float("-inf")).softmax(-1)


def take(x: Float[Tensor, "N S h d_h"], source: Int[Tensor, "N S"]) -> Float[Tensor, "N S h d_h"]:
    """What every position holds when it takes that of another one."""
    return x[torch.arange(len(x))[:, None], source]


def query_donors(s: PromptSet, *, other: bool, target: Int[Tensor, " N"] | None = None) -> Int[Tensor, " N"]:
    """Whose query each prompt takes: the other label's of its rank, or its own label's of the next rank, in a circle.

    Args:
        target: which label is the other one, for each prompt; left out, the next.

    Raises:
        PromptError: there are no queries of the other label.
    """
    gold, towards = s.gold, (targets(s) if target is None else target).tolist()
    by_label = [[i for i, own in enumerate(gold) if own == label] for label in range(len(s.labels))]
    if other and not all(by_label[label] for label in towards):
        every = "both" if len(s.labels) == 2 else "all of them"
        raise PromptError(f"Queries are exchanged between labels, so a prompt set needs queries of {every}; add some.")
    donors = []
    for i, label in enumerate(gold):
        rank, from_label = by_label[label].index(i), by_label[towards[i] if other else label]
        donors.append(from_label[(rank if other else rank + 1) % len(from_label)])
    return torch.tensor(donors)


def label_pairs(s: PromptSet, one: int = 0, other: int = 1) -> list[tuple[int, int]]:
    """Demonstrations that are exchanged: the i-th of one label, by its number, with the i-th of another."""
    first, second = ([i for i, (_, own) in enumerate(s.demonstrations) if own == s.labels[n]] for n in (one, other))
    return list(zip(first, second, strict=False))


def label_partners(s: PromptSet, batch: Batch, target: Int[Tensor, " N"] | None = None) -> Int[Tensor, "N S"]:
    """For every position of each prompt where it takes from: a position of its gold label from its partner of the
    target, and the other way round; others from themselves."""
    source = torch.arange(batch.index.shape[1]).repeat(len(s.prompts), 1)
    towards = (targets(s) if target is None else target).tolist()
    for n, prompt in enumerate(s.prompts):
        for a, b in label_pairs(s, s.gold[n], towards[n]):
            first, second = prompt.label_positions[a], prompt.label_positions[b]
            source[n, first], source[n, second] = second, first
    return source

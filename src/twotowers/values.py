"""Values: what the value and output matrices of a head carry from each position.

The value of a position p is `vo` (method page, equation eq-vo), weighted by attention it is what p adds to the last
position. Logit minus M (equation eq-logit-minus) says which of the two labels a vector favours. The final norm's scale
is frozen at the prompt's own final residual, so M is linear and needs two rows of the unembedding only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from .architecture import Architecture
from .knockout import Head, HeadError, every_head
from .models import Model
from .packing import Batch
from .prompts import PromptSet
from .trace import Capture, batches, capture

OTHER = "other"  # the kind of every position that holds no label
CONTROL_HEADS = 40  # other deep heads looked at, drawn at random if there are more
CHUNK = 256  # positions projected onto the whole vocabulary at a time
# Weighted logit minus: heads, positions, the paper's range and its sign. Source: summaries of version 3.
PAPER_WEIGHTED = (
    ("foo-heads", "foo", "+0.26 to +0.32", 1),
    ("foo-heads", "bar", "-0.02 to -0.14", -1),
    ("bar-heads", "bar", "-0.11 to -0.20", -1),
)


def position_logit_minus(
    model: Model, prompt_sets: PromptSet | Sequence[PromptSet], heads: Sequence[Head]
) -> pd.DataFrame:
    """Logit minus of each head's values, by the kind of position: M(x) = log p(second label) - log p(first label).

    Labels are in sorted order, so with "foo" and "bar" a positive M favours foo.

    Returns:
        a row per head, kind of position (the label it holds, or "other") and prompt: `layer, head, kind, set, query`,
        `label` (gold), `weighted` (sum of M(pattern * vo) over the positions of that kind) and `unweighted` (mean
        of M(vo) over them, nan if there are none); logits.

    Raises:
        HeadError: a head that the model does not have.
    """
    chosen = by_layer(model, heads)
    tables = []
    for members, first, batch, captured in _captures(model, prompt_sets, "logit minus"):
        kinds, towards = position_kinds(members, batch), _label_direction(model.arch, captured, batch)
        for layer, numbers in chosen.items():
            minus = _minus(model.arch, captured, batch, layer, numbers, towards)
            assert captured.pattern is not None
            weights = captured.pattern[layer][:, numbers]
            for code, kind in enumerate((*members[0].labels, OTHER)):
                here = (kinds == code)[:, None]
                weighted = (weights * minus * here).sum(-1)
                unweighted = (minus * here).sum(-1) / here.sum(-1)
                tables.append(_rows(members, first, layer, numbers, kind, weighted, unweighted))
    return pd.concat(tables, ignore_index=True)


def position_kinds(sets: Sequence[PromptSet], batch: Batch) -> Int[Tensor, "N S"]:
    """Of each position of each prompt: 0 or 1 if it holds the first or second label, 2 if another token, -1 if none."""
    kinds = torch.where(batch.index >= 0, 2, -1)
    prompts = [(s, prompt) for s in sets for prompt in s.prompts]
    for n, (s, prompt) in enumerate(prompts):
        for (_, label), position in zip(s.demonstrations, prompt.label_positions, strict=True):
            kinds[n, position] = s.labels.index(label)
    return kinds


def values_of(arch: Architecture, captured: Capture, layer: int, heads: Sequence[int]) -> Float[Tensor, "B T h d_h"]:
    """Value of every packed position for some heads of a layer, bias included: `vo` before the output matrix."""
    assert captured.inputs is not None
    weight, bias = arch.w_v(layer)
    heads = list(heads)
    return torch.einsum("btd,hde->bthe", arch.norm_in(layer, captured.inputs[layer]), weight[heads]) + bias[heads]


def _label_direction(arch: Architecture, captured: Capture, batch: Batch) -> Float[Tensor, "N d"]:
    """M(x) is the product of `norm_shape(x)` with this: the labels' rows of W_U, second minus first, scaled."""
    labels = arch.w_u()[batch.label_ids]
    return (labels[:, 1] - labels[:, 0]) * arch.norm_scale(captured.resid_pre[-1])


def _minus(
    arch: Architecture,
    captured: Capture,
    batch: Batch,
    layer: int,
    heads: Sequence[int],
    towards: Float[Tensor, "N d"],
) -> Float[Tensor, "N h S"]:
    """M(vo) of every position of every prompt; arbitrary beyond a prompt's end."""
    # The direction is carried back through W_O, so that a position costs d_h products and not d.
    direction = torch.einsum("hed,nd->nhe", arch.norm_shape(arch.w_o(layer)[list(heads)]), towards)
    value = values_of(arch, captured, layer, heads)[batch.row[:, None], batch.index.clamp(min=0)]  # [N, S, h, d_h]
    return torch.einsum("nshe,nhe->nhs", value, direction)


def logit_minus_effect(table: pd.DataFrame, heads: Sequence[Head], column: str = "unweighted") -> pd.DataFrame:
    """C6: M at positions of the second label (foo) minus M at those of the first (bar), mean over heads.

    Args:
        table: result of `position_logit_minus`.

    Returns:
        `set, query, label, effect`, a row per prompt, in logits; nan if a prompt has no position of one of them.
    """
    part = _of_heads(table, heads)
    first, second = sorted(set(table["kind"]) - {OTHER})
    wide = part.pivot_table(index=["set", "query", "label"], columns="kind", values=column)
    wide = wide.reindex(columns=[first, second])
    return (wide[second] - wide[first]).rename("effect").reset_index()


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


def label_in_top(
    model: Model, prompt_sets: PromptSet | Sequence[PromptSet], heads: Sequence[Head], *, k: int = 10
) -> pd.DataFrame:
    """Is the label of a label position among the k most likely words of its `vo`, projected onto the vocabulary?

    The label counts in any case, with or without its leading space. The frozen scale is positive, so it changes no
    ranking, and one row stands for all queries of a set.

    Returns:
        a row per head and label position: `layer, head, set, position` (packed), `label` (the position's), `rank`
        (tokens ahead of the best form of the label), `in_top`, and `other_in_top`, the same for the other label.

    Raises:
        HeadError: a head that the model does not have.
    """
    chosen = by_layer(model, heads)
    forms: dict[str, list[int]] = {}
    w_u = model.arch.w_u()
    tables = []
    for members, first, batch, captured in _captures(model, prompt_sets, "labels in values"):
        for s in members:
            forms |= {
                label: label_forms(model, label, token)
                for label, token in zip(s.labels, s.label_ids, strict=True)
                if label not in forms
            }
        places, labels = _label_places(members, batch)
        own = [forms[members[int(row)].labels[code]] for (row, _), code in zip(places, labels, strict=True)]
        other = [forms[members[int(row)].labels[1 - code]] for (row, _), code in zip(places, labels, strict=True)]
        facts = pd.DataFrame(
            {
                "set": first + places[:, 0].numpy(),
                "position": places[:, 1].numpy(),
                "label": [members[int(row)].labels[code] for (row, _), code in zip(places, labels, strict=True)],
            }
        )
        for layer, numbers in chosen.items():
            value = values_of(model.arch, captured, layer, numbers)[places[:, 0], places[:, 1]]  # [P, h, d_h]
            shaped = model.arch.norm_shape(model.arch.w_o(layer))
            for i, head in enumerate(numbers):
                rank, other_rank = ranks(value[:, i], shaped[head] @ w_u.T, own, other)
                found = facts.assign(layer=layer, head=head, rank=rank.numpy())
                tables.append(
                    found.assign(in_top=(rank < k).double().numpy(), other_in_top=(other_rank < k).double().numpy())
                )
    table = pd.concat(tables, ignore_index=True)
    return table[["layer", "head", "set", "position", "label", "rank", "in_top", "other_in_top"]]


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


def head_groups(
    selected: Mapping[str, Sequence[Head]], model: Model, *, seed: int = 0, limit: int = CONTROL_HEADS
) -> dict[str, list[Head]]:
    """Groups of heads to compare; a group without heads is left out.

    Args:
        selected: in-context heads by label, and `all` of them, as `knockout.read_selected` gives them.
        limit: how many other deep heads serve as control, drawn at random from the deep half.

    Returns:
        `<label>-heads` for each label, `in-context heads` (all), `other deep heads`.
    """
    groups = {f"{label}-heads": list(heads) for label, heads in sorted(selected.items()) if label != "all"}
    groups["in-context heads"] = list(selected["all"])
    taken = {head for heads in groups.values() for head in heads}
    others = [head for head in every_head(model) if head[0] >= model.arch.n_layers / 2 and head not in taken]
    drawn = np.random.default_rng([seed, 3]).permutation(len(others))[:limit]
    groups["other deep heads"] = [others[i] for i in sorted(drawn)]
    return {name: heads for name, heads in groups.items() if heads}


def by_group(table: pd.DataFrame, groups: Mapping[str, Sequence[Head]]) -> pd.DataFrame:
    """Rows of a table of heads for each group that a head is in, with the column `group` in front."""
    parts = [_of_heads(table, heads).assign(group=name) for name, heads in groups.items()]
    result = pd.concat(parts, ignore_index=True)
    return result[["group", *table.columns]]


def _captures(
    model: Model, prompt_sets: PromptSet | Sequence[PromptSet], what: str
) -> Iterator[tuple[list[PromptSet], int, Batch, Capture]]:
    """Batch by batch: its sets, the index of the first of them, the batch and its capture."""
    sets = [prompt_sets] if isinstance(prompt_sets, PromptSet) else list(prompt_sets)
    first = 0
    with tqdm(total=len(sets), desc=what, unit="set", delay=2, leave=False) as bar:
        for batch in batches(model, sets):
            members = sets[first : first + len(batch.input_ids)]
            yield members, first, batch, capture(model, batch, pattern=True, inputs=True)
            first += len(members)
            bar.update(len(members))


def by_layer(model: Model, heads: Sequence[Head]) -> dict[int, list[int]]:
    """Heads of each layer, each once.

    Raises:
        HeadError: a head that the model does not have.
    """
    known, found = set(every_head(model)), defaultdict(list)
    for layer, head in dict.fromkeys((int(layer), int(head)) for layer, head in heads):
        if (layer, head) not in known:
            raise HeadError(
                f"{model.name} has no head {(layer, head)}: layers are 0 to {model.arch.n_layers - 1} and heads 0 to "
                f"{model.arch.n_heads - 1}."
            )
        found[layer].append(head)
    return dict(found)


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


def _label_places(sets: Sequence[PromptSet], batch: Batch) -> tuple[Int[Tensor, "P 2"], list[int]]:
    """Row and packed position of every label, once however many queries share it, and which label it is."""
    kinds = position_kinds(sets, batch)
    is_label: Bool[Tensor, "N S"] = (kinds == 0) | (kinds == 1)
    rows = batch.row[:, None].expand_as(kinds)
    found = torch.stack([rows[is_label], batch.index[is_label], kinds[is_label]], dim=1).unique(dim=0)
    return found[:, :2], found[:, 2].tolist()


def _of_heads(table: pd.DataFrame, heads: Sequence[Head]) -> pd.DataFrame:
    wanted = pd.DataFrame(list(heads), columns=["layer", "head"], dtype=int)
    return table.merge(wanted, on=["layer", "head"])

"""Towers: do query and key of a head measure whether a demonstration is of the query's class?

Everything is read at the *label positions* of a prompt, where the demonstrations are merged. A label position is of the
*same class* if its label is the query's right answer. The score of a position is q.k as it enters the softmax (method
page, equation eq-attention); `pattern` is what the softmax makes of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from .architecture import Architecture
from .knockout import Head, every_head
from .models import Model
from .packing import Batch
from .prompts import PromptSet
from .statistics import summarise
from .trace import Capture, batches, capture

HEAD = ["layer", "head"]
PROMPT = [*HEAD, "set", "query", "gold"]  # one head in one prompt
IN_CONTEXT, SHARPEST, CONTROL = "in-context heads", "sharpest heads", "random deep heads"
SCORES = {"auc": "q·k", "auc_unrotated": "q·k without rotation", "auc_cosine": "cosine of the residuals"}


def towers(model: Model, prompt_sets: PromptSet | Sequence[PromptSet], heads: Sequence[Head]) -> pd.DataFrame:
    """The metric test: how well q.k of each head tells label positions of the query's class from the others.

    Returns:
        a row per head and prompt, as `metric`.
    """
    return metric(read_heads(model, prompt_sets, heads))


def read_heads(model: Model, prompt_sets: PromptSet | Sequence[PromptSet], heads: Sequence[Head]) -> pd.DataFrame:
    """What each head does at each label position, a row per head, prompt and demonstration.

    Returns:
        `layer, head, set, query, gold, demonstration, label, same`, then
        `weight`: pattern from the last position;
        `score`: q.k as it enters the softmax, scaled and rotated; `score_unrotated`: the same without any rotation,
        equal to `score` in families that embed positions instead (GPT-2: its position embedding is left in);
        `cosine` of the two residuals entering the layer, at the last and at the label position;
        `value`: logit minus of vo towards the position's own label, not weighted (equation eq-logit-minus).
    """
    parts = [
        _read_layer(model.arch, batch, captured, frame, layer, numbers)
        for frame, batch, captured in captures(model, prompt_sets, "read heads")
        for layer, numbers in by_layer(heads).items()
    ]
    return pd.concat(parts, ignore_index=True)


def label_positions(sets: Sequence[PromptSet], first: int = 0) -> pd.DataFrame:
    """A row per prompt and demonstration, in the order of the packed prompts.

    Args:
        first: number of the first set, if these continue a longer list.

    Returns:
        `prompt` (its number among these), `set, query, gold, demonstration, label, same`, `position` of the label
        token in the prompt, and `token, other`: tokens of its label and of the other one.
    """
    rows: list[tuple[object, ...]] = []
    prompt = 0
    for number, s in enumerate(sets, start=first):
        tokens = dict(zip(s.labels, s.label_ids, strict=True))
        for query, (p, (_, gold)) in enumerate(zip(s.prompts, s.queries, strict=True)):
            for i, (position, (_, label)) in enumerate(zip(p.label_positions, s.demonstrations, strict=True)):
                other = s.labels[1 - s.labels.index(label)]
                facts = (prompt, number, query, gold, i, label, label == gold)
                rows.append((*facts, position, tokens[label], tokens[other]))
            prompt += 1
    names = ["prompt", "set", "query", "gold", "demonstration", "label", "same", "position", "token", "other"]
    return pd.DataFrame(rows, columns=names)


def query_and_key(
    arch: Architecture, layer: int, head: int, last: Float[Tensor, "N d"], at: Float[Tensor, "R d"]
) -> tuple[Float[Tensor, "N d_h"], Float[Tensor, "R d_h"]]:
    """The two towers, not rotated: queries of the last positions and keys of others.

    Args:
        last, at: residuals entering the layer, at the last position of each prompt and at other positions.
    """
    return (
        arch.queries(layer, arch.norm_in(layer, last))[:, head],
        arch.keys(layer, arch.norm_in(layer, at))[:, head],
    )


def attention_by_class(table: pd.DataFrame) -> pd.DataFrame:
    """Attention summed over label positions of the query's class and over the others, from `read_heads`.

    Returns:
        `layer, head, set, query, gold, same, other`, weights between 0 and 1.
    """
    split = table.assign(same=table["weight"].where(table["same"], 0), other=table["weight"].where(~table["same"], 0))
    return split.groupby(PROMPT, as_index=False)[["same", "other"]].sum()


def attention_effects(classes: pd.DataFrame) -> pd.DataFrame:
    """C7 from `attention_by_class`: same-class minus other attention, summed over heads. `set, query, effect`."""
    total = classes.groupby(["set", "query"], as_index=False)[["same", "other"]].sum()
    return total.assign(effect=total["same"] - total["other"])[["set", "query", "effect"]]


def auc(table: pd.DataFrame, column: str) -> pd.Series:
    """Area under the ROC curve of a column of `read_heads` as a classifier of "same class", per head and prompt.

    It is the chance that a label position of the same class scores higher than one of the other; ties count half.
    nan where a prompt shows one class only.
    """
    ranked = table.assign(rank=table.groupby(PROMPT)[column].rank())  # ties get their mean rank
    same = ranked[ranked["same"]].groupby(PROMPT)["rank"].agg(["sum", "size"])
    size = ranked.groupby(PROMPT).size()
    same = same.reindex(size.index, fill_value=0)
    pairs = same["size"] * (size - same["size"])
    above = same["sum"] - same["size"] * (same["size"] + 1) / 2
    return (above / pairs.where(pairs > 0)).rename(column)


def metric(table: pd.DataFrame) -> pd.DataFrame:
    """The metric test from `read_heads`: AUC of q.k, of q.k without rotation and of the residuals' cosine.

    Returns:
        `layer, head, set, query, gold, auc, auc_unrotated, auc_cosine`.
    """
    columns = {"auc": "score", "auc_unrotated": "score_unrotated", "auc_cosine": "cosine"}
    return pd.DataFrame({name: auc(table, column) for name, column in columns.items()}).reset_index()


def metric_effects(measured: pd.DataFrame) -> pd.DataFrame:
    """C9 from `metric`: AUC of q.k minus that of the cosine, mean over heads. `set, query, effect, above_chance`.

    `above_chance` is the AUC of q.k minus one half, which has to be positive too.
    """
    means = measured.groupby(["set", "query"], as_index=False)[["auc", "auc_cosine"]].mean()
    means = means.assign(effect=means["auc"] - means["auc_cosine"], above_chance=means["auc"] - 0.5)
    return means[["set", "query", "effect", "above_chance"]]


def control_heads(model: Model, heads: Sequence[Head], draws: int, seed: int = 0) -> list[Head]:
    """Heads of the deep half drawn at random, none of `heads`: `draws` for each of them, or all that there are."""
    deep = [head for head in every_head(model) if head[0] >= model.arch.n_layers / 2 and head not in set(heads)]
    rng = np.random.default_rng([seed, 7])
    chosen = rng.choice(len(deep), size=min(len(deep), draws * len(heads)), replace=False)
    return sorted(deep[i] for i in chosen)


def is_in(table: pd.DataFrame, heads: Sequence[Head]) -> pd.Series:
    """Which rows of a table belong to one of the heads."""
    known = pd.MultiIndex.from_tuples(list(heads), names=HEAD) if heads else pd.MultiIndex.from_arrays([[], []])
    return pd.Series(pd.MultiIndex.from_frame(table[HEAD]).isin(known), index=table.index)


def sharpest_heads(model: Model, prompt_sets: Sequence[PromptSet], number: int | None = None) -> list[Head]:
    """Heads of the deep half by how well q.k tells the query's class (mean AUC), best first: the first `number` or all.

    They are a choice, so make it on the selection half.
    """
    deep = [head for head in every_head(model) if head[0] >= model.arch.n_layers / 2]
    means = towers(model, prompt_sets, deep).groupby(HEAD)["auc"].mean().sort_values(ascending=False, kind="stable")
    return [(int(layer), int(head)) for layer, head in means.index[:number]]


def by_head(
    table: pd.DataFrame, columns: Mapping[str, str], groups: Mapping[str, Sequence[Head]], *, seed: int = 0
) -> pd.DataFrame:
    """Means and intervals of some columns for each head of the first group, and for each group together.

    Args:
        table: a row per head and prompt, with a column `set`.
        columns: column -> its name in the result.
        groups: name -> heads; the in-context heads first.

    Returns:
        `name, measure, mean, low, high`; names are layer.head for single heads.
    """
    first = next(iter(groups.values()))
    named = [table[is_in(table, [head])].assign(name=f"{head[0]}.{head[1]}") for head in sorted(first)]
    named += [table[is_in(table, heads)].assign(name=name) for name, heads in groups.items()]
    long = pd.concat(named).melt(["name", "set"], list(columns), "measure", "value").dropna(subset="value")
    summary = summarise(long, ["name", "measure"], "value", seed=seed)
    return summary.assign(measure=summary["measure"].map(dict(columns)))


def plane(model: Model, s: PromptSet, head: Head, *, arrows: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Queries and keys of one head and one demonstration set in two dimensions, and whom each query attends to.

    The dot product of a query and a key approximates their score, without rotation by position: see `biplot`.
    Keys are those of the first prompt; where prompts share their prefix, all prompts have the same.

    Returns:
        points: `layer, head, kind` (query or key), `text, label, x, y, share` (of the scores' variance that is shown);
        arrows: `layer, head, query, demonstration, weight, x, y, to_x, to_y` for each query's largest weights.
    """
    layer, number = head
    ((frame, batch, captured),) = captures(model, s, "plane")
    at = at_labels(captured, batch, frame, layer)[: len(s.demonstrations)]
    q, k = query_and_key(model.arch, layer, number, captured.resid_pre[layer], at)
    queries, keys, share = biplot(q @ k.T * model.arch.score_scale(layer))
    kinds = ["query"] * len(s.queries) + ["key"] * len(s.demonstrations)
    points = pd.DataFrame([*s.queries, *s.demonstrations], columns=["text", "label"])
    points[["x", "y"]] = torch.cat([queries, keys]).double().numpy()
    points = points.assign(layer=layer, head=number, kind=kinds, share=share)
    weighted = frame.assign(weight=weights(captured, frame, layer, number).double().numpy())
    best = weighted.sort_values("weight", ascending=False).groupby("query").head(arrows).sort_values("query")
    tails, tips = points.iloc[best["query"]], points.iloc[len(s.queries) + best["demonstration"]]
    places = {"x": tails["x"], "y": tails["y"], "to_x": tips["x"], "to_y": tips["y"]}
    chosen = best[["query", "demonstration", "weight"]].assign(layer=layer, head=number)
    chosen = chosen.assign(**{name: column.to_numpy() for name, column in places.items()})
    return points, chosen.reset_index(drop=True)


def biplot(scores: Float[Tensor, "N R"]) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "R 2"], float]:
    """Coordinates of rows and columns whose dot products are the best approximation of rank 2 of the scores.

    Each row's mean is taken off first: the softmax ignores it.

    Returns:
        coordinates of rows and of columns, with the same spread, and the share of the centred scores' squares that
        they reproduce.
    """
    centred = scores - scores.mean(1, keepdim=True)
    u, s, vh = torch.linalg.svd(centred, full_matrices=False)
    kept = s.new_zeros(2)
    kept[: min(2, len(s))] = s[:2]
    rows, columns = (scores.new_zeros(n, 2) for n in scores.shape)
    rows[:, : len(s)], columns[:, : len(s)] = u[:, :2], vh[:2].T
    balance = (
        len(rows) / len(columns)
    ) ** 0.25  # singular vectors have unit length, however many points they spread over
    share = float(kept.square().sum() / s.square().sum().clamp(min=1e-30))
    return rows * kept.sqrt() * balance, columns * kept.sqrt() / balance, share


def captures(
    model: Model, prompt_sets: PromptSet | Sequence[PromptSet], title: str
) -> Iterator[tuple[pd.DataFrame, Batch, Capture]]:
    """Batch by batch: the label positions of its prompts, the batch, and one forward of it."""
    sets = [prompt_sets] if isinstance(prompt_sets, PromptSet) else list(prompt_sets)
    first = 0
    with tqdm(total=len(sets), desc=title, unit="set", delay=2, leave=False) as bar:
        for batch in batches(model, sets):
            size = len(batch.input_ids)
            frame = label_positions(sets[first : first + size], first)
            yield frame, batch, capture(model, batch, pattern=True, inputs=True)
            first += size
            bar.update(size)


def by_layer(heads: Sequence[Head]) -> dict[int, list[int]]:
    layers: dict[int, list[int]] = defaultdict(list)
    for layer, head in sorted(set(heads)):
        layers[layer].append(head)
    return dict(layers)


def at_labels(captured: Capture, batch: Batch, frame: pd.DataFrame, layer: int) -> Float[Tensor, "R d"]:
    """Residual entering a layer at every label position."""
    assert captured.inputs is not None
    prompt, position = (torch.tensor(frame[name].to_numpy()) for name in ("prompt", "position"))
    return captured.inputs[layer][batch.row[prompt], batch.index[prompt, position]]


def weights(captured: Capture, frame: pd.DataFrame, layer: int, head: int) -> Float[Tensor, " R"]:
    """Attention of the last position to every label position."""
    assert captured.pattern is not None
    prompt, position = (torch.tensor(frame[name].to_numpy()) for name in ("prompt", "position"))
    return captured.pattern[layer][prompt, head, position]


def described(frame: pd.DataFrame, layer: int, head: int) -> pd.DataFrame:
    """The columns of `label_positions` that a reader of a result needs, for one head."""
    return frame[["set", "query", "gold", "demonstration", "label", "same"]].assign(layer=layer, head=head)


def _read_layer(
    arch: Architecture, batch: Batch, captured: Capture, frame: pd.DataFrame, layer: int, heads: Sequence[int]
) -> pd.DataFrame:
    """`read_heads` for some heads of one layer, from one capture."""
    prompt, position = (torch.tensor(frame[name].to_numpy()) for name in ("prompt", "position"))
    last, at = captured.resid_pre[layer], at_labels(captured, batch, frame, layer)
    ends = (batch.index >= 0).sum(1) - 1  # position of each prompt's last token
    cosine = torch.cosine_similarity(last[prompt], at, dim=-1)
    w_v, b_v = arch.w_v(layer)
    w_u, entering = arch.w_u(), arch.norm_in(layer, at)
    towards = w_u[torch.tensor(frame["token"].to_numpy())] - w_u[torch.tensor(frame["other"].to_numpy())]
    parts = []
    for head in heads:
        q, k = query_and_key(arch, layer, head, last, at)
        rotated = arch.rotate(q[None], ends[None])[0, prompt] * arch.rotate(k[None], position[None])[0]
        vo = (entering @ w_v[head] + b_v[head]) @ arch.w_o(layer)[head]
        value = (arch.norm_shape(vo) * arch.norm_scale(captured.resid_pre[-1])[prompt] * towards).sum(-1)
        columns = {
            "weight": weights(captured, frame, layer, head),
            "score": rotated.sum(-1) * arch.score_scale(layer),
            "score_unrotated": (q[prompt] * k).sum(-1) * arch.score_scale(layer),
            "cosine": cosine,
            "value": value,
        }
        own = described(frame, layer, head)
        parts.append(own.assign(**{name: column.double().numpy() for name, column in columns.items()}))
    return pd.concat(parts, ignore_index=True)

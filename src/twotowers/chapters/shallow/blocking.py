"""Blocking: attention edges are cut in a window of layers, and the model is asked what it still answers.

A cut that costs accuracy cut something the answer needs (method page, equation eq-attention, without those positions in
the softmax).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor
from tqdm import tqdm

from ...arguments import brief, listed, require_seed
from ...errors import ArgumentError, UnknownNameError, UserError
from ...models.model import Model
from ...models.parts import Tables, part_name
from ...models.surroundings import undisturbed
from ...prompts.packing import Batch
from ...prompts.sets import Prompt, PromptSet, as_sets
from ...statistics import summarise
from ...tracing.answers import window_rows
from ...tracing.capture import numbered, remember
from ...tracing.cutting import cut
from ...tracing.sweep import part

KINDS = ("text_to_label", "query_to_last", "label_to_last")
DEEP = 16  # layers, beyond which windows begin at every other one only
FEW = 7  # windows, about, where there are to be few


class LayerError(UserError):
    """Layers that the model does not have."""


def windows(n_layers: int, step: int = 1) -> list[range]:
    """Windows a third of the layers wide, at least one, beginning at every `step`-th layer; first and last third
    are always among them."""
    width = max(1, round(n_layers / 3))
    starts = sorted({*range(0, n_layers - width + 1, step), n_layers - width})
    return [range(start, start + width) for start in starts]


def slide(n_layers: int, *, few: bool = False) -> list[range]:
    """The windows that the chapter slides over the layers: at every layer, of a deeper model every other, or few."""
    return windows(n_layers, step=max(1, n_layers // FEW) if few else 2 if n_layers > DEEP else 1)


@undisturbed
def block(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    edges: str | Sequence[str] = KINDS,
    layers: range | Sequence[range] = range(0),
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Answer every prompt with attention edges cut in each window of layers, and with as many random edges cut.

    Args:
        edges: `"text_to_label"`: no label position attends to its own demonstration, text and separator;
            `"query_to_last"`: the last position does not attend to the query; `"label_to_last"`: nor to any label;
            or several of them.
        layers: one window or several.
        seed: of the random edges; those of a demonstration set are the same in all windows.

    Returns:
        a row per kind, window, control and prompt: `kind, start, stop` (first layer and one past the last),
        `control` (random edges instead), and `set, query, label, accuracy, accuracy_two_way, margin` as in
        `knockout.outcomes`. The intact model has `start` and `stop` 0.

    Raises:
        UnknownNameError: no such kind of edge.
        LayerError: a window beyond the model's layers.
    """
    sets = as_sets(model, prompt_sets)
    require_seed(seed)
    kinds = [edges] if isinstance(edges, str) else listed("edges", edges, "kinds of edges")
    for kind in kinds:
        if not isinstance(kind, str) or kind not in KINDS:
            raise UnknownNameError("kind of edge", kind, KINDS)
    windows = [layers] if isinstance(layers, range) else listed("layers", layers, "ranges of layers")
    if not all(isinstance(window, range) and window.step == 1 for window in windows):
        raise ArgumentError(f"layers is {brief(layers)}; give a range of layers, as range(0, 4), or a list of such.")
    chosen = [window or range(0) for window in windows]
    for window in chosen:
        if window and not set(window) <= set(range(model.arch.n_layers)):
            raise LayerError(
                f"{model.name} has no layers {window[0]} to {window[-1]}: its layers are 0 to "
                f"{model.arch.n_layers - 1}."
            )
    whole, tables = part_name("block", kinds, chosen, seed), list[pd.DataFrame]()
    steps = 2 * len(kinds) * sum(model.arch.n_layers - window.start for window in chosen)
    with tqdm(total=len(sets) * steps, desc="block", unit="layer", delay=2, leave=False) as bar:

        def of_batch(members: Sequence[PromptSet], index: int, batch: Batch) -> Tables:
            unchanged, intact = remember(model, batch)
            rows_of = []
            for kind in kinds:
                rows_of.append(window_rows(unchanged, members, index, kind, range(0), False))
                cuts = {False: blocked(batch, members, kind)}
                cuts[True] = random_edges(batch, cuts[False], [seed, KINDS.index(kind), index])
                for window in chosen:
                    for control, removed in cuts.items():
                        rows = cut(model, batch, removed, window, intact)
                        rows_of.append(window_rows(rows, members, index, kind, window, control))
                        bar.update(len(members) * (model.arch.n_layers - window.start))
            return (pd.concat(rows_of, ignore_index=True),)

        for members, index, batch in numbered(model, sets):
            tables += part(model, whole, index, members, partial(of_batch, members, index, batch))
            bar.update((index + len(members)) * steps - bar.n)
    return pd.concat(tables, ignore_index=True)


def blocked(batch: Batch, sets: Sequence[PromptSet], kind: str) -> Bool[Tensor, "B T T"]:
    """The edges of one kind in a batch of these sets, from attending (second axis) to attended position (third)."""
    if kind not in KINDS:
        raise UnknownNameError("kind of edge", kind, KINDS)
    edges = torch.zeros_like(batch.allowed)
    for n, prompt in enumerate(prompt for s in sets for prompt in s.prompts):
        packed = batch.index[n]
        for position, attended in _lost(prompt, kind):
            edges[batch.row[n], packed[position], packed[attended]] = True
    return edges


def random_edges(batch: Batch, edges: Bool[Tensor, "B T T"], seed: Sequence[int]) -> Bool[Tensor, "B T T"]:
    """A control for `edges`: in every row as many others, from the same positions to other earlier ones.

    A position gives as many as it loses. The first label has too few others; what is missing is drawn from the other
    positions of the row. Where they, too, have too few, all are taken and the control is smaller.

    Args:
        seed: of the first row; its last number goes up by one a row, so that batching changes nothing.
    """
    control = torch.zeros_like(edges)
    for row, removed in enumerate(edges):
        rng = np.random.default_rng([*seed[:-1], seed[-1] + row])
        free = batch.allowed[row] & ~removed & ~torch.eye(len(removed), dtype=torch.bool)
        free &= removed.any(dim=1, keepdim=True)
        for position in removed.any(dim=1).nonzero().ravel().tolist():
            others = rng.permutation(free[position].nonzero().ravel().numpy())
            control[row, position, others[: int(removed[position].sum())]] = True
        left = rng.permutation((free & ~control[row]).nonzero().numpy())[: int(removed.sum() - control[row].sum())]
        control[row, left[:, 0], left[:, 1]] = True
    return control


def curve(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by window from a table of `block`: `kind, start, stop, control, mean, low, high`."""
    return summarise(table, ["kind", "start", "stop", "control"], "accuracy")


def _lost(prompt: Prompt, kind: str) -> list[tuple[int, list[int]]]:
    """Positions that collect, and those to which each may no longer attend.

    A separator belongs to the text before it: it follows the text and could hand it on.
    """
    if kind == "query_to_last":
        return [(prompt.last, list(range(prompt.query[0], prompt.last)))]
    if kind == "label_to_last":
        return [(prompt.last, list(prompt.label_positions))]
    spans = zip(prompt.demonstrations, prompt.label_positions, strict=True)
    return [(label, list(range(first, label))) for (first, _), label in spans]

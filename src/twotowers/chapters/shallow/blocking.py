"""Shallow layers: where demonstrations merge into their labels, and the query into the last position.

Two tests of one claim. *Blocking* cuts attention edges in a window of layers and asks what the model still answers:
a cut that costs accuracy cut something the answer needs (method page, equation eq-attention, without those
positions in the softmax). *Probing* asks from which layer on a linear classifier reads a text's category at its label.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor
from tqdm import tqdm

from ...errors import UnknownNameError, UserError, require_seed
from ...models.model import Model
from ...prompts.packing import Batch
from ...prompts.sets import Prompt, PromptSet, as_sets
from ...statistics import Estimate, estimate, summarise
from ...tracing.answers import window_rows
from ...tracing.capture import numbered, remember
from ...tracing.cutting import cut

KINDS = ("text_to_label", "query_to_last")
FIRST, LAST, RANDOM = "first", "last", "random edges"  # what the costs in the outer thirds are given for
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
    """The windows that the chapter slides over the layers: one at every layer, or only a few."""
    return windows(n_layers, step=max(1, n_layers // FEW) if few else 1)


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
            `"query_to_last"`: the last position does not attend to the query; or both.
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
    sets = as_sets(prompt_sets)
    require_seed(seed)
    kinds = [edges] if isinstance(edges, str) else list(edges)
    chosen = [window or range(0) for window in ([layers] if isinstance(layers, range) else layers)]
    for window in chosen:
        if window and not set(window) <= set(range(model.arch.n_layers)):
            raise LayerError(
                f"{model.name} has no layers {window[0]} to {window[-1]}: its layers are 0 to "
                f"{model.arch.n_layers - 1}."
            )
    tables = []
    steps = 2 * len(kinds) * sum(model.arch.n_layers - window.start for window in chosen)
    with tqdm(total=len(sets) * steps, desc="block", unit="layer", delay=2, leave=False) as bar:
        for members, index, batch in numbered(model, sets):
            unchanged, intact = remember(model, batch)
            for kind in kinds:
                tables.append(window_rows(unchanged, members, index, kind, range(0), False))
                cuts = {False: blocked(batch, members, kind)}
                cuts[True] = random_edges(batch, cuts[False], [seed, KINDS.index(kind), index])
                for window in chosen:
                    for control, removed in cuts.items():
                        rows = cut(model, batch, removed, window, intact)
                        tables.append(window_rows(rows, members, index, kind, window, control))
                        bar.update(len(members) * (model.arch.n_layers - window.start))
    return pd.concat(tables, ignore_index=True)


def blocked(batch: Batch, sets: Sequence[PromptSet], kind: str) -> Bool[Tensor, "B T T"]:
    """The edges of one kind in a batch of these sets, from attending (second axis) to attended position (third)."""
    if kind not in KINDS:
        raise UnknownNameError("kind of edge", kind, KINDS)
    edges = torch.zeros_like(batch.allowed)
    for n, prompt in enumerate(prompt for s in sets for prompt in s.prompts):
        for position, first in _merges(prompt, kind):
            packed = batch.index[n]
            edges[batch.row[n], packed[position], packed[first:position]] = True
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


def depth_effect(table: pd.DataFrame, kind: str, value: str = "accuracy", *, control: bool = False) -> pd.DataFrame:
    """Claims C1 and C2: what the cut costs in the first window minus what it costs in the last, per prompt.

    Args:
        table: result of `block`; first and last are the windows with the lowest and the highest start.
        control: the same for the random edges.

    Returns:
        `set, query, first, last, effect`: costs (intact minus cut, in units of `value`), and their difference,
        positive if the first window costs more; it is missing if the first window is the last as well.
    """
    part = table[table["kind"] == kind].set_index(["set", "query"])
    intact = part.loc[part["stop"] == part["start"], value]
    cuts = part[(part["stop"] > part["start"]) & (part["control"] == control)]
    costs = {
        name: intact - cuts.loc[cuts["start"] == start, value]
        for name, start in (("first", cuts["start"].min()), ("last", cuts["start"].max()))
    }
    effect = costs["first"] - costs["last"]
    if cuts["start"].nunique() < 2:
        effect[:] = np.nan
    return pd.DataFrame(costs).assign(effect=effect).reset_index()


def curve(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Accuracy by window from a table of `block`: `kind, start, stop, control, mean, low, high`."""
    return summarise(table, ["kind", "start", "stop", "control"], "accuracy", seed=seed)


def thirds(table: pd.DataFrame, kind: str, *, seed: int = 0) -> pd.DataFrame:
    """What the cut costs in the first and in the last third of the layers, from a table of `block`.

    Returns:
        `cost, start, stop, mean, low, high`: rows of the costs in the first and the last window, and of their
        difference for random edges, which is missing if they are one window.
    """
    part = table[(table["kind"] == kind) & (table["stop"] > table["start"])]
    first, last = (part.loc[part["start"] == start] for start in (part["start"].min(), part["start"].max()))
    cut, control = depth_effect(table, kind), depth_effect(table, kind, control=True)
    apart = control.dropna(subset="effect")
    rows = [
        (FIRST, first, estimate(cut["first"], cut["set"], seed=seed)),
        (LAST, last, estimate(cut["last"], cut["set"], seed=seed)),
        (RANDOM, part, estimate(apart["effect"], apart["set"], seed=seed) if len(apart) else Estimate.unknown()),
    ]
    return pd.DataFrame(
        [(cost, w["start"].min(), w["stop"].max(), e.mean, e.low, e.high) for cost, w, e in rows],
        columns=["cost", "start", "stop", "mean", "low", "high"],
    )


def _merges(prompt: Prompt, kind: str) -> list[tuple[int, int]]:
    """Position that collects, and the first token of what it collects; all tokens between belong to it.

    The separator is among them: it follows the text and could hand it on.
    """
    if kind == "query_to_last":
        return [(prompt.last, prompt.query[0])]
    return [(label, first) for (first, _), label in zip(prompt.demonstrations, prompt.label_positions, strict=True)]

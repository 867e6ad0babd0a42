"""The check: identities that must hold on a model before anything about it is interpreted.

Each identity compares two ways of computing the same thing on that very model. A residual is the largest
difference relative to the largest value; a model on which one is too large, or is no number, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pandas as pd
import torch
from torch import Tensor

from ..arguments import brief, listed
from ..errors import ArgumentError, CheckError
from ..models.architecture import weight_in_out
from ..models.family import has_experts
from ..models.model import Model
from ..models.quantised import held
from ..models.surroundings import undisturbed
from ..prompts.encoding import require_reader
from ..prompts.packing import pack
from ..prompts.sets import PromptSet, prompt_set
from ..prompts.task_labels import TaskLabels
from ..prompts.variants import prompt_set_of
from .ablation import ablate, subtract
from .capture import Capture, answers, capture, own_logits, remember
from .exchange import exchanged_z
from .heads import every_head
from .projection import project
from .rewriting import rewrite

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 1e-1}
DEMONSTRATIONS = [
    ("cat", "foo"),
    ("seven", "bar"),
    ("horse", "foo"),
    ("two", "bar"),
    ("nine", "bar"),
    ("dog", "foo"),
]
QUERIES = [("cow", "foo"), ("eleven", "bar"), ("elephant", "foo")]


@undisturbed
def check(model: Model, labels: Sequence[str] = TaskLabels().names) -> pd.DataFrame:
    """Measure every identity on a model.

    Args:
        labels: the two words that are written for labels, each one token of the model.

    Returns:
        a row per identity: `identity, residual, tolerance, holds`.
    """
    require_reader(model)
    own = TaskLabels().names
    if len(labels := listed("labels", labels, "two words")) != len(own) or not all(isinstance(w, str) for w in labels):
        raise ArgumentError(f"labels is {brief(labels)}; give two words.")
    words = dict(zip(own, labels, strict=True))
    sets = [
        prompt_set(model, DEMONSTRATIONS, QUERIES, words=words),
        prompt_set(model, DEMONSTRATIONS[:3], QUERIES[::-1], template="{text} : {label}", separator=" ", words=words),
    ]
    batch = pack(sets, model.pad_id)
    captured = capture(model, batch, pattern=True, logits=True, inputs=True)
    measured = [
        ("heads and bias add up to the attention output", _heads(model, captured)),
        ("attention weights times values are the heads", _values(model, captured, batch.row, batch.index)),
        ("queries times keys are the attention weights", _scores(model, captured, batch.row, batch.index)),
        ("parts add up to the final residual", _parts(captured)),
        ("projected parts add up to the logits", _projection(model, captured)),
        ("attention rows sum to one", _rows(captured)),
        ("what follows changes nothing before it", _causal(model, sets[0])),
        ("packed prompts answer as separate ones", _packing(model, sets, captured)),
        (
            "knock-out equals taking away what a head writes" if shared(model) else "knock-out equals edited weights",
            _knockout(model, sets[0]),
        ),
        ("z computed from parts and written back changes nothing", _exchange(model, sets[0])),
    ]
    table = pd.DataFrame(measured, columns=["identity", "residual"])
    table["tolerance"] = TOLERANCE[model.arch.dtype]
    table["holds"] = table["residual"] <= table["tolerance"]
    changed = _changed(model, sets[0])
    last = ("removing all heads of a layer changes the answers", changed, 0.0, 0 < changed < math.inf)
    return pd.concat([table, pd.DataFrame([last], columns=table.columns)], ignore_index=True)


def lines(table: pd.DataFrame) -> str:
    """The result of `check` as text, a line per identity."""
    width = table["identity"].str.len().max()
    rows = table.to_dict("records")
    return "\n".join(
        f"{row['identity']:{width}}  {row['residual']:9.1e}  {'holds' if row['holds'] else 'FAILS'}" for row in rows
    )


def require(model: Model, labels: Sequence[str] = TaskLabels().names) -> pd.DataFrame:
    """As `check`.

    Raises:
        CheckError: an identity does not hold; the message names it and its residual.
    """
    table = check(model, labels)
    if said := refusal(model, table):
        raise CheckError(said)
    return table


def refusal(model: Model, table: pd.DataFrame) -> str:
    """The first identity that does not hold, its residual and what to do, as a sentence; empty if all hold."""
    for row in table[~table["holds"]].to_dict("records"):
        if not math.isfinite(row["residual"]):
            return (
                f"{model.name} fails the check: '{row['identity']}' cannot be measured, since weights or what follows "
                f"from them are no numbers (NaN or infinity); mend the weights, or use float32."
            )
        return (
            f"{model.name} fails the check: '{row['identity']}' has residual {row['residual']:.1e} (tolerance "
            f"{row['tolerance']:.0e}); its results would be wrong, so {_remedy(model)}."
        )
    return ""


def _remedy(model: Model) -> str:
    if model.arch.dtype == torch.float32:
        return "report its family"
    why = ", since a rounding may send a token to other experts" if has_experts(model.config) else ""
    return f"use float32{why}"


def _difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value of b; NaN or infinite where either is so anywhere."""
    largest = (a - b).abs().max()
    return float(largest / b.abs().max()) if largest != 0 else 0.0


def _worst(residuals: Iterable[float]) -> float:
    """The largest of several residuals; NaN if one is, which Python's own maximum loses."""
    return float(torch.tensor(list(residuals)).max())


def _layers(model: Model) -> Sequence[int]:
    """The layers whose weights are looked at: of a model on a server, which sends them here, three."""
    n_layers = model.arch.n_layers
    return sorted({0, n_layers // 2, n_layers - 1}) if model.remote else range(n_layers)


def _heads(model: Model, captured: Capture) -> float:
    """sum_h z[h] W_O[h] + b_O = attn_out; the worst layer counts."""
    arch, z = model.arch, captured.parts()
    return _worst(
        _difference(
            torch.einsum("nhe,hed->nd", z[i], arch.w_o(i)) + captured.scaled(i, arch.b_o(i).expand(z.shape[1], -1)),
            captured.attn_out[i],
        )
        for i in _layers(model)
    )


def _values(model: Model, captured: Capture, row: Tensor, index: Tensor) -> float:
    """sum_p pattern[h,p] (LN(resid_pre[p]) W_V[h] + b_V[h]) = z[h]."""
    assert captured.pattern is not None
    assert captured.inputs is not None
    residuals = []
    for layer in _layers(model):
        entering = model.arch.norm_in(layer, captured.inputs[layer])
        weight, bias = model.arch.w_v(layer)
        own = entering[row[:, None], index.clamp(min=0)]  # [N, S, d]
        value = torch.einsum("nsd,hde->nhse", own, weight) + bias[:, None]
        z = torch.einsum("nhs,nhse->nhe", captured.pattern[layer], value)
        residuals.append(_difference(z, captured.z[layer]))
    return _worst(residuals)


def _scores(model: Model, captured: Capture, row: Tensor, index: Tensor) -> float:
    """softmax_p(rot(q[h]) . rot(k[h,p]) scale) = pattern[h,p], over each prompt's own tokens."""
    assert captured.pattern is not None
    assert captured.inputs is not None
    arch, residuals, own = model.arch, [], index >= 0
    lengths = own.sum(1)
    positions = torch.arange(index.shape[1]).expand(len(index), arch.n_heads, -1)
    for layer in _layers(model):
        entering = arch.norm_in(layer, captured.inputs[layer])[row[:, None], index.clamp(min=0)]  # [N, S, d]
        q, k = (
            arch.rotate(layer, x.transpose(1, 2), positions)
            for x in (arch.queries(layer, entering), arch.keys(layer, entering))
        )
        scores = arch.scores(layer, torch.einsum("nhe,nhse->nhs", q[torch.arange(len(q)), :, lengths - 1], k))
        added = arch.added_to_scores(positions[:, 0])
        scores = scores if added is None else scores + added
        weights = scores.masked_fill(~own[:, None], float("-inf")).softmax(-1)
        residuals.append(_difference(weights, captured.pattern[layer]))
    return _worst(residuals)


def _parts(captured: Capture) -> float:
    total = captured.resid_pre[0] + captured.attn_out.sum(0) + captured.mlp_out.sum(0)
    return _difference(total, captured.resid_pre[-1])


def _projection(model: Model, captured: Capture) -> float:
    assert captured.logits is not None
    final = captured.resid_pre[-1]
    parts = [captured.resid_pre[0], *captured.attn_out, *captured.mlp_out]
    logits = torch.stack([project(model.arch, part, final) for part in parts]).sum(0) + model.arch.logit_bias()
    return _difference(model.arch.capped(logits), captured.logits)


def _rows(captured: Capture) -> float:
    """Weights on a prompt's own tokens sum to one, so nothing leaks to padding or to another query's branch."""
    assert captured.pattern is not None
    return float((captured.pattern.sum(-1) - 1).abs().max())


def _causal(model: Model, s: PromptSet) -> float:
    """The residuals of the shared prefix do not depend on the query that follows."""
    pairs = [[query, s.queries[0]] for query in s.queries[1:3]]
    sets = [prompt_set(model, s.demonstrations, queries, words=s.written) for queries in pairs]
    first, second = (capture(model, pack([one]), inputs=True).inputs for one in sets)
    assert first is not None
    assert second is not None
    shared = min(s.shared, s.prompts[0].label_positions[-1] + 1)
    return _difference(first[:, 0, :shared], second[:, 0, :shared])


def _packing(model: Model, sets: Sequence[PromptSet], captured: Capture) -> float:
    """Logits of packed prompts, as they are read everywhere, are those that the model itself gives to each alone."""
    alone = [own_logits(model, pack([prompt_set_of(s, i)], model.pad_id)) for s in sets for i in range(len(s.queries))]
    assert captured.logits is not None
    return _difference(captured.logits, torch.cat(alone))


def _knockout(model: Model, s: PromptSet) -> float:
    """Zeroing one head per layer in a trace, started at its layer, equals zeroing its slice of W_O.

    Others use a server's weights too, and split weights cannot be edited, so there it is compared with taking away
    what the head writes.
    """
    arch, batch = model.arch, pack([s], model.pad_id)
    _, intact = remember(model, batch)
    residuals = []
    for layer in sorted({0, arch.n_layers // 2, arch.n_layers - 1}):
        head = layer % arch.n_heads
        zero = torch.zeros(1, arch.n_layers, arch.n_heads, dtype=torch.bool)
        zero[0, layer, head] = True
        traced = ablate(model, batch, zero, *(intact.entering(layer) if intact else ())).labels
        if shared(model):
            residuals.append(_difference(traced, subtract(model, batch, layer, head).labels))
            continue
        with edited(model, layer, head):
            residuals.append(_difference(traced, answers(model, batch).labels))
    return _worst(residuals)


def _exchange(model: Model, s: PromptSet) -> float:
    """All heads' z at the last position, computed from the intact run's queries, keys and values, and written in."""
    batch = pack([s], model.pad_id)
    intact = capture(model, batch, inputs=True)
    z = exchanged_z(model, s, batch, intact, every_head(model), "none")
    return _difference(rewrite(model, batch, intact, [z]).labels, intact.answers.labels)


def shared(model: Model) -> bool:
    """Whether the weights are not this process' own to edit."""
    return bool(model.remote) or model.tensor_parallel


@contextmanager
def edited(model: Model, layer: int, head: int) -> Iterator[None]:
    """The model with one head's slice of W_O set to zero, restored afterwards."""
    size, projection = model.arch.d_head, model.arch.out_proj(layer)
    with held(projection):
        with torch.no_grad():
            weight = weight_in_out(projection)[head * size : (head + 1) * size]
            kept = weight.clone()
            weight.zero_()
        try:
            yield
        finally:
            with torch.no_grad():
                weight.copy_(kept)


def _changed(model: Model, s: PromptSet) -> float:
    batch = pack([s], model.pad_id)
    zero = torch.zeros(1, model.arch.n_layers, model.arch.n_heads, dtype=torch.bool)
    zero[0, model.arch.n_layers // 2] = True
    return _difference(ablate(model, batch, zero).labels, answers(model, batch).labels)

"""The only room that opens an nnsight trace: one forward of a batch, read or changed.

`capture` reads a forward at the last position of every prompt. `ablate` runs rows of one prompt set with
different heads zeroed in each row, starting at the lowest layer that a row changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import nnsight
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from .architecture import submodule
from .models import Model
from .prompts import Batch, PromptSet, pack

# No cache, and logits of one position only: ours are computed at the last position of every prompt.
OPTIONS = {"use_cache": False, "logits_to_keep": 1}
TOKEN_BUDGET = 4096  # tokens of one forward: large enough for full speed, small enough for a laptop's memory


@dataclass(frozen=True)
class Answers:
    """What N prompts answer. Logits are natural, over the full vocabulary.

    Attributes:
        labels: logits of each prompt's two labels.
        log_norm: log of the sum of exponentials over the vocabulary, so that `labels - log_norm` is log p.
        best: the most probable token.
    """

    labels: Float[Tensor, "N 2"]
    log_norm: Float[Tensor, " N"]
    best: Int[Tensor, " N"]

    @classmethod
    def cat(cls, parts: Sequence[Answers]) -> Answers:
        return cls(
            torch.cat([part.labels for part in parts]),
            torch.cat([part.log_norm for part in parts]),
            torch.cat([part.best for part in parts]),
        )


@dataclass(frozen=True)
class Capture:
    """One forward, at the last position of N prompts. L layers, H heads, width d.

    Attributes:
        resid_pre: residual stream entering each layer; the last of its L + 1 entries is the final residual.
        attn_out, mlp_out: what attention and MLP add to it.
        z: each head's output before the output projection.
        pattern: attention of the last position over the prompt's own tokens (0 beyond its end), if asked for.
        logits: over the vocabulary, if asked for; `answers` always.
        inputs: residual entering each layer at every packed position, if asked for.
        written: what attention adds at every packed position, if asked for.
        cache: keys and values of every packed position, with `inputs`: what later forwards remember (`Batch.lasts`).
    """

    resid_pre: Float[Tensor, "L1 N d"]
    attn_out: Float[Tensor, "L N d"]
    mlp_out: Float[Tensor, "L N d"]
    z: Float[Tensor, "L N H d_h"]
    answers: Answers
    pattern: Float[Tensor, "L N H S"] | None = None
    logits: Float[Tensor, "N V"] | None = None
    inputs: Float[Tensor, "L B T d"] | None = None
    written: Float[Tensor, "L B T d"] | None = None
    cache: DynamicCache | None = None


def batches(model: Model, sets: Sequence[PromptSet], budget: int = TOKEN_BUDGET) -> Iterator[Batch]:
    """Pack prompt sets into batches of at most `budget` tokens (at least one set each) and equally many prompts a
    set, in order."""
    group: list[PromptSet] = []
    for s in sets:
        longest = max(member.packed_length for member in (*group, s))
        if group and (longest * (len(group) + 1) > budget or len(s.prompts) != len(group[0].prompts)):
            yield pack(group, model.pad_id)
            group = []
        group.append(s)
    if group:
        yield pack(group, model.pad_id)


def capture(
    model: Model,
    batch: Batch,
    *,
    pattern: bool = False,
    logits: bool = False,
    inputs: bool = False,
    written: bool = False,
) -> Capture:
    """Run one forward and read it at the last position of every prompt, in float32 on the CPU.

    Raises:
        RuntimeError: patterns are asked for but the model's attention returns none.
    """
    family, row, last = model.arch.family, batch.row, batch.last
    shape = (len(row), model.arch.n_heads, model.arch.d_head)
    cache = DynamicCache() if inputs else None
    with torch.no_grad(), model.nn.trace(_inputs(model, batch), past_key_values=cache, **OPTIONS):
        resid, attn, mlp, z, weights, full, added = (nnsight.save([]) for _ in range(7))
        for block in submodule(model.nn, family.blocks):
            attention = submodule(block, family.attention)
            entering = block.input
            resid.append(entering[row, last].float().cpu())
            if inputs:
                full.append(entering.float().cpu())
            z.append(submodule(attention, family.out_proj).input[row, last].reshape(shape).float().cpu())
            output, attended = attention.output[:2]
            attn.append(output[row, last].float().cpu())
            if written:
                added.append(output.float().cpu())
            if pattern:
                weights.append(_last_rows(attended, batch))
            mlp.append(submodule(block, family.mlp).output[row, last].float().cpu())
        norm = submodule(model.nn, family.final_norm)
        resid.append(norm.input[row, last].float().cpu())
        all_logits = submodule(model.nn, family.unembed)(norm.output[row, last]).float()
        label_logits, log_norm, best = (nnsight.save(x) for x in _read(all_logits, batch))
        if logits:
            kept = nnsight.save(all_logits.cpu())
    return Capture(
        resid_pre=torch.stack(resid),
        attn_out=torch.stack(attn),
        mlp_out=torch.stack(mlp),
        z=torch.stack(z),
        answers=Answers(label_logits, log_norm, best),
        pattern=torch.stack(weights) if pattern else None,
        logits=kept if logits else None,
        inputs=torch.stack(full) if inputs else None,
        written=torch.stack(added) if written else None,
        cache=cache,
    )


def answers(model: Model, batch: Batch) -> Answers:
    """What the intact model answers; reads nothing else, so it is the cheapest forward."""
    return _answer(model, batch)


def ablate(
    model: Model,
    batch: Batch,
    zero: Bool[Tensor, "R L H"],
    entering: Float[Tensor, "T d"] | None = None,
    start: int = 0,
) -> Answers:
    """Answers of one prompt set with heads zeroed at every position, a row per choice of heads.

    Zeroing a head's z equals zeroing its slice of W_O. All rows share one forward, which begins with the intact
    prompts alone at layer `start`; a row joins at the first layer in which it removes a head, behind that layer's
    attention, which is still the intact one. In the last layer only what the last positions read is computed.

    Args:
        batch: one packed prompt set.
        zero: for R rows, which heads to remove; none below layer `start`.
        entering: the intact residual entering layer `start` at every packed position; needed unless start is 0.

    Returns:
        answers of R x N prompts, row by row.
    """
    if zero[:, :start].any():
        raise ValueError("a head below the starting layer cannot be removed")
    if start and entering is None:
        raise ValueError("starting above layer 0 needs the residual that enters there")
    if len(batch.input_ids) != 1:
        raise ValueError("heads are removed from one prompt set at a time")
    arch, family, last = model.arch, model.arch.family, batch.last
    joins = torch.where(zero.any(2).any(1), zero.any(2).int().argmax(1), arch.n_layers)
    order = joins.argsort(stable=True)
    order = order[joins[order] < arch.n_layers]  # the rows that remove something, by the layer at which they join
    removed = torch.cat([torch.zeros_like(zero[:1]), zero[order]])  # behind row 0, the intact one
    sizes = [1 + int((joins < layer).sum()) for layer in range(arch.n_layers + 1)]  # rows that enter each layer
    skipped = None if entering is None else _as_output(model, entering[None])
    with torch.no_grad(), model.nn.trace(_inputs(model, batch), **OPTIONS) as tracer:
        blocks = submodule(model.nn, family.blocks)
        for layer in range(start):
            blocks[layer].skip(skipped)
        for layer in range(start, arch.n_layers):
            block, is_last, joining = blocks[layer], layer == arch.n_layers - 1, sizes[layer + 1] - sizes[layer]
            rows, heads = removed[: sizes[layer + 1], layer].nonzero(as_tuple=True)
            if not (len(rows) or is_last):
                continue
            attention = submodule(block, family.attention)
            if joining or is_last:
                resid = block.input
                grown = torch.cat([resid, resid[:1].expand(joining, -1, -1)])
                block.input = grown[:, last] if is_last else grown
                if is_last:  # its keys and values are of all positions; normed by hand, as block.input is cut
                    norm = arch.attention_norm(layer)
                    attention.input = type(norm).forward(norm, resid)
                else:
                    attention.input = attention.input[: sizes[layer]]
            out_proj = submodule(attention, family.out_proj)
            z = out_proj.input[:, last] if is_last else out_proj.input
            z = torch.cat([z, z[:1].expand(joining, -1, -1)])
            z.unflatten(-1, (arch.n_heads, -1))[rows, :, heads] = 0
            out_proj.input = z
        final = submodule(model.nn, family.final_norm).output.flatten(0, 1)
        logits = submodule(model.nn, family.unembed)(final).float()
        label_logits, log_norm, best = (nnsight.save(x) for x in _read(logits, batch.repeat(sizes[-1])))
        tracer.stop()  # the model's own head expects as many rows as went in
    place = torch.zeros(len(zero), dtype=torch.long)
    place[order] = torch.arange(1, sizes[-1])
    prompts = (place[:, None] * len(last) + torch.arange(len(last))).flatten()
    return Answers(label_logits[prompts], log_norm[prompts], best[prompts])


def attributions(model: Model, batch: Batch) -> Float[Tensor, "L H B"]:
    """First-order estimate of the margin that each row's prompts lose, on average, without each head.

    The margin is the gold label's logit minus the other's. To first order, zeroing z costs z times the margin's
    gradient, summed over positions: one forward and one backward pass for all heads.
    """
    family, rows = model.arch.family, len(batch.input_ids)
    with torch.enable_grad(), model.nn.trace(_inputs(model, batch), **OPTIONS):
        all_z = nnsight.save([])
        for block in submodule(model.nn, family.blocks):
            all_z.append(submodule(submodule(block, family.attention), family.out_proj).input)
        norm = submodule(model.nn, family.final_norm)
        logits = submodule(model.nn, family.unembed)(norm.output[batch.row, batch.last]).float()
        labels = nnsight.save(logits.gather(1, batch.label_ids.to(logits.device)))
    gold = batch.gold.to(labels.device)
    margin = (labels[torch.arange(len(gold)), gold] - labels[torch.arange(len(gold)), 1 - gold]).cpu()
    means = margin / batch.row.bincount(minlength=rows)[batch.row]
    gradients = torch.autograd.grad(means.sum(), list(all_z))
    products = [(z.detach() * g).float().sum(1).cpu() for z, g in zip(all_z, gradients, strict=True)]
    return torch.stack(products).reshape(model.arch.n_layers, rows, model.arch.n_heads, -1).sum(-1).transpose(1, 2)


def cut(
    model: Model,
    batch: Batch,
    edges: Bool[Tensor, "B T T"],
    layers: range,
    intact: Capture | None = None,
) -> Answers:
    """Answers with attention edges cut in some layers, before the softmax, so that the other weights grow.

    Args:
        edges: True where a position (second axis) may no longer attend to another (third axis); a position
            always keeps the edge to itself.
        layers: the layers in which the edges are cut.
        intact: the same batch as captured with `inputs`: what the cut cannot change is taken from there, that is
            the layers below it, and all other positions if only last positions lose edges.
    """
    edges = edges & ~torch.eye(edges.shape[1], dtype=torch.bool)
    if intact is None or intact.inputs is None or not layers:
        return _answer(model, batch, cut=(layers, batch.allowed & ~edges))
    entering = intact.inputs[layers.start]
    elsewhere = edges.clone()
    elsewhere[batch.row, batch.last] = False
    if elsewhere.any() or not batch.even:
        return _answer(model, batch, start=layers.start, entering=entering, cut=(layers, batch.allowed & ~edges))
    lasts = batch.lasts()
    lost = edges[batch.row, batch.last].reshape(*lasts.input_ids.shape, -1)
    allowed = lasts.allowed & ~torch.nn.functional.pad(lost, (0, lost.shape[1]))
    with _remembered(intact) as cache:
        return _answer(
            model, lasts, start=layers.start, entering=_at_lasts(batch, entering), cut=(layers, allowed), cache=cache
        )


def without_position(
    model: Model,
    batch: Batch,
    heads: Sequence[tuple[int, int]],
    strength: float = 1.0,
    intact: Capture | None = None,
) -> tuple[Answers, Float[Tensor, "N K S"]]:
    """Answers when some heads' last position attends without the position term; later layers see the change.

    At the last position of every prompt z becomes (1 - strength) z + strength z', where z' comes from queries and
    keys without position (method page, equation eq-attention). Rotary families: neither is rotated. Families with
    position embeddings: these are subtracted from the residual before the norm, for queries and keys only (ours;
    what lower layers made of a position stays). Values and all other positions are as they were.

    Args:
        heads: K (layer, head) pairs, each once.
        intact: the same batch as captured with `inputs`; it is captured here if it is not given.

    Returns:
        the answers, and the attention of the last position over the prompt's own tokens in each of the heads, mixed
        in the same way.

    Raises:
        RuntimeError: the model's attention returns no weights.
    """
    if intact is None or intact.inputs is None:
        intact = capture(model, batch, inputs=True)
    assert intact.inputs is not None
    if not batch.even:
        raise ValueError("every row of the batch needs as many prompts as the others")
    family, lasts, inputs = model.arch.family, batch.lasts(), intact.inputs
    network: Any = model.arch.model
    layers = {layer: [head for other, head in heads if other == layer] for layer in sorted({i for i, _ in heads})}
    start = min(layers, default=0)
    skipped = _as_output(model, _at_lasts(batch, inputs[start]))
    embedded = None
    if family.rotary is None:  # what enters layer 0 beside the tokens' embeddings is their positions'
        with torch.no_grad():
            tokens = network.get_input_embeddings()(batch.input_ids.to(model.device))
        embedded = inputs[0].to(tokens) - tokens
    with (
        _remembered(intact) as cache,
        torch.no_grad(),
        model.nn.trace(_inputs(model, lasts), past_key_values=cache, **OPTIONS),
    ):
        weights = nnsight.save([])
        blocks = submodule(model.nn, family.blocks)
        for layer in range(start):
            blocks[layer].skip(skipped)
        for layer, chosen in layers.items():
            attention = submodule(blocks[layer], family.attention)
            entering = inputs[layer].to(model.device, model.dtype, copy=True)
            entering[batch.row, batch.last] = blocks[layer].input.flatten(0, 1)  # all others are as they were
            flat, z_flat = _flat_heads(model, batch, layer, chosen, entering, embedded)
            out_proj = submodule(attention, family.out_proj)
            z = out_proj.input.clone()
            heads_of_z = z.flatten(0, 1).unflatten(1, (model.arch.n_heads, -1))
            heads_of_z[:, chosen] += strength * (z_flat.to(z) - heads_of_z[:, chosen])
            out_proj.input = z
            own = _last_rows(attention.output[1], lasts)[:, chosen]
            weights.append(own + strength * (flat - own))
        norm = submodule(model.nn, family.final_norm)
        logits = submodule(model.nn, family.unembed)(norm.output.flatten(0, 1)).float()
        label_logits, log_norm, best = (nnsight.save(x) for x in _read(logits, batch))
    order = [(layer, head) for layer, chosen in layers.items() for head in chosen]
    mixed = torch.cat([torch.zeros(len(batch.row), 0, batch.index.shape[1]), *weights], dim=1)
    return Answers(label_logits, log_norm, best), mixed[:, [order.index((layer, head)) for layer, head in heads]]


def _as_output(model: Model, residual: Float[Tensor, "B T d"]) -> Any:
    """A residual as a skipped block returns it."""
    residual = residual.to(model.device, model.dtype)
    return (residual, None) if model.arch.family.returns_tuple else residual


def _at_lasts(batch: Batch, residual: Float[Tensor, "B T d"]) -> Float[Tensor, "B n d"]:
    return residual[batch.row, batch.last].reshape(len(residual), -1, residual.shape[-1])


@contextmanager
def _remembered(intact: Capture) -> Iterator[DynamicCache]:
    """The keys and values of a capture; what a forward adds to them is forgotten again."""
    assert intact.inputs is not None
    assert intact.cache is not None
    try:
        yield intact.cache
    finally:
        layers: Any = intact.cache.layers
        for layer in layers:
            if added := layer.get_seq_length() - intact.inputs.shape[2]:
                layer.crop(-added)


def _flat_heads(
    model: Model,
    batch: Batch,
    layer: int,
    heads: list[int],
    entering: Float[Tensor, "B T d"],
    embedded: Float[Tensor, "B T d"] | None,
) -> tuple[Float[Tensor, "N k S"], Float[Tensor, "N k d_h"]]:
    """Attention of the last positions and z of some heads, from queries and keys without their position term."""
    arch, norm = model.arch, model.arch.attention_norm(layer)
    normed = type(norm).forward  # not norm(x): inside a trace nnsight would take that for the model's own call
    plain = normed(norm, entering).float().cpu()
    without = plain if embedded is None else normed(norm, entering - embedded).float().cpu()
    row, own = batch.row[:, None], batch.index.clamp(min=0)
    w_v, b_v = (x[heads] for x in arch.w_v(layer))
    q = arch.queries(layer, without[batch.row, batch.last])[:, heads]
    k = arch.keys(layer, without)[:, :, heads]
    v = torch.einsum("btd,hde->bthe", plain, w_v) + b_v
    scores = torch.einsum("nhe,nshe->nhs", q, k[row, own]) * arch.score_scale(layer)
    weights = scores.masked_fill((batch.index < 0)[:, None], float("-inf")).softmax(-1)
    return weights, torch.einsum("nhs,nshe->nhe", weights, v[row, own])


def _answer(
    model: Model,
    batch: Batch,
    *,
    start: int = 0,
    entering: Float[Tensor, "B T d"] | None = None,
    cut: tuple[range, Bool[Tensor, "B T K"]] | None = None,
    cache: DynamicCache | None = None,
) -> Answers:
    """One forward from layer `start`, with another mask in some layers, behind what `cache` remembers."""
    family = model.arch.family
    skipped = None if entering is None else _as_output(model, entering)
    cut_layers, cut_mask = (range(0), None) if cut is None else (cut[0], _mask(model, cut[1]))
    with torch.no_grad(), model.nn.trace(_inputs(model, batch), past_key_values=cache, **OPTIONS):
        blocks = submodule(model.nn, family.blocks)
        for layer in range(start):
            blocks[layer].skip(skipped)
        for layer in cut_layers:
            attention = submodule(blocks[layer], family.attention)
            arguments, options = attention.inputs
            attention.inputs = (arguments, {**options, "attention_mask": cut_mask})
        norm = submodule(model.nn, family.final_norm)
        logits = submodule(model.nn, family.unembed)(norm.output[batch.row, batch.last]).float()
        label_logits, log_norm, best = (nnsight.save(x) for x in _read(logits, batch))
    return Answers(label_logits, log_norm, best)


def _mask(model: Model, allowed: Bool[Tensor, "B T K"]) -> Float[Tensor, "B 1 T K"]:
    """What is added to the attention scores: 0 where attention is allowed, the dtype's minimum elsewhere."""
    mask = torch.zeros(allowed.shape, dtype=model.dtype).masked_fill(~allowed, torch.finfo(model.dtype).min)
    return mask[:, None].to(model.device)


def _inputs(model: Model, batch: Batch) -> dict[str, Tensor]:
    """Model inputs with the packing's own mask and positions, never a padding side."""
    return {
        "input_ids": batch.input_ids.to(model.device),
        "position_ids": batch.position_ids.to(model.device),
        "attention_mask": _mask(model, batch.allowed),
    }


def _last_rows(attended: Tensor | None, batch: Batch) -> Float[Tensor, "N H S"]:
    """Attention of each prompt's last position, from packed to prompt coordinates."""
    if attended is None:
        raise RuntimeError("the model's attention returns no weights; load it with attn_implementation='eager'")
    rows = attended[batch.row, :, batch.last].float().cpu()
    index = batch.index[:, None].expand(-1, rows.shape[1], -1)
    return rows.gather(2, index.clamp(min=0)) * (index >= 0)


def _read(logits: Float[Tensor, "N V"], batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    labels = logits.gather(1, batch.label_ids.to(logits.device))
    return labels.cpu(), logits.logsumexp(-1).cpu(), logits.argmax(-1).cpu()

"""Changing: one forward with heads removed, attention edges cut, or attention without its position term.

As in `trace`, bodies of traces use nothing of this package. On this machine a forward goes on from what an earlier one
left: residuals (`start`, `entering`) and keys and values (`Capture.cache`). On a server all of that would have to
travel, so a forward there runs from layer 0, at every position: more computing, less transfer, the same answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import nnsight
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import DynamicCache

from .architecture import submodule
from .models import Model
from .packing import Batch
from .trace import (
    OPTIONS,
    Answers,
    Capture,
    Sites,
    attended_by_last,
    capture,
    inputs_of,
    mask_of,
    reading,
    require_weights,
)


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
    arch, last = model.arch, batch.last
    n_layers, n_heads, as_tuple = arch.n_layers, arch.n_heads, arch.family.returns_tuple
    joins = torch.where(zero.any(2).any(1), zero.any(2).int().argmax(1), n_layers)
    order = joins.argsort(stable=True)
    order = order[joins[order] < n_layers]  # the rows that remove something, by the layer at which they join
    removed = torch.cat([torch.zeros_like(zero[:1]), zero[order]])  # behind row 0, the intact one
    sizes = [1 + int((joins < layer).sum()) for layer in range(n_layers + 1)]  # rows that enter each layer
    sites, read = Sites.of(model), reading(batch.repeat(sizes[-1]))
    blocks, norms, attentions, out_projs = sites.blocks, sites.norms, sites.attentions, sites.out_projs
    final_norm, unembed = sites.final_norm, sites.unembed
    with torch.no_grad(), model.nn.trace(inputs_of(model, batch), backend=model.backend(), **OPTIONS) as tracer:
        if entering is not None:
            skipped = entering[None].to(final_norm.weight)
            for layer in range(start):
                blocks[layer].skip((skipped, None) if as_tuple else skipped)
        for layer in range(start, n_layers):
            is_last, joining = layer == n_layers - 1, sizes[layer + 1] - sizes[layer]
            rows, heads = removed[: sizes[layer + 1], layer].nonzero(as_tuple=True)
            if not (len(rows) or is_last):
                continue
            block, attention, out_proj = blocks[layer], attentions[layer], out_projs[layer]
            if joining or is_last:
                resid = block.input
                grown = torch.cat([resid, resid[:1].expand(joining, -1, -1)])
                block.input = grown[:, last] if is_last else grown
                if is_last:  # its keys and values are of all positions; normed by hand, as block.input is cut
                    attention.input = norms[layer](resid)
                else:
                    attention.input = attention.input[: sizes[layer]]
            z = out_proj.input[:, last] if is_last else out_proj.input
            z = torch.cat([z, z[:1].expand(joining, -1, -1)])
            z.unflatten(-1, (n_heads, -1))[rows, :, heads] = 0
            out_proj.input = z
        label_logits, log_norm, best = (
            nnsight.save(x) for x in read(unembed(final_norm.output.flatten(0, 1)).detach().float())
        )
        tracer.stop()  # the model's own head expects as many rows as went in
    place = torch.zeros(len(zero), dtype=torch.long)
    place[order] = torch.arange(1, sizes[-1])
    prompts = (place[:, None] * len(last) + torch.arange(len(last))).flatten()
    return Answers(label_logits[prompts], log_norm[prompts], best[prompts])


def subtract(model: Model, batch: Batch, layer: int, head: int) -> Answers:
    """Answers when what a head writes, z[h] W_O[h], is taken away behind the output projection, at every position.

    The same as `ablate` of that head, the other way round: with the weights that `Architecture` gives.
    """
    sites, read, part = Sites.of(model), reading(batch), slice(head * model.arch.d_head, (head + 1) * model.arch.d_head)
    out_proj, norm, unembed, row, last = sites.out_projs[layer], sites.final_norm, sites.unembed, batch.row, batch.last
    w_o = model.arch.w_o(layer)[head]
    with torch.no_grad(), model.nn.trace(inputs_of(model, batch), backend=model.backend(), **OPTIONS):
        z = out_proj.input[..., part]
        output = out_proj.output
        out_proj.output = output - (z.float() @ w_o.to(z.device)).to(output)
        label_logits, log_norm, best = (nnsight.save(x) for x in read(unembed(norm.output[row, last]).detach().float()))
    return Answers(label_logits, log_norm, best)


def attributions(model: Model, batch: Batch) -> Float[Tensor, "L H B"]:
    """First-order estimate of the margin that each row's prompts lose, on average, without each head.

    The margin is the gold label's logit minus the other's. To first order, zeroing z costs z times the margin's
    gradient, summed over positions: one forward and one backward pass for all heads.
    """
    sites, row, last, n_heads, label_ids = Sites.of(model), batch.row, batch.last, model.arch.n_heads, batch.label_ids
    first, out_projs, norm, unembed = sites.blocks[0], sites.out_projs, sites.final_norm, sites.unembed
    sign = torch.nn.functional.one_hot(batch.gold, 2) * 2 - 1  # of each label's logit in the margin
    shares = sign / row.bincount()[row, None]
    with torch.enable_grad(), model.nn.trace(inputs_of(model, batch), backend=model.backend(), **OPTIONS):
        first.input = first.input.detach().requires_grad_()  # a server's weights may be frozen
        all_z = [out_proj.input for out_proj in out_projs]
        logits = unembed(norm.output[row, last]).float()
        margins = logits.gather(1, label_ids.to(logits.device)) * shares.to(logits.device)
        gradients = torch.autograd.grad(margins.sum(), all_z)
        products = [(z.detach() * g).float().sum(1) for z, g in zip(all_z, gradients, strict=True)]
        lost = nnsight.save(torch.stack([p.unflatten(-1, (n_heads, -1)).sum(-1).cpu() for p in products]))
    return lost.transpose(1, 2)


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
    if model.remote or intact is None or intact.inputs is None or not layers:
        return _answer(model, batch, (layers, batch.allowed & ~edges))
    entering = intact.inputs[layers.start]
    elsewhere = edges.clone()
    elsewhere[batch.row, batch.last] = False
    if elsewhere.any() or not batch.even:
        return _answer(model, batch, (layers, batch.allowed & ~edges), start=layers.start, entering=entering)
    lasts = batch.lasts()
    lost = edges[batch.row, batch.last].reshape(*lasts.input_ids.shape, -1)
    allowed = lasts.allowed & ~torch.nn.functional.pad(lost, (0, lost.shape[1]))
    with _remembered(intact) as cache:
        return _answer(
            model, lasts, (layers, allowed), start=layers.start, entering=_at_lasts(batch, entering), cache=cache
        )


def _answer(
    model: Model,
    batch: Batch,
    cut: tuple[range, Bool[Tensor, "B T K"]],
    *,
    start: int = 0,
    entering: Float[Tensor, "B T d"] | None = None,
    cache: DynamicCache | None = None,
) -> Answers:
    """One forward from layer `start`, with another mask in some layers, behind what `cache` remembers."""
    sites, read, row, last = Sites.of(model), reading(batch), batch.row, batch.last
    blocks, attentions, norm, unembed = sites.blocks, sites.attentions, sites.final_norm, sites.unembed
    cut_layers, mask, as_tuple = cut[0], mask_of(model, cut[1]), model.arch.family.returns_tuple
    with (
        torch.no_grad(),
        model.nn.trace(inputs_of(model, batch), past_key_values=cache, backend=model.backend(), **OPTIONS),
    ):
        if entering is not None:
            skipped = entering.to(norm.weight)
            for layer in range(start):
                blocks[layer].skip((skipped, None) if as_tuple else skipped)
        for layer in cut_layers:
            arguments, options = attentions[layer].inputs
            attentions[layer].inputs = (arguments, {**options, "attention_mask": mask.to(norm.weight.device)})
        label_logits, log_norm, best = (nnsight.save(x) for x in read(unembed(norm.output[row, last]).detach().float()))
    return Answers(label_logits, log_norm, best)


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
        intact: the same batch as captured with `inputs`; it is captured here if it is not given. A server runs
            all positions again instead.

    Returns:
        the answers, and the attention of the last position over the prompt's own tokens in each of the heads, mixed
        in the same way.

    Raises:
        RuntimeError: the model's attention returns no weights.
    """
    if not batch.even:
        raise ValueError("every row of the batch needs as many prompts as the others")
    layers = {layer: [head for other, head in heads if other == layer] for layer in sorted({i for i, _ in heads})}
    if model.remote:
        answered, weights = _flattened(model, batch, batch, layers, strength)
    else:
        if intact is None or intact.inputs is None:
            intact = capture(model, batch, inputs=True)
        with _remembered(intact) as cache:
            answered, weights = _flattened(model, batch, batch.lasts(), layers, strength, intact.inputs, cache)
    order = [(layer, head) for layer, chosen in layers.items() for head in chosen]
    mixed = torch.cat([torch.zeros(len(batch.row), 0, batch.index.shape[1]), *weights], dim=1)
    return answered, mixed[:, [order.index((layer, head)) for layer, head in heads]]


def _flattened(
    model: Model,
    batch: Batch,
    run: Batch,
    layers: dict[int, list[int]],
    strength: float,
    inputs: Float[Tensor, "L B T d"] | None = None,
    cache: DynamicCache | None = None,
) -> tuple[Answers, list[Float[Tensor, "N k S"]]]:
    """The forward of `without_position`, over `run`: all of `batch`, or its last positions alone, behind `cache`.

    In the second case `inputs` says what enters each layer at the other positions.
    """
    arch, family, sites = model.arch, model.arch.family, Sites.of(model)
    start = 0 if inputs is None else min(layers, default=0)
    entering = None if inputs is None else _at_lasts(batch, inputs[start])
    elsewhere = {} if inputs is None else {layer: inputs[layer] for layer in layers}
    blocks, norms, attentions, out_projs = sites.blocks, sites.norms, sites.attentions, sites.out_projs
    norm, unembed, as_tuple = sites.final_norm, sites.unembed, family.returns_tuple
    projections = {i: [submodule(attentions[i], path) for path in family.projections] for i in layers}
    head_norms = {i: [submodule(attentions[i], n) for n in (family.query_norm, family.key_norm) if n] for i in layers}
    scales, kv_heads = {i: arch.score_scale(i) for i in layers}, arch.n_heads // arch.n_kv_heads
    embedding = submodule(model.nn, family.positions) if family.positions else None
    position_ids, row, last, run_row, run_last = batch.position_ids, batch.row, batch.last, run.row, run.last
    rows, own, outside = batch.row[:, None], batch.index.clamp(min=0), (batch.index < 0)[:, None]
    read, attended, n_heads = reading(run), attended_by_last(model, run), arch.n_heads
    shape, axis = arch.fused_shape, family.fused
    split = lambda x: x.unflatten(-1, shape).unbind(axis)  # noqa: E731 - a function would not travel
    per_head = lambda x, size: x.unflatten(-1, (-1, size))  # noqa: E731
    size = arch.d_head
    with (
        torch.no_grad(),
        model.nn.trace(inputs_of(model, run), past_key_values=cache, backend=model.backend(), **OPTIONS),
    ):
        weights = nnsight.save([])
        if entering is not None:
            skipped = entering.to(norm.weight)
            for layer in range(start):
                blocks[layer].skip((skipped, None) if as_tuple else skipped)
        for layer, chosen in layers.items():
            resid = blocks[layer].input
            if elsewhere:
                everywhere = elsewhere[layer].to(resid, copy=True)
                everywhere[row, last] = resid[run_row, run_last]
                resid = everywhere
            normed = norms[layer](resid)
            bare = normed
            if embedding is not None:
                bare = norms[layer](resid - embedding(position_ids.to(resid.device)))
            if len(projections[layer]) == 1:
                (q, k, _), (_, _, v) = split(projections[layer][0](bare)), split(projections[layer][0](normed))
            else:
                to_q, to_k, to_v = projections[layer]
                q, k, v = per_head(to_q(bare), size), per_head(to_k(bare), size), per_head(to_v(normed), size)
            if head_norms[layer]:
                q, k = head_norms[layer][0](q), head_norms[layer][1](k)
            shared = [head // kv_heads for head in chosen]
            q, k, v = q[row, last][:, chosen].float(), k[:, :, shared].float(), v[:, :, shared].float()
            scores = torch.einsum("nhe,nshe->nhs", q, k[rows, own]) * scales[layer]
            flat = scores.masked_fill(outside.to(scores.device), float("-inf")).softmax(-1)
            z = out_projs[layer].input.clone()
            by_head = z.unflatten(-1, (n_heads, -1))
            mixed = by_head[run_row, run_last]
            mixed[:, chosen] += strength * (torch.einsum("nhs,nshe->nhe", flat, v[rows, own]).to(z) - mixed[:, chosen])
            by_head[run_row, run_last] = mixed
            out_projs[layer].input = z
            real = attended(attentions[layer].output[1])
            weights.append(None if real is None else real[:, chosen] + strength * (flat.to(real) - real[:, chosen]))
        label_logits, log_norm, best = (
            nnsight.save(x) for x in read(unembed(norm.output[run_row, run_last]).detach().float())
        )
    require_weights(weights)
    return Answers(label_logits, log_norm, best), [weight.float() for weight in weights]


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

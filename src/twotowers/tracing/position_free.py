"""Attention without its position term, in some heads, at the last position."""

from __future__ import annotations

from collections.abc import Sequence

import nnsight
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from ..models.architecture import submodule
from ..models.model import Model
from ..prompts.packing import Batch
from .answers import Answers, reading
from .capture import (
    OPTIONS,
    Capture,
    Sites,
    at_lasts,
    attended_by_last,
    capture,
    inputs_of,
    remembered,
    require_weights,
)
from .exchange import in_choices
from .heads import Head, by_layer
from .projection import values_of
from .rewriting import rewrite


def without_position(
    model: Model,
    batch: Batch,
    heads: Sequence[Head],
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
        ModelError: the model's attention returns no weights.
    """
    if not batch.even:
        raise ValueError("every row of the batch needs as many prompts as the others")
    layers = by_layer(heads)
    if model.remote:
        answered, weights = _flattened(model, batch, batch, layers, strength)
    else:
        if intact is None or intact.inputs is None:
            intact = capture(model, batch, inputs=True)
        with remembered(intact) as cache:
            answered, weights = _flattened(model, batch, batch.lasts(), layers, strength, intact.inputs, cache)
    order = [(layer, head) for layer, chosen in layers.items() for head in chosen]
    mixed = torch.cat([torch.zeros(len(batch.row), 0, batch.index.shape[1]), *weights], dim=1)
    return answered, mixed[:, [order.index((layer, head)) for layer, head in heads]]


def without_position_in(model: Model, batch: Batch, intact: Capture, groups: Sequence[Sequence[Head]]) -> list[Answers]:
    """`without_position` at strength 1 for several groups of heads in one forward; an empty one is the intact model.

    Here z of every head is computed from the intact run's queries, keys and values, as in the exchange test. In heads
    of one layer that is the same; of heads in several, the upper ones do not ask anew for what the lower ones change.

    Args:
        batch: one packed prompt set.
        intact: the same batch as captured with `inputs`.
    """
    z = _position_free_z(model, batch, intact, sorted({head for heads in groups for head in heads}))
    answered = rewrite(model, batch, intact, [{head: z[head] for head in heads} for heads in groups])
    return in_choices(answered, len(groups))


def _position_free_z(
    model: Model, batch: Batch, intact: Capture, heads: Sequence[Head]
) -> dict[Head, Float[Tensor, "N d_h"]]:
    """z of each head at the last position, from queries and keys without position."""
    assert intact.inputs is not None
    arch, rows, own = model.arch, batch.row[:, None], batch.index.clamp(min=0)
    places = arch.embedded_positions(batch.position_ids)
    found: dict[Head, Tensor] = {}
    for layer, chosen in by_layer(heads).items():
        bare = arch.norm_in(layer, intact.inputs[layer] - places)
        q = arch.queries(layer, bare[batch.row, batch.last])[:, chosen]
        k = arch.keys(layer, bare)[:, :, chosen][rows, own]
        v = values_of(arch, intact, layer, chosen)[rows, own]
        scores = arch.scores(layer, torch.einsum("nhe,nshe->nhs", q, k))
        weights = scores.masked_fill((batch.index < 0)[:, None], float("-inf")).softmax(-1)
        z = torch.einsum("nhs,nshe->nhe", weights, v)
        found |= {(layer, head): z[:, i] for i, head in enumerate(chosen)}
    return found


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

    In the second case `inputs` says what enters each layer at the other positions. In each of the layers, from below:
    1. the residual that enters at every position, that of last positions from the running model;
    2. the norm of it, and once more without position embeddings, where the family has them;
    3. queries of last positions, keys and values of all, by the model's own projections, and not rotated;
    4. their scores, softmaxed over the prompt's own tokens, and z from these weights;
    5. z of the chosen heads at last positions moves towards it by `strength`, before W_O; so do the weights told.
    """
    arch, family, sites = model.arch, model.arch.family, Sites.of(model)
    start = 0 if inputs is None else min(layers, default=0)
    entering = None if inputs is None else at_lasts(batch, inputs[start])
    elsewhere = {} if inputs is None else {layer: inputs[layer] for layer in layers}
    blocks, norms, attentions, out_projs = sites.blocks, sites.norms, sites.attentions, sites.out_projs
    norm, unembed, like, as_tuple = sites.final_norm, sites.unembed, sites.like, family.returns_tuple
    projections = {i: [submodule(attentions[i], path) for path in family.projections] for i in layers}
    head_norms = {i: [submodule(attentions[i], n) for n in (family.query_norm, family.key_norm) if n] for i in layers}
    kv_heads = arch.n_heads // arch.n_kv_heads
    scales, caps = {i: arch.score_scale(i) for i in layers}, {i: arch.score_cap(i) for i in layers}
    embedding = submodule(model.nn, family.positions) if family.positions else None
    position_ids, row, last, run_row, run_last = batch.position_ids, batch.row, batch.last, run.row, run.last
    rows, own, outside = batch.row[:, None], batch.index.clamp(min=0), (batch.index < 0)[:, None]
    read, attended, n_heads = reading(run), attended_by_last(model, run), arch.n_heads
    split, size, offset = arch.split, arch.d_head, family.position_offset
    per_head = lambda x: x.unflatten(-1, (-1, size))  # noqa: E731 - a function would not travel
    together = arch.norms_heads_together
    with (
        torch.no_grad(),
        model.nn.trace(inputs_of(model, run), past_key_values=cache, backend=model.backend(), **OPTIONS),
    ):
        weights = nnsight.save([])
        if entering is not None:
            skipped = entering.to(like.weight)
            for layer in range(start):
                blocks[layer].skip((skipped, None) if as_tuple else skipped)
        for layer, chosen in layers.items():
            resid = blocks[layer].input  # [B, T, d], or of last positions only: [B, n, d]
            if elsewhere:
                everywhere = elsewhere[layer].to(resid, copy=True)
                everywhere[row, last] = resid[run_row, run_last]
                resid = everywhere
            normed = norms[layer](resid)
            bare = normed
            if embedding is not None:
                bare = norms[layer](resid - embedding.weight[position_ids.to(resid.device) + offset])
            if len(projections[layer]) == 1:
                (q, k, _), (_, _, v) = split(projections[layer][0](bare)), split(projections[layer][0](normed))
            else:
                to_q, to_k, to_v = projections[layer]
                q, k, v = per_head(to_q(bare)), per_head(to_k(bare)), per_head(to_v(normed))
            if head_norms[layer] and together:
                q, k = (per_head(own(x.flatten(-2))) for own, x in zip(head_norms[layer], (q, k), strict=True))
            elif head_norms[layer]:
                q, k = head_norms[layer][0](q), head_norms[layer][1](k)
            shared = [head // kv_heads for head in chosen]
            q, k, v = q[row, last][:, chosen].float(), k[:, :, shared].float(), v[:, :, shared].float()
            # from packed to prompt coordinates: k[rows, own] is [N, S, h, d_h], arbitrary beyond a prompt's end
            scores = torch.einsum("nhe,nshe->nhs", q, k[rows, own]) * scales[layer]
            cap = caps[layer]
            if cap is not None:
                scores = torch.tanh(scores / cap) * cap
            flat = scores.masked_fill(outside.to(scores.device), float("-inf")).softmax(-1)
            z = out_projs[layer].input.clone()
            by_head = z.unflatten(-1, (n_heads, -1))  # a view, so that what is put in changes z
            mixed = by_head[run_row, run_last]  # [N, H, d_h]
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

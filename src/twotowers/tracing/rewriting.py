"""Rewriting: one forward in which some heads' z at the last position is replaced by what is given.

Nothing before the last positions can change, so they run alone behind the keys and values that the intact forward left,
as often as there are choices of heads. A server runs whole prompts instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import nnsight
import torch
from jaxtyping import Float
from torch import Tensor

from ..models.model import Model
from ..prompts.packing import Batch
from .answers import Answers, Reading, reading, require_finite
from .capture import OPTIONS, Capture, Sites, at_lasts, inputs_of, remembered
from .contrasts import differences
from .heads import Head

Choice = Mapping[Head, Float[Tensor, "N d_h"]]  # heads, and what each one's z becomes in all N prompts
COLUMNS = 512  # last positions of one forward


def rewrite(model: Model, batch: Batch, intact: Capture, choices: Sequence[Choice]) -> Answers:
    """Answers of one prompt set, once for each choice of heads, whose z at the last position is replaced.

    Args:
        batch: one packed prompt set.
        intact: the same batch as captured with `inputs`.
        choices: an empty one is the intact model; layers above what is written run on from the change.

    Returns:
        answers of choices x N prompts, choice by choice.
    """
    parts = [
        Answers(*_rewrite(model, batch, intact, part, reading(batch.repeat(len(part)))))
        for part in _parts(batch, intact, choices)
    ]
    return Answers.cat(parts)


def rewritten_differences(
    model: Model, batch: Batch, intact: Capture, choices: Sequence[Choice]
) -> Float[Tensor, "choices N k1"]:
    """The gold label's logit minus that of each other label (`contrasts.differences`), and nothing else.

    The vocabulary, most of the work, is not read.

    Args:
        batch, intact, choices: as of `rewrite`.
    """
    arch, ids = model.arch, batch.label_ids
    rows, bias = arch.w_u()[ids], arch.unembed_bias()  # [N, k, d]
    constant = 0.0 if bias is None else bias[ids]
    normed = [
        _rewrite(model, batch, intact, part, None)[0].unflatten(0, (len(part), -1))
        for part in _parts(batch, intact, choices)
    ]
    logits = arch.capped(torch.einsum("cnd,nkd->cnk", torch.cat(normed), rows) + constant)
    apart = differences(logits.flatten(0, 1), batch.gold.repeat(len(logits))).unflatten(0, (len(logits), -1))
    require_finite(apart)
    return apart


def _parts(batch: Batch, intact: Capture, choices: Sequence[Choice]) -> list[Sequence[Choice]]:
    """As many choices as one forward has columns for."""
    if len(batch.input_ids) != 1 or intact.inputs is None:
        raise ValueError("heads are rewritten in one prompt set, captured with its inputs")
    size = max(1, COLUMNS // len(batch.row))
    return [choices[i : i + size] for i in range(0, len(choices), size)]


def _rewrite(
    model: Model, batch: Batch, intact: Capture, choices: Sequence[Choice], read: Reading | None
) -> tuple[Tensor, ...]:
    """What `read` keeps of the logits; without it, the residuals behind the final norm, choices x N of them."""
    assert intact.inputs is not None
    here, writes = intact.cache is not None, _by_layer(choices)
    run = batch.lasts(len(choices)) if here else batch.repeat(len(choices))
    start = min(writes, default=model.arch.n_layers - 1) if here else 0
    entering = at_lasts(batch, intact.inputs[start]).repeat(1, len(choices), 1)
    sites, row, last = Sites.of(model), run.row, run.last
    blocks, out_projs, norm, unembed, like = sites.blocks, sites.out_projs, sites.final_norm, sites.unembed, sites.like
    n_heads, as_tuple, n = model.arch.n_heads, model.arch.family.returns_tuple, len(batch.row)
    with (
        remembered(intact) if here else nullcontext() as cache,
        torch.no_grad(),
        model.nn.trace(inputs_of(model, run), past_key_values=cache, backend=model.backend(), **OPTIONS),
    ):
        skipped = entering.to(like.weight)
        for layer in range(start):
            blocks[layer].skip((skipped, None) if as_tuple else skipped)
        for layer, choice, head, new in writes.values():
            z = out_projs[layer].input.clone()
            by_head = z.unflatten(-1, (n_heads, -1))
            at_last = by_head[row, last].unflatten(0, (-1, n))  # [choices, N, H, d_h]
            at_last[choice, :, head] = new.to(at_last)
            by_head[row, last] = at_last.flatten(0, 1)
            out_projs[layer].input = z
        normed = norm.output[row, last].detach()
        kept = nnsight.save((normed.float().cpu(),) if read is None else read(unembed(normed).float()))
    return tuple(kept)


def _by_layer(choices: Sequence[Choice]) -> dict[int, tuple[int, list[int], list[int], Float[Tensor, "K N d_h"]]]:
    """What is written in each layer, from below: the layer, numbers of choices, heads, and their z."""
    found = defaultdict(list)
    for number, choice in enumerate(choices):
        for (layer, head), z in choice.items():
            found[layer].append((number, head, z))
    return {
        layer: (
            layer,
            [c for c, _, _ in found[layer]],
            [h for _, h, _ in found[layer]],
            torch.stack([z for *_, z in found[layer]]),
        )
        for layer in sorted(found)
    }

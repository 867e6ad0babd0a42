"""Changing: one forward with heads removed, attention edges cut, or attention without its position term.

As in `trace`, bodies of traces use nothing of this package. On this machine a forward goes on from what an earlier one
left: residuals (`start`, `entering`) and keys and values (`Capture.cache`). On a server all of that would have to
travel, so a forward there runs from layer 0, at every position: more computing, less transfer, the same answers.
"""

from __future__ import annotations

import nnsight
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..models.model import Model
from ..prompts.packing import Batch
from .answers import Answers, reading
from .capture import OPTIONS, Sites, inputs_of
from .contrasts import mean_of_others


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
    final_norm, unembed, like = sites.final_norm, sites.unembed, sites.like
    with torch.no_grad(), model.nn.trace(inputs_of(model, batch), backend=model.backend(), **OPTIONS) as tracer:
        if entering is not None:
            skipped = entering[None].to(like.weight)
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
    w_o = model.arch.w_o(layer, bare=True)[head]
    with torch.no_grad(), model.nn.trace(inputs_of(model, batch), backend=model.backend(), **OPTIONS):
        z = out_proj.input[..., part]
        output = out_proj.output
        out_proj.output = output - (z.float() @ w_o.to(z.device)).to(output)
        label_logits, log_norm, best = (nnsight.save(x) for x in read(unembed(norm.output[row, last]).detach().float()))
    return Answers(label_logits, log_norm, best)


def attributions(model: Model, batch: Batch) -> Float[Tensor, "L H B"]:
    """First-order estimate of the margin that each row's prompts lose, on average, without each head.

    The margin is the gold label's logit minus the other's, or minus the mean of all others. To first order, zeroing z
    costs z times the margin's gradient, summed over positions: one forward and one backward pass for all heads.
    """
    sites, row, last, n_heads, label_ids = Sites.of(model), batch.row, batch.last, model.arch.n_heads, batch.label_ids
    first, out_projs, norm, unembed = sites.blocks[0], sites.out_projs, sites.final_norm, sites.unembed
    sign = mean_of_others(batch.gold, label_ids.shape[1])  # of each label's logit in the margin
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

"""What arrives from every label position through every head: by the gradient of the whole model, and as it is written.

To first order, the margin holds pattern * (v . d margin / d z) of a position: one forward and one backward pass for all
heads. What a head writes straight into the logits is pattern * M(vo), towards the gold label.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import nnsight
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..models.model import Model
from ..prompts.packing import Batch, pack
from ..prompts.sets import PromptSet
from .answers import Answers
from .capture import OPTIONS, Capture, Sites, at_lasts, capture, inputs_of, remembered
from .contrasts import mean_of_others, one_other, targets
from .labels import label_positions
from .projection import label_direction, values_minus, values_of


@dataclass(frozen=True)
class LabelEdges:
    """Edges from R label positions to the last position, of one prompt set.

    Attributes:
        frame: a row per prompt and demonstration, as `label_positions`.
        weight: attention.
        moved: first-order share in the margin (gold minus other, in logits) of what arrives from there; of more than
            two labels the other is the next, as in `exchange`.
        written: what arrives, straight in the logits, gold minus other.
        own: first-order share of what arrives in the logit of the position's own label minus the mean of all others.
    """

    frame: pd.DataFrame
    answers: Answers
    weight: Float[Tensor, "L R H"]
    moved: Float[Tensor, "L R H"]
    written: Float[Tensor, "L R H"]
    own: Float[Tensor, "L R H"]


def label_edges(model: Model, s: PromptSet, number: int = 0) -> LabelEdges:
    """The edges of one set, of this number; what is wanted of them is a part of a `sweep`, they are too large."""
    batch = pack([s], model.pad_id)
    intact, frame = capture(model, batch, pattern=True, inputs=True), label_positions([s], number)
    assert intact.pattern is not None
    arch, counts = model.arch, one_other(batch.gold, targets(s), len(s.labels))
    gradients = margin_gradients(model, batch, intact, counts)
    prompt, position = (torch.tensor(frame[name].to_numpy()) for name in ("prompt", "position"))
    row, place = batch.row[prompt], batch.index[prompt, position]
    towards = label_direction(arch, intact, batch, counts)
    own_gradients = _own_gradients(model, s, batch, intact, frame, gradients)
    heads, weights, moved, written, own = range(arch.n_heads), [], [], [], []
    for layer in range(arch.n_layers):
        weight = intact.pattern[layer][prompt, :, position]  # [R, H]
        values = values_of(arch, intact, layer, heads)[row, place]  # [R, H, d_h]
        weights.append(weight)
        moved.append(weight * (values * gradients[layer][prompt]).sum(-1))
        own.append(weight * (values * own_gradients(layer)).sum(-1))
        written.append(weight * values_minus(arch, intact, batch, layer, heads, towards)[prompt, :, position])
    return LabelEdges(frame, intact.answers, *map(torch.stack, (weights, moved, written, own)))


def _own_gradients(
    model: Model, s: PromptSet, batch: Batch, intact: Capture, frame: pd.DataFrame, gradients: Tensor
) -> Callable[[int], Float[Tensor, "R H d_h"]]:
    """By layer, the gradient of the logit of each label position's own label minus the mean of all others.

    Args:
        gradients: of the margins against the next label; of two labels they say it all, but for the sign.
    """
    prompt = torch.tensor(frame["prompt"].to_numpy())
    if len(s.labels) == 2:
        sign = torch.where(torch.tensor(frame["same"].to_numpy()), 1.0, -1.0)[:, None, None]
        return lambda layer: gradients[layer][prompt] * sign
    each = [
        margin_gradients(model, batch, intact, mean_of_others(torch.full_like(batch.gold, n), len(s.labels)))
        for n in range(len(s.labels))
    ]
    label = torch.tensor([s.labels.index(name) for name in frame["label"]])
    return lambda layer: torch.stack([own[layer] for own in each])[label, prompt]


def margin_gradients(
    model: Model, batch: Batch, intact: Capture, counts: Float[Tensor, "N k"]
) -> Float[Tensor, "L N H d_h"]:
    """Gradient of every prompt's margin by z at its last position.

    Args:
        intact: the batch as captured with `inputs`, whose keys and values a forward of the last positions goes on from.
        counts: of each label's logit in the margin, as `contrasts` gives them.
    """
    here = intact.cache is not None
    run = batch.lasts() if here else batch
    sites, row, last, label_ids = Sites.of(model), run.row, run.last, run.label_ids
    first, out_projs, norm, unembed = sites.blocks[0], sites.out_projs, sites.final_norm, sites.unembed
    like = sites.like
    assert intact.inputs is not None
    entering = at_lasts(batch, intact.inputs[0]) if here else None
    with (
        remembered(intact) if here else nullcontext() as cache,
        torch.enable_grad(),
        model.nn.trace(inputs_of(model, run), past_key_values=cache, backend=model.backend(), **OPTIONS),
    ):
        resid = first.input if entering is None else entering.to(like.weight)
        first.input = resid.detach().requires_grad_()  # a server's weights may be frozen
        all_z = [out_proj.input for out_proj in out_projs]
        logits = unembed(norm.output[row, last]).float()
        margins = logits.gather(1, label_ids.to(logits.device)) * counts.to(logits.device)
        gradients = nnsight.save([g[row, last].detach().cpu() for g in torch.autograd.grad(margins.sum(), all_z)])
    return torch.stack(list(gradients)).float().unflatten(-1, (model.arch.n_heads, model.arch.d_head))

"""Cutting: one forward with attention edges removed in some layers."""

from __future__ import annotations

import nnsight
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import DynamicCache

from ..models.model import Model
from ..prompts.packing import Batch
from .answers import Answers, reading
from .capture import OPTIONS, Capture, Sites, at_lasts, inputs_of, mask_of, remembered


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
    with remembered(intact) as cache:
        return _answer(
            model, lasts, (layers, allowed), start=layers.start, entering=at_lasts(batch, entering), cache=cache
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
    blocks, attentions, like = sites.blocks, sites.attentions, sites.like
    norm, unembed = sites.final_norm, sites.unembed
    cut_layers, mask, as_tuple = cut[0], mask_of(model, batch, cut[1]), model.arch.family.returns_tuple
    with (
        torch.no_grad(),
        model.nn.trace(inputs_of(model, batch), past_key_values=cache, backend=model.backend(), **OPTIONS),
    ):
        if entering is not None:
            skipped = entering.to(like.weight)
            for layer in range(start):
                blocks[layer].skip((skipped, None) if as_tuple else skipped)
        for layer in cut_layers:
            arguments, options = attentions[layer].inputs
            attentions[layer].inputs = (arguments, {**options, "attention_mask": mask.to(like.weight.device)})
        label_logits, log_norm, best = (nnsight.save(x) for x in read(unembed(norm.output[row, last]).detach().float()))
    return Answers(label_logits, log_norm, best)

"""Count-balanced attention: some heads' last position no longer sees how often each label is shown.

Each label position's weight is divided by the number of demonstrations of its label, and label positions keep their
total. It is ours, a remedy for the majority bias beside the paper's (method page, equation eq-balance).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import nnsight
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..models.model import Model
from ..models.parallel import all_heads
from ..models.surroundings import undisturbed
from ..prompts.packing import Batch, pack
from ..prompts.sets import PromptSet, as_sets
from .answers import Answers, outcome_table, reading
from .capture import OPTIONS, Capture, Sites, at_lasts, capture, inputs_of, remembered
from .exchange import in_choices
from .heads import Head, Heads, as_heads, by_layer
from .projection import values_of
from .sweep import sweep


@undisturbed
def balance_attention(model: Model, prompt_sets: PromptSet | Sequence[PromptSet], heads: Heads) -> pd.DataFrame:
    """Answer every prompt under count-balanced attention in some heads, at the last position; later layers run on.

    With as many demonstrations of either label, nothing changes.

    Returns:
        a row per prompt: `group` (0), `set, query, label, accuracy, accuracy_two_way, margin`, as `outcomes`.

    Raises:
        HeadError: no such head.
    """
    sets = as_sets(model, prompt_sets)
    return balanced(model, sets, [heads])


def balanced(model: Model, sets: Sequence[PromptSet], groups: Sequence[Heads]) -> pd.DataFrame:
    """As `balance_attention` for several groups in one pass over the sets; an empty one is the intact model."""
    members = [as_heads(model, heads) for heads in groups]

    def of_set(index: int, s: PromptSet) -> pd.DataFrame:
        batch = pack([s], model.pad_id)
        # of a server it is not known whether its attention gives weights: the capture finds out
        intact = capture(model, batch, inputs=True, pattern=bool(model.remote))
        rows = in_choices(_balanced(model, s, batch, intact, members), len(members))
        return pd.concat([outcome_table(part, s, number, index) for number, part in enumerate(rows)], ignore_index=True)

    return pd.concat(sweep(model, sets, "balance", members, of_set), ignore_index=True)


def _balanced(model: Model, s: PromptSet, batch: Batch, intact: Capture, groups: Sequence[Sequence[Head]]) -> Answers:
    """One forward for all groups; the weights are those of the running model, the values of label positions intact."""
    layers = by_layer(sorted({head for heads in groups for head in heads}))
    here, copies = intact.cache is not None, len(groups)
    run = batch.lasts(copies) if here else batch.repeat(copies)
    start = min(layers, default=model.arch.n_layers - 1) if here else 0
    assert intact.inputs is not None
    entering = at_lasts(batch, intact.inputs[start]).repeat(1, copies, 1)
    place = torch.stack([batch.index[n, list(p.label_positions)] for n, p in enumerate(s.prompts)])  # [N, P]
    written = [
        (layer, *_values_out(model, batch, intact, layer, own, place), _chosen(groups, layer, own), own)
        for layer, own in layers.items()
    ]
    shown = [label for _, label in s.demonstrations]
    counts = torch.tensor([float(shown.count(label)) for label in shown])[:, None]  # [P, 1]
    sites, read, row, last, n = Sites.of(model), reading(run), run.row, run.last, len(batch.row)
    blocks, attentions, like = sites.blocks, sites.attentions, sites.like
    norm, unembed = sites.final_norm, sites.unembed
    as_tuple, rows, lasts = model.arch.family.returns_tuple, row[:, None], last[:, None]
    places = place.repeat(copies, 1)
    whole = all_heads if model.tensor_parallel else lambda weights: weights
    with (
        remembered(intact) if here else nullcontext() as cache,
        torch.no_grad(),
        model.nn.trace(inputs_of(model, run), past_key_values=cache, backend=model.backend(), **OPTIONS),
    ):
        skipped = entering.to(like.weight)
        for layer in range(start):
            blocks[layer].skip((skipped, None) if as_tuple else skipped)
        for layer, v, w_o, chosen, own in written:
            output, pattern = attentions[layer].output[:2]
            w = whole(pattern)[rows, :, lasts, places][..., own].float().cpu()  # [G N, P, h]
            fair = w / counts
            fair = fair * w.sum(1, keepdim=True) / fair.sum(1, keepdim=True).clamp(min=1e-30)
            moved = ((fair - w).unflatten(0, (-1, n)) * chosen[:, None, None]).flatten(0, 1)
            z = (moved[..., None] * v.repeat(copies, 1, 1, 1)).sum(1)  # [G N, h, d_h]
            output[row, last] += torch.einsum("nhe,hed->nd", z, w_o).to(output)
        label_logits, log_norm, best = (nnsight.save(x) for x in read(unembed(norm.output[row, last]).detach().float()))
    return Answers(label_logits, log_norm, best)


def _values_out(
    model: Model, batch: Batch, intact: Capture, layer: int, heads: Sequence[int], place: Tensor
) -> tuple[Float[Tensor, "N P h d_h"], Float[Tensor, "h d_h d"]]:
    """Values at the label positions, and what carries them to the residual."""
    values = values_of(model.arch, intact, layer, heads)[batch.row[:, None], place]
    return values, model.arch.w_o(layer, bare=True)[list(heads)]


def _chosen(groups: Sequence[Sequence[Head]], layer: int, heads: Sequence[int]) -> Float[Tensor, "G h"]:
    """1 where a group has a head of this layer."""
    members = [set(group) for group in groups]
    return torch.tensor([[float((layer, head) in own) for head in heads] for own in members])

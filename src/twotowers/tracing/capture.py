"""Reading: one forward of a batch, at the last position of every prompt.

Only this wing opens traces of a model's forward. Their bodies may run on a server that lacks this package, so they use
tensors, numbers, lists, envoys, and lambdas, which travel by their source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import nnsight
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm
from transformers import DynamicCache

from ..errors import ModelError
from ..models.architecture import submodule
from ..models.model import Model
from ..models.parallel import all_heads
from ..prompts.packing import Batch, pack
from ..prompts.sets import PromptSet, as_sets
from .answers import Answers, reading


def at_lasts(batch: Batch, residual: Float[Tensor, "B T d"]) -> Float[Tensor, "B n d"]:
    return residual[batch.row, batch.last].reshape(len(residual), -1, residual.shape[-1])


@contextmanager
def remembered(intact: Capture) -> Iterator[DynamicCache]:
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
                layer.keys, layer.values = layer.keys.detach(), layer.values.detach()


# No cache, and logits of one position only: ours are computed at the last position of every prompt.
OPTIONS = {"use_cache": False, "logits_to_keep": 1}
TOKEN_BUDGET = 2048  # tokens of one forward: enough for full speed on a few cores, and little memory


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
        scale: of the norm behind attention at the last position, which a head's part is multiplied by; 1 without one.
        cache: keys and values of every packed position, with `inputs`: what later forwards remember (`Batch.lasts`);
            none from a server, which would send them here and back with every request.
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
    scale: Float[Tensor, "L N"] | None = None
    cache: DynamicCache | None = None

    def parts(self) -> Float[Tensor, "L N H d_h"]:
        """z as the residual is linear in it: `parts[l, n, h] @ w_o(l)[h]` is what a head adds."""
        return self.z if self.scale is None else self.z * self.scale[:, :, None, None]

    def scaled(self, layer: int, z: Float[Tensor, "N *h d_h"]) -> Float[Tensor, "N *h d_h"]:
        """The same for values, or whatever else W_O of a layer is multiplied with, a row a prompt."""
        return z if self.scale is None else z * self.scale[layer].reshape(-1, *[1] * (z.ndim - 1))

    def entering(self, layer: int) -> tuple[Float[Tensor, "T d"], int]:
        """What enters a layer, of the one row of the batch, and the layer: where a forward may begin (`ablate`)."""
        assert self.inputs is not None
        return self.inputs[layer, 0], layer


@dataclass(frozen=True)
class Sites:
    """The envoys of a model's modules, a list entry a layer, to be named in the body of a trace.

    Attributes:
        added: what attention adds to the residual, where that is not its own output; None where it is.
        like: a module whose weight is where, and in which numbers, residuals are.
    """

    blocks: list[Any]
    norms: list[Any]
    attentions: list[Any]
    out_projs: list[Any]
    mlps: list[Any]
    final_norm: Any
    unembed: Any
    added: list[Any]
    like: Any

    @classmethod
    def of(cls, model: Model) -> Sites:
        family = model.arch.family
        added = family.norm_behind or family.adds
        blocks = list(submodule(model.nn, family.blocks))
        attentions = [submodule(block, family.attention) for block in blocks]
        return cls(
            blocks=blocks,
            norms=[_norm_of(block, family.attention_norm) for block in blocks],
            attentions=attentions,
            out_projs=[submodule(attention, family.out_proj) for attention in attentions],
            mlps=[submodule(block, family.mlp) for block in blocks],
            final_norm=submodule(model.nn, family.final_norm),
            unembed=submodule(model.nn, family.unembed),
            added=[submodule(block, added) if added else None for block in blocks],
            like=submodule(model.nn, model.arch.like),
        )


def _norm_of(block: Any, path: str | None) -> Any:
    return (lambda x: x) if path is None else submodule(block, path)


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


def numbered(
    model: Model, prompt_sets: PromptSet | Sequence[PromptSet], title: str = "", budget: int = TOKEN_BUDGET
) -> Iterator[tuple[list[PromptSet], int, Batch]]:
    """Batch by batch: its sets, the number of the first of them, and the batch; with a title, a bar shows progress."""
    sets = as_sets(model, prompt_sets)
    first = 0
    with tqdm(total=len(sets), desc=title, unit="set", delay=2, leave=False, disable=not title) as bar:
        for batch in batches(model, sets, budget):
            members = sets[first : first + len(batch.input_ids)]
            yield members, first, batch
            first += len(members)
            bar.update(len(members))


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
        ModelError: patterns are asked for but the model's attention returns none.
    """
    sites = Sites.of(model)
    layers = list(zip(sites.blocks, sites.attentions, sites.out_projs, sites.added, sites.mlps, strict=True))
    behind = model.arch.family.norm_behind is not None
    norm, unembed, row, last = sites.final_norm, sites.unembed, batch.row, batch.last
    read, attended = reading(batch), attended_by_last(model, batch)
    cache = DynamicCache() if inputs and not model.remote else None
    with (
        torch.no_grad(),
        model.nn.trace(inputs_of(model, batch), past_key_values=cache, backend=model.backend(), **OPTIONS),
    ):
        resid, attn, mlp, z, weights, full, added, bare = (nnsight.save([]) for _ in range(8))
        for block, attention, out_proj, adding, feed_forward in layers:
            entering = block.input
            resid.append(entering[row, last].detach().cpu())
            if inputs:
                full.append(entering.detach().cpu())
            z.append(out_proj.input[row, last].detach().cpu())
            if adding is not None:
                plain = out_proj.output
            output, probabilities = attention.output[:2]
            if behind:
                bare.append(plain[row, last].detach().cpu())
                output = adding.output
            elif adding is not None:
                output = plain
            attn.append(output[row, last].detach().cpu())
            if written:
                added.append(output.detach().cpu())
            if pattern:
                weights.append(attended(probabilities))
            mlp.append(feed_forward.output.reshape(entering.shape)[row, last].detach().cpu())
        resid.append(norm.input[row, last].detach().cpu())
        all_logits = unembed(norm.output[row, last]).detach().float()
        label_logits, log_norm, best = (nnsight.save(x) for x in read(all_logits))
        if logits:
            kept = nnsight.save(all_logits.cpu())
    if pattern:
        require_weights(weights)
    return Capture(
        resid_pre=torch.stack(resid).float(),
        attn_out=torch.stack(attn).float(),
        mlp_out=torch.stack(mlp).float(),
        z=torch.stack(z).float().unflatten(-1, (model.arch.n_heads, model.arch.d_head)),
        answers=Answers(label_logits, log_norm, best),
        pattern=torch.stack(weights).float() if pattern else None,
        logits=kept if logits else None,
        inputs=torch.stack(full).float() if inputs else None,
        written=torch.stack(added).float() if written else None,
        scale=_scales(model, bare) if behind else None,
        cache=cache,
    )


def _scales(model: Model, bare: Sequence[Float[Tensor, "N d"]]) -> Float[Tensor, "L N"]:
    """Of the norm behind attention, from what the output projection writes, layer by layer."""
    return torch.stack([model.arch.behind_scale(layer, x.float()) for layer, x in enumerate(bare)])


def answers(model: Model, batch: Batch) -> Answers:
    """What the intact model answers; reads nothing else, so it is the cheapest forward."""
    sites = Sites.of(model)
    norm, unembed, row, last, read = sites.final_norm, sites.unembed, batch.row, batch.last, reading(batch)
    with torch.no_grad(), model.nn.trace(inputs_of(model, batch), backend=model.backend(), **OPTIONS):
        label_logits, log_norm, best = (nnsight.save(x) for x in read(unembed(norm.output[row, last]).detach().float()))
    return Answers(label_logits, log_norm, best)


def own_logits(model: Model, batch: Batch) -> Float[Tensor, "B V"]:
    """What the model itself gives in the end, behind all that it does with logits, at the last place of each row."""
    network = model.nn
    with torch.no_grad(), network.trace(inputs_of(model, batch), backend=model.backend(), **OPTIONS):
        logits = nnsight.save(network.output.logits[:, -1].detach().float().cpu())
    return logits


def remember(model: Model, batch: Batch) -> tuple[Answers, Capture | None]:
    """What the intact model answers, and what later forwards of the batch may go on from: nothing on a server."""
    if model.remote:
        return answers(model, batch), None
    intact = capture(model, batch, inputs=True)
    return intact.answers, intact


def attended_by_last(model: Model, batch: Batch) -> Callable[[Tensor | None], Tensor | None]:
    """Attention of each prompt's last position [N, H, S], from packed to prompt coordinates; None stays None."""
    row, last = batch.row[:, None], batch.last[:, None]
    own, inside = batch.index.clamp(min=0), (batch.index >= 0)[:, None]
    of_last = lambda weights: (  # noqa: E731 - a function would not travel
        None if weights is None else weights[row, :, last, own].detach().cpu().transpose(1, 2) * inside
    )
    if model.tensor_parallel:
        return lambda weights: of_last(None if weights is None else all_heads(weights))
    return of_last


def require_weights(attended: Sequence[Tensor | None]) -> None:
    """Refuse a forward that gave no attention weights.

    Raises:
        ModelError: one of them is None.
    """
    if any(weights is None for weights in attended):
        raise ModelError("The model's attention returns no weights; use a server that has it with eager attention.")


def require_eager(model: Model) -> None:
    """Refuse a network that was switched to an attention of which no weights can be read, or with other masks, or to
    training, in which parts drop out at random.

    Raises:
        ModelError: with its name.
    """
    if model.remote is True:
        return
    if any(module.training for module in model.nn._module.modules()):
        raise ModelError(
            f"{model.name} was switched to training, in which parts of it drop out at random; switch it back with "
            f"model.nn._module.eval(), or load the model again."
        )
    found = model.nn._module.config._attn_implementation
    if found != "eager":
        raise ModelError(
            f"The attention of {model.name} was switched to {found}, of which no weights can be read; switch it back "
            f'with model.nn._module.set_attn_implementation("eager"), or load the model again.'
        )


def mask_of(model: Model, batch: Batch, allowed: Bool[Tensor, "B T K"]) -> Float[Tensor, "B h T K"]:
    """What is added to the attention scores: 0 where attention is allowed, the dtype's minimum elsewhere.

    Where a family adds something for the positions of keys, that stands in it, too, head by head.
    """
    lowest = torch.finfo(model.dtype).min
    added = model.arch.added_to_scores(batch.key_positions) if model.family.alibi else None
    if added is None:
        return torch.zeros(allowed.shape, dtype=model.dtype).masked_fill(~allowed, lowest)[:, None].to(model.device)
    dtype = torch.float32 if model.family.exact_masks else model.dtype
    return added[:, :, None].to(dtype).masked_fill(~allowed[:, None], lowest).to(model.device)


def inputs_of(model: Model, batch: Batch) -> dict[str, Tensor]:
    """Model inputs with the packing's own mask and positions, never a padding side.

    Raises:
        ModelError: the network's attention is no longer the one it was loaded with.
    """
    require_eager(model)
    return {
        "input_ids": batch.input_ids.to(model.device),
        "position_ids": batch.position_ids.to(model.device),
        "attention_mask": mask_of(model, batch, batch.allowed),
    }

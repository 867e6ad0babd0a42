"""What plain transformers answers when something in it is changed by hooks: each way of changing, written once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor
from transformers import DynamicCache

from plain import Plain, Read, before, behind, changing
from twotowers.prompts.sets import Prompt, PromptSet

Head = tuple[int, int]


def margin(s: PromptSet, query: int, logits: Tensor) -> float:
    """The gold label's logit minus the other's."""
    gold = s.gold[query]
    return float(logits[s.label_ids[gold]] - logits[s.label_ids[1 - gold]])


def without_heads(plain: Plain, ids: Sequence[int], heads: Sequence[Head]) -> Tensor:
    """Logits with z of heads zeroed at every position."""
    with ExitStack() as stack:
        for layer, head in heads:

            def zero(z: Tensor, head: int = head) -> None:
                z.unflatten(-1, (plain.n_heads, -1))[..., head, :] = 0

            stack.enter_context(before(plain.outs[layer], changing(zero)))
        return plain.logits(ids)


def with_z(plain: Plain, ids: Sequence[int], z: Mapping[Head, Tensor]) -> Tensor:
    """Logits with z of heads replaced at the last position."""
    with ExitStack() as stack:
        for (layer, head), new in z.items():

            def put(old: Tensor, head: int = head, new: Tensor = new) -> None:
                old.unflatten(-1, (plain.n_heads, -1))[0, -1, head] = new

            stack.enter_context(before(plain.outs[layer], changing(put)))
        return plain.logits(ids)


def donor_of(s: PromptSet, query: int, *, other: bool) -> int:
    """The query of the same rank among those of the other class, or of the next rank in its own."""
    gold = s.gold
    own = [i for i, label in enumerate(gold) if label == gold[query]]
    theirs = [i for i, label in enumerate(gold) if label != gold[query]]
    rank = own.index(query)
    return theirs[rank % len(theirs)] if other else own[(rank + 1) % len(own)]


def with_queries_of(plain: Plain, ids: Sequence[int], donor: Sequence[int], heads: Sequence[Head]) -> Tensor:
    """Logits with queries at the last position as they are in another prompt, before they are rotated."""
    taken: dict[Head, Tensor] = {}
    with ExitStack() as stack:
        for layer, head in heads:
            module, own = plain.part(layer, 0)

            def take(_module, _inputs, _options, output, name=(layer, head), own=own):
                taken[name] = output.reshape(-1, output.shape[-1])[-1, own[name[1]]].clone()

            stack.enter_context(behind(module, take))
        plain.logits(donor)
    with ExitStack() as stack:
        for (layer, head), new in taken.items():
            module, own = plain.part(layer, 0)

            def put(_module, _inputs, _options, output, columns=own[head], new=new):
                output.view(-1, output.shape[-1])[-1, columns] = new
                return output

            stack.enter_context(behind(module, put))
        return plain.logits(ids)


def partners(s: PromptSet, prompt: Prompt) -> dict[int, int]:
    """Label positions that are exchanged: the i-th of one label and the i-th of the other."""
    by_label = [
        [p for p, (_, own) in zip(prompt.label_positions, s.demonstrations, strict=True) if own == label]
        for label in s.labels
    ]
    return {a: b for pair in zip(*by_label, strict=False) for a, b in (pair, pair[::-1])}


def with_values_exchanged(plain: Plain, s: PromptSet, prompt: Prompt, head: Head) -> Tensor:
    """Logits with the labels' values of one head exchanged: its z, from weights and values, is put in."""
    read, (layer, number), other = plain.read(prompt.ids), head, partners(s, prompt)
    source = [other.get(i, i) for i in range(len(prompt.ids))]
    return with_z(plain, prompt.ids, {head: read.pattern[layer, number, -1] @ read.value[layer, source, number]})


def with_cache_exchanged(plain: Plain, s: PromptSet, prompt: Prompt, layer: int, part: str) -> Tensor:
    """Logits with keys or values of all heads of a layer exchanged: in the cache that the last token goes on from.

    Keys are rotated by the model itself at their new places: a forward whose projection is hooked gives them.
    """
    ids, other = list(prompt.ids[:-1]), partners(s, prompt)
    source = torch.tensor([other.get(i, i) for i in range(len(ids))])
    intact = DynamicCache()
    plain.logits(ids, intact)
    for which in {"keys": (1,), "values": (2,), "keys-values": (1, 2)}[part]:
        module, own = plain.part(layer, which)

        def turn(_module, _inputs, _options, output, every=own.flatten()):  # noqa: B008 - bound here on purpose
            output[..., every] = output[:, source][..., every]
            return output

        changed = DynamicCache()
        with behind(module, turn):
            plain.logits(ids, changed)
        name = "keys" if which == 1 else "values"
        setattr(intact.layers[layer], name, getattr(changed.layers[layer], name))
    return plain.logits(prompt.ids[-1:], intact)


def with_residual(plain: Plain, ids: Sequence[int], layer: int, new: Mapping[int, Tensor]) -> Tensor:
    """Logits with what enters a layer, or the final norm, replaced at some positions."""

    def put(resid: Tensor) -> None:
        for position, vector in new.items():
            resid[0, position] = vector

    module = plain.final_norm if layer == plain.n_layers else plain.blocks[layer]
    with before(module, changing(put)):
        return plain.logits(ids)


def without_edges(plain: Plain, ids: Sequence[int], layers: range, lost: Sequence[tuple[int, int]]) -> Tensor:
    """Logits with attention from a position to another cut in some layers, before the softmax."""
    length = len(ids)
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    for position, attended in lost:
        allowed[position, attended] = False
    mask = torch.zeros(1, 1, length, length, dtype=plain.dtype).masked_fill(~allowed, torch.finfo(plain.dtype).min)

    def cut(_module: object, inputs: tuple, options: dict) -> tuple[tuple, dict]:
        of_yes_and_no = options["attention_mask"].dtype == torch.bool
        return inputs, options | {"attention_mask": ~allowed[None, None] if of_yes_and_no else mask}

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(before(plain.attentions[layer], cut))
        return plain.logits(ids)


def balanced(plain: Plain, s: PromptSet, prompt: Prompt, heads: Sequence[Head]) -> Tensor:
    """Logits with weights of label positions divided by how often their label is shown, their sum kept."""
    shown = [label for _, label in s.demonstrations]
    counts = torch.tensor([float(shown.count(label)) for label in shown])
    places, intact = list(prompt.label_positions), plain.read(prompt.ids)
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)
    with ExitStack() as stack:
        for layer, own in by_layer.items():

            def move(_module, _inputs, _options, output, layer=layer, own=own):
                z = torch.zeros(plain.n_heads, intact.z.shape[-1])
                for head in own:
                    weights = output[1][0, head, -1, places].float()
                    fair = weights / counts
                    fair = fair * weights.sum() / fair.sum()
                    z[head] = (fair - weights) @ intact.value[layer, places, head]
                out = plain.exact_outs[layer]
                output[0][0, -1] += out(z.flatten()[None])[0] - out(torch.zeros_like(z).flatten()[None])[0]
                return output

            stack.enter_context(behind(plain.attentions[layer], move))
        with torch.no_grad():
            return plain.network(torch.tensor([list(prompt.ids)]), output_attentions=True).logits[0, -1].float()


def margin_gradients(plain: Plain, s: PromptSet, query: int) -> tuple[Read, list[Tensor]]:
    """One forward, and the gradient of its margin by z of each layer [T, H, d_h]."""
    read = plain.read(s.prompts[query].ids, gradients=True)
    gold = s.gold[query]
    logits = read.logits[-1]
    towards = logits[s.label_ids[gold]] - logits[s.label_ids[1 - gold]]
    gradients = torch.autograd.grad(towards, read.raw)
    return read, [g[0].float().unflatten(-1, (plain.n_heads, -1)) for g in gradients]


def every_prompt(sets: Sequence[PromptSet]) -> Iterator[tuple[int, int, PromptSet, Prompt]]:
    """Number of the set, number of the query, the set and the prompt."""
    for number, s in enumerate(sets):
        for query, prompt in enumerate(s.prompts):
            yield number, query, s, prompt

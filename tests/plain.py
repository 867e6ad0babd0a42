"""Plain transformers: a network as `from_pretrained` gives it, one prompt at a time, read and changed with hooks.

What the package computes is compared with this. It takes nothing from the package but the names of modules
(`families`): no packing, no masks, no cache, no nnsight, no network that is prepared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from twotowers.models.families import family_of

FUSED = {"mpt": "Wqkv", "gpt2": "c_attn", "gpt_bigcode": "c_attn", "phi3": "qkv_proj"} | dict.fromkeys(
    ("gpt_neox", "bloom", "falcon"), "query_key_value"
)
TOGETHER = ("olmo2", "olmo3", "olmoe", "flex_olmo", "minimax_m2")  # with one norm of all queries, and one of all keys
Hook = Callable[..., object]


@dataclass(frozen=True)
class Read:
    """One forward of one prompt of T tokens: L layers, H heads, width d.

    Attributes:
        resid: entering each layer, and the final one [L + 1, T, d].
        z, bare, attention: heads side by side before W_O [L, T, H, d_h]; what it writes; what is added [L, T, d].
        query, key, value: of each head as they are multiplied, not rotated [L, T, H, d_h].
        pattern: [L, H, T, T].
        logits: [T, V].
        raw: z of each layer as it is multiplied, by which there are gradients [1, T, H * d_h].
    """

    resid: Tensor
    z: Tensor
    bare: Tensor
    attention: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    pattern: Tensor
    logits: Tensor
    raw: list[Tensor]


class Plain:
    """A network in a folder.

    Args:
        dtype: that it computes in. What is read is float32, and what is made of it is computed so.
        rounded: with weights as bfloat16 holds them, whatever it computes in.
    """

    def __init__(self, folder: object, *, dtype: torch.dtype = torch.float32, rounded: bool = False) -> None:
        self.network, self.tokenizer = self.network_in(folder, dtype), AutoTokenizer.from_pretrained(folder)
        self.dtype = dtype
        if rounded:
            for parameter in self.network.parameters():
                parameter.data = parameter.data.bfloat16().to(dtype)
        self.config, self.names = self.network.config, family_of(self.network.config)
        self.blocks = list(self.at(self.names.blocks))
        self.attentions = [block.get_submodule(self.names.attention) for block in self.blocks]
        self.outs = [attention.get_submodule(self.names.out_proj) for attention in self.attentions]
        self.final_norm, self.unembed = self.at(self.names.final_norm), self.at(self.names.unembed)
        self.exact_outs = [copy.deepcopy(out).float() for out in self.outs]
        self.exact_norm = copy.deepcopy(self.final_norm).float()
        self.n_layers, self.n_heads = len(self.blocks), self.config.num_attention_heads
        self._remembered: dict[tuple[int, ...], Read] = {}
        self.n_groups = self.names.kv_heads(self.config)

    @staticmethod
    def network_in(folder: object, dtype: torch.dtype = torch.float32) -> Any:
        loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
        return loaded.eval()

    def at(self, path: str) -> torch.nn.Module:
        return self.network.get_submodule(path)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text)["input_ids"]

    def logits(self, ids: Sequence[int], cache: DynamicCache | None = None) -> Tensor:
        """At the last position."""
        with torch.no_grad():
            return self.network(torch.tensor([list(ids)]), past_key_values=cache).logits[0, -1].float()

    def part(self, layer: int, which: int) -> tuple[torch.nn.Module, Tensor]:
        """The module that gives queries, keys or values (0, 1, 2) of a layer, and each head's columns of its output."""
        attention, family = self.attentions[layer], self.config.model_type
        heads = self.n_heads if which == 0 else self.n_groups
        if family in FUSED:
            size = self.outs[layer].weight.shape[family != "gpt2"] // self.n_heads
            return attention.get_submodule(FUSED[family]), self._columns(size)[which]
        if family in TOGETHER and which < 2:  # one norm of all heads, behind which they are exchanged
            module = (attention.q_norm, attention.k_norm)[which]
            return module, torch.arange(module.weight.shape[0]).reshape(heads, -1)
        module = (attention.q_proj, attention.k_proj, attention.v_proj)[which]
        return module, torch.arange(module.weight.shape[0]).reshape(heads, -1)

    def _columns(self, size: int) -> list[Tensor]:
        """For queries, keys and values, columns of each head in the output of one projection to all of them."""
        heads, groups = self.n_heads, self.n_groups
        number = torch.arange((heads + 2 * groups) * size)
        family = self.config.model_type
        if family in ("gpt2", "phi3", "mpt") or (family == "gpt_bigcode" and self.config.multi_query):
            return [
                part.unflatten(0, (-1, size)) for part in number.split([heads * size, groups * size, groups * size])
            ]
        by_group = number.reshape(groups, heads // groups + 2, size)
        return [by_group[:, :-2].flatten(0, 1), by_group[:, -2], by_group[:, -1]]

    def _normed(self, layer: int, which: int) -> tuple[torch.nn.Module, Tensor]:
        """As `part`, behind a norm of queries or keys where there is one."""
        module, own = self.part(layer, which)
        name = (self.names.query_norm, self.names.key_norm, None)[which]
        return (module if name is None else self.attentions[layer].get_submodule(name)), own

    def read(self, ids: Sequence[int], *, gradients: bool = False) -> Read:
        """One forward; with gradients those of z can be asked for. What was read without them is remembered."""
        if not gradients and tuple(ids) in self._remembered:
            return self._remembered[tuple(ids)]
        kept: dict[tuple[str, int], Tensor] = {}
        raw: list[Tensor] = []  # z as it is multiplied with W_O, by which there are gradients

        def keep(name: str, layer: int, own: Tensor | None = None, *, into: bool = False) -> Hook:
            def hook(_module: object, inputs: tuple, options: dict, output: object = None) -> None:
                found = first(inputs, options) if into else output[0] if isinstance(output, tuple) else output
                if name == "z":
                    raw.append(found)
                if found.ndim == 4 and found.shape[2] == len(ids):  # norms of heads behind an exchange of axes
                    found = found.transpose(1, 2)
                flat = found.reshape(len(ids), -1).float()
                kept[name, layer] = flat if own is None else flat[:, own]

            return hook

        with ExitStack() as stack, torch.set_grad_enabled(gradients):
            for i in range(self.n_layers):
                stack.enter_context(before(self.blocks[i], keep("resid", i, into=True)))
                stack.enter_context(before(self.outs[i], keep("z", i, into=True)))
                stack.enter_context(behind(self.outs[i], keep("bare", i)))
                stack.enter_context(behind(self._adding(i), keep("attention", i)))
                for which, name in enumerate(("query", "key", "value")):
                    module, own = self._normed(i, which)
                    stack.enter_context(behind(module, keep(name, i, own)))
            stack.enter_context(before(self.final_norm, keep("resid", self.n_layers, into=True)))
            out = self.network(torch.tensor([list(ids)]), output_attentions=True)
        layers, group = range(self.n_layers), self.n_heads // self.n_groups
        stacked = {name: torch.stack([kept[name, i].detach() for i in layers]) for name in ("z", "bare", "attention")}
        resid = torch.stack([kept["resid", i].detach() for i in (*layers, self.n_layers)])
        query, key, value = (torch.stack([kept[n, i].detach() for i in layers]) for n in ("query", "key", "value"))
        found = Read(
            resid=resid,
            z=stacked["z"].unflatten(-1, (self.n_heads, -1)),
            bare=stacked["bare"],
            attention=stacked["attention"] * self._residual_multiplier,
            query=query,
            key=key.repeat_interleave(group, 2),
            value=value.repeat_interleave(group, 2),
            pattern=torch.stack([weights[0].detach().float() for weights in out.attentions]),
            logits=out.logits[0].float(),
            raw=raw,
        )
        if not gradients:
            self._remembered[tuple(ids)] = found
        return found

    def _adding(self, layer: int) -> torch.nn.Module:
        """What gives what attention adds to the residual."""
        path = self.names.norm_behind or self.names.adds
        return self.blocks[layer].get_submodule(path) if path else self.attentions[layer]

    @property
    def _logit_scale(self) -> float:
        scaling = getattr(self.config, "logits_scaling", 1.0)
        if self.config.model_type != "hyperclovax":  # which multiplies
            scaling = 1 / scaling
        return getattr(self.config, "logit_scale", None) or scaling

    @property
    def _residual_multiplier(self) -> float:
        return getattr(self.config, "residual_multiplier", 1.0)

    def written(self, read: Read, layer: int, head: int, z: Tensor) -> Tensor:
        """What z [*, d_h] of a head adds to the residual, at the scale that the last position has there."""
        size = float(z.abs().max()) or 1.0  # the bias would swallow what is small beside it
        spread = torch.zeros(*z.shape[:-1], self.n_heads, z.shape[-1])
        spread[..., head, :] = z / size
        with torch.no_grad():
            bare = self.exact_outs[layer](spread.flatten(-2)) - self.exact_outs[layer](
                torch.zeros_like(spread).flatten(-2)
            )
        shape = (
            read.attention[layer, -1] / read.bare[layer, -1] if self.names.norm_behind else self._residual_multiplier
        )
        return bare * shape * size

    def projected(self, read: Read, v: Tensor) -> Tensor:
        """Logits of parts of the residual [*, d], the final norm's scale frozen at the last position's; no biases."""
        final, norm = read.resid[-1, -1], self.exact_norm
        final = final + (final == 0) * 1e-6 * final.abs().max()  # sums in bfloat16 do vanish, and 0 has no ratio to 0
        with torch.no_grad():
            normed = norm(final[None])[0]
            if self.names.norm == "layer":
                bias = getattr(norm, "bias", None)
                centred = final - final.mean()
                factor = (normed if bias is None else normed - bias) / centred
                v = v - v.mean(-1, keepdim=True)
            else:
                factor = normed / final
            return (v * factor) @ self.unembed.weight.float().T * self._logit_scale

    def capped(self, logits: Tensor) -> Tensor:
        """Logits of whole residuals as the model gives them, from what is projected."""
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    @property
    def cap(self) -> float | None:
        return getattr(self.config, "final_logit_softcapping", None)

    def positions(self, places: Sequence[int]) -> Tensor:
        """What is embedded for places."""
        if self.names.positions is None:
            return torch.zeros(len(places), self.config.hidden_size)
        return self.at(self.names.positions).weight.detach().float()[torch.tensor(places) + self.names.position_offset]


def first(inputs: tuple, options: dict) -> Tensor:
    """The hidden states with which a module is called."""
    return inputs[0] if inputs else options["hidden_states"]


@contextmanager
def before(module: torch.nn.Module, hook: Hook) -> Iterator[None]:
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def behind(module: torch.nn.Module, hook: Hook) -> Iterator[None]:
    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def changing(change: Callable[[Tensor], None]) -> Hook:
    """A hook before a module that changes a copy of its hidden states, in place."""

    def hook(_module: object, inputs: tuple, options: dict) -> tuple[tuple, dict]:
        new = first(inputs, options).clone()
        change(new)
        return ((new, *inputs[1:]), options) if inputs else (inputs, options | {"hidden_states": new})

    return hook

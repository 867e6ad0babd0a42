"""Decoders that no table of families knows: Llama with other names, or with one thing that is done otherwise."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

HELD = ("renamed", "keys-first", "in-another-place")
FAILING = {
    "gated": "parts add up to the final residual",
    "halved": "parts add up to the final residual",
    "shifted": "parts add up to the final residual",
    "capped": "packed prompts answer as separate ones",
    "scaled-queries": "queries times keys are the attention weights",
    "looking-ahead": "what follows changes nothing before it",
}


def rename(module: nn.Module, **names: str) -> None:
    """Other names for modules in a module, which still calls them by the old ones."""
    for old, new in names.items():
        own = module._modules.pop(old)
        module.add_module(new, own)
        module.__dict__[old] = own


def odd(kind: str, network: LlamaForCausalLM) -> None:
    """Change a network so that it is of a kind."""
    layers = network.model.layers
    if kind == "in-another-place":
        network.model.__dict__["layers"] = layers
        network.model.add_module("tower", network.model._modules.pop("layers"))
    if kind == "capped":
        plain = network.forward

        def forward(*inputs: object, **options: object) -> object:
            found = plain(*inputs, **options)
            found.logits = found.logits.tanh()
            return found

        network.forward = forward
    for layer in layers:
        attention = layer.self_attn
        if kind == "renamed":
            rename(attention, q_proj="wq", k_proj="wk", v_proj="wv", o_proj="wo")
        if kind == "keys-first":
            rename(attention, q_proj="to_q")  # registered again, behind keys and values
        if kind == "gated":
            attention.register_forward_hook(lambda _m, _i, out: (out[0] * torch.sigmoid(out[0]), *out[1:]))
        if kind == "halved":
            layer.register_forward_hook(lambda _m, _i, out: out / 2)
        if kind == "scaled-queries":
            attention.q_proj.register_forward_hook(lambda _m, _i, out: out / (1 + out.abs().mean(-1, keepdim=True)))
        if kind == "shifted":
            attention.register_forward_hook(lambda _m, _i, out: (out[0] + 0.5, *out[1:]))
        if kind == "looking-ahead":
            attention.o_proj.register_forward_hook(lambda _m, _i, out: out + out.mean(-2, keepdim=True))


def register(kind: str) -> type[LlamaConfig]:
    """Let transformers know a decoder of a kind."""

    class Config(LlamaConfig):
        model_type = f"odd-{kind}"

    class Decoder(LlamaForCausalLM):
        config_class = Config

        def __init__(self, config: Config) -> None:
            super().__init__(config)
            odd(kind, self)

    AutoConfig.register(Config.model_type, Config, exist_ok=True)
    AutoModelForCausalLM.register(Config, Decoder, exist_ok=True)
    return Config

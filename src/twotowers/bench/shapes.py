"""Models of full size with random weights: for speed and memory, never for a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnsight import TransformersModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPTJConfig, LlamaConfig, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from ..models.families import family_of
from ..models.model import Model
from ..models.packed import pack_linears
from ..models.quantised import quantise
from ..prompts.sets import Prompt, PromptSet

TOKENS, QUERIES, QUERY_TOKENS = 60, 8, 2  # of a prompt; prompts of a set; tokens that are a prompt's own


def _llama(width: int, inner: int, layers: int, heads: int) -> Callable[[], Any]:
    return lambda: LlamaConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads, vocab_size=32000, max_position_embeddings=2048,
    )  # fmt: skip


SHAPES: dict[str, Callable[[], Any]] = {
    "gpt2-large": lambda: GPT2Config(n_embd=1280, n_layer=36, n_head=20),
    "gpt-j-6b": GPTJConfig,
    "llama-7b": _llama(4096, 11008, 32, 32),
    "llama-13b": _llama(5120, 13824, 40, 40),
    "llama-30b": _llama(6656, 17920, 60, 52),
}


def random_model(shape: str, dtype: torch.dtype, device: str, method: str | None = None) -> Model:
    """A model of a shape of `SHAPES` with small random weights and a tokenizer that knows nothing.

    Args:
        method: how the matrices of the blocks are quantised (`quantised.METHODS`), one after the other: weights that
            have not been written to take no memory on the CPU, so what fits quantised can be made.
    """
    config = SHAPES[shape]()
    with no_init_weights(), torch.device("cpu" if method else device):
        network = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager")
    if method:
        _quantise_blocks(network, method, device)
        network.to(device)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(float(name.endswith("weight")))
            else:
                parameter.normal_(0, 0.02)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"": 0}, unk_token="")))  # nnsight asks
    model = Model(
        kind="registry", name=shape, folder=Path(), revision=None, tokenizer=tokenizer, config=config, dtype=dtype,
        device_map=device, template="lines", _digest=lambda: "random", quantise=method,
    )  # fmt: skip
    pack_linears(network)
    model.__dict__["nn"] = TransformersModel(network.eval(), task="text-generation", tokenizer=tokenizer)
    return model


def _quantise_blocks(network: Any, method: str, device: str) -> None:
    for path, module in list(network.named_modules()):
        if path.startswith(family_of(network.config).blocks) and isinstance(module, nn.Linear | Conv1D):
            shape = module.weight.shape[::-1] if isinstance(module, Conv1D) else module.weight.shape
            weight = torch.empty(shape, dtype=module.weight.dtype, device=device).normal_(0, 0.02)
            layer = quantise(weight, method)
            layer.bias = module.bias
            network.set_submodule(path, layer)


def random_set(model: Model, seed: int = 0) -> PromptSet:
    """A prompt set of random tokens: 60 a prompt, all but the last two shared by 8 prompts."""
    rng = np.random.default_rng(seed)
    shared = rng.integers(0, model.config.vocab_size, TOKENS - QUERY_TOKENS).tolist()
    own = rng.integers(0, model.config.vocab_size, (QUERIES, QUERY_TOKENS)).tolist()
    prompts = tuple(Prompt((*shared, *ids), ((0, 1),), (1,), (len(shared), TOKENS - 1)) for ids in own)
    queries = tuple((str(i), ("bar", "foo")[i % 2]) for i in range(QUERIES))
    return PromptSet((("random", "foo"),), queries, ("bar", "foo"), (5, 6), prompts, len(shared))

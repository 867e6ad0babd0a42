"""GGUF files: what transformers makes of one, and whether that is the model that the file holds.

transformers passes over tensors and settings that it does not know, and draws at random the weights that it misses; a
file of which it would make another model is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from ..errors import MemoryLimitError, ModelError
from ..hub import first_line
from .families import family_of, require_family
from .gguf_tokens import INSTEAD, read_as_said
from .memory import own_memory

# Settings that change numbers and that transformers does not read, each with the value that changes none; what a
# configuration has by the same name and value does not change them either.
UNREAD: dict[str, tuple[Any, ...]] = {
    "rope.scaling.type": ("none",),
    "rope.scaling.factor": (0, 1),
    "rope.scale_linear": (0, 1),
    "logit_scale": (0, 1),
    "residual_scale": (0, 1),
    "embedding_scale": (0, 1),
    "attention.scale": (0,),
    "attention.clamp_kqv": (0,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
}
EXPERTS = {  # what files say of experts, and configurations, by one name or another
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
}
NO_WEIGHTS = {"rope_freqs.weight": 1.0}  # tensors that change nothing while all of their values are this one
VERSION = 2  # of how a file is read: copies that were converted otherwise are not used again


def read(file: Path) -> tuple[nn.Module, Any]:
    """The network in a GGUF file, dequantised to float32, and its tokenizer.

    Raises:
        ModelError, FamilyError: transformers cannot read it, or would read another model than the file holds.
        MemoryLimitError: it does not fit while it is dequantised.
    """
    held = _contents(file)
    config = _configuration(file)
    _require_settings(file, held, config)
    _require_memory(file, held)
    try:
        how: dict[str, Any] = {"dtype": torch.float32, "generation_config": GenerationConfig()}
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, output_loading_info=True, **how
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # a damaged or unknown file may raise anything
        raise _unreadable(file, error) from error
    network, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{file} lacks {len(missing)} tensors, {missing[0]} first; fetch the whole file again.")
    _require_all(file, held, network)
    read_as_said(file, held, tokenizer)
    _keep_window(held, network.config)
    return network, tokenizer


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF model as a plain float32 one in Hugging Face layout.

    Raises:
        ModelError, FamilyError, MemoryLimitError: as `read`.
    """
    network, tokenizer = read(file)
    config: Any = network.config
    settings = config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(name, None)
    kind: Any = type(network)
    with torch.device("meta"):  # the weights are those of the first network, not a second copy
        plain = kind(type(config).from_dict(settings))
    try:
        plain.load_state_dict(network.state_dict(), assign=True)
    except RuntimeError as error:
        odd = next(n for n, own in plain.named_parameters() if network.state_dict()[n].shape != own.shape)
        raise ModelError(f"The tensors in {file} are not of the sizes that it says, {odd} first; {INSTEAD}.") from error
    plain.tie_weights()
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _contents(file: Path) -> gguf.GGUFReader:
    try:
        return gguf.GGUFReader(file)
    except Exception as error:  # as above
        raise _unreadable(file, error) from error


def _configuration(file: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # as above
        raise _unreadable(file, error) from error
    require_family(config.model_type)
    return config


def _unreadable(file: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{file} cannot be read ({first_line(error)}); give a GGUF file of a whole model of a family that transformers "
        f"converts, or the model as a folder in Hugging Face layout."
    )


def _require_settings(file: Path, held: gguf.GGUFReader, config: Any) -> None:
    """Refuse a file whose settings are not those of the configuration that transformers makes of it."""
    said = _settings(held)
    for name, harmless in UNREAD.items():
        taken = getattr(config, name, None)
        if name in said and said[name] not in harmless and not (taken and math.isclose(said[name], taken)):
            raise ModelError(f"{file} says {name} = {said[name]}, which transformers does not read; {INSTEAD}.")
    for name, ours in _read(config):
        theirs = said.get(name)
        if isinstance(theirs, int | float) and not math.isclose(theirs, ours, rel_tol=1e-5):
            raise ModelError(f"{file} says {name} = {theirs:g}, but transformers reads it as {ours:g}; {INSTEAD}.")
    scale = getattr(config, "query_pre_attn_scalar", None)
    if (
        scale is not None and scale != config.head_dim
    ):  # programs that write and read such files know it by a model's size
        raise ModelError(
            f"{file} does not say what scores are divided by, and transformers takes the root of {scale:g}, not of the "
            f"size of a head, {config.head_dim}; {INSTEAD}."
        )


def _keep_window(held: gguf.GGUFReader, config: Any) -> None:
    """Let a configuration say how far back a sliding attention looks, which transformers reads for few families."""
    if window := _settings(held).get("attention.sliding_window"):
        config.sliding_window = int(window)


def _settings(held: gguf.GGUFReader) -> dict[str, Any]:
    """What a file says of its model, by names without the architecture before them."""
    architecture = held.fields["general.architecture"].contents() if "general.architecture" in held.fields else ""
    start = f"{architecture}."
    return {key.removeprefix(start): held.fields[key].contents() for key in held.fields if key.startswith(start)}


def _read(config: Any) -> Iterator[tuple[str, float]]:
    """What transformers has read, by the names that files have for it."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    yield "block_count", config.num_hidden_layers
    yield "embedding_length", config.hidden_size
    yield "attention.head_count", config.num_attention_heads
    yield "attention.head_count_kv", family_of(config).kv_heads(config)
    yield "attention.key_length", head
    for name in ("max_position_embeddings", "rope_theta"):
        if found := getattr(config, name, None) or rope.get(name):
            yield {"rope_theta": "rope.freq_base"}.get(name, "context_length"), found
    for name, settings in EXPERTS.items():
        yield name, next((found for own in settings if (found := getattr(config, own, None))), 0)
    if rope:
        yield "rope.dimension_count", head * (rope.get("partial_rotary_factor") or 1.0)
    for name in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"):
        if epsilon := getattr(config, name, None):
            yield from ((f"attention.layer_norm_{kind}epsilon", epsilon) for kind in ("rms_", ""))


def _require_memory(file: Path, held: gguf.GGUFReader) -> None:
    needed, there = 4 * sum(int(t.n_elements) for t in held.tensors), own_memory()
    if needed > there:
        raise MemoryLimitError(
            f"{file} needs {needed / 2**30:.1f} GiB while it is dequantised to float32 but {there / 2**30:.1f} GiB are "
            f"free; use a machine with more memory, or {INSTEAD}, which loads with dtype='bfloat16'."
        )


def _require_all(file: Path, held: gguf.GGUFReader, network: nn.Module) -> None:
    """Refuse a file with more numbers in it than the network has weights: some would not be read."""
    config: Any = network.config
    there = {t.name: int(t.n_elements) for t in held.tensors if not _without_effect(t)}
    read_ = sum(parameter.numel() for parameter in network.parameters())  # weights that are tied count once
    if sum(there.values()) == read_:
        return
    known = _names(held, config.num_hidden_layers, [name for name, _ in network.named_parameters()])
    spare = [name for name in there if name not in known] or list(there)
    raise ModelError(
        f"{file} holds {sum(there.values()):,} numbers, but transformers reads {read_:,} weights and leaves {spare[0]} "
        f"out; {INSTEAD}."
    )


def _without_effect(tensor: Any) -> bool:
    value = NO_WEIGHTS.get(tensor.name)
    return value is not None and bool((np.asarray(tensor.data) == value).all())


def _names(held: gguf.GGUFReader, layers: int, names: list[str]) -> set[str | None]:
    """The names that files have for weights of a network."""
    said = held.fields["general.architecture"].contents()
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == said)
    known = gguf.get_tensor_name_map(arch, layers)
    return {known.get_name(name, try_suffixes=(".weight", ".bias")) for name in names}

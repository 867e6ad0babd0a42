"""What a family's configuration changes in its entry, and what a loaded network is changed by to be read exactly."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FamilyError
from .family import Family

Variant = Callable[[Family, Any], Family]


def refuse(**unwanted: tuple[object, str]) -> Variant:
    """A variant that takes a configuration only if none of these settings has the value that is said with it.

    Args:
        unwanted: for a setting's name its value, and what a model with it does.
    """

    def variant(family: Family, config: Any) -> Family:
        for name, (value, does) in unwanted.items():
            if getattr(config, name, None) == value:
                refused(config, does)
        return family

    return variant


def refused(config: Any, does: str) -> None:
    """Raises: FamilyError, with what a model of this family does that cannot be read."""
    raise FamilyError(f"This model of the family {config.model_type} {does}, so it cannot be read; take another one.")


def gemma(family: Family, config: Any) -> Family:
    """From Gemma 2 on logits and scores may be capped; of Gemma 3's scores transformers leaves that out."""
    caps = (config.final_logit_softcapping, config.attn_logit_softcapping)
    if any(cap is not None and not cap > 0 for cap in caps):
        refused(config, "caps its scores or logits at what is not above 0")
    if getattr(config, "use_bidirectional_attention", False):
        refused(config, "attends to what follows")
    if config.model_type == "gemma3_text" and caps[1] is not None:
        refused(config, "says that it caps its scores, which transformers does not do")
    return family if caps[0] is None else replace(family, prepare=cap_logits)


def unclipped(family: Family, config: Any) -> Family:
    """OLMo and OLMoE may clip queries, keys and values, which are then no longer linear in what enters."""
    if config.clip_qkv is not None:
        refused(config, "clips queries, keys and values (clip_qkv)")
    return family


def opt(family: Family, config: Any) -> Family:
    """OPT-350m has its norms behind the residual sums, and embeds tokens in fewer dimensions."""
    if not config.do_layer_norm_before or config._remove_final_layer_norm:
        refused(config, "has its norms behind the residual sums, so nothing adds up to them")
    if config.word_embed_proj_dim != config.hidden_size:
        refused(config, "projects the residual before it is unembedded")
    return family


def falcon(family: Family, config: Any) -> Family:
    """Three forms: one norm for attention and MLP, one for each, side by side, and one after the other."""
    if config.alibi:
        refused(config, "has ALiBi, which transformers computes in two ways that do not agree")
    if config.new_decoder_architecture and not config.parallel_attn:
        refused(config, "has groups of heads and MLPs behind attention, which transformers itself cannot run")
    two_norms = config.new_decoder_architecture and config.num_ln_in_parallel_attn in (None, 2)
    return replace(family, attention_norm="ln_attn") if two_norms and config.parallel_attn else family


def bloom(family: Family, config: Any) -> Family:
    """BLOOM may add to what is behind a norm, or compute W_O in slices, so that nothing passes the layer as a whole."""
    if config.apply_residual_connection_post_layernorm:
        refused(config, "adds to what is behind a norm, so no residual adds up")
    if config.slow_but_exact and config.pretraining_tp > 1:
        refused(config, "computes its output projection in slices (slow_but_exact)")
    return family


def mpt(family: Family, config: Any) -> Family:
    """Settings of MPT that are read wrongly, or that transformers passes over."""
    own = config.attn_config
    if own.clip_qkv is not None:
        refused(config, "clips queries, keys and values (clip_qkv)")
    if not own.alibi or own.alibi_bias_max != 8 or own.qk_ln or own.prefix_lm or config.logit_scale is not None:
        refused(config, "has settings of attention or logits that transformers passes over")
    return family


def falcon_heads(config: Any) -> int:
    """Key-value heads of Falcon's three forms."""
    if config.new_decoder_architecture or not config.multi_query:
        return config.num_kv_heads
    return 1


def one_if_shared(config: Any) -> int:
    """Key-value heads of GPT-BigCode: one for all query heads, or one for each."""
    return 1 if config.multi_query else config.num_attention_heads


def gpt_bigcode(family: Family, config: Any) -> Family:
    """With a key-value head for each query head, what belongs to a head lies side by side."""
    return family if config.multi_query else replace(family, fused="groups")


def cohere2_moe(family: Family, config: Any) -> Family:
    """Its norms centre, unless they have the constant of those that do not."""
    return family if config.rms_norm_eps is None else replace(family, norm="rms")


def hyperclovax(family: Family, config: Any) -> Family:
    """There may be norms behind attention and MLP."""
    return replace(family, norm_behind="post_norm1") if config.use_post_norm else family


def head_norms(query: str, key: str, setting: str) -> Variant:
    """Norms of queries and keys where a setting says so."""

    def variant(family: Family, config: Any) -> Family:
        return replace(family, query_norm=query, key_norm=key) if getattr(config, setting) else family

    return variant


def local_window(config: Any) -> int | None:
    """GPT-Neo: how far back its local layers look."""
    return config.window_size if "local" in config.attention_layers else None


def see_all(network: Any) -> None:
    """GPT-Neo keeps masks of its own, by places in a row. Ours are by positions in a prompt, and shorter than its
    windows, so its own are opened."""
    for block in network.transformer.h:
        own = block.attn.attention
        own.bias = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=own.bias.device).expand(1, 1, 2**20, 2**20)


def alibi(config: Any, positions: Tensor) -> Tensor:
    """ALiBi of BLOOM: a head's slope times the position of the key; slopes are powers of 2 in equal steps."""
    n = config.num_attention_heads
    whole = 2 ** math.floor(math.log2(n))
    slopes = [2 ** (-8 * (i + 1) / whole) for i in range(whole)]
    slopes += [2 ** (-4 * (2 * i + 1) / whole) for i in range(n - whole)]
    return torch.tensor(slopes)[:, None] * positions[..., None, :]


def alibi_of_mpt(config: Any, positions: Tensor) -> Tensor:
    """ALiBi of MPT: as BLOOM's, but for other than powers of 2 every second slope of the next one comes first."""
    n = config.num_attention_heads
    whole = 2 ** math.ceil(math.log2(n))
    slopes = [2 ** (-8 * (i + 1) / whole) for i in range(whole)]
    if whole != n:
        slopes = (slopes[1::2] + slopes[::2])[:n]
    return torch.tensor(slopes)[:, None] * positions[..., None, :]


def without_alibi(network: Any) -> None:
    """BLOOM counts positions along a row. Ours are by prompt, and in the mask, so that its own are nothing."""

    def nothing(mask: Tensor, num_heads: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(1, 1, 1, dtype=dtype, device=mask.device)

    network.transformer.build_alibi_tensor = nothing


def masks_as_they_are(network: Any) -> None:
    """MPT turns masks to yes and no, and has one ALiBi for all rows. Ours, with its own ALiBi in it, is added whole."""
    given: list[Tensor | None] = [None]
    whole: Callable[..., Any] = network.transformer.forward

    def forward(*inputs: Any, **options: Any) -> Any:
        mask = options.get("attention_mask")
        given[0] = mask if mask is not None and mask.ndim == 4 else None
        try:
            return whole(*inputs, **options)
        finally:
            given[0] = None

    network.transformer.forward = forward
    for block in network.transformer.blocks:
        block.attn.forward = functools.partial(_attend, block.attn, block.attn.forward, given)


def _attend(
    module: Any, plain: Callable[..., Any], given: Sequence[Tensor | None], hidden_states: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    """Attention of MPT with the mask that is given, or that a trace has put in its place; without one, its own."""
    own = options.get("attention_mask")
    mask = own if own is not None and own.is_floating_point() else given[0]
    if mask is None:
        return plain(hidden_states, **options)
    q, k, v = (x.unflatten(-1, (module.n_heads, -1)).transpose(1, 2) for x in module.Wqkv(hidden_states).chunk(3, -1))
    if options.get("past_key_values") is not None:
        k, v = options["past_key_values"].update(k, v, module.layer_idx)
    scores = q @ k.transpose(-1, -2) * module.softmax_scale + mask
    weights = scores.float().softmax(-1).to(v.dtype)
    return module.out_proj((weights @ v).transpose(1, 2).flatten(-2)), weights


def cap_logits(network: Any) -> None:
    """Gemma 2 caps its logits: its unembedding does it instead, so that it gives logits as they are."""
    unembed, cap = network.lm_head, network.config.final_logit_softcapping
    plain: Callable[..., Tensor] = unembed.forward
    vars(unembed)["cap"] = cap
    unembed.forward = lambda *inputs: capped(plain(*inputs), cap)
    network.config.final_logit_softcapping = None


def capped(x: Tensor, cap: float | None) -> Tensor:
    """Logits or scores as a soft cap leaves them: within plus and minus that; the same where there is none."""
    return x if cap is None else torch.tanh(x / cap) * cap


def scale_logits(network: Any) -> None:
    """Cohere multiplies its logits: its unembedding does it instead, so that it gives logits as they are."""
    scaled(network.lm_head, network.logit_scale)
    network.logit_scale = 1.0


def scale_granite(network: Any) -> None:
    """Granite divides its logits, and multiplies what attention and MLP add: modules that give them do it instead."""
    scaled(network.lm_head, 1 / network.config.logits_scaling)
    network.config.logits_scaling = 1.0
    for block in network.model.layers:
        _scale_parts(block, block.self_attn.o_proj, getattr(block, "mlp", None) or block.block_sparse_moe)


def scale_hyperclovax(network: Any) -> None:
    """As Granite, but it multiplies its logits, and may have norms behind attention and MLP."""
    scaled(network.lm_head, network.config.logits_scaling)
    network.config.logits_scaling = 1.0
    for block in network.model.layers:
        normed = network.config.use_post_norm
        _scale_parts(block, block.post_norm1 if normed else block.self_attn.o_proj, block.post_norm2)


def _scale_parts(block: Any, *modules: nn.Module) -> None:
    """Let modules of a block multiply what they give, and not the block what they gave."""
    for module in modules:
        scaled(module, block.residual_multiplier)
    block.residual_multiplier = 1.0


def scaled(module: nn.Module, by: float) -> None:
    """Let a layer multiply what it gives; its weight stays as it is stored, since it may be tied to another."""
    plain: Callable[..., Tensor] = module.forward
    vars(module)["multiplier"] = by
    module.forward = lambda *inputs: plain(*inputs) * by


def multiplier(module: Any) -> float:
    """What a layer multiplies its output by, see `scaled`."""
    return getattr(module, "multiplier", 1.0)

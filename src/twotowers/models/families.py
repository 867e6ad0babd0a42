"""The model families: a short `Family` entry for each `model_type` of transformers, and why others are refused."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

from ..errors import FamilyError, UnknownNameError
from . import adapting
from .family import Family
from .rotations import rotate_by_table, rotate_halves_by_layer, rotate_pairs, rotate_pairs_of_halves

LLAMA = Family(
    blocks="model.layers",
    final_norm="model.norm",
    attention="self_attn",
    attention_norm="input_layernorm",
    mlp="mlp",
    out_proj="o_proj",
    norm="rms",
    rotary="model.rotary_emb",
)
GPT2 = Family(
    blocks="transformer.h",
    final_norm="transformer.ln_f",
    attention="attn",
    attention_norm="ln_1",
    mlp="mlp",
    out_proj="c_proj",
    norm="layer",
    projections=("c_attn",),
    positions="transformer.wpe",
)
QWEN3 = replace(LLAMA, query_norm="q_norm", key_norm="k_norm", note="norms of each head's queries and keys")
COHERE = replace(
    LLAMA,
    norm="layer",
    rotate=rotate_pairs,
    prepare=adapting.scale_logits,
    variant=adapting.head_norms("q_norm", "k_norm", "use_qk_norm"),
    note="attention and MLP side by side; logits are scaled; some have norms of queries and keys",
)

FAMILIES: dict[str, Family] = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "mistral": replace(LLAMA, note="attention slides over a window"),
    "qwen2": replace(LLAMA, note="queries, keys and values have biases"),
    "qwen3": QWEN3,
    "gptj": replace(
        GPT2,
        out_proj="out_proj",
        projections=("q_proj", "k_proj", "v_proj"),
        positions=None,
        rotary="transformer.h.0.attn",
        rotate=rotate_by_table,
        scale=lambda attention: 1 / attention.scale_attn,
        returns_tuple=True,
        note="attention and MLP side by side; pairs of dimensions rotate, some of each head",
    ),
    "gpt_neox": Family(
        blocks="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        attention="attention",
        attention_norm="input_layernorm",
        mlp="mlp",
        out_proj="dense",
        norm="layer",
        projections=("query_key_value",),
        fused="groups",
        rotary="gpt_neox.rotary_emb",
        note="attention and MLP side by side, or one after the other; some dimensions of each head rotate",
    ),
    "opt": Family(
        blocks="model.decoder.layers",
        final_norm="model.decoder.final_layer_norm",
        attention="self_attn",
        attention_norm="self_attn_layer_norm",
        mlp="fc2",
        out_proj="out_proj",
        norm="layer",
        positions="model.decoder.embed_positions",
        position_offset=2,
        variant=adapting.opt,
        note="OPT-350m is refused, since its norms lie behind the residual sums",
    ),
    "gpt_neo": replace(
        GPT2,
        attention="attn.attention",
        out_proj="out_proj",
        projections=("q_proj", "k_proj", "v_proj"),
        scale=lambda _: 1.0,
        window=adapting.local_window,
        returns_tuple=True,
        prepare=adapting.see_all,
        note="every other layer is local; q.k is not scaled",
    ),
    "bloom": Family(
        blocks="transformer.h",
        final_norm="transformer.ln_f",
        attention="self_attention",
        attention_norm="input_layernorm",
        mlp="mlp.dense_4h_to_h",
        out_proj="dense",
        norm="layer",
        projections=("query_key_value",),
        fused="groups",
        alibi=adapting.alibi,
        scale=operator.attrgetter("inv_norm_factor"),
        returns_tuple=True,
        adds="self_attention.dense",
        variant=adapting.bloom,
        prepare=adapting.without_alibi,
        note="ALiBi; a norm behind the embedding",
    ),
    "falcon": Family(
        blocks="transformer.h",
        final_norm="transformer.ln_f",
        attention="self_attention",
        attention_norm="input_layernorm",
        mlp="mlp",
        out_proj="dense",
        norm="layer",
        projections=("query_key_value",),
        fused="groups",
        kv_heads=adapting.falcon_heads,
        rotary="transformer.rotary_emb",
        scale=operator.attrgetter("inv_norm_factor"),
        returns_tuple=True,
        variant=adapting.falcon,
        served=False,
        note="one key-value head, or groups; attention and MLP side by side or one after the other; with ALiBi refused",
    ),
    "phi": replace(
        LLAMA,
        final_norm="model.final_layernorm",
        out_proj="dense",
        norm="layer",
        variant=adapting.refuse(qk_layernorm=(True, "has norms of queries and keys, which no released model has")),
        note="attention and MLP side by side; some dimensions of each head rotate",
    ),
    "phi3": replace(LLAMA, projections=("qkv_proj",), note="one projection to queries, keys and values"),
    "olmo": replace(LLAMA, norm="layer", variant=adapting.unclipped, note="norms have no weights"),
    "stablelm": replace(
        LLAMA,
        norm="layer",
        variant=adapting.refuse(qk_layernorm=(True, "has a norm for each single head (StableLM 2 12B)")),
        note="some dimensions of each head rotate; with a norm for each head (12B) refused",
    ),
    "starcoder2": replace(LLAMA, norm="layer", note="biases everywhere; attention slides over a window"),
    "granite": replace(
        LLAMA,
        prepare=adapting.scale_granite,
        note="embedding, scores, what is added to the residual, and logits are scaled",
    ),
    "smollm3": replace(
        LLAMA, rotates=lambda attention: bool(attention.use_rope), note="every fourth layer does not rotate"
    ),
    "cohere": COHERE,
    "cohere2": replace(
        COHERE,
        rotates=lambda attention: attention.sliding_window is not None,
        variant=None,
        note="attention and MLP side by side; logits are scaled; layers with a window rotate, others do not",
    ),
    "mixtral": replace(LLAMA, note="the MLP is a mixture of experts, one part"),
    "qwen2_moe": replace(LLAMA, note="the MLP is a mixture of experts, one part"),
    "qwen3_moe": replace(QWEN3, note="norms of queries and keys; the MLP is a mixture of experts, one part"),
    "gemma": replace(LLAMA, gain=1.0, note="the embedding is scaled"),
    "olmo2": replace(
        QWEN3,
        attention_norm=None,
        norm_behind="post_attention_layernorm",
        mlp="post_feedforward_layernorm",
        note="norms behind attention and MLP, none before; norms of all queries and all keys",
    ),
    "glm4": replace(
        LLAMA,
        rotate=rotate_pairs_of_halves,
        norm_behind="post_self_attn_layernorm",
        mlp="post_mlp_layernorm",
        note="norms before and behind attention and MLP; pairs of dimensions rotate, some of each head",
    ),
    "gemma3_text": replace(
        QWEN3,
        gain=1.0,
        rotate=rotate_halves_by_layer,
        norm_behind="post_attention_layernorm",
        mlp="post_feedforward_layernorm",
        variant=adapting.uncapped,
        note="norms before and behind attention and MLP, and of queries and keys; most layers slide over a window",
    ),
}

REFUSED: dict[str, str] = {
    "gemma2": "its caps on logits keep the parts of a residual from adding up to them",
    "mpt": "its ALiBi is the same for all rows of a batch, and packed prompts need their own",
    "gemma3": "it reads images, too; take its text model alone (gemma3_text)",
}


def require_family(model_type: str) -> None:
    """Refuse a family that is not known, or known not to fit.

    Raises:
        FamilyError: with the reason, or the families that are known.
    """
    if model_type in FAMILIES:
        return
    if model_type in REFUSED:
        raise FamilyError(f"Models of the family {model_type} are refused: {REFUSED[model_type]}.")
    raise FamilyError(str(UnknownNameError("supported model family", model_type, FAMILIES)))


def family_of(config: Any) -> Family:
    """The family of a transformers config, as that configuration asks for it.

    Raises:
        FamilyError: the package does not know it, or has to refuse this very model.
    """
    require_family(config.model_type)
    family = FAMILIES[config.model_type]
    return family if family.variant is None else family.variant(family, config)

"""The model families: a short `Family` entry for each `model_type` of transformers."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

from ..errors import FamilyError, UnknownNameError
from . import adapting
from .family import Family, turned
from .refused import REFUSED
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
GPTJ = replace(GPT2, out_proj="out_proj", projections=("q_proj", "k_proj", "v_proj"), returns_tuple=True)
FALCON = replace(
    GPT2,
    attention="self_attention",
    attention_norm="input_layernorm",
    out_proj="dense",
    projections=("query_key_value",),
    fused="groups",
    positions=None,
    scale=operator.attrgetter("inv_norm_factor"),
    returns_tuple=True,
)
NORMED = "norms of each head's queries and keys"
EXPERTS = "the MLP is a mixture of experts, one part"
SLIDES = "attention slides over a window"
SOME_TURN = "some dimensions of each head rotate"
NO_WINDOW = "where some layers have a window, the others do not rotate"
ABREAST = "attention and MLP side by side"
CAPPED = operator.attrgetter("attn_logit_softcapping")
SCALED = "embedding, scores, what is added to the residual, and logits are scaled"
QWEN3 = replace(LLAMA, query_norm="q_norm", key_norm="k_norm", note=NORMED)
BEHIND = replace(QWEN3, norm_behind="post_attention_layernorm", mlp="post_feedforward_layernorm")
OLMO2 = replace(BEHIND, attention_norm=None, note="norms behind attention and MLP, and of queries and keys")
GLM = replace(LLAMA, rotate=rotate_pairs_of_halves)
COHERE = replace(LLAMA, norm="layer", rotate=rotate_pairs, prepare=adapting.scale_logits)
OPT = Family(
    blocks="model.decoder.layers",
    final_norm="model.decoder.final_layer_norm",
    attention="self_attn",
    attention_norm="self_attn_layer_norm",
    mlp="fc2",
    out_proj="out_proj",
    norm="layer",
    positions="model.decoder.embed_positions",
    position_offset=2,
)


def _whole_or_sliding(attention: Any) -> bool:
    """EXAONE: layers rotate that have a window, or all if none has one."""
    return attention.sliding_window is None or attention.is_sliding


FAMILIES: dict[str, Family] = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "mistral": replace(LLAMA, note=SLIDES),
    "qwen2": replace(LLAMA, note="queries, keys and values have biases"),
    "qwen3": QWEN3,
    "gptj": replace(
        GPTJ,
        positions=None,
        rotary="transformer.h.0.attn",
        rotate=rotate_by_table,
        scale=lambda attention: 1 / attention.scale_attn,
        note=f"{ABREAST}; pairs of dimensions rotate, some of each head",
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
        note=f"{ABREAST}, or one after the other; {SOME_TURN}",
    ),
    "opt": replace(OPT, variant=adapting.opt, note="OPT-350m is refused, since its norms lie behind the residual sums"),
    "biogpt": replace(
        OPT,
        blocks="biogpt.layers",
        final_norm="biogpt.layer_norm",
        positions="biogpt.embed_positions",
        unembed="output_projection",
    ),
    "gpt_neo": replace(
        GPTJ,
        attention="attn.attention",
        scale=lambda _: 1.0,
        window=adapting.local_window,
        prepare=adapting.see_all,
        note="every other layer is local; q.k is not scaled",
    ),
    "gpt_bigcode": replace(
        GPT2, kv_heads=adapting.one_if_shared, variant=adapting.gpt_bigcode, note="one key-value head, or one for each"
    ),
    "bloom": replace(
        FALCON,
        mlp="mlp.dense_4h_to_h",
        alibi=adapting.alibi,
        adds="self_attention.dense",
        variant=adapting.bloom,
        prepare=adapting.without_alibi,
        note="ALiBi; a norm behind the embedding",
    ),
    "mpt": Family(
        blocks="transformer.blocks",
        final_norm="transformer.norm_f",
        attention="attn",
        attention_norm="norm_1",
        mlp="ffn.down_proj",
        out_proj="out_proj",
        norm="layer",
        projections=("Wqkv",),
        alibi=adapting.alibi_of_mpt,
        exact_masks=True,
        scale=operator.attrgetter("softmax_scale"),
        returns_tuple=True,
        variant=adapting.mpt,
        prepare=adapting.masks_as_they_are,
        note="ALiBi; no biases",
    ),
    "falcon": replace(
        FALCON,
        kv_heads=adapting.falcon_heads,
        rotary="transformer.rotary_emb",
        variant=adapting.falcon,
        served=False,
        note=f"one key-value head, or groups; {ABREAST} or one after the other; with ALiBi refused",
    ),
    "phi": replace(
        LLAMA,
        final_norm="model.final_layernorm",
        out_proj="dense",
        norm="layer",
        variant=adapting.refuse(qk_layernorm=(True, "has norms of queries and keys, which no released model has")),
        note=f"{ABREAST}; {SOME_TURN}",
    ),
    "phi3": replace(LLAMA, projections=("qkv_proj",), note="one projection to queries, keys and values"),
    "phimoe": replace(LLAMA, norm="layer", note=EXPERTS),
    "olmo": replace(LLAMA, norm="layer", variant=adapting.unclipped, note="norms have no weights"),
    "olmoe": replace(QWEN3, variant=adapting.unclipped, note=f"norms of queries and keys; {EXPERTS}"),
    "stablelm": replace(
        LLAMA,
        norm="layer",
        variant=adapting.refuse(qk_layernorm=(True, "has a norm for each single head (StableLM 2 12B)")),
        note=f"{SOME_TURN}; with a norm for each head (12B) refused",
    ),
    "starcoder2": replace(LLAMA, norm="layer", note=f"biases everywhere; {SLIDES}"),
    "granite": replace(LLAMA, prepare=adapting.scale_granite, note=SCALED),
    "granitemoe": replace(LLAMA, mlp="block_sparse_moe", prepare=adapting.scale_granite, note=f"{SCALED}; {EXPERTS}"),
    "hyperclovax": replace(
        LLAMA,
        mlp="post_norm2",
        variant=adapting.hyperclovax,
        prepare=adapting.scale_hyperclovax,
        note=f"{SCALED}; some have norms behind attention and MLP",
    ),
    "smollm3": replace(
        LLAMA, rotates=lambda attention: bool(attention.use_rope), note="every fourth layer does not rotate"
    ),
    "cohere": replace(
        COHERE,
        variant=adapting.head_norms("q_norm", "k_norm", "use_qk_norm"),
        note=f"{ABREAST}; logits are scaled; some have norms of queries and keys",
    ),
    "cohere2": replace(
        COHERE,
        rotates=lambda attention: attention.sliding_window is not None,
        note=f"{ABREAST}; logits are scaled; layers with a window rotate, others do not",
    ),
    "cohere2_moe": replace(
        COHERE,
        variant=adapting.cohere2_moe,
        rotates=lambda attention: attention.sliding_window is not None or attention.force_rope,
        note=f"{ABREAST}; logits are scaled; layers with a window rotate, others do not; {EXPERTS}",
    ),
    **dict.fromkeys(("mixtral", "solar_open", "aria_text"), replace(LLAMA, note=EXPERTS)),
    "qwen2_moe": replace(LLAMA, note=EXPERTS),
    "qwen3_moe": replace(QWEN3, note=f"{NORMED}; {EXPERTS}"),
    **dict.fromkeys(("dots1", "hy_v3"), replace(QWEN3, note=f"{NORMED}; {EXPERTS}")),
    "mellum": replace(QWEN3, rotate=rotate_halves_by_layer, note=f"{NORMED}; {SLIDES}; {EXPERTS}"),
    "minimax_m2": replace(QWEN3, note=f"norms of queries and keys; {EXPERTS}"),
    "gemma": replace(LLAMA, gain=1.0, note="the embedding is scaled"),
    "olmo2": OLMO2,
    "flex_olmo": replace(OLMO2, note=f"{OLMO2.note}; {EXPERTS}"),
    "olmo3": replace(OLMO2, rotate=rotate_halves_by_layer, note=f"{OLMO2.note}; most layers slide over a window"),
    "exaone4": replace(OLMO2, rotates=_whole_or_sliding, note=f"{OLMO2.note}; {NO_WINDOW}"),
    "exaone_moe": replace(QWEN3, rotates=_whole_or_sliding, note=f"{NORMED}; {NO_WINDOW}; {EXPERTS}"),
    "kolibri1": replace(
        QWEN3,
        norm_behind="post_self_attn_layernorm",
        mlp="post_mlp_layernorm",
        rotates=_whole_or_sliding,
        note=f"norms before and behind attention and MLP, and of queries and keys; {NO_WINDOW}; {EXPERTS}",
    ),
    "glm": replace(GLM, note=f"pairs of dimensions rotate, {SOME_TURN.removesuffix(' rotate')}"),
    "glm4": replace(
        GLM,
        norm_behind="post_self_attn_layernorm",
        mlp="post_mlp_layernorm",
        note="norms before and behind attention and MLP; pairs of dimensions rotate, some of each head",
    ),
    "glm4_moe": replace(
        LLAMA, variant=adapting.head_norms("q_norm", "k_norm", "use_qk_norm"), note=f"{SOME_TURN}; {EXPERTS}"
    ),
    "helium": replace(GLM, note="pairs of dimensions rotate"),
    "ernie4_5": replace(GLM, note="pairs of dimensions rotate"),
    "ernie4_5_moe": replace(GLM, note=f"pairs of dimensions rotate; {EXPERTS}"),
    "nemotron": replace(LLAMA, norm="layer", gain=1.0, note=SOME_TURN),
    "apertus": replace(QWEN3, attention_norm="attention_layernorm"),
    "arcee": LLAMA,
    "seed_oss": replace(LLAMA, note="queries, keys and values have biases"),
    "jais2": replace(LLAMA, norm="layer", note="biases everywhere"),
    **dict.fromkeys(("ministral", "cwm"), replace(LLAMA, note=SLIDES)),
    "ministral3": replace(
        LLAMA, note="queries beyond the length that it was first trained for grow, so it reads no more"
    ),
    "gemma2": replace(
        LLAMA,
        gain=1.0,
        norm_behind="post_attention_layernorm",
        mlp="post_feedforward_layernorm",
        score_cap=CAPPED,
        variant=adapting.gemma,
        prepare=adapting.cap_logits,
        note="norms before and behind attention and MLP; scores and logits are capped; every other layer slides",
    ),
    "vaultgemma": replace(
        LLAMA, gain=1.0, score_cap=CAPPED, variant=adapting.gemma, note="most layers slide; scores may be capped"
    ),
    "gemma3_text": replace(
        BEHIND,
        gain=1.0,
        rotate=rotate_halves_by_layer,
        variant=adapting.gemma,
        note="norms before and behind attention and MLP, and of queries and keys; most layers slide over a window",
    ),
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
    alike = 1.0 if model_type in CONFIG_MAPPING else 0.8  # a name that transformers knows is no slip of the pen
    told = str(UnknownNameError("supported model family", model_type, FAMILIES, alike=alike))
    hint = without_code(model_type) or "twotowers check MODEL --guess tries to find out how it is read"
    raise FamilyError(told if told.endswith("?") else f"{told}; {hint}")


def without_code(model_type: str) -> str:
    """Why there is no network of a name to look into; nothing where there is one, by transformers or registered."""
    if model_type not in CONFIG_MAPPING:
        return "transformers has no code for it, and code that comes with a model is never run"
    if CONFIG_MAPPING[model_type] in MODEL_FOR_CAUSAL_LM_MAPPING:
        return ""
    if "text_config" in CONFIG_MAPPING[model_type].sub_configs:
        return "it reads more than text; save its text model alone, if that is of one of these"
    return "transformers has no decoder of it"


def family_of(config: Any) -> Family:
    """The family of a transformers config, as that configuration asks for it.

    Raises:
        FamilyError: the package does not know it, or has to refuse this very model.
    """
    require_family(config.model_type)
    family = FAMILIES[config.model_type]
    if not getattr(config, "is_causal", True):  # of whatever family, transformers then masks nothing
        adapting.refused(config, "attends to what follows (is_causal is false in its config.json)")
    if family.rotary and 1 in turned(config):  # transformers makes two of it, or not, by the family
        adapting.refused(config, "turns one dimension of each head with its positions, where two are needed")
    if (window := family.window(config)) is not None and window < 1:
        adapting.refused(config, f"has layers that look back over {window} tokens")
    return family if family.variant is None else family.variant(family, config)

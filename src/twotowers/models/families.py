"""The model families: a short `Family` entry for each `model_type` of transformers, and why others are refused."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

from ..errors import FamilyError, UnknownNameError
from . import adapting
from .family import Family, turned
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
    "vaultgemma": replace(LLAMA, gain=1.0, variant=adapting.uncapped, note="with caps refused; most layers slide"),
    "gemma3_text": replace(
        BEHIND,
        gain=1.0,
        rotate=rotate_halves_by_layer,
        variant=adapting.uncapped,
        note="norms before and behind attention and MLP, and of queries and keys; most layers slide over a window",
    ),
}

_RECURRENT = (
    "mamba mamba2 falcon_mamba falcon_h1 jamba bamba zamba zamba2 nemotron_h granitemoehybrid recurrent_gemma rwkv "
    "lfm2 lfm2_moe qwen3_next qwen3_5 qwen3_5_text qwen3_5_moe qwen3_5_moe_text qwen4_exp qwen4_exp_text minimax "
    "kimi_linear olmo_hybrid bailing_hybrid xlstm"
)
_LATENT = "deepseek_v2 deepseek_v3 deepseek_v32 minicpm3 longcat_flash glm4_moe_lite youtu axk1 axk2 glm_moe_dsa hy_v4"
_ENCODERS = (
    "bert bert-generation big_bird camembert data2vec-text electra ernie megatron-bert rembert roberta roc_bert "
    "roberta-prelayernorm roformer xlm xlm-roberta xlm-roberta-xl xmod xlnet"
)
_BESIDE_ENCODERS = (
    "bart bigbird_pegasus blenderbot blenderbot-small marian mbart mvp pegasus plbart prophetnet trocr whisper "
    "musicgen musicgen_melody"
)
_SEES = "emu3 fuyu gemma3n gemma4 gemma4_unified git got_ocr2 mllama moss_transcribe_diarize moshi phi4_multimodal"
REFUSED: dict[str, str] = {
    "gemma2": "its caps on logits keep the parts of a residual from adding up to them",
    "mpt": "its ALiBi is the same for all rows of a batch, and packed prompts need their own",
    **dict.fromkeys(("gemma3", "mistral3"), "it reads images, too; take its text model alone"),
    "llama4": "it reads images, too, and its text model is of no family here",
    **dict.fromkeys(
        _SEES.split(), "it reads more than text, as images or sound, and its text model is of no family here"
    ),
    **dict.fromkeys(
        ("gpt_oss", "granite_swa", "granitemoe_swa", "flint", "mimo_v2_flash"),
        "part of its attention goes to no position (sinks), so its weights are not those of positions alone",
    ),
    "bitnet": "a norm lies between its heads and their output matrix, and its weights are of three values",
    **dict.fromkeys(
        ("hunyuan_v1_dense", "hunyuan_v1_moe", "nanochat", "llama4_text"), "it norms queries and keys after they rotate"
    ),
    **dict.fromkeys(("afmoe", "laguna", "beam"), "gates multiply what its heads have read"),
    "persimmon": "it centres queries and keys, with a bias",
    "codegen": "its queries, keys and values lie in slices of several heads",
    "dbrx": "it clips queries, keys and values, which are then not linear in what enters",
    "diffllama": "its heads are differences of two attentions",
    "doge": "its masks are made of its values, and it weighs residuals",
    "openai-gpt": "its norms lie behind the residual sums, so nothing adds up to them",
    "granitemoeshared": "what its experts and its shared MLP add together comes from no one module",
    "gpt_neox_japanese": "a bias of its attention lies outside the output matrix",
    "xglm": "its attention refuses a mask of one row for all, which a knock-out of every head needs",
    "ctrl": "its attention is given three inputs, all of which a knock-out would have to change",
    "cpmant": "it puts tokens of its own before a prompt",
    "jetmoe": "its attention is a mixture of experts, which have heads of their own",
    "zaya": "its queries and keys are made of several positions, by convolutions",
    "inkling_text": "convolutions over positions lie behind its attention and MLP",
    "deepseek_v4": "it attends to groups of positions that are put together to one key",
    "minimax_m3_vl_text": "it attends to a choice of blocks of positions",
    "reformer": "it attends to a choice of positions, by hashes",
    "cohere_compass_text": "its rotation has three axes, as images need",
    "modernbert-decoder": "a layer with an activation lies between its residual and its logits",
    "hrm_text": "it goes through its layers several times",
    "blt": "it reads bytes, in patches",
    "gemma3n_text": "it keeps several residuals beside each other",
    **dict.fromkeys(("gemma4_text", "gemma4_unified_text"), "its layers have heads of different sizes"),
    **dict.fromkeys(("gemma4_assistant", "gemma4_unified_assistant"), "it drafts for a larger model, and reads that"),
    "gpt-sw3": 'transformers reads it as a gpt2; write "gpt2" for the model_type in config.json',
    **dict.fromkeys(_ENCODERS.split(), "its models are trained to see what follows a token, as encoders are"),
    **dict.fromkeys(_BESIDE_ENCODERS.split(), "it is the decoder beside an encoder, to which it attends, too"),
    **dict.fromkeys(_LATENT.split(), "its keys and values are made of a latent vector that has a norm of its own"),
    **dict.fromkeys(_RECURRENT.split(), "some or all of its layers are recurrent or convolutions, and have no heads"),
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
    told = str(UnknownNameError("supported model family", model_type, FAMILIES, alike=0.8))
    hint = without_code(model_type) or "twotowers check MODEL --guess tries to find out how it is read"
    raise FamilyError(told if told.endswith("?") else f"{told}; {hint}")


def without_code(model_type: str) -> str:
    """Why there is no network of a name to look into; nothing where there is one, by transformers or registered."""
    if model_type not in CONFIG_MAPPING:
        return "transformers has no code for it, and code that comes with a model is never run"
    return "" if CONFIG_MAPPING[model_type] in MODEL_FOR_CAUSAL_LM_MAPPING else "transformers has no decoder of it"


def family_of(config: Any) -> Family:
    """The family of a transformers config, as that configuration asks for it.

    Raises:
        FamilyError: the package does not know it, or has to refuse this very model.
    """
    require_family(config.model_type)
    family = FAMILIES[config.model_type]
    if family.rotary and 1 in turned(config):  # transformers makes two of it, or not, by the family
        adapting.refused(config, "turns one dimension of each head with its positions, where two are needed")
    if (window := family.window(config)) is not None and window < 1:
        adapting.refused(config, f"has layers that look back over {window} tokens")
    return family if family.variant is None else family.variant(family, config)

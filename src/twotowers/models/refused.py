"""Families of transformers that are known and refused, and why: a reason for each `model_type`."""

from __future__ import annotations

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

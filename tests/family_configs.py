"""Tiny random models of every family beside GPT-2 and Llama, with the odd values that real configurations have.

Windows are longer than the prompts of the tests and shorter than packed rows; every parameter is random.
"""

import torch
from transformers import (
    ApertusConfig,
    ArceeConfig,
    AriaTextConfig,
    AutoModelForCausalLM,
    BioGptConfig,
    BloomConfig,
    Cohere2Config,
    Cohere2MoeConfig,
    CohereConfig,
    CwmConfig,
    Dots1Config,
    Ernie4_5_MoeConfig,
    Ernie4_5Config,
    Exaone4Config,
    ExaoneMoeConfig,
    FalconConfig,
    FlexOlmoConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    Glm4Config,
    Glm4MoeConfig,
    GlmConfig,
    GPTBigCodeConfig,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    GraniteConfig,
    GraniteMoeConfig,
    HeliumConfig,
    HyperCLOVAXConfig,
    HYV3Config,
    Jais2Config,
    Kolibri1Config,
    MellumConfig,
    MiniMaxM2Config,
    Ministral3Config,
    MinistralConfig,
    MistralConfig,
    MixtralConfig,
    MptConfig,
    NemotronConfig,
    Olmo2Config,
    Olmo3Config,
    OlmoConfig,
    OlmoeConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PhimoeConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SeedOssConfig,
    SmolLM3Config,
    SolarOpenConfig,
    StableLmConfig,
    Starcoder2Config,
    VaultGemmaConfig,
)

from conftest import VOCABULARY, tiny_tokenizer

WINDOW = 32
LESS_1 = ("gemma", "vaultgemma", "nemotron")  # store the weights of norms less 1
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
MODERN = SIZES | {
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
RMS = MODERN | {"rms_norm_eps": 1e-3}
LLAMA_LIKE = RMS | {"head_dim": 16}  # not hidden_size / heads: a formula that assumes so fails
LAYER = MODERN | {"layer_norm_eps": 1e-3}
KINDS = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": WINDOW}
SCALES = {
    "embedding_multiplier": 3.0, "logits_scaling": 4.0, "residual_multiplier": 0.4, "attention_multiplier": 0.3,
    "attention_bias": True,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
ROUTED = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "first_k_dense_replace": 1,
    "n_group": 1, "topk_group": 1,
}  # fmt: skip


def partial(share):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": share}}


CONFIGS = {
    "gptj": GPTJConfig(vocab_size=VOCABULARY, n_positions=256, n_embd=32, n_layer=3, n_head=4, rotary_dim=4),
    "gpt_neox": GPTNeoXConfig(**SIZES, intermediate_size=48, rotary_pct=0.5),
    "gpt_neox-sequential": GPTNeoXConfig(**SIZES, intermediate_size=48, use_parallel_residual=False),
    "mistral": MistralConfig(**LLAMA_LIKE, sliding_window=WINDOW),
    "qwen2": Qwen2Config(**RMS),
    "qwen3": Qwen3Config(**LLAMA_LIKE),
    "opt": OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=32, pad_token_id=1),
    "gpt_neo": GPTNeoConfig(
        vocab_size=VOCABULARY, max_position_embeddings=256, hidden_size=32, intermediate_size=48, num_layers=4,
        num_heads=4, attention_types=[[["global", "local"], 2]], window_size=WINDOW,
    ),
    "bloom": BloomConfig(vocab_size=VOCABULARY, hidden_size=48, n_layer=3, n_head=6),  # 6: slopes of two series
    "mpt": MptConfig(vocab_size=VOCABULARY, d_model=48, n_heads=6, n_layers=3, max_seq_len=256),  # 6: as above
    "falcon-one-key": FalconConfig(**SIZES, multi_query=True, parallel_attn=True, bias=False),
    "falcon-groups": FalconConfig(**SIZES, new_decoder_architecture=True, num_kv_heads=2),
    "falcon-one-norm": FalconConfig(**SIZES, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1),
    "falcon-sequential": FalconConfig(**SIZES, multi_query=False, parallel_attn=False, bias=True),
    "phi": PhiConfig(**LAYER, **partial(0.5)),
    "phi3": Phi3Config(**RMS, **partial(0.5), sliding_window=WINDOW),
    "olmo": OlmoConfig(**MODERN),
    "stablelm": StableLmConfig(**LAYER, **partial(0.5), use_qkv_bias=True),
    "stablelm-parallel": StableLmConfig(**LAYER, **partial(0.25), use_parallel_residual=True),
    "starcoder2": Starcoder2Config(**MODERN, norm_epsilon=1e-3, sliding_window=WINDOW, use_bias=True),
    "granite": GraniteConfig(**RMS, **SCALES),
    "smollm3": SmolLM3Config(**RMS, no_rope_layers=[1, 0, 1]),
    "cohere": CohereConfig(**LAYER, logit_scale=0.25),
    "cohere-normed": CohereConfig(**LAYER, logit_scale=0.25, use_qk_norm=True),
    "cohere2": Cohere2Config(**LAYER, **KINDS, head_dim=16, logit_scale=0.25),
    "mixtral": MixtralConfig(**LLAMA_LIKE, num_local_experts=4, num_experts_per_tok=2, sliding_window=WINDOW),
    "qwen2_moe": Qwen2MoeConfig(**RMS, **EXPERTS, shared_expert_intermediate_size=40, decoder_sparse_step=2),
    "qwen3_moe": Qwen3MoeConfig(**LLAMA_LIKE, **EXPERTS),
    "gemma": GemmaConfig(**LLAMA_LIKE),
    "olmo2": Olmo2Config(**RMS),
    "glm4": Glm4Config(**LLAMA_LIKE, **partial(0.5), attention_bias=True),
    "gpt_bigcode": GPTBigCodeConfig(vocab_size=VOCABULARY, n_positions=256, n_embd=32, n_layer=3, n_head=4),
    "gpt_bigcode-each": GPTBigCodeConfig(
        vocab_size=VOCABULARY, n_positions=256, n_embd=32, n_layer=3, n_head=4, multi_query=False,
        scale_attn_weights=False,
    ),
    "phimoe": PhimoeConfig(
        **RMS, num_local_experts=4, num_experts_per_tok=2, sliding_window=WINDOW, attention_bias=True, lm_head_bias=True
    ),
    "olmoe": OlmoeConfig(**RMS, num_experts=4, num_experts_per_tok=2, attention_bias=True),
    "flex_olmo": FlexOlmoConfig(**RMS, num_experts=4, num_experts_per_tok=2),
    "minimax_m2": MiniMaxM2Config(**LLAMA_LIKE, num_local_experts=4, num_experts_per_tok=2, **partial(0.5)),
    "olmo3": Olmo3Config(**RMS, **KINDS, attention_bias=True),
    "exaone4": Exaone4Config(**LLAMA_LIKE, **KINDS),
    "exaone4-full": Exaone4Config(**LLAMA_LIKE, layer_types=["full_attention"] * 3, sliding_window=None),
    "glm": GlmConfig(**LLAMA_LIKE, **partial(0.5), attention_bias=True),
    "glm4_moe": Glm4MoeConfig(**LLAMA_LIKE, **ROUTED, **partial(0.5)),
    "glm4_moe-normed": Glm4MoeConfig(**LLAMA_LIKE, **ROUTED, **partial(0.5), use_qk_norm=True, attention_bias=True),
    "helium": HeliumConfig(**RMS, head_dim=8),
    "ernie4_5": Ernie4_5Config(**LLAMA_LIKE, use_bias=True),
    "ernie4_5_moe": Ernie4_5_MoeConfig(
        **RMS, moe_num_experts=4, moe_k=2, moe_intermediate_size=24, moe_layer_start_index=1, use_bias=True
    ),
    "nemotron": NemotronConfig(**MODERN, norm_eps=1e-3, head_dim=16, **partial(0.5), attention_bias=True),
    "apertus": ApertusConfig(**RMS, attention_bias=True),
    "arcee": ArceeConfig(**LLAMA_LIKE, attention_bias=True),
    "seed_oss": SeedOssConfig(**LLAMA_LIKE, attention_bias=True, attention_out_bias=True),
    "jais2": Jais2Config(**LAYER, head_dim=16),
    "ministral": MinistralConfig(**LLAMA_LIKE, **KINDS),
    "cwm": CwmConfig(**LLAMA_LIKE, **KINDS),
    "gemma3_text": Gemma3TextConfig(**LLAMA_LIKE, **KINDS, query_pre_attn_scalar=24),
    "gemma2": Gemma2Config(
        **LLAMA_LIKE, query_pre_attn_scalar=24, sliding_window=WINDOW, attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
    ),
    "biogpt": BioGptConfig(**SIZES, intermediate_size=48, pad_token_id=1),
    "granitemoe": GraniteMoeConfig(**RMS, num_local_experts=4, num_experts_per_tok=2, **SCALES),
    "hyperclovax": HyperCLOVAXConfig(**LLAMA_LIKE, **SCALES),
    "hyperclovax-before": HyperCLOVAXConfig(**LLAMA_LIKE, **SCALES, use_post_norm=False),
    "cohere2_moe": Cohere2MoeConfig(
        **LAYER, num_experts=4, num_experts_per_tok=2, num_shared_experts=1, head_dim=16, logit_scale=0.25,
        layer_types=["full_attention", "sliding_attention", "full_attention"], sliding_window=WINDOW,
        mlp_layer_types=["dense", "sparse", "sparse"], prefix_dense_intermediate_size=24,
    ),
    "cohere2_moe-rms": Cohere2MoeConfig(**LLAMA_LIKE, **KINDS, num_experts=4, logit_scale=0.25),
    "dots1": Dots1Config(**LLAMA_LIKE, **ROUTED, **KINDS, n_shared_experts=1, attention_bias=True),
    "hy_v3": HYV3Config(
        **LLAMA_LIKE, num_local_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, attention_bias=True
    ),
    "mellum": MellumConfig(**LLAMA_LIKE, **KINDS, **EXPERTS),
    "solar_open": SolarOpenConfig(**LLAMA_LIKE, **ROUTED | {"first_k_dense_replace": 0}),
    "aria_text": AriaTextConfig(**LLAMA_LIKE, moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1),
    "exaone_moe": ExaoneMoeConfig(**LLAMA_LIKE, **KINDS, **EXPERTS),
    "kolibri1": Kolibri1Config(**LLAMA_LIKE, **KINDS, **EXPERTS),
    "ministral3": Ministral3Config(
        **LLAMA_LIKE, sliding_window=None,
        rope_parameters={
            "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 2.0, "original_max_position_embeddings": 128,
            "llama_4_scaling_beta": 0.1,
        },
    ),
    "vaultgemma": VaultGemmaConfig(
        **LLAMA_LIKE, **KINDS, query_pre_attn_scalar=24, final_logit_softcapping=None, attn_logit_softcapping=None
    ),
    "vaultgemma-capped": VaultGemmaConfig(
        **LLAMA_LIKE, **KINDS, query_pre_attn_scalar=24, final_logit_softcapping=3.0, attn_logit_softcapping=2.0
    ),
}  # fmt: skip


def network_of(config):
    """A model in which every parameter is random, also biases and norms."""
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            norm = ("norm" in name or "ln_" in name) and "bias" not in name and not config.model_type.startswith(LESS_1)
            parameter.copy_((1.0 if norm else 0.0) + 0.3 * torch.randn_like(parameter))
    return network


def save(config, folder):
    """Such a model in a folder, with a tokenizer."""
    network_of(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder

"""Settings that configurations of known families may have: each is read exactly, or refused by name."""

from transformers import (
    BloomConfig,
    CohereConfig,
    FalconConfig,
    Gemma3TextConfig,
    GemmaConfig,
    Glm4Config,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    OlmoConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
    StableLmConfig,
    Starcoder2Config,
)

from conftest import VOCABULARY
from family_configs import KINDS, LAYER, LLAMA_LIKE, MODERN, RMS, SIZES, WINDOW, partial

GPT2 = {"vocab_size": VOCABULARY, "n_positions": 256, "n_embd": 32, "n_layer": 3, "n_head": 4}
LONG = {"short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [2.0, 3.0, 4.0, 5.0]}


def rope(kind, **options):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, **options}}


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
ODD = {
    "gpt2: scores by layer": GPT2Config(**GPT2, scale_attn_by_inverse_layer_idx=True),
    "gpt2: scores not scaled": GPT2Config(**GPT2, scale_attn_weights=False),
    "gpt2: scores in float32": GPT2Config(**GPT2, reorder_and_upcast_attn=True),
    "gpt2: both": GPT2Config(**GPT2, reorder_and_upcast_attn=True, scale_attn_by_inverse_layer_idx=True),
    "gpt2: wide MLP, relu": GPT2Config(**GPT2, n_inner=20, activation_function="relu"),
    "gpt2: crossed": GPT2Config(**GPT2, add_cross_attention=True),
    "gptj: all dimensions turn": GPTJConfig(
        vocab_size=VOCABULARY, n_positions=256, n_embd=32, n_layer=3, n_head=4, rotary_dim=8
    ),
    "gptj: tied": GPTJConfig(
        vocab_size=VOCABULARY, n_positions=256, n_embd=32, n_layer=3, n_head=4, rotary_dim=4, tie_word_embeddings=True
    ),
    "gpt_neo: all local": GPTNeoConfig(
        vocab_size=VOCABULARY, max_position_embeddings=256, hidden_size=32, intermediate_size=48, num_layers=3,
        num_heads=4, attention_types=[[["local"], 3]], window_size=WINDOW,
    ),
    "gpt_neox: no biases": GPTNeoXConfig(**SIZES, intermediate_size=48, rotary_pct=1.0, attention_bias=False),
    "gpt_neox: tied": GPTNeoXConfig(**SIZES, intermediate_size=48, tie_word_embeddings=True),
    "llama: biases": LlamaConfig(**LLAMA_LIKE, attention_bias=True, mlp_bias=True),
    "llama: linear rotation": LlamaConfig(**LLAMA_LIKE, **rope("linear", factor=4.0)),
    "llama: dynamic rotation": LlamaConfig(**LLAMA_LIKE, **rope("dynamic", factor=4.0)),
    "llama: yarn": LlamaConfig(**LLAMA_LIKE, **rope("yarn", factor=4.0, original_max_position_embeddings=64)),
    "llama: llama3": LlamaConfig(**LLAMA_LIKE, **rope("llama3", **LLAMA3)),
    "llama: tied, one key-value head": LlamaConfig(
        **LLAMA_LIKE | {"tie_word_embeddings": True, "num_key_value_heads": 1}
    ),
    "llama: tensor pretraining": LlamaConfig(**LLAMA_LIKE, pretraining_tp=2),
    "mistral: no window": MistralConfig(**LLAMA_LIKE, sliding_window=None),
    "qwen2: slides": Qwen2Config(**RMS, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    "qwen3: slides, biases": Qwen3Config(
        **LLAMA_LIKE, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2, attention_bias=True
    ),
    "opt: no biases": OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=32, pad_token_id=1, enable_bias=False),
    "opt: norms without weights": OPTConfig(
        **SIZES, ffn_dim=48, word_embed_proj_dim=32, pad_token_id=1, layer_norm_elementwise_affine=False
    ),
    "opt: untied, another activation": OPTConfig(
        **SIZES, ffn_dim=48, word_embed_proj_dim=32, pad_token_id=1, tie_word_embeddings=False,
        activation_function="gelu",
    ),
    "bloom: slow": BloomConfig(
        vocab_size=VOCABULARY, hidden_size=48, n_layer=3, n_head=4, slow_but_exact=True, pretraining_tp=2
    ),
    "bloom: slopes of one series": BloomConfig(vocab_size=VOCABULARY, hidden_size=48, n_layer=3, n_head=4),
    "falcon: groups, one after the other": FalconConfig(
        **SIZES, new_decoder_architecture=True, num_kv_heads=2, parallel_attn=False
    ),
    "falcon: many, side by side": FalconConfig(**SIZES, multi_query=False, parallel_attn=True, bias=True),
    "phi: all dimensions turn": PhiConfig(**LAYER, **partial(1.0)),
    "phi3: longrope": Phi3Config(
        **RMS | {"num_attention_heads": 4}, original_max_position_embeddings=256, **rope("longrope", **LONG),
    ),
    "olmo: tied, biases": OlmoConfig(**MODERN | {"tie_word_embeddings": True}, attention_bias=True),
    "olmo2: biases": Olmo2Config(**RMS, attention_bias=True),
    "stablelm: no query biases": StableLmConfig(**LAYER, **partial(0.5), use_qkv_bias=False),
    "starcoder2: no biases": Starcoder2Config(**MODERN, norm_epsilon=1e-3, sliding_window=None, use_bias=False),
    "granite: MLP biases": GraniteConfig(
        **RMS, embedding_multiplier=3.0, logits_scaling=4.0, residual_multiplier=0.4, attention_multiplier=0.3,
        mlp_bias=True,
    ),
    "smollm3: every layer turns": SmolLM3Config(**RMS, no_rope_layers=[1, 1, 1]),
    "smollm3: slides": SmolLM3Config(
        **RMS, no_rope_layers=[1, 0, 1], use_sliding_window=True, sliding_window=WINDOW,
        layer_types=KINDS["layer_types"],
    ),
    "cohere: biases": CohereConfig(**LAYER, logit_scale=0.25, attention_bias=True),
    "mixtral: no window": MixtralConfig(**LLAMA_LIKE, num_local_experts=4, num_experts_per_tok=1, sliding_window=None),
    "gemma: another activation": GemmaConfig(**LLAMA_LIKE, hidden_act="silu", attention_bias=True),
    "glm4: no biases": Glm4Config(**LLAMA_LIKE, **partial(1.0), attention_bias=False),
    "gemma3_text: two rotations": Gemma3TextConfig(
        **LLAMA_LIKE, **KINDS, query_pre_attn_scalar=24,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0},
        },
    ),
}  # fmt: skip

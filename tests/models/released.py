"""Sizes of released models, as their configurations say them: what the registry's numbers of weights follow from."""

from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    Olmo2Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)


def sizes(width, inner, layers, heads, kv_heads, vocabulary, *, tied, d_head=None):
    return {
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": vocabulary, "tie_word_embeddings": tied,
        "head_dim": d_head or width // heads, "pad_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def pythia(width, layers, heads, vocabulary=50304):
    return GPTNeoXConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
        vocab_size=vocabulary, tie_word_embeddings=False,
    )  # fmt: skip


def without(options, *names):
    return {name: value for name, value in options.items() if name not in names}


def qwen2(*numbers, **options):
    return Qwen2Config(**without(sizes(*numbers, **options), "head_dim"))


RELEASED = {
    "pythia-70m": pythia(512, 6, 8),
    "pythia-160m": pythia(768, 12, 12),
    "pythia-410m": pythia(1024, 24, 16),
    "pythia-1b": pythia(2048, 16, 8),
    "pythia-1.4b": pythia(2048, 24, 16),
    "pythia-2.8b": pythia(2560, 32, 32),
    "pythia-6.9b": pythia(4096, 32, 32, 50432),
    "pythia-12b": pythia(5120, 36, 40, 50688),
    "smollm2-360m": LlamaConfig(**sizes(960, 2560, 32, 15, 5, 49152, tied=True)),
    "smollm2-1.7b": LlamaConfig(**sizes(2048, 8192, 24, 32, 32, 49152, tied=True)),
    "smollm3-3b": SmolLM3Config(**without(sizes(2048, 11008, 36, 16, 4, 128256, tied=True), "head_dim")),
    "qwen2.5-0.5b": qwen2(896, 4864, 24, 14, 2, 151936, tied=True),
    "qwen2.5-1.5b": qwen2(1536, 8960, 28, 12, 2, 151936, tied=True),
    "qwen2.5-3b": qwen2(2048, 11008, 36, 16, 2, 151936, tied=True),
    "qwen2.5-7b": qwen2(3584, 18944, 28, 28, 4, 152064, tied=False),
    "qwen3-0.6b": Qwen3Config(**sizes(1024, 3072, 28, 16, 8, 151936, tied=True, d_head=128)),
    "qwen3-1.7b": Qwen3Config(**sizes(2048, 6144, 28, 16, 8, 151936, tied=True, d_head=128)),
    "qwen3-4b": Qwen3Config(**sizes(2560, 9728, 36, 32, 8, 151936, tied=True, d_head=128)),
    "qwen3-8b": Qwen3Config(**sizes(4096, 12288, 36, 32, 8, 151936, tied=False, d_head=128)),
    "llama-3.2-1b": LlamaConfig(**sizes(2048, 8192, 16, 32, 8, 128256, tied=True)),
    "llama-3.2-3b": LlamaConfig(**sizes(3072, 8192, 28, 24, 8, 128256, tied=True)),
    "llama-3.1-8b": LlamaConfig(**sizes(4096, 14336, 32, 32, 8, 128256, tied=False)),
    "gemma-2-2b": Gemma2Config(**sizes(2304, 9216, 26, 8, 4, 256000, tied=True, d_head=256)),
    "gemma-2-9b": Gemma2Config(**sizes(3584, 14336, 42, 16, 8, 256000, tied=True, d_head=256)),
    "gemma-3-270m": Gemma3TextConfig(**sizes(640, 2048, 18, 4, 1, 262144, tied=True, d_head=256)),
    "gemma-3-1b": Gemma3TextConfig(**sizes(1152, 6912, 26, 4, 1, 262144, tied=True, d_head=256)),
    "olmo-2-1b": Olmo2Config(**without(sizes(2048, 8192, 16, 16, 16, 100352, tied=False), "head_dim")),
    "olmo-2-7b": Olmo2Config(**without(sizes(4096, 11008, 32, 32, 32, 100352, tied=False), "head_dim")),
}

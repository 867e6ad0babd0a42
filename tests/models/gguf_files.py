"""GGUF files of tiny random models: as llama.cpp writes them, family by family, in any way of storing weights."""

import json

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from sentencepiece import SentencePieceProcessor

from twotowers.models.families import family_of

ARCHITECTURES = {  # of our families, those that transformers reads
    "llama": "LLAMA",
    "qwen2": "QWEN2",
    "qwen3": "QWEN3",
    "gpt2": "GPT2",
    "phi3": "PHI3",
    "stablelm": "STABLELM",
    "starcoder2": "STARCODER2",
    "falcon": "FALCON",
    "bloom": "BLOOM",
    "gemma2": "GEMMA2",
    "gemma3_text": "GEMMA3",
    "mistral": "LLAMA",
    "mixtral": "LLAMA",
    "qwen2_moe": "QWEN2MOE",
    "qwen3_moe": "QWEN3MOE",
}


ENDS = (".weight", ".bias")


def write(network, tokenizer, file, kind=Kind.F32, *, change=dict, say=lambda _: None, split="gpt-2"):
    """Write a network as a GGUF file.

    Args:
        kind: how matrices are stored that fit it; norms and biases stay in float32.
        change: what becomes of the tensors, by their names in the file.
        say: adds to what the file says of the model.
        split: how the file calls the way in which its tokenizer splits texts.
    """
    arch = getattr(gguf.MODEL_ARCH, ARCHITECTURES[network.config.model_type])
    written = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[arch])
    _say_sizes(written, network.config)
    _say_tokens(written, tokenizer, split)
    say(written)
    for name, tensor in change(tensors(network, arch)).items():
        _add(written, name, tensor, kind)
    written.write_header_to_file()
    written.write_kv_data_to_file()
    written.write_tensors_to_file()
    written.close()
    return file


def tensors(network, arch):
    """The weights by their names in a file, laid out as llama.cpp has them."""
    config, names = network.config, gguf.get_tensor_name_map(arch, network.config.num_hidden_layers)
    tied, found = config.tie_word_embeddings, {}
    for name, tensor in network.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        if ".experts." in name:
            found |= _of_experts(name, tensor.detach().float())
            continue
        there = names.get_name(name, ENDS) or names.get_name(name.removeprefix("transformer."), ENDS)
        if there is None:
            raise LookupError(name)
        found[there] = _laid_out(config, there, tensor.detach().float())
    return found


def _of_experts(name, tensor):
    """Matrices of all experts of a layer, [E, out, in]; those to the gates and up lie in one of transformers."""
    layer, kind = name.split(".")[2], name.rsplit(".", 1)[-1]
    parts = {"down": tensor} if kind == "down_proj" else dict(zip(("gate", "up"), tensor.chunk(2, dim=1), strict=True))
    return {f"blk.{layer}.ffn_{part}_exps.weight": own.contiguous() for part, own in parts.items()}


def _laid_out(config, name, tensor):
    family = config.model_type
    if family in ("llama", "mistral") and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
    if family == "gpt2" and tensor.ndim == 2 and name.startswith("blk."):
        return tensor.T.contiguous()
    if family == "bloom" and "attn_qkv" in name:
        return tensor.unflatten(0, (config.num_attention_heads, 3, -1)).transpose(0, 1).flatten(0, 2)
    if "ffn_gate_inp_shexp" in name:
        return tensor[0]
    if family in ("gemma2", "gemma3_text") and "norm" in name:
        return tensor + 1
    return tensor


def _add(written, name, tensor, kind):
    array = tensor.numpy()
    size = gguf.GGML_QUANT_SIZES[kind][0]
    if array.ndim == 1 or array.shape[-1] % size:
        written.add_tensor(name, array.astype(np.float32))
    elif kind in (Kind.F32, Kind.F16):
        written.add_tensor(name, array.astype({Kind.F32: np.float32, Kind.F16: np.float16}[kind]))
    else:
        written.add_tensor(name, packed(array, kind), raw_dtype=kind)


def packed(array, kind):
    """An array as it is stored; where gguf cannot write it so, blocks of bytes by chance, small ones: no scale of 16
    bits is then infinite, or no number."""
    try:
        return gguf.quantize(array, kind)
    except NotImplementedError:
        block, bytes_of_it = gguf.GGML_QUANT_SIZES[kind]
        shape = (*array.shape[:-1], array.shape[-1] // block * bytes_of_it)
        return np.random.default_rng(array.size).integers(0, 56, shape, dtype=np.uint8)


def _say_sizes(written, config):
    written.add_context_length(getattr(config, "max_position_embeddings", None) or 256)
    written.add_embedding_length(config.hidden_size)
    written.add_block_count(config.num_hidden_layers)
    written.add_feed_forward_length(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    written.add_head_count(config.num_attention_heads)
    written.add_head_count_kv(family_of(config).kv_heads(config))
    if head := getattr(config, "head_dim", None):
        written.add_key_length(head)
        written.add_value_length(head)
    for name in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"):
        if (epsilon := getattr(config, name, None)) is not None:
            (written.add_layer_norm_rms_eps if name.startswith("rms") else written.add_layer_norm_eps)(epsilon)
    if rope := getattr(config, "rope_parameters", None):
        rope = rope.get("full_attention", rope)
        written.add_rope_freq_base(rope["rope_theta"])
        width = head or config.hidden_size // config.num_attention_heads
        written.add_rope_dimension_count(int(width * (rope.get("partial_rotary_factor") or 1)))
    if experts := getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None):
        written.add_expert_count(experts)
        written.add_expert_used_count(config.num_experts_per_tok)
    if size := getattr(config, "moe_intermediate_size", None):
        written.add_expert_feed_forward_length(size)
    if size := getattr(config, "shared_expert_intermediate_size", None):
        written.add_expert_shared_feed_forward_length(size)
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if cap := getattr(config, name, None):
            getattr(written, f"add_{name}")(cap)
    if window := getattr(config, "sliding_window", None):
        written.add_sliding_window(window)


def _say_tokens(written, tokenizer, split):
    """A tokenizer of transformers with the name of how it splits, or a SentencePiece model."""
    if isinstance(tokenizer, SentencePieceProcessor):
        return _say_pieces(written, tokenizer)
    backend = tokenizer.backend_tokenizer
    tokens = sorted(backend.get_vocab(), key=backend.get_vocab().get)
    written.add_tokenizer_model("gpt2")
    if split:
        written.add_tokenizer_pre(split)
    written.add_token_list(tokens)
    written.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    written.add_token_merges([" ".join(pair) for pair in json.loads(backend.to_str())["model"]["merges"]])
    written.add_bos_token_id(0)
    written.add_eos_token_id(0)
    written.add_pad_token_id(0)


def _say_pieces(written, own):
    numbers = range(own.get_piece_size())
    kinds = {own.is_control: "CONTROL", own.is_unknown: "UNKNOWN", own.is_byte: "BYTE"}
    written.add_tokenizer_model("llama")
    written.add_token_list([own.id_to_piece(i) for i in numbers])
    written.add_token_scores([own.get_score(i) for i in numbers])
    types = [next((kind for asks, kind in kinds.items() if asks(i)), "NORMAL") for i in numbers]
    written.add_token_types([gguf.TokenType[kind] for kind in types])
    written.add_bos_token_id(own.bos_id())
    written.add_eos_token_id(own.eos_id())
    written.add_unk_token_id(own.unk_id())

"""The tokenizer of a GGUF file: how it takes a text apart, and what it puts before one.

A file names the way in which texts are split before merges are done (`tokenizer.ggml.pre`). transformers knows some of
these names and splits as GPT-2 does under any other one, which gives other tokens for some texts, and says nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
from tokenizers import Regex, Tokenizer, pre_tokenizers, processors
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from ..errors import ModelError

INSTEAD = "give the model as a folder in Hugging Face layout"
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes one
# Names of ways to split, by what llama.cpp does for them: as GPT-2, or as GPT-2 with every digit by itself
LIKE_GPT2 = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "gigachat", "mellum"}
SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
SPLITS = GGUF_PRE_TOKENIZER_SPLITS | {"stablelm2": GGUF_PRE_TOKENIZER_SPLITS["qwen2"]}
# Of these, a word that is a token is one, also where no merges lead there; a text begins with the first token
WHOLE = {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
         "tekken"}  # fmt: skip


def read_as_said(file: Path, held: gguf.GGUFReader, tokenizer: Any) -> None:
    """Let a tokenizer that transformers made of a file read texts as the file says.

    Raises:
        ModelError: the file does not say how, or in a way that is not known here.
    """
    said = {name: held.fields[name].contents() for name in held.fields if name.startswith("tokenizer.ggml.")}
    kind, split = said.get("tokenizer.ggml.model"), said.get("tokenizer.ggml.pre", "default")
    if kind == "gpt2":
        _split_as_said(file, split, tokenizer.backend_tokenizer)
    _begin_as_said(file, said, tokenizer, usual=kind == "llama" or (kind == "gpt2" and split in WHOLE))


def _split_as_said(file: Path, split: str, backend: Tokenizer) -> None:
    if split == "default":
        raise ModelError(f"{file} does not say how its tokenizer splits a text (tokenizer.ggml.pre); {INSTEAD}.")
    if split not in LIKE_GPT2 | SINGLE_DIGITS | set(SPLITS):
        raise ModelError(f"{file} says tokenizer.ggml.pre = {split}, which is not known here; {INSTEAD}.")
    first: list[Any] = []
    if split in SINGLE_DIGITS:
        first = [pre_tokenizers.Digits(individual_digits=True)]
    elif split in SPLITS:
        first = [pre_tokenizers.Split(Regex(SPLITS[split]), behavior="isolated")]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split not in SPLITS)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*first, last])
    if split in WHOLE:
        backend.model.ignore_merges = True


def _begin_as_said(file: Path, said: dict[str, Any], tokenizer: Any, *, usual: bool) -> None:
    """Let a tokenizer put the first token before a text that the file says, which transformers does not read.

    Args:
        usual: whether a file of this kind that says nothing puts one there, as for llama.cpp.
    """
    pieces = said.get("tokenizer.ggml.model") == "llama"
    bos, number = tokenizer.bos_token, tokenizer.bos_token_id
    ids = tokenizer("a")["input_ids"]
    wanted, there = said.get("tokenizer.ggml.add_bos_token", usual), bool(ids) and ids[0] == number
    if wanted and not there and bos is not None:
        backend = tokenizer.backend_tokenizer
        first = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos} $B", [(bos, number)])
        backend.post_processor = processors.Sequence([own for own in (backend.post_processor, first) if own])
    elif wanted != there:
        raise ModelError(f"The tokenizer in {file} has another first token than it says; {INSTEAD}.")
    spaced = tokenizer.convert_ids_to_tokens(ids)[-1].startswith(SPACE)
    if pieces and spaced != said.get("tokenizer.ggml.add_space_prefix", True):
        raise ModelError(f"The tokenizer in {file} puts another space before a text than it says; {INSTEAD}.")

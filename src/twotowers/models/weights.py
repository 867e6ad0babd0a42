"""The weight files of a folder: which are read, what they hold, and why they are no weights of their configuration."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError
from .quantised import bytes_per_weight

SINGLE = ("model.safetensors", "pytorch_model.bin")  # in the order in which they are looked for
OTHERS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack")
WRAPPED = r"^(?:_orig_mod\.|module\.)+"  # what torch.compile and DataParallel put before every name
_PLAIN = ("F64", "F32", "F16", "BF16")
_IN_A_BLOCK = re.compile(r"(^|\.)\d+\.")
_BUFFERS = re.compile(r"(inv_freq|attn\.bias|masked_bias|attention\.bias)$")  # of older files: no weights

Stored = dict[str, tuple[str, list[int]]]  # name -> dtype and shape


def weight_files(folder: Path) -> list[Path]:
    """The files that are read, as transformers chooses them; an empty list if there are none.

    Raises:
        ModelError: an index cannot be read, or names a file elsewhere.
    """
    for name in SINGLE:
        if (folder / name).exists() or (folder / name).is_symlink():
            return [folder / name]
        if (index := folder / f"{name}.index.json").is_file():
            return [folder / shard for shard in _shards(index)]
    return []


def _shards(index: Path) -> list[str]:
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [shard for shard in shards if Path(shard).name != shard or shard in ("", "..")]
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        raise ModelError(f"{index} cannot be read; fetch the whole model again.") from None
    if outside:
        raise ModelError(f"{index} names the weight file {outside[0]}, which is not beside it; fetch the model again.")
    return shards


def require_weights(folder: Path) -> None:
    """Refuse a folder without its weights, and tell of others in it that are not read.

    Raises:
        ModelError: there are none, or one is missing or no file.
    """
    files = weight_files(folder)
    others = sorted({file.name for pattern in OTHERS for file in folder.glob(pattern)} - {file.name for file in files})
    if not files:
        there = f"; there is {others[0]}, whose name says something else" if others else ""
        raise ModelError(f"{folder} has no weights (model.safetensors, or its index){there}; fetch the whole model.")
    for file in files:
        if not file.exists() and not file.is_symlink():
            raise ModelError(f"{folder} lacks the weight file {file.name}; fetch the whole model.")
        if not file.is_file():
            raise ModelError(f"{file} is no file that can be read; fetch the whole model.")
    for index in folder.glob(f"*{files[0].suffix}.index.json"):
        missing = [shard for shard in _shards(index) if not (folder / shard).exists()]
        if missing:
            raise ModelError(f"{folder} lacks the weight file {missing[0]}; fetch the whole model.")
    if others:
        print(f"Not read in {folder.name}: {', '.join(others)}; its weights are {files[0].name}.", file=sys.stderr)


def stored(file: Path) -> Stored:
    """What a safetensors file says it holds; nothing of another or damaged file, which is told when it is loaded."""
    if file.suffix != ".safetensors":
        return {}
    try:
        with file.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        return {
            name: (entry["dtype"], [int(size) for size in entry["shape"]])
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError, RecursionError):
        return {}


def require_numbers(folder: Path) -> None:
    """Refuse matrices that are stored as what is no number of ours, and would be taken for one.

    Raises:
        ModelError: integers, floats of 8 bits without their scales, or complex numbers.
    """
    for file in weight_files(folder):
        for name, (kind, shape) in stored(file).items():
            if kind not in _PLAIN and len(shape) == 2 and name.endswith("weight"):
                raise ModelError(
                    f"The weights in {file} are stored as {kind} ({name}), and its config.json does not say how they "
                    f"are quantised; give the model in float32, bfloat16 or float16."
                )


def renaming(folder: Path) -> dict[str, str] | None:
    """What transformers is to rename, for weights that were saved from a wrapped model; None for others."""
    names = [name for file in weight_files(folder) for name in stored(file)]
    return {WRAPPED: ""} if names and all(re.match(WRAPPED, name) for name in names) else None


def weight_bytes(folder: Path, dtype: torch.dtype, quantise: str | None = None) -> int:
    """Bytes that the weights in a folder take once they are loaded in a dtype, from the files' own description.

    PyTorch's own files do not say how many weights they hold; their size counts as it is. Weights that are stored
    quantised, in integers, keep their size.

    Args:
        quantise: how the matrices of the blocks are quantised while they load, if they are.
    """
    total = 0
    for file in weight_files(folder):
        if file.suffix != ".safetensors":
            total += file.stat().st_size
        for name, (kind, shape) in stored(file).items():
            size: float = dtype.itemsize
            if kind in ("U8", "I8"):
                size = 1
            elif quantise and len(shape) == 2 and _IN_A_BLOCK.search(name):
                size = bytes_per_weight(quantise)
            total += math.ceil(math.prod(shape) * size)
    return total


def unloadable(folder: Path, said: str) -> str:
    """Why weights cannot be loaded, and what to do, as a sentence."""
    pickles = [file.name for file in weight_files(folder) if file.suffix == ".bin"]
    if pickles:
        said = f"{pickles[0]} is damaged, or a pickle that wants to run code, which is never done"
        return f"The weights in {folder} cannot be loaded ({said}); take the model's *.safetensors."
    return f"The weights in {folder} cannot be loaded ({said}); if a file is damaged, fetch it again."


def misfit(folder: Path, report: Mapping[str, Any]) -> str:
    """Why weights that were loaded are not those of their configuration, as a sentence; empty if they are."""
    wrong = sorted(report["missing_keys"]) + [key for key, *_ in report["mismatched_keys"]]
    spare = sorted(key for key in report["unexpected_keys"] if _IN_A_BLOCK.search(key) and not _BUFFERS.search(key))
    start = f"The weights in {folder}"
    if any("lora_" in key or ".base_layer." in key for key in spare):
        return f"{start} have an adapter in them ({spare[0]}); merge it (merge_and_unload of peft) and save the result."
    again = "fetch the model again, all files of one version"
    if wrong:
        fault = f"{len(wrong)} tensors are missing or of another shape, {wrong[0]} first"
        return f"{start} do not fit its config.json: {fault}; {again}."
    if spare:
        return f"{start} do not fit its config.json: it has no place for {len(spare)}, {spare[0]} first; {again}."
    return ""

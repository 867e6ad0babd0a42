"""The weight files of a folder: which are read, what they hold, and why they are no weights of their configuration."""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import ModelError
from ..hub import first_line
from .quantised import bytes_per_weight
from .stored import instead_of, read_object

SINGLE = ("model.safetensors", "pytorch_model.bin")  # in the order in which they are looked for
OTHERS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.ckpt")
# What torch.compile, DataParallel, FSDP and DeepSpeed put before every name; within names it is told, not read
WRAPPING = r"(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
WRAPPED = rf"^(?:{WRAPPING})+"
HARMLESS = 10_000_000  # weights that may be made for nothing: which are missing is told afterwards
_PART = re.compile(r"-\d+-of-\d+\.")
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")  # what transformers reads before all others
_TRAINING = re.compile(
    r"optimizer|scheduler|scaler|rng_state|training_args|random_states"
)  # begins of a training's files
_TRAINED = ("global_step*", "pytorch_model_fsdp*", "zero_to_fp32.py")  # as DeepSpeed and FSDP leave them
_PLAIN = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
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


def _others(folder: Path, files: Sequence[Path]) -> list[str]:
    """Names of weight files in a folder that are not read."""
    return sorted({file.name for pattern in OTHERS for file in folder.glob(pattern)} - {file.name for file in files})


def _shards(index: Path) -> dict[str, set[str]]:
    """The files that an index names, and the tensors that it says are in them."""
    shards: dict[str, set[str]] = {}
    try:
        for name, shard in sorted(json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()):
            shards.setdefault(shard, set()).add(name)
        outside = [shard for shard in shards if Path(shard).name != shard or shard in ("", "..") or len(shard) > 255]
        others = [shard for shard in shards if Path(shard).suffix != Path(index.stem.removesuffix(".index")).suffix]
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        raise ModelError(f"{index} cannot be read; fetch the whole model again.") from None
    if outside or others:
        name, why = (outside[0], "is not beside it") if outside else (others[0], "is of another kind")
        raise ModelError(f"{index} names the weight file {name}, which {why}; fetch the model again.")
    return dict(sorted(shards.items()))


def require_weights(folder: Path) -> None:
    """Refuse a folder without its weights.

    Raises:
        ModelError: there are none, or one is missing, no file, damaged, or lacks what an index says is in it; or
            transformers would read others.
    """
    if parts := sorted(file.name for file in folder.glob("shard-*") if _DISTRIBUTED.fullmatch(file.name)):
        raise ModelError(
            f"{folder} has a part of a distributed checkpoint ({parts[0]}), which transformers would read instead of "
            f"other weights; save the model whole (save_pretrained), or move such parts elsewhere."
        )
    files = weight_files(folder)
    if not files:
        others = [name for name in _others(folder, files) if not _TRAINING.match(name)]
        there = f"; there is {others[0]}, whose name says something else" if others else ""
        if parts := [name for name in others if _PART.search(name)]:
            there = f"; there is {parts[0]}, a part of them, but not the index that says what is in which"
        what = instead_of_weights(folder) or "fetch the whole model"
        raise ModelError(f"{folder} has no weights (model.safetensors, or its index){there}; {what}.")
    for file in files:
        if not file.exists() and not file.is_symlink():
            raise ModelError(f"{folder} lacks the weight file {file.name}; fetch the whole model.")
        if not file.is_file():
            raise ModelError(f"{file} is no file that can be read; fetch the whole model.")
        _require_whole(folder, file)
    for index in folder.glob(f"*{files[0].suffix}.index.json"):
        shards = _shards(index)
        if "metadata" not in read_object(index):
            raise ModelError(f'{index} has no metadata, which transformers asks for; write "metadata": {{}} there.')
        for shard, names in shards.items():
            if not (folder / shard).exists():
                raise ModelError(f"{folder} lacks the weight file {shard}; fetch the whole model.")
            if (held := stored(folder / shard)) and (lost := sorted(names - set(held))):
                raise ModelError(
                    f"{folder / shard} lacks {len(lost)} tensors that {index.name} says are in it, {lost[0]} first; "
                    f"fetch the model again, all files of one version."
                )


def instead_of_weights(folder: Path) -> str:
    """What lies in a folder in the place of weights or of a model, and what to do; empty if that is not known."""
    if files := sorted(file.name for file in folder.glob("*.gguf")):
        return f"give a GGUF file of it as the model: {folder / files[0]}"
    if found := sorted(place.name for form in _TRAINED for place in folder.glob(form)):
        return f"{found[0]} is of a training on several devices; save the model whole, with that training's own means"
    below = [place.parent for form in ("*", "snapshots/*") for place in folder.glob(f"{form}/config.json")]
    return f"give the folder of one model in it: {max(below, key=lambda place: place.stat().st_mtime)}" if below else ""


def _require_whole(folder: Path, file: Path) -> None:
    """Refuse a safetensors file that is none, or is cut off; its tensors are not read."""
    if file.suffix != ".safetensors":
        return
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(unloadable(folder, first_line(error))) from None


def tell_unread(folder: Path) -> None:
    """Say which weight files of a folder are not read."""
    files = weight_files(folder)
    if others := _others(folder, files):
        print(f"Not read in {folder.name}: {', '.join(others)}; its weights are {files[0].name}.", file=sys.stderr)


def stored(file: Path) -> Stored:
    """What a file says it holds; nothing of a damaged one, which is told when it is loaded."""
    if file.suffix != ".safetensors":
        return _pickled(file)
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


def _pickled(file: Path) -> Stored:
    """The same of a file of PyTorch's own, of which no tensor is read; nothing where it is of the first format."""
    try:
        held = torch.load(file, map_location="meta", weights_only=True, mmap=True)
        return {name + "": (_PLAIN.get(x.dtype, str(x.dtype)), list(x.shape)) for name, x in held.items()}
    except Exception:  # whatever a pickle that is none makes torch raise
        return {}


def require_numbers(folder: Path) -> None:
    """Refuse weights that are stored as what is no number of ours, and would be taken for one.

    Raises:
        ModelError: integers, floats of 8 bits without their scales, or complex numbers.
    """
    for file in weight_files(folder):
        for name, (kind, shape) in stored(file).items():
            is_weight = len(shape) <= 2 and name.endswith(("weight", "bias")) and not _BUFFERS.search(name)
            if is_weight and kind not in _PLAIN.values():
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

    Of a file that does not say how many weights it holds, its size counts as it is. Weights that are stored quantised,
    in integers, keep their size.

    Args:
        quantise: how the matrices of the blocks are quantised while they load, if they are.
    """
    total = 0
    for file in weight_files(folder):
        held = stored(file)
        if not held:
            total += file.stat().st_size
        for name, (kind, shape) in held.items():
            size: float = dtype.itemsize
            if kind in ("U8", "I8", "torch.uint8", "torch.int8"):
                size = 1
            elif quantise and len(shape) == 2 and _IN_A_BLOCK.search(name):
                size = bytes_per_weight(quantise)
            total += math.ceil(math.prod(shape) * size)
    return total


def unloadable(folder: Path, said: str) -> str:
    """Why weights cannot be loaded, and what to do, as a sentence."""
    for file in weight_files(folder):
        if instead := instead_of(file):
            return f"The weights in {folder} cannot be loaded ({said}); {file.name} {instead}."
    if "CONVERSION" in said:  # of a report that is not shown
        said = "parts that lie together in a layer, as experts do, are missing or of different sizes"
        return f"The weights in {folder} do not fit its config.json ({said}); fetch the model again."
    pickles = [file.name for file in weight_files(folder) if file.suffix == ".bin" and not stored(file)]
    if pickles:
        said = f"{pickles[0]} is damaged, or a pickle that wants to run code, which is never done"
        return f"The weights in {folder} cannot be loaded ({said}); take the model's *.safetensors."
    return f"The weights in {folder} cannot be loaded ({said}); if a file is damaged, fetch it again."


def require_fitting(folder: Path, network: nn.Module) -> None:
    """Refuse a configuration of many more weights than there are, or of huge tables, before they fill the memory.

    And weights that are there twice, of which transformers takes one or the other.

    Args:
        network: as the configuration describes it, without weights.

    Raises:
        ModelError: it does so; weights in 4 bits are half as many numbers as they stand for.
    """
    described = sum(parameter.numel() for parameter in network.parameters())
    tables = sum(buffer.numel() for buffer in network.buffers())  # of positions, as GPT-J makes them
    there, seen = 0, dict[str, str]()
    for file in weight_files(folder):
        held = stored(file)
        there += sum(math.prod(shape) for _, shape in held.values()) if held else file.stat().st_size
        for name in held:
            own = re.sub(WRAPPED, "", name).removeprefix(f"{network.base_model_prefix}.")
            if own in seen:
                raise ModelError(
                    f"The weights in {folder} have one tensor twice, as {seen[own]} and as {name} in {file.name}; "
                    f"remove one of them, or fetch the model again, all files of one version."
                )
            seen[own] = f"{name} in {file.name}"
    if described > max(4 * there, HARMLESS):
        raise ModelError(
            f"The weights in {folder} do not fit its config.json: it describes {described:,} of them, and "
            f"{there:,} are there; mend its config.json, or fetch the whole model."
        )
    if tables > max(4 * there, HARMLESS):
        raise ModelError(
            f"The configuration in {folder} cannot be right: it asks for tables of {tables:,} numbers beside {there:,} "
            f"weights; mend its config.json."
        )


def _unembedding(network: Any) -> nn.Module:
    found: nn.Module = network.get_output_embeddings()
    return found


def misfit(folder: Path, report: Mapping[str, Any], network: nn.Module) -> str:
    """Why weights that were loaded are not those of their configuration, as a sentence; empty if they are.

    Heads for other uses of a model may lie beside its weights; what belongs to a part of this network may not.
    """
    wrong = sorted(report["missing_keys"]) + [key for key, *_ in report["mismatched_keys"]]
    parts = {name for name, _ in network.named_modules() if name}
    inside = f"{network.base_model_prefix}."
    spare = sorted(
        key
        for key in report["unexpected_keys"]
        if (_IN_A_BLOCK.search(key) or key.startswith(inside) or {key.rpartition(".")[0]} & parts)
        and not _BUFFERS.search(key)
    )
    start = f"The weights in {folder}"
    if any("lora_" in key or ".base_layer." in key for key in spare):
        return f"{start} have an adapter in them ({spare[0]}); merge it (merge_and_unload of peft) and save the result."
    again = "fetch the model again, all files of one version"
    unembed = {f"{name}.weight" for name, module in network.named_modules() if module is _unembedding(network)}
    if set(wrong) == unembed:
        return (
            f"{start} lack the unembedding ({wrong[0]}): they were saved for another use, as to classify, or are tied "
            f"to the embedding, which config.json then has to say (tie_word_embeddings)."
        )
    held = [name for file in weight_files(folder) for name in stored(file)]
    for key, name in itertools.product(wrong, held):
        if name != key and re.sub(rf"(?:^|(?<=\.)){WRAPPING}", "", f".{name}").endswith(f".{key}"):
            return f"{start} have other names, {name} for {key}; save the model itself, without what wraps it."
    if wrong:
        fault = f"{len(wrong)} tensors are missing or of another shape, {wrong[0]} first"
        return f"{start} do not fit its config.json: {fault}; {again}."
    if spare:
        return f"{start} do not fit its config.json: it has no place for {len(spare)}, {spare[0]} first; {again}."
    return ""

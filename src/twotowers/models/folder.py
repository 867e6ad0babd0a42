"""What a model's folder says: its configuration and its tokenizer, or why it is no model that can be read."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from transformers import AutoConfig, AutoTokenizer, LlamaTokenizer

from ..arguments import brief
from ..errors import ModelError
from ..hub import first_line
from .families import family_of, require_family
from .quantised import method_of
from .stored import damage_of, instead_of, read_object
from .weights import instead_of_weights, require_numbers, require_weights, tell_unread, weight_files

# The largest sizes that count as a model's: a wrong one would fill the memory before anything is compared with it.
LARGEST = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers"), 1_000),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "num_key_value_heads", "head_dim"), 10_000),
    **dict.fromkeys(("hidden_size", "n_embd"), 200_000),
    **dict.fromkeys(("intermediate_size", "n_inner"), 2_000_000),
    "vocab_size": 10_000_000,
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 10_000),
    "num_labels": 100_000,  # of another kind of model, but counted out in full
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 1_000_000_000),
}
POSITIVE = ("factor", "rope_theta", "logits_scaling")  # what is divided by, or raised to powers
# Families that were trained with a first token, of which a tokenizer.model that stands alone says nothing
SENTENCEPIECE = ("llama", "mistral", "mixtral", "gemma", "gemma2", "gemma3_text")
CUT = ("cat: foo\nseven: bar\ncow:", "cat : foo seven : bar cow :", "N/A: foo")  # texts as prompts are
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
BESIDE_TOKENIZER = ("added_tokens.json", "special_tokens_map.json")
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


def read_folder(folder: Path, *, weights: bool) -> tuple[Any, Any]:
    """Configuration and tokenizer in a folder, which must hold weights too if they are asked for.

    Raises:
        ModelError, FamilyError: something is missing or broken, the family is not known, or weights are quantised in
            a way that is not.
    """
    _refuse_adapter(folder, weights)
    model_type = model_type_in(folder)
    require_family(model_type)
    _require_sizes(folder, read_object(folder / "config.json"))
    for name in ("config.json", "tokenizer_config.json"):
        if read_object(folder / name).get("auto_map"):
            raise ModelError(
                f"{folder / name} names code of its own (auto_map), which is never run; if the model is a plain "
                f"{model_type}, remove auto_map there."
            )
    if (named := read_object(folder / "config.json").get("transformers_weights")) is not None:
        raise ModelError(
            f"The configuration in {folder} says that its weights are in {brief(named)} (transformers_weights); "
            f"give that file the usual name, model.safetensors, and remove the setting."
        )
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"{folder} has no tokenizer (tokenizer.json); fetch the whole model.")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a setting of a wrong kind makes transformers raise
        raise ModelError(
            f"The configuration in {folder} cannot be read ({first_line(error)}); mend its config.json, or take the "
            f"original one."
        ) from error
    try:
        tokenizer = _tokenizer(folder, model_type)
    except Exception as error:  # the tokenizers library raises plain Exception for a broken file
        raise ModelError(
            f"The tokenizer in {folder} cannot be read ({first_line(error)}); {_remedy(folder, error)}."
        ) from error
    if getattr(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None), "dropout", None):
        raise ModelError(
            f"The tokenizer in {folder} cuts a text otherwise each time (dropout in its tokenizer.json, for training); "
            f"write null there."
        )
    tokenizer.model_max_length = sys.maxsize  # what its settings say is not used, and may be no number
    config.return_dict = True  # of what a network gives, parts are asked for by name
    family_of(config)
    quantised = method_of(config)
    if weights:
        require_weights(folder)
        if not quantised:
            require_numbers(folder)
        tell_unread(folder)
    return config, tokenizer


def model_type_in(folder: Path) -> str:
    """The name of the family that a folder's configuration says.

    Raises:
        ModelError: there is none.
    """
    if not (folder / "config.json").is_file():
        what = instead_of_weights(folder) or "give a folder in Hugging Face layout"
        raise ModelError(f"{folder} is no model: it has no config.json; {what}.")
    if found := damage_of(folder / "config.json"):
        raise ModelError(f"{folder} is no model: its config.json {found}.")
    model_type = read_object(folder / "config.json").get("model_type")
    if not isinstance(model_type, str):
        raise ModelError(f"{folder} is no model: its config.json names no model_type; fetch it again.")
    return model_type


def _refuse_adapter(folder: Path, weights: bool) -> None:
    found = [name for name in ADAPTER if (folder / name).is_file()]
    if not found:
        return
    base = read_object(folder / "adapter_config.json").get("base_model_name_or_path")
    whole = not weights or set(weight_files(folder)) - {folder / name for name in ADAPTER}  # or weights lie elsewhere
    if whole and (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has an adapter ({found[0]}) beside its weights; merge it into them (merge_and_unload of peft), "
            f"or move it elsewhere to read the model without it."
        )
    raise ModelError(
        f"{folder} is an adapter ({found[0]}), no whole model; merge it into its base"
        + (f" {base}" if isinstance(base, str) else "")
        + " (merge_and_unload of peft) and save the result with its tokenizer."
    )


def _require_sizes(folder: Path, settings: dict[str, Any]) -> None:
    for name, largest in LARGEST.items():
        size = settings.get(name)
        if isinstance(size, int | float) and not 1 <= size <= largest:
            raise ModelError(
                f"The configuration in {folder} cannot be right: its {name} is {size:,}, which is not between 1 and "
                f"{largest:,}; mend its config.json."
            )
    for name, number in _numbers(settings):
        small = name.endswith(("eps", "epsilon"))  # what is added under a norm's root
        if not math.isfinite(number) or (small and not 0 <= number <= 1) or (name in POSITIVE and number <= 0):
            raise ModelError(
                f"The configuration in {folder} cannot be right: its {name} is {number}; mend its config.json."
            )
    if any(number > LARGEST["num_layers"] for _, number in _numbers({"": settings.get("attention_types")})):
        raise ModelError(f"The configuration in {folder} cannot be right: its attention_types; mend its config.json.")


def _numbers(settings: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """All numbers within settings, each under the name that is nearest to it."""
    left = list(settings.items())
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(name, part) for part in value]
        elif isinstance(value, int | float):
            yield name, value


def _tokenizer(folder: Path, model_type: str) -> Any:
    """The tokenizer; where SentencePiece's file stands alone, one that cuts texts as that does.

    transformers reads such a file too, but of some families without the space before a text, and puts the first token
    that models were trained with before none.

    Raises:
        _OtherTokensError: transformers has none that cuts texts so.
    """
    settings = read_object(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file() or not (folder / "tokenizer.model").is_file():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    own = SentencePieceProcessor(model_proto=(folder / "tokenizer.model").read_bytes())
    if not own.get_piece_size():  # transformers passes over a file that is none, and makes a tokenizer of nothing
        raise ValueError("it has no pieces")
    said = model_type not in SENTENCEPIECE or "add_bos_token" in settings
    begins: dict[str, Any] = {} if said else {"add_bos_token": True}
    for kind in (AutoTokenizer, LlamaTokenizer):
        made = kind.from_pretrained(folder, local_files_only=True, **begins)
        if all(made(text, add_special_tokens=False)["input_ids"] == own.encode(text) for text in CUT):
            return made
    raise _OtherTokensError("transformers cuts texts otherwise than SentencePiece itself")


class _OtherTokensError(Exception):
    """A tokenizer that transformers reads as another one."""


def _remedy(folder: Path, error: Exception) -> str:
    """What to do about a tokenizer that cannot be read, from its files first and then from what was said."""
    if isinstance(error, _OtherTokensError):
        return "tokenizer.model stands alone, so give the tokenizer.json of the same model"
    for name in (*TOKENIZER, *BESIDE_TOKENIZER):
        file = folder / name
        if not file.is_file():
            continue
        if found := damage_of(file) if name.endswith(".json") else instead_of(file):
            return f"{name} {found}"
        if name == "tokenizer.model" and not (folder / "tokenizer.json").is_file():
            if re.fullmatch(rb"[A-Za-z0-9+/=]+ \d+\r?", file.read_bytes().split(b"\n", 1)[0]):
                return f"{name} is in the format of tiktoken, so give the tokenizer.json of the same model"
            return f"{name} is no SentencePiece model, so take the original one"
    if isinstance(error, ImportError):
        return "install the package that it names"
    return "open it with AutoTokenizer of transformers, mend what that names, and save it here with save_pretrained"

"""Every form of a family: each setting of its configuration is changed, by machine, and the result is sorted.

    python tests/every_form.py [FAMILY ...]

A form is equal to plain transformers, or refused by name; none may be silently wrong. Some are no model at all, since
transformers itself can't make or run them: those are refused by name, too. `make test` takes some of all forms
(`tests/models/test_every_form.py`).
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

import twotowers
from conftest import tiny_tokenizer
from family_configs import WINDOW, network_of
from plain import Plain
from silent import CRASHED, EQUAL, FAMILIES, REFUSED, WRONG, Way, differences, sets_for
from silent_cases import CASES
from twotowers.models.family import turned

NONE = "no model in transformers"
READ = ("capture", "exchange")  # parts, heads, weights and logits; queries, keys and values as they are changed
# What is no part of the mathematics, what a tiny model can't do without, and what other settings follow from.
UNTOUCHED = (
    "dropout", "initializer", "token_id", "output_", "return_", "use_cache", "aux_loss", "router_loss", "jitter",
    "vocab_size", "hidden_size", "num_hidden_layers", "is_encoder_decoder", "is_decoder", "cross_attention",
    "chunk_size_feed", "n_layer", "n_embd", "problem_type", "_pdrop", "num_layers", "max_position", "n_positions",
    "word_embed_proj_dim", "z_loss", "mtp", "summary", "layerdrop", "original_max", "gradient", "use_bfloat16",
)  # fmt: skip
NAMED = {
    "num_attention_heads": [8], "n_head": [8], "num_heads": [8], "num_key_value_heads": [1, 4], "num_kv_heads": [1, 4],
    "head_dim": [8, 24], "sliding_window": [None, WINDOW - 4], "window_size": [WINDOW - 4],
    "clip_qkv": [2.0], "shared_expert_combination_strategy": ["sum"], "expert_selection_fn": ["sigmoid"],
    "num_ln_in_parallel_attn": [1, 2], "rotary_dim": [2, 8],
}  # fmt: skip
LENGTHS = ("short", "long")
KEPT = ("rope_theta", "partial_rotary_factor", "llama_4_scaling_beta", "original_max_position_embeddings")
ROTATIONS = [
    {"rope_type": "default", "partial_rotary_factor": 0.5},
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 64},
]  # fmt: skip


def forms(family: str) -> Iterator[tuple[str, object]]:
    """Names of settings, and values that are not those of the family's configuration."""
    halves = max(turned(FAMILIES[family])) // 2
    for name, value in FAMILIES[family].to_dict().items():
        if not name.startswith("_") and not any(word in name for word in UNTOUCHED):
            for other in alternatives(name, value, halves):
                if other != value:
                    yield name, other


def alternatives(name: str, value: object, halves: int) -> list[object]:
    """Other values of a setting: of the same kind, and what empty ones of that name mean.

    Args:
        halves: angles of a head's rotation, of which those for long texts have a factor each.
    """
    if name in NAMED:
        return NAMED[name]
    if name == "rope_parameters":
        return [otherwise(value, kind, halves) for kind in ROTATIONS] if value else []
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, float):
        return [value * 1.5 + 0.1]
    if isinstance(value, int):
        return [1, 2 * value] if value else [1]
    if isinstance(value, list) and value and isinstance(value[0], str | int | bool):
        return [value[::-1], *([kind] * len(value) for kind in dict.fromkeys(value))]
    if isinstance(value, str) and ("act" in name or "activation" in name):
        return ["relu"]
    if value is None and any(word in name for word in ("cap", "clip", "scale", "multiplier")):
        return [2.0]
    return []


def otherwise(parameters: dict, kind: dict, halves: int) -> dict:
    """Parameters of a rotation as another kind has them, for layers of every type where there are several."""
    if "rope_theta" not in parameters:
        types = parameters.items()
        return {layers: otherwise(own, kind, halves) if isinstance(own, dict) else own for layers, own in types}
    kept = {name: parameters[name] for name in KEPT if name in parameters}
    if kind["rope_type"] == "longrope":
        kept |= {f"{length}_factor": [start + n / 2 for n in range(halves)] for start, length in enumerate(LENGTHS, 1)}
    return kept | kind


def sort(family: str, name: str, value: object, scratch: Path) -> tuple[str, str]:
    """Which kind of outcome a form has, and what is to be said of it."""
    told = FAMILIES[family].to_dict() | {name: copy.deepcopy(value)}
    plain = impossible(family, told, scratch)
    try:
        model = twotowers.load(scratch)
        sets = tuple(sets_for(model, Way())[:1])
        found = {case: CASES[case][0](model, sets) for case in READ}
    except twotowers.UserError as error:
        return NONE if plain else REFUSED, f"{plain and f'{plain}; here: '}{error}"
    except Exception as error:
        return CRASHED, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if plain:
        return WRONG, f"there is an answer, but {plain}"
    wrong = [differences(found[case], CASES[case][1](Plain(scratch), sets), None) for case in READ]
    return (WRONG, "; ".join(filter(None, wrong))) if any(wrong) else (EQUAL, "")


def impossible(family: str, told: dict, scratch: Path) -> str:
    """Save a model with these settings, and say why transformers can't run it, if so.

    If it can't even be made, what is saved are the family's weights beside these settings.
    """
    try:
        network_of(type(FAMILIES[family]).from_dict(told)).save_pretrained(scratch)
    except Exception as error:
        network_of(FAMILIES[family]).save_pretrained(scratch)
        (scratch / "config.json").write_text(json.dumps(told))
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    finally:
        tiny_tokenizer().save_pretrained(scratch)
    try:
        with torch.no_grad():
            Plain.network_in(scratch)(torch.tensor([[1, 2, 3]]), output_attentions=True)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    return ""


def main(families: list[str]) -> int:
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    for family in families or FAMILIES:
        for name, value in forms(family):
            with tempfile.TemporaryDirectory() as scratch:
                kind, note = sort(family, name, value, Path(scratch))
            counts[kind] += 1
            if kind != EQUAL:
                print(f"{family}: {name} = {value}: {kind}. {note}", flush=True)
        print(f"# {family} {dict(counts)}", file=sys.stderr, flush=True)
    for kind in (EQUAL, REFUSED, NONE, WRONG, CRASHED):
        print(f"{kind}: {counts[kind]}")
    return int(counts[WRONG] + counts[CRASHED] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

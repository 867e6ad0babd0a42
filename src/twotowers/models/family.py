"""What is said of a model family: where it keeps the pieces of the mathematics, and where it departs from Llama."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from .rotations import rotate_halves

UNSAID = 2048  # tokens that a model reads whose configuration does not say it


def shared_heads(config: Any) -> int:
    """Key-value heads as most configurations say them: as many as query heads where they say nothing."""
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def sliding_window(config: Any) -> int | None:
    """Tokens that a layer with a window looks back to; None if no layer has one."""
    known = inspect.signature(type(config)).parameters  # a setting that is not is of another family: nothing
    kinds = config.layer_types if "layer_types" in known else None
    slides = kinds is None or "sliding_attention" in kinds
    return config.sliding_window if slides and "sliding_window" in known else None


def turned(config: Any) -> set[int]:
    """How many dimensions of each head turn with their positions, as a configuration says for its kinds of layers."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {int(size * (kind.get("partial_rotary_factor") or 1.0)) for kind in rotations(config)}


def rotations(config: Any) -> list[dict[str, Any]]:
    """What a configuration says of its rotation, or of each of several, one for a kind of layers."""
    rope = getattr(config, "rope_parameters", None) or {}
    return [own for own in rope.values() if isinstance(own, dict)] or [rope]


def has_experts(config: Any) -> bool:
    """Whether tokens go to some of several experts, by a choice that a rounding can turn."""
    return any("experts" in name and isinstance(n, int) and n > 1 for name, n in config.to_dict().items())


@dataclass(frozen=True)
class Family:
    """Names of the modules of one family. Paths inside a block are relative to it.

    Attributes:
        blocks, final_norm, unembed: paths from the model.
        attention, attention_norm, mlp: paths from a block; there may be no norm before attention, and the output of
            `mlp` is what is added to the residual.
        out_proj: path from the attention; its *input* is z, the heads side by side before W_O.
        norm: whether norms centre their input ("layer") or only rescale it ("rms").
        note: what is special about the family, for the list of families.
        gain: what is added to the weights of norms (Gemma stores them less 1).
        projections: paths from the attention to the projections to query, key and value; one if they are fused.
        fused: with one projection, how its output is laid out: queries of all heads, then keys, then values ("parts"),
            or for each key-value head its queries, its key and its value ("groups").
        kv_heads: number of key-value heads, from the configuration.
        rotary: path from the model to the module that gives the rotation of queries and keys, if there is one.
        rotate: queries or keys [B, S, d_h] after the rotation by their positions [B, S], from that module and the
            attention module of the layer.
        rotates: whether a layer rotates, from its attention module.
        positions: path from the model to the embedding of positions, if there is one.
        position_offset: row of that embedding for the first position.
        alibi: what is added to the scores, [..., H, K], from the configuration and positions of keys [..., K].
        exact_masks: whether masks, with what is added in them, stay in float32 whatever the weights are in.
        window: how far back layers look that do not see everything, from the configuration.
        scale: what q.k is multiplied by before the softmax, from the attention module.
        score_cap: the soft cap on that, from the same; None without one.
        returns_tuple: whether a block returns a tuple that begins with the residual, not the residual alone.
        query_norm, key_norm: paths from the attention to norms of queries and keys, if it has them.
        norm_behind: path from a block to a norm of what attention writes, before it is added to the residual.
        adds: path from a block to what attention adds, if that is neither behind such a norm nor its own output.
        variant: this entry as a configuration asks for it; raises FamilyError where it cannot be read exactly.
        prepare: changes a loaded network so that it computes the same from our inputs.
        served: whether a server's network, which is not ours to change, gives its attention weights.
    """

    blocks: str
    final_norm: str
    attention: str
    attention_norm: str | None
    mlp: str
    out_proj: str
    norm: Literal["layer", "rms"]
    note: str = ""
    gain: float = 0.0
    projections: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    fused: Literal["parts", "groups"] = "parts"
    kv_heads: Callable[[Any], int] = shared_heads
    rotary: str | None = None
    rotate: Callable[[Any, Any, Tensor, Tensor], Tensor] = rotate_halves
    rotates: Callable[[Any], bool] = lambda _: True
    positions: str | None = None
    position_offset: int = 0
    alibi: Callable[[Any, Tensor], Tensor] | None = None
    exact_masks: bool = False
    window: Callable[[Any], int | None] = sliding_window
    scale: Callable[[Any], float] = operator.attrgetter("scaling")
    score_cap: Callable[[Any], float | None] = lambda _: None
    returns_tuple: bool = False
    query_norm: str | None = None
    key_norm: str | None = None
    norm_behind: str | None = None
    adds: str | None = None
    unembed: str = "lm_head"
    variant: Callable[[Family, Any], Family] | None = None
    prepare: Callable[[nn.Module], None] | None = None
    served: bool = True

    @property
    def on_servers(self) -> bool:
        """Whether the family can be read on a server."""
        return self.served and self.prepare is None


def context_length(family: Family, config: Any) -> int:
    """Tokens that a prompt may have.

    Where attention slides, no more than its window, which our masks ignore; where the rotation of longer texts is
    another one, or queries grow with their positions, no more than those of the first.
    """
    said = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
    limits = [next(filter(None, said), UNSAID), family.window(config)]
    for rope in rotations(config):
        if rope.get("rope_type") in ("longrope", "dynamic") or rope.get("llama_4_scaling_beta"):
            # transformers puts what stands beside into the rotation, but of some families only while it loads one
            beside = getattr(config, "original_max_position_embeddings", None)
            limits += [rope.get("original_max_position_embeddings"), beside]
    return min(limit for limit in limits if limit)

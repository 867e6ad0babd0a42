"""A guess at an unknown family's entry, from one forward of a model: what its modules are given, and what they give."""

from __future__ import annotations

import inspect
import itertools
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import FamilyError
from .family import Family
from .rotations import rotate_halves, rotate_pairs, rotate_pairs_of_halves

SCALES = ("scaling", "scale", "softmax_scale", "inv_norm_factor", "norm_factor")  # names of what q.k is multiplied by
ROTATIONS = (rotate_halves, rotate_pairs, rotate_pairs_of_halves)


@dataclass(frozen=True)
class Call:
    """What a module was given and what it gave; the first tensor of each."""

    given: Tensor | None
    gave: Tensor | None
    returned: Any


def candidates(network: nn.Module, config: Any) -> Iterator[Family]:
    """Entries that a loaded model may have, likelier ones first.

    Raises:
        FamilyError: its modules are not those of a decoder as we know them; the message says what is not found.
    """
    base = _guessed(network, config)
    rotations = ROTATIONS if base.rotary else ROTATIONS[:1]
    layouts = ("parts", "groups") if len(base.projections) == 1 else ("parts",)
    for layout, rotation in itertools.product(layouts, rotations):
        yield replace(base, fused=layout, rotate=rotation)


def entry(family: Family) -> str:
    """What to write into the table of families: all that differs from what a `Family` is by default."""
    lines = []
    for field in fields(Family):
        value = getattr(family, field.name)
        if value != field.default:
            shown = f'operator.attrgetter("{_name_of(value)}")' if field.name == "scale" else _shown(value)
            lines.append(f"    {field.name}={shown},")
    return "\n".join(["Family(", *lines, ")"])


def _shown(value: Any) -> str:
    return value.__name__ if inspect.isfunction(value) else repr(value).replace("'", '"')


def _name_of(scale: Any) -> str:
    return str(scale.__reduce__()[1][0])


def _guessed(network: Any, config: Any) -> Family:
    """The entry, but for what only the identities tell apart."""
    calls, paths = _calls(network, config), {module: path for path, module in network.named_modules()}
    blocks = _found("a list of blocks", (m for m in calls if _is_blocks(m, config)), paths)
    block = network.get_submodule(blocks)[1]
    inside = {module: path for path, module in block.named_modules() if path and module in calls}
    attention = _attention(inside, config)
    own = {module: path for path, module in attention.named_modules() if path}
    norms = [module for module in inside if _is_norm(module, config.hidden_size)]
    out_proj = [m for m in own if _matrix(m) and _sizes(m)[1] == config.hidden_size][-1:]
    to_heads = [m for m in own if _matrix(m) and m not in out_proj and _sizes(m)[0] == config.hidden_size]
    if not out_proj or len(to_heads) not in (1, 3):
        raise FamilyError("No entry can be guessed: attention has no three projections, or one, and an output matrix.")
    head_norms = [own[m] for m in own if m not in to_heads + out_proj and getattr(m, "weight", None) is not None]
    behind = next((inside[m] for m in norms if calls[m].given is calls[attention].gave), None)
    final = _found("a final norm", (m for m in calls if _is_norm(m, config.hidden_size) and m not in inside), paths)
    kind, gain = _kind(network.get_submodule(final), calls[network.get_submodule(final)])
    return Family(
        blocks=blocks,
        final_norm=final,
        attention=inside[attention],
        attention_norm=next((inside[m] for m in norms if calls[m].gave is calls[attention].given), None),
        mlp=_mlp(inside, calls, norms, attention),
        out_proj=own[out_proj[0]],
        norm=kind,
        gain=gain,
        projections=tuple(sorted((own[m] for m in to_heads), key=_which)),
        rotary=next((path for m, path in paths.items() if hasattr(m, "inv_freq")), None),
        positions=_positions(network, calls, paths),
        scale=operator.attrgetter(next((name for name in SCALES if hasattr(attention, name)), SCALES[0])),
        returns_tuple=isinstance(calls[block].returned, tuple),
        query_norm=head_norms[0] if len(head_norms) == 2 else None,
        key_norm=head_norms[1] if len(head_norms) == 2 else None,
        norm_behind=behind,
        unembed=paths[network.get_output_embeddings()],
    )


def _calls(network: nn.Module, config: Any) -> dict[nn.Module, Call]:
    """What every module is given and gives in one forward, in the order in which they are done; lists beside them."""
    seen: dict[nn.Module, Call] = {m: Call(None, None, None) for m in network.modules() if isinstance(m, nn.ModuleList)}

    def remember(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        seen[module] = Call(_first([*inputs, *options.values()]), _first([output]), output)

    handles = [m.register_forward_hook(remember, with_kwargs=True) for m in network.modules()]
    try:
        with torch.no_grad():
            network(torch.arange(1, 6)[None].to(next(network.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _first(values: list[Any]) -> Tensor | None:
    for value in values:
        found = value if isinstance(value, Tensor) else _first(list(value)) if isinstance(value, tuple | list) else None
        if found is not None:
            return found
    return None


def _found(what: str, modules: Iterable[nn.Module], paths: dict[nn.Module, str]) -> str:
    """The path of the last of some modules."""
    found = list(modules)
    if not found:
        raise FamilyError(f"No entry can be guessed: the model has no {what.removeprefix('a ')} as far as is seen.")
    return paths[found[-1]]


def _is_blocks(module: nn.Module, config: Any) -> bool:
    return isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers


def _is_norm(module: nn.Module, width: int) -> bool:
    """A norm of the residual by its name; it may have no weight."""
    weight, name = getattr(module, "weight", None), type(module).__name__.lower()
    return "norm" in name and (weight is None or tuple(weight.shape) == (width,))


def _matrix(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _which(name: str) -> int:
    """Whether a projection is named for queries, keys or values, which may stand in any order; 0 if it isn't."""
    return next(("qkv".index(c) for c in name.replace("proj", "") if c in "qkv"), 0)


def _sizes(module: Any) -> tuple[int, int]:
    """Inputs and outputs of a matrix."""
    n, m = module.weight.shape
    return (n, m) if isinstance(module, Conv1D) else (m, n)


def _attention(inside: dict[nn.Module, str], config: Any) -> nn.Module:
    """The innermost module of that name that holds matrices itself."""
    named = [m for m in inside if "attention" in type(m).__name__.lower() and any(map(_matrix, m.children()))]
    if not named:
        raise FamilyError("No entry can be guessed: a block has no module that is named an attention.")
    return named[0]


def _mlp(
    inside: dict[nn.Module, str], calls: dict[nn.Module, Call], norms: list[nn.Module], attention: nn.Module
) -> str:
    """What is added to the residual beside attention: the last part of a block, or a norm of what it gives."""
    parts = [m for m, path in inside.items() if "." not in path and m is not attention and attention not in m.modules()]
    parts = [m for m in parts if m not in norms and any(own.ndim > 1 for own in m.parameters())]
    if not parts:
        raise FamilyError("No entry can be guessed: a block has nothing beside its attention that could be the MLP.")
    last = max(parts, key=list(calls).index)
    return next((inside[m] for m in norms if calls[m].given is calls[last].gave), inside[last])


def _kind(norm: Any, call: Call) -> tuple[Any, float]:
    """Whether a norm centres, and what it adds to its weights: what it gave has that direction."""
    assert call.given is not None
    assert call.gave is not None
    x, gave = call.given[0, -1].float(), call.gave[0, -1].float()
    own = {name: parameter.detach().float() for name, parameter in norm.named_parameters()}
    weight, bias = own.get("weight"), own.get("bias")
    gave = gave if bias is None else gave - bias

    def likeness(option: tuple[str, float]) -> float:
        kind, gain = option
        shaped = x - x.mean() if kind == "layer" else x
        shaped = shaped if weight is None else shaped * (weight + gain)
        return float(torch.cosine_similarity(shaped, gave, dim=0))

    return max([("rms", 0.0), ("layer", 0.0), ("rms", 1.0)], key=likeness)


def _positions(network: Any, calls: dict[nn.Module, Call], paths: dict[nn.Module, str]) -> str | None:
    """The embedding of positions: another one than that of tokens."""
    tokens = network.get_input_embeddings()
    found = [m for m in calls if isinstance(m, nn.Embedding) and m is not tokens]
    return paths[found[0]] if found else None

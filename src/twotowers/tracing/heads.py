"""Heads: (layer, head) pairs, groups of them, and random controls."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..errors import HeadError
from ..models.model import Model
from ..prompts.encoding import require_reader

Head = tuple[int, int]  # layer and head, both from 0
HEAD = ["layer", "head"]  # the columns that name one
CHOSEN, RANDOM = "in-context", "random"  # groups of heads
TRIES = 50  # draws for each group that is wanted to differ from the others
Heads = Iterable[Any]  # as they are given, as an array too: checked before they count as heads


def as_heads(model: Model, heads: Heads, least: int = 0) -> list[Head]:
    """Heads as they are given, from Python or as an array, as a list of pairs, each once.

    Raises:
        HeadError: what is no (layer, head) pair, a head that the model does not have, or fewer than `least`.
    """
    try:
        if isinstance(heads, str | bytes | Mapping):
            raise TypeError
        given = [tuple(pair) for pair in heads]  # what is used up by being read, as zip(layers, heads), is read once
        if any(isinstance(number, bool) for pair in given for number in pair):
            raise TypeError
        found = list(dict.fromkeys((operator.index(layer), operator.index(head)) for layer, head in given))
    except (TypeError, ValueError):
        shown = " ".join(repr(heads).split())[:60]
        raise HeadError(f"Heads are (layer, head) pairs of whole numbers, such as [(0, 1)], unlike {shown}.") from None
    if len(found) < least:
        raise HeadError(f"At least {least} head is needed; give (layer, head) pairs, such as [(0, 1)].")
    known = set(every_head(model))
    for pair in found:
        if pair not in known:
            raise HeadError(
                f"{model.name} has no head {pair}: layers are 0 to {model.arch.n_layers - 1} and heads 0 to "
                f"{model.arch.n_heads - 1}."
            )
    return found


def every_head(model: Model) -> list[Head]:
    require_reader(model)
    return [(layer, head) for layer in range(model.arch.n_layers) for head in range(model.arch.n_heads)]


def is_deep(layer: int, n_layers: int) -> bool:
    """Whether a layer lies in the deep half; the only layer of a model does."""
    return 2 * layer >= n_layers or n_layers == 1


def deep_heads(model: Model, but: Sequence[Head] = ()) -> list[Head]:
    """All heads of the deep half, but those that are named."""
    left_out = set(but)
    return [h for h in every_head(model) if is_deep(h[0], model.arch.n_layers) and h not in left_out]


def random_groups(heads: Sequence[Head], size: int, number: int, *, seed: int = 0) -> list[list[Head]]:
    """Different groups of as many heads drawn at random; smaller, and fewer, where there are too few heads."""
    rng, size = np.random.default_rng([seed, 11]), min(size, len(heads))
    return different(lambda: sorted(heads[i] for i in rng.choice(len(heads), size=size, replace=False)), number)


def different(draw: Callable[[], list[Head]], number: int) -> list[list[Head]]:
    """As many different groups as are wanted, from repeated draws, or as there are; an empty group is none.

    A group that came twice would count twice: the best of seven heads is no better than all of twenty.
    """
    found: dict[tuple[Head, ...], None] = {}
    for _ in range(TRIES * number):
        if len(found) == number:
            break
        if group := draw():
            found[tuple(group)] = None
    return [list(group) for group in found]


def heads_in(groups: Mapping[str, Sequence[Head]]) -> list[Head]:
    """Every head of some groups, once."""
    return sorted({head for heads in groups.values() for head in heads})


def pairs(table: pd.DataFrame, n: int | None = None) -> list[Head]:
    """The first n (layer, head) pairs of a table of heads."""
    part = table.iloc[:n]
    return [(int(layer), int(head)) for layer, head in zip(part["layer"], part["head"], strict=True)]


def random_heads(heads: Sequence[Head], n_heads: int, rng: np.random.Generator) -> list[Head]:
    """A control for `heads`: as many others of the same layers, drawn at random.

    Where a layer has fewer others than are needed, all its others are taken and the control is smaller.
    """
    control: list[Head] = []
    for layer in sorted({layer for layer, _ in heads}):
        taken = {head for own, head in heads if own == layer}
        others = [head for head in range(n_heads) if head not in taken]
        drawn = rng.choice(others, size=min(len(taken), len(others)), replace=False)
        control += [(layer, int(head)) for head in sorted(drawn)]
    return control


def beside_random(heads: Sequence[Head], n_heads: int, seed: Sequence[int]) -> dict[str, list[Head]]:
    """The in-context heads, and as a control random heads of the same layers, if these layers have others.

    Args:
        n_heads: of one layer of the model.
    """
    control = random_heads(heads, n_heads, np.random.default_rng(seed))
    return {CHOSEN: list(heads), **({RANDOM: control} if control else {})}


def control_heads(model: Model, heads: Sequence[Head], draws: int, seed: int = 0) -> list[Head]:
    """Heads of the deep half drawn at random, none of `heads`: `draws` for each of them, or all that there are."""
    deep = deep_heads(model, heads)
    rng = np.random.default_rng([seed, 7])
    chosen = rng.choice(len(deep), size=min(len(deep), draws * len(heads)), replace=False)
    return sorted(deep[i] for i in chosen)


def is_in(table: pd.DataFrame, heads: Sequence[Head]) -> pd.Series:
    """Which rows of a table belong to one of the heads."""
    known = pd.MultiIndex.from_tuples(list(heads), names=HEAD) if heads else pd.MultiIndex.from_arrays([[], []])
    return pd.Series(pd.MultiIndex.from_frame(table[HEAD]).isin(known), index=table.index)


def by_layer(heads: Sequence[Head]) -> dict[int, list[int]]:
    """Numbers of the heads of each layer, each once, in order."""
    layers: dict[int, list[int]] = defaultdict(list)
    for layer, head in sorted(set(heads)):
        layers[layer].append(head)
    return dict(layers)

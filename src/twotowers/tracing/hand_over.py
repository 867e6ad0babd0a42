"""The hand-over test: where the class is, layer by layer.

The residual that enters a layer is exchanged between the classes at one kind of place, and the model runs on from
there. A margin of minus the intact one says that everything the answer needs is at that place; the intact one, that it
has left (method page, equation eq-hand-over).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

import nnsight
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..arguments import listed, require_flag, require_whole
from ..errors import UnknownNameError, UserError
from ..models.model import Model
from ..models.surroundings import undisturbed
from ..prompts.encoding import Span
from ..prompts.packing import Batch, pack
from ..prompts.sets import Prompt, PromptSet, as_sets
from ..prompts.variants import swapped
from .answers import Answers, outcome_table, reading
from .capture import OPTIONS, Capture, Sites, capture, inputs_of, remembered
from .contrasts import targets
from .exchange import label_pairs, query_donors
from .sweep import sweep

PLACES = ("text", "text+separator", "label", "query", "last")
AMONG = PLACES[:3]  # places of demonstrations, which may be exchanged with others of the same prompt
BEHIND = ("query", "last")  # places behind all demonstrations, whose keys and values stay as they are
Move = tuple[int, int, int, int]  # a prompt, a position in it, and the prompt and position that it takes from


@undisturbed
def hand_over(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    place: str,
    layers: Sequence[int] | None = None,
    *,
    within: bool = False,
) -> pd.DataFrame:
    """Answer every prompt with the residual at one kind of place exchanged, at each layer.

    | place | exchanged with |
    |---|---|
    | `text` | text tokens of the i-th demonstration of one label and the i-th of the other, aligned from the end |
    | `text+separator` | the same, and what stands between the text and its label |
    | `label` | all label positions, with those of the prompt whose labels are swapped |
    | `query` | text tokens of the query, with those of a query of the other class; not the last position |
    | `last` | the last position, with that of a query of the other class |

    Where positions are embedded, texts and labels do not take the embedding of their place along; what lower layers
    made of it they do.

    Of more than two labels, the query and last position are exchanged with those of the next label in the set's order;
    labels are those of the prompt in which each label is the next; and texts come from the label before, so that the
    answer moves to the next label each time. What is left over stays.

    Args:
        layers: the residual that enters these, 0 to the number of layers, which is the final residual; all by default.
        within: the control: each exchange is made within a class, with the next demonstration of the same label, or
            the next query of it.

    Returns:
        a row per layer and prompt: `place, layer, set, query, label, accuracy, accuracy_two_way, margin`, the margin
        against the next label, as in `exchange`.

    Raises:
        UserError: no such place or layer; a set whose queries share one label.
    """
    sets = as_sets(model, prompt_sets)
    require_flag("within", within)
    if not isinstance(place, str) or place not in PLACES:
        raise UnknownNameError("place", place, PLACES)
    chosen = list(range(model.arch.n_layers + 1)) if layers is None else listed("layers", layers, "whole numbers")
    for layer in chosen:
        require_whole("A layer", layer, 0, model.arch.n_layers)
    return hand_overs(model, sets, {(place, within): chosen}).drop(columns="within")


def hand_overs(
    model: Model, sets: Sequence[PromptSet], choices: Mapping[tuple[str, bool], Sequence[int]]
) -> pd.DataFrame:
    """As `hand_over` for several places and their controls, in one pass over the sets.

    Args:
        choices: for each place, and whether its exchange is made within a class, the layers.

    Returns:
        the columns of `hand_over`, with `within` behind `place`.
    """
    n_layers = model.arch.n_layers
    for (place, _), layers in choices.items():
        if place not in PLACES:
            raise UnknownNameError("place", place, PLACES)
        if wrong := [layer for layer in layers if not 0 <= layer <= n_layers]:
            raise UserError(f"{model.name} has no residual {wrong[0]}; layers are 0 to {n_layers}, the final residual.")

    def of_set(index: int, s: PromptSet) -> pd.DataFrame:
        tables = [
            outcome_table(rows, s, 0, index, targets(s))
            .drop(columns="group")
            .assign(place=place, within=within, layer=layer)
            for (place, within), layer, rows in _of_set(model, s, choices)
        ]
        return pd.concat(tables, ignore_index=True)

    found = sweep(model, sets, "hand over", [(*key, list(layers)) for key, layers in choices.items()], of_set)
    table = pd.concat(found, ignore_index=True)
    first = ["place", "within", "layer"]
    return table[[*first, *(name for name in table.columns if name not in first)]]


def _of_set(
    model: Model, s: PromptSet, choices: Mapping[tuple[str, bool], Sequence[int]]
) -> Iterator[tuple[tuple[str, bool], int, Answers]]:
    batch = pack([s], model.pad_id)
    intact = capture(model, batch, inputs=True)
    other = None
    if ("label", False) in choices:
        other = _stream(capture(model, pack([swapped(s)], model.pad_id), inputs=True), batch)
    stream, places = _stream(intact, batch), model.arch.embedded_positions(batch.position_ids)
    for (place, within), layers in choices.items():
        source = stream if other is None or (place, within) != ("label", False) else other
        moves = _moves(s, place, within)
        to, origin = ([int(batch.index[prompt, position]) for prompt, position in ends] for ends in _ends(moves))
        moved = (places[:, to] - places[:, origin]) * (place in AMONG)  # what stands there changes places, not it
        for layer in layers:
            changed = stream[layer].clone()  # [1, T, d]
            changed[:, to] = source[layer][:, origin] + moved
            rows = answer_from(model, batch, layer, changed, intact if place in BEHIND else None, min(to, default=0))
            yield (place, within), layer, rows


def _stream(captured: Capture, batch: Batch) -> Float[Tensor, "L1 1 T d"]:
    """The residual entering each layer, and the final one, which is known at the last positions only."""
    assert captured.inputs is not None
    final = captured.inputs[-1].clone()
    final[:, batch.last] = captured.resid_pre[-1]
    return torch.cat([captured.inputs, final[None]])


def answer_from(
    model: Model,
    batch: Batch,
    layer: int,
    entering: Float[Tensor, "1 T d"],
    behind: Capture | None = None,
    first: int = 0,
) -> Answers:
    """Answers of one packed prompt set, from the residual that enters a layer on.

    Args:
        behind: of the same batch, if nothing is changed before position `first`: what follows runs alone, behind its
            keys and values.
    """
    here = behind is not None and behind.cache is not None
    run = batch.tail(first) if here else batch
    given = entering[:, first:] if here else entering
    sites, read, row, last = Sites.of(model), reading(run), run.row, run.last
    blocks, norm, unembed, like = sites.blocks, sites.final_norm, sites.unembed, sites.like
    as_tuple = model.arch.family.returns_tuple
    with (
        remembered(behind) if behind is not None and here else nullcontext() as cache,
        torch.no_grad(),
        model.nn.trace(inputs_of(model, run), past_key_values=cache, backend=model.backend(), **OPTIONS),
    ):
        resid = given.to(like.weight)
        for below in range(layer):
            blocks[below].skip((resid, None) if as_tuple else resid)
        if layer == 0:
            blocks[0].input = resid
        label_logits, log_norm, best = (nnsight.save(x) for x in read(unembed(norm.output[row, last]).detach().float()))
    return Answers(label_logits, log_norm, best)


def _ends(moves: Sequence[Move]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    return [(n, i) for n, i, _, _ in moves], [(n, i) for _, _, n, i in moves]


def _moves(s: PromptSet, place: str, within: bool) -> list[Move]:
    """What takes from where, for every prompt of a set."""
    if place in ("query", "last"):
        donors = query_donors(s, other=not within).tolist()
        spans = [p.query if place == "query" else (p.last, p.last + 1) for p in s.prompts]
        return [(n, a, donor, b) for n, donor in enumerate(donors) for a, b in _aligned(spans[n], spans[donor])]
    if place == "label" and not within:
        return [(n, i, n, i) for n, p in enumerate(s.prompts) for i in p.label_positions]
    partners = _within_labels(s) if within else _from_label_before(s)
    return [
        (n, i, n, j)
        for n, p in enumerate(s.prompts)
        for a, b in partners.items()
        for i, j in _aligned(_span(p, a, place), _span(p, b, place))
    ]


def _from_label_before(s: PromptSet) -> dict[int, int]:
    """For each demonstration the one of its rank of the label before, of the first label of the last."""
    k = len(s.labels)
    return {a: b for label in range(k) for a, b in label_pairs(s, label, (label - 1) % k)}


def _within_labels(s: PromptSet) -> dict[int, int]:
    """For each demonstration the next one of its label, in a circle."""
    found: dict[int, int] = {}
    for label in s.labels:
        own = [i for i, (_, other) in enumerate(s.demonstrations) if other == label]
        found |= dict(zip(own, own[1:] + own[:1], strict=True))
    return found


def _span(prompt: Prompt, demonstration: int, place: str) -> Span:
    start, end = prompt.demonstrations[demonstration]
    label = prompt.label_positions[demonstration]
    return (label, label + 1) if place == "label" else (start, label if place == "text+separator" else end)


def _aligned(a: Span, b: Span) -> list[tuple[int, int]]:
    """Positions of two spans, from their ends; what the longer one has more is left out."""
    return list(zip(range(a[1] - 1, a[0] - 1, -1), range(b[1] - 1, b[0] - 1, -1), strict=False))

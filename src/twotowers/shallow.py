"""Shallow layers: where demonstrations merge into their labels, and the query into the last position.

Two tests of one claim. *Blocking* cuts attention edges in a window of layers and asks what the model still answers:
a cut that costs accuracy cut something the answer needs (method page, equation eq-attention, without those
positions in the softmax). *Probing* asks from which layer on a linear classifier reads a text's category at its label.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor
from tqdm import tqdm

from .errors import PromptError, UnknownNameError, UserError
from .interventions import cut
from .knockout import outcome_table
from .models import Model
from .packing import Batch
from .prompts import Prompt, PromptSet
from .tasks import Half, Task
from .trace import Answers, batches, capture, remember

KINDS = ("text_to_label", "query_to_last")
WHERE = ("text", "label", "shuffled")
FOLDS = 4  # of words, and as many of demonstration sets
STRENGTH = 0.01  # scikit-learn's C: small, since there are more dimensions than demonstrations
TOLERANCE = 1e-2  # a hundredfold stricter fit takes three times as long and reads no better
COLUMNS = ("set", "query", "label", "accuracy", "accuracy_two_way", "margin")


class LayerError(UserError):
    """Layers that the model does not have."""


def windows(n_layers: int, step: int = 1) -> list[range]:
    """Windows a third of the layers wide, at least one, beginning at every `step`-th layer; first and last third
    are always among them."""
    width = max(1, round(n_layers / 3))
    starts = sorted({*range(0, n_layers - width + 1, step), n_layers - width})
    return [range(start, start + width) for start in starts]


def block(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    edges: str | Sequence[str] = KINDS,
    layers: range | Sequence[range] = range(0),
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Answer every prompt with attention edges cut in each window of layers, and with as many random edges cut.

    Args:
        edges: `"text_to_label"`: no label position attends to its own demonstration, text and separator;
            `"query_to_last"`: the last position does not attend to the query; or both.
        layers: one window or several.
        seed: of the random edges; those of a demonstration set are the same in all windows.

    Returns:
        a row per kind, window, control and prompt: `kind, start, stop` (first layer and one past the last),
        `control` (random edges instead), and `set, query, label, accuracy, accuracy_two_way, margin` as in
        `knockout.outcomes`. The intact model has `start` and `stop` 0.

    Raises:
        UnknownNameError: no such kind of edge.
        LayerError: a window beyond the model's layers.
    """
    sets = [prompt_sets] if isinstance(prompt_sets, PromptSet) else list(prompt_sets)
    kinds = [edges] if isinstance(edges, str) else list(edges)
    chosen = [window or range(0) for window in ([layers] if isinstance(layers, range) else layers)]
    for window in chosen:
        if window and not set(window) <= set(range(model.arch.n_layers)):
            raise LayerError(
                f"{model.name} has no layers {window[0]} to {window[-1]}: its layers are 0 to "
                f"{model.arch.n_layers - 1}."
            )
    tables, index = [], 0
    steps = 2 * len(kinds) * sum(model.arch.n_layers - window.start for window in chosen)
    with tqdm(total=len(sets) * steps, desc="block", unit="layer", delay=2, leave=False) as bar:
        for batch in batches(model, sets):
            members = sets[index : index + len(batch.input_ids)]
            unchanged, intact = remember(model, batch)
            for kind in kinds:
                tables.append(_prompts(unchanged, members, index, kind, range(0), False))
                cuts = {False: blocked(batch, members, kind)}
                cuts[True] = random_edges(batch, cuts[False], [seed, KINDS.index(kind), index])
                for window in chosen:
                    for control, removed in cuts.items():
                        rows = cut(model, batch, removed, window, intact)
                        tables.append(_prompts(rows, members, index, kind, window, control))
                        bar.update(len(members) * (model.arch.n_layers - window.start))
            index += len(members)
    return pd.concat(tables, ignore_index=True)


def blocked(batch: Batch, sets: Sequence[PromptSet], kind: str) -> Bool[Tensor, "B T T"]:
    """The edges of one kind in a batch of these sets, from attending (second axis) to attended position (third)."""
    if kind not in KINDS:
        raise UnknownNameError("kind of edge", kind, KINDS)
    edges = torch.zeros_like(batch.allowed)
    for n, prompt in enumerate(prompt for s in sets for prompt in s.prompts):
        for position, first in _merges(prompt, kind):
            packed = batch.index[n]
            edges[batch.row[n], packed[position], packed[first:position]] = True
    return edges


def random_edges(batch: Batch, edges: Bool[Tensor, "B T T"], seed: Sequence[int]) -> Bool[Tensor, "B T T"]:
    """A control for `edges`: in every row as many others, from the same positions to other earlier ones.

    A position gives as many as it loses. The first label has too few others; what is missing is drawn from the other
    positions of the row. Where they, too, have too few, all are taken and the control is smaller.

    Args:
        seed: of the first row; its last number goes up by one a row, so that batching changes nothing.
    """
    control = torch.zeros_like(edges)
    for row, removed in enumerate(edges):
        rng = np.random.default_rng([*seed[:-1], seed[-1] + row])
        free = batch.allowed[row] & ~removed & ~torch.eye(len(removed), dtype=torch.bool)
        free &= removed.any(dim=1, keepdim=True)
        for position in removed.any(dim=1).nonzero().ravel().tolist():
            others = rng.permutation(free[position].nonzero().ravel().numpy())
            control[row, position, others[: int(removed[position].sum())]] = True
        left = rng.permutation((free & ~control[row]).nonzero().numpy())[: int(removed.sum() - control[row].sum())]
        control[row, left[:, 0], left[:, 1]] = True
    return control


def depth_effect(table: pd.DataFrame, kind: str, value: str = "accuracy", *, control: bool = False) -> pd.DataFrame:
    """Claims C1 and C2: what the cut costs in the first window minus what it costs in the last, per prompt.

    Args:
        table: result of `block`; first and last are the windows with the lowest and the highest start.
        control: the same for the random edges.

    Returns:
        `set, query, first, last, effect`: costs (intact minus cut, in units of `value`), and their difference,
        positive if the first window costs more.
    """
    part = table[table["kind"] == kind].set_index(["set", "query"])
    intact = part.loc[part["stop"] == part["start"], value]
    cuts = part[(part["stop"] > part["start"]) & (part["control"] == control)]
    costs = {
        name: intact - cuts.loc[cuts["start"] == start, value]
        for name, start in (("first", cuts["start"].min()), ("last", cuts["start"].max()))
    }
    return pd.DataFrame(costs).assign(effect=costs["first"] - costs["last"]).reset_index()


def categories(task: Task, half: Half = "evaluation") -> dict[str, str]:
    """The category of every text of one half of a task."""
    return {text: category for category, halves in task.texts.items() for text in halves[half]}


def probe(
    model: Model,
    prompt_sets: Sequence[PromptSet],
    category: Mapping[str, str],
    layers: Sequence[int] | None = None,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Read the category of each demonstration's text from residuals, layer by layer, with a linear probe.

    The probe is always asked about words *and* demonstration sets that it was not trained on (`held_out`).

    Args:
        category: of each demonstration's text.
        layers: the residual *entering* these is read; all by default.

    Returns:
        a row per layer, place and demonstration: `layer`, `where` (residual at the `text`'s last token, at its
        `label`, or at the label but asked for the category of a random other demonstration of the set, `shuffled`),
        `set, demonstration`, `first` (no earlier demonstration has its label), `accuracy` (0 or 1).
    """
    sets, chosen = list(prompt_sets), list(range(model.arch.n_layers) if layers is None else layers)
    words = [text for s in sets for text, _ in s.demonstrations]
    of_set = np.repeat(np.arange(len(sets)), [len(s.demonstrations) for s in sets])
    truth = np.array([category[word] for word in words])
    answer = {"text": truth, "label": truth, "shuffled": truth[_others(of_set, np.random.default_rng([seed, 3]))]}
    facts = pd.DataFrame(
        {
            "set": of_set,
            "demonstration": [i for s in sets for i in range(len(s.demonstrations))],
            "first": [label not in [b for _, b in s.demonstrations[:i]] for s in sets
                      for i, (_, label) in enumerate(s.demonstrations)],
        }
    )  # fmt: skip
    residual = dict(zip(("text", "label"), demonstration_residuals(model, sets, chosen), strict=True))
    residual["shuffled"] = residual["label"]
    tables = []
    for i, layer in enumerate(tqdm(chosen, desc="probe", unit="layer", delay=2, leave=False)):
        for where in WHERE:
            correct = held_out(residual[where][i].numpy(), answer[where], words, of_set)
            tables.append(facts.assign(layer=layer, where=where, accuracy=correct.astype(float)))
    columns = ["layer", "where", "set", "demonstration", "first", "accuracy"]
    return pd.concat(tables, ignore_index=True)[columns]


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """How much better a probe reads a label's own text than another's: `layer, set, demonstration, first, gain`.

    Args:
        table: result of `probe`; the gain of one demonstration is the difference of two accuracies, -1, 0 or 1.
    """
    keys = ["layer", "set", "demonstration", "first"]
    wide = table.pivot(index=keys, columns="where", values="accuracy")
    return (wide["label"] - wide["shuffled"]).rename("gain").reset_index()


def demonstration_residuals(
    model: Model, sets: Sequence[PromptSet], layers: Sequence[int]
) -> tuple[Float[Tensor, "K M d"], Float[Tensor, "K M d"]]:
    """Residual entering K layers at the last text token and at the label of all M demonstrations, set by set."""
    texts, labels, index = [], [], 0
    for batch in batches(model, sets):
        inputs = capture(model, batch, inputs=True).inputs
        assert inputs is not None
        entering = inputs[list(layers)]
        first = 0  # first prompt of a set; its demonstrations are those of all
        for row, s in enumerate(sets[index : index + len(batch.input_ids)]):
            prompt, packed = s.prompts[0], batch.index[first]
            texts.append(entering[:, row, packed[[end - 1 for _, end in prompt.demonstrations]]])
            labels.append(entering[:, row, packed[list(prompt.label_positions)]])
            first += len(s.prompts)
        index += len(batch.input_ids)
    return torch.cat(texts, dim=1), torch.cat(labels, dim=1)


def held_out(
    x: Float[np.ndarray, "M d"], category: np.ndarray, words: Sequence[str], sets: Sequence[int] | np.ndarray
) -> Bool[np.ndarray, " M"]:
    """Whether a linear probe names each example's category, trained on other words of other sets only.

    Words and sets are dealt into folds, and each pair of folds is one test: its examples share neither word nor set
    with the training examples. Other words alone would not do: labels of one set share their context, and a
    probe that recognises the set and knows its two labels' categories need not read the word.

    Args:
        x: one residual an example; each is scaled to length one, as the model's norms do, then standardised.

    Raises:
        PromptError: fewer than two words or two sets.
    """
    groups = [pd.factorize(np.asarray(keys))[0] for keys in (words, sets)]
    if min(len(np.unique(keys)) for keys in groups) < 2:
        raise PromptError("A probe needs demonstrations of at least two words in at least two prompt sets.")
    by_word, by_set = (_folds(keys) for keys in groups)
    correct = np.zeros(len(x), dtype=bool)
    with threadpool_limits(1):  # the matrices are small: threads would only wait for each other
        for word_fold, set_fold in itertools.product(range(by_word.max() + 1), range(by_set.max() + 1)):
            test = (by_word == word_fold) & (by_set == set_fold)
            train = (by_word != word_fold) & (by_set != set_fold)
            if test.any() and train.any():  # untrained, a probe names nothing
                correct[test] = _fit(x[train], category[train]).predict(x[test]) == category[test]
    return correct


def _fit(x: np.ndarray, category: np.ndarray) -> Any:
    if len(np.unique(category)) == 1:  # a regression refuses them
        return DummyClassifier().fit(x, category)
    regression = LogisticRegression(C=STRENGTH, tol=TOLERANCE, max_iter=300)
    return make_pipeline(Normalizer(), StandardScaler(), regression).fit(x, category)


def _folds(groups: np.ndarray) -> np.ndarray:
    """Fold of each example; equal groups share a fold."""
    fold = np.zeros(len(groups), dtype=int)
    number = min(FOLDS, len(np.unique(groups)))
    for i, (_, test) in enumerate(GroupKFold(number, shuffle=True, random_state=0).split(groups, groups=groups)):
        fold[test] = i
    return fold


def _others(sets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each demonstration a random other one of its set, each chosen once."""
    partner = np.arange(len(sets))
    for s in np.unique(sets):
        order = rng.permutation(np.flatnonzero(sets == s))
        partner[order] = np.roll(order, 1)
    return partner


def _merges(prompt: Prompt, kind: str) -> list[tuple[int, int]]:
    """Position that collects, and the first token of what it collects; all tokens between belong to it.

    The separator is among them: it follows the text and could hand it on.
    """
    if kind == "query_to_last":
        return [(prompt.last, prompt.query[0])]
    return [(label, first) for (first, _), label in zip(prompt.demonstrations, prompt.label_positions, strict=True)]


def _prompts(
    rows: Answers, sets: Sequence[PromptSet], index: int, kind: str, window: range, control: bool
) -> pd.DataFrame:
    """A row a prompt, for sets numbered from `index`."""
    sizes = [len(s.prompts) for s in sets]
    parts = zip(*(x.split(sizes) for x in (rows.labels, rows.log_norm, rows.best)), strict=True)
    tables = [
        outcome_table(Answers(*part), s, 0, index + i) for i, (part, s) in enumerate(zip(parts, sets, strict=True))
    ]
    keys: dict[str, Any] = {"kind": kind, "start": window.start, "stop": window.stop, "control": control}
    return pd.concat(tables, ignore_index=True).drop(columns="group").assign(**keys)[[*keys, *COLUMNS]]

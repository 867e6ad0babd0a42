"""From which layer on does a linear classifier read a text's category at its label?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
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

from ...errors import PromptError
from ...models.model import Model
from ...models.parts import Tables, part_name
from ...prompts.packing import Batch
from ...prompts.sets import PromptSet
from ...prompts.tasks import Half, Task
from ...statistics import summarise
from ...tracing.capture import capture
from ...tracing.sweep import part, sweep_batches

WHERE = ("text", "label", "shuffled")
FOLDS = 4  # of words, and as many of demonstration sets
MANY = 6  # layers, beyond which only every other one is read
STRENGTH = 0.01  # scikit-learn's C: small, since there are more dimensions than demonstrations
TOLERANCE = 1e-2  # a hundredfold stricter fit takes three times as long and reads no better


def categories(task: Task, half: Half = "evaluation") -> dict[str, str]:
    """The category of every text of one half of a task."""
    return {text: category for category, halves in task.texts.items() for text in halves[half]}


def layers_to_read(n_layers: int) -> range:
    """Every layer of a shallow model, every other one of a deeper."""
    return range(0, n_layers, 2 if n_layers > MANY else 1)


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

    def fitted(i: int, where: str) -> Tables:
        return (held_out(residual[where][i].numpy(), answer[where], words, of_set),)

    whole, tables = part_name("probe", sets, [*category.items()], seed), []
    for i, layer in enumerate(tqdm(chosen, desc="probe", unit="layer", delay=2, leave=False)):
        for where in WHERE:
            (correct,) = part(model, part_name(whole, where), layer, [], partial(fitted, i, where))
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


def by_place(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by layer and place from a table of `probe`: `layer, where, mean, low, high, demonstrations`."""
    keys = ["layer", "where"]
    numbers = table.groupby(keys, as_index=False).agg(demonstrations=("accuracy", "size"))
    return summarise(table, keys, "accuracy").merge(numbers, on=keys)


def leads(table: pd.DataFrame, width: int) -> pd.DataFrame:
    """Mean of `gains` by layer, from a table of `probe`.

    Args:
        width: layers in the first third of the model.

    Returns:
        `layer, mean, low, high`, with `early` (the layer lies in the first third); `alone, alone_low, alone_high`, the
        same for demonstrations that are the first of their label only, and their number `firsts`.
    """
    gain = gains(table)
    every = summarise(gain, ["layer"], "gain")
    first = summarise(gain[gain["first"]], ["layer"], "gain")
    first = first.set_axis(["layer", "alone", "alone_low", "alone_high"], axis=1)
    firsts = gain.groupby("layer", as_index=False).agg(firsts=("first", "sum"))
    return every.assign(early=every["layer"] < width).merge(first, on="layer").merge(firsts, on="layer")


def demonstration_residuals(
    model: Model, sets: Sequence[PromptSet], layers: Sequence[int]
) -> tuple[Float[Tensor, "K M d"], Float[Tensor, "K M d"]]:
    """Residual entering K layers at the last text token and at the label of all M demonstrations, set by set."""

    def of_batch(members: list[PromptSet], number: int, batch: Batch) -> Tables:
        texts, labels = [], []
        inputs = capture(model, batch, inputs=True).inputs
        assert inputs is not None
        entering = inputs[list(layers)]
        first = 0  # first prompt of a set; its demonstrations are those of all
        for row, s in enumerate(members):
            prompt, packed = s.prompts[0], batch.index[first]
            texts.append(entering[:, row, packed[[end - 1 for _, end in prompt.demonstrations]]])
            labels.append(entering[:, row, packed[list(prompt.label_positions)]])
            first += len(s.prompts)
        return torch.cat(texts, dim=1).numpy(), torch.cat(labels, dim=1).numpy()

    found = zip(*sweep_batches(model, sets, "read demonstrations", list(layers), of_batch), strict=True)
    texts, labels = (torch.cat([torch.from_numpy(x) for x in arrays], dim=1) for arrays in found)
    return texts, labels


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

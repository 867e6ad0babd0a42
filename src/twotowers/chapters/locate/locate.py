"""Locate: which layers and heads raise the log-probability of the right label at the last position.

The log-probability increase of a part x of layer l is log p(label | resid + x) - log p(label | resid), with the
softmax over the whole vocabulary (method page, equations eq-log-increase-layer and eq-log-increase-head).
At layer 0 the base is the bare token embedding: the increase is shown, but heads are ranked among deep ones.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ...models.model import Model
from ...models.parts import Tables
from ...models.surroundings import undisturbed
from ...prompts.packing import Batch
from ...prompts.sets import PromptSet, as_sets
from ...statistics import estimate, summarise
from ...tracing.answers import require_finite
from ...tracing.capture import capture
from ...tracing.direct_margin import DirectMargin, direct_margin
from ...tracing.projection import increases
from ...tracing.sweep import sweep_batches

COMPONENTS = ("attention", "mlp")
GOLD = "gold "  # before a label: the column of the prompts whose answer it is


@dataclass(frozen=True)
class Located:
    """What was added to N prompts, in the order of their sets; increases are of log p(gold label), in nats.

    Attributes:
        gold: gold label of each prompt; `set_index` its prompt set.
        layer_increase: of attention (0) and MLP (1) of each layer.
        head_increase: of each head alone.
        direct: the margin of the same prompts, part by part.
    """

    gold: tuple[str, ...]
    set_index: tuple[int, ...]
    layer_increase: Float[Tensor, "L 2 N"]
    head_increase: Float[Tensor, "L H N"]
    direct: DirectMargin

    @functools.cached_property
    def layer_prompts(self) -> pd.DataFrame:
        """A row per layer component and prompt: `layer, component, set, label, log_increase`."""
        table = self._long(self.layer_increase, "component")
        return table.assign(component=np.array(COMPONENTS)[table["component"]])

    @functools.cached_property
    def head_prompts(self) -> pd.DataFrame:
        """A row per head and prompt: `layer, head, set, label, log_increase`."""
        return self._long(self.head_increase, "head")

    @property
    def layers(self) -> pd.DataFrame:
        """Means over the prompts of each gold label: `layer, component, label, log_increase`."""
        keys = ["layer", "component", "label"]
        return self.layer_prompts.groupby(keys, as_index=False)[["log_increase"]].mean()

    @property
    def heads(self) -> pd.DataFrame:
        """Means over the prompts of each gold label: `layer, head, label, log_increase`."""
        return self.head_prompts.groupby(["layer", "head", "label"], as_index=False)[["log_increase"]].mean()

    def sums(self) -> pd.DataFrame:
        """A row per prompt: `set, label`, sums of `attention` and `mlp` over all layers."""
        attention, mlp = self.layer_increase.double().sum(0).numpy()
        return pd.DataFrame({"set": self.set_index, "label": self.gold, "attention": attention, "mlp": mlp})

    def _long(self, increase: Float[Tensor, "L X N"], name: str) -> pd.DataFrame:
        layer, part, prompt = np.indices(increase.shape).reshape(3, -1)
        return pd.DataFrame(
            {
                "layer": layer,
                name: part,
                "set": np.array(self.set_index)[prompt],
                "label": np.array(self.gold)[prompt],
                "log_increase": increase.double().numpy().ravel(),
            }
        )


@undisturbed
def locate(model: Model, prompt_sets: PromptSet | Sequence[PromptSet]) -> Located:
    """Log-probability increase of every attention layer, MLP layer and head, and the margin that each writes."""
    sets = as_sets(model, prompt_sets)

    def of_batch(members: list[PromptSet], first: int, batch: Batch) -> Tables:
        captured = capture(model, batch)
        require_finite(captured.answers.labels, captured.answers.log_norm)
        gold = batch.label_ids.gather(1, batch.gold[:, None]).squeeze(1)
        direct = direct_margin(model.arch, captured, batch)
        return tuple(x.numpy() for x in (*increases(model.arch, captured, gold), *direct.tensors()))

    found = zip(*sweep_batches(model, sets, "locate", None, of_batch), strict=True)
    layers, heads, *direct = (torch.cat([torch.from_numpy(x) for x in arrays], dim=-1) for arrays in found)
    return Located(
        gold=tuple(label for s in sets for _, label in s.queries),
        set_index=tuple(i for i, s in enumerate(sets) for _ in s.queries),
        layer_increase=layers,
        head_increase=heads,
        direct=DirectMargin(*direct),
    )


def by_layer(located: Located) -> pd.DataFrame:
    """Means over all prompts with their intervals: `layer, component, mean, low, high`, attention first."""
    table = summarise(located.layer_prompts, ["layer", "component"], "log_increase")
    return table.sort_values(["component", "layer"], ignore_index=True)


def totals(located: Located) -> pd.DataFrame:
    """Sums over all layers, as means over all prompts with their intervals: `component, mean, low, high`."""
    sums = located.sums()
    estimates = [estimate(sums[component], sums["set"]) for component in COMPONENTS]
    rows = [(name, e.mean, e.low, e.high) for name, e in zip(COMPONENTS, estimates, strict=True)]
    return pd.DataFrame(rows, columns=["component", "mean", "low", "high"])


def by_head(located: Located, n: int = 10) -> pd.DataFrame:
    """A row per head: `layer, head, log_increase`, its means for each gold label, and `largest`.

    Returns:
        `log_increase` is the mean of the labels' means, which are in the columns `gold foo` and the like; `largest`
        says whether the head is among the `n` largest of the deep half.
    """
    table = located.heads
    mean = table.groupby(["layer", "head"], as_index=False)["log_increase"].mean()
    apart = table.pivot(index=["layer", "head"], columns="label", values="log_increase").add_prefix(GOLD)
    deep = mean[mean["layer"] >= len(located.head_increase) / 2].dropna()
    largest = mean.index.isin(deep.nlargest(n, "log_increase").index)
    return mean.assign(**{str(label): apart[label].to_numpy() for label in apart}, largest=largest)

"""What the cases of `silent` compare: numbers by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from plain_changes import every_prompt, margin
from twotowers.prompts.sets import Prompt, PromptSet

Numbers = dict[str, np.ndarray]
Sets = tuple[PromptSet, ...]
HEADS = [(1, 0), (1, 3), (2, 2)]
LAYER = 1


def numbers(**columns: object) -> Numbers:
    return {name: np.asarray(column, dtype=float) for name, column in columns.items()}


def ordered(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["set", "query"], kind="stable")


def answered(table: pd.DataFrame) -> Numbers:
    own = ordered(table)
    return numbers(margin=own["margin"], decided=own["accuracy"])


def answers(sets: Sets, logits: Callable[[int, PromptSet, Prompt], torch.Tensor]) -> Numbers:
    """Margin and accuracy of every prompt, from its logits."""
    margins, right = [], []
    for _, query, s, prompt in every_prompt(sets):
        found = logits(query, s, prompt)
        margins.append(margin(s, query, found))
        right.append(float(int(found.argmax()) == s.label_ids[s.gold[query]]))
    return numbers(margin=margins, decided=right)


def joined(**parts: Numbers) -> Numbers:
    """Several results under one: "decided" stays in front."""
    return {
        f"decided {part} {name}" if name.startswith("decided") else f"{part} {name}": found
        for part, own in parts.items()
        for name, found in own.items()
    }

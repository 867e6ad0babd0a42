"""Knock-out: what the model still answers when heads are zeroed, exactly, at every position.

Zeroing a head's z equals zeroing its slice of W_O (method page, equation eq-knockout). Each prompt set is one packed
row; choices of heads that start at the same layer become rows of one forward, which starts at that layer
from the intact model's residual.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from .errors import HeadError, MemoryLimitError
from .interventions import ablate
from .models import Model
from .packing import pack
from .prompts import PromptSet
from .study import Study, run_folder
from .trace import TOKEN_BUDGET, Answers, answers, batches, remember

Head = tuple[int, int]  # layer and head, both from 0
PAPER_SHARE = 6 / 1024  # heads of a label among all heads: Llama 7B in the paper's version 3


def knockout(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    heads: Literal["each"] | Sequence[Head] = "each",
) -> pd.DataFrame:
    """Accuracy and margin with heads zeroed, over all prompts of all sets.

    Args:
        heads: `"each"` zeroes every head by itself, a row each; a list of (layer, head) pairs zeroes them
            together, one row; the empty list gives the intact model.

    Returns:
        `layer, head` (only for `"each"`), `accuracy` (the label is the most probable token of the vocabulary),
        `accuracy_two_way` (it beats the other label) and `margin` (mean of its logit minus the other label's).

    Raises:
        HeadError: a head that the model does not have.
    """
    each = heads == "each"
    groups = [[head] for head in every_head(model)] if heads == "each" else [list(heads)]
    result = outcomes(model, prompt_sets, groups)
    means = result.groupby("group")[["accuracy", "accuracy_two_way", "margin"]].mean().reset_index(drop=True)
    if each:
        means.insert(0, "layer", [layer for layer, _ in every_head(model)])
        means.insert(1, "head", [head for _, head in every_head(model)])
    return means


def every_head(model: Model) -> list[Head]:
    return [(layer, head) for layer in range(model.arch.n_layers) for head in range(model.arch.n_heads)]


def outcomes(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    groups: Sequence[Sequence[Head]],
    *,
    budget: int = TOKEN_BUDGET,
) -> pd.DataFrame:
    """Answer every prompt once for each group of heads, zeroed together; an empty group is the intact model.

    Args:
        budget: tokens of one forward; it changes speed and memory, never a result.

    Returns:
        a row per group and prompt: `group, set, query, label, accuracy, accuracy_two_way, margin`, where the
        accuracies are 0 or 1 and `label` is the gold label.
    """
    sets = [prompt_sets] if isinstance(prompt_sets, PromptSet) else list(prompt_sets)
    known = set(every_head(model))
    for head in (head for group in groups for head in group):
        if tuple(head) not in known:
            raise HeadError(
                f"{model.name} has no head {tuple(head)}: layers are 0 to {model.arch.n_layers - 1} and heads 0 to "
                f"{model.arch.n_heads - 1}."
            )
    if not any(groups):
        return _intact(model, sets, len(groups))
    lowest = [min((layer for layer, _ in group), default=-1) for group in groups]
    ordered = sorted((number for number, group in enumerate(groups) if group), key=lowest.__getitem__)
    layers_to_run = sum(model.arch.n_layers - lowest[number] for number in ordered)
    tables = []
    with tqdm(total=len(sets) * layers_to_run, desc="knock-out", unit="layer", delay=2, leave=False) as bar:
        for index, s in enumerate(sets):
            batch = pack([s], model.pad_id)
            unchanged, intact = remember(model, batch)
            answered = {number: unchanged for number, group in enumerate(groups) if not group}
            done = 0
            while done < len(ordered):
                chosen = ordered[done : done + max(1, budget // batch.input_ids.shape[1])]
                start = intact.entering(lowest[chosen[0]]) if intact else ()
                zero = _zero_mask(model, [groups[number] for number in chosen])
                try:
                    rows = ablate(model, batch, zero, *start)
                except Exception as error:
                    budget = _halved(error, len(chosen)) * batch.input_ids.shape[1]
                    continue
                answered |= _by_row(rows, chosen)
                bar.update(sum(model.arch.n_layers - lowest[number] for number in chosen))
                done += len(chosen)
            tables += [outcome_table(answered[number], s, number, index) for number in range(len(groups))]
    return pd.concat(tables, ignore_index=True)


def sweep(
    model: Model, prompt_sets: PromptSet | Sequence[PromptSet], heads: Sequence[Head] | None = None
) -> pd.DataFrame:
    """Every head (or each of `heads`) by itself, and the intact model: rows of `outcomes` with `layer, head` (-1, -1 if
    intact)."""
    each = [(-1, -1), *(every_head(model) if heads is None else heads)]
    result = outcomes(model, prompt_sets, [[], *([head] for head in each[1:])])
    layers, numbers = np.array(each).T
    return result.assign(layer=layers[result["group"]], head=numbers[result["group"]])


def rank_heads(swept: pd.DataFrame, label: str | None = None) -> pd.DataFrame:
    """Heads by harm, worst first: by margin lost, then accuracy lost, on prompts of one gold label or of all.

    The margin comes first because accuracy moves in steps of one prompt, and most heads tie.

    Args:
        swept: result of `sweep`.

    Returns:
        `layer, head, accuracy_drop, margin_drop`: intact minus knocked out, means over prompts.
    """
    part = swept if label is None else swept[swept["label"] == label]
    means = part.groupby(["layer", "head"])[["accuracy", "margin"]].mean()
    drops = means.loc[(-1, -1)] - means.drop(index=(-1, -1))
    drops = drops.rename(columns={"accuracy": "accuracy_drop", "margin": "margin_drop"}).reset_index()
    return drops.sort_values(["margin_drop", "accuracy_drop"], ascending=False, ignore_index=True)


def pairs(table: pd.DataFrame, n: int | None = None) -> list[Head]:
    """The first n (layer, head) pairs of a table of heads."""
    part = table.iloc[:n]
    return [(int(layer), int(head)) for layer, head in zip(part["layer"], part["head"], strict=True)]


def doses(n_heads: int) -> list[int]:
    """How many heads to remove in a dose curve: about 0.5, 1, 2, 4 and 8 % of all, at least one."""
    return sorted({max(1, round(share * n_heads)) for share in (0.005, 0.01, 0.02, 0.04, 0.08)})


def dose(
    model: Model, prompt_sets: Sequence[PromptSet], ranked: Sequence[Head], *, draws: int, seed: int = 0
) -> pd.DataFrame:
    """Remove the first heads of a ranking together, and as many random heads of the same layers.

    Returns:
        rows of `outcomes` with `removed` (number of heads; 0 for the intact model), `kind` (`top` or `random`)
        and `draw`.
    """
    rng = np.random.default_rng([seed, 1])
    choices: list[tuple[int, str, int, list[Head]]] = [(0, kind, 0, []) for kind in ("top", "random")]
    for n in doses(model.arch.n_layers * model.arch.n_heads):
        top = list(ranked[:n])
        choices.append((n, "top", 0, top))
        choices += [(n, "random", i, random_heads(top, model.arch.n_heads, rng)) for i in range(draws)]
    result = outcomes(model, prompt_sets, [heads for *_, heads in choices])
    keys = pd.DataFrame([choice[:3] for choice in choices], columns=["removed", "kind", "draw"])
    return result.join(keys, on="group")


def named_groups(model: Model, prompt_sets: Sequence[PromptSet], groups: Mapping[str, Sequence[Head]]) -> pd.DataFrame:
    """Outcomes of named groups of heads, each removed together, with the column `name`."""
    result = outcomes(model, prompt_sets, list(groups.values()))
    return result.assign(name=np.array(list(groups))[result["group"]])


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


def in_context_heads(ranked: pd.DataFrame, located: pd.DataFrame, label: str, *, n_layers: int) -> pd.DataFrame:
    """Heads of the deep half that stand high in both lists for one gold label: *foo-heads* for "foo".

    The paper takes heads in the top 10 of both lists, 6 a label among the 1,024 of Llama 7B. For any number of heads
    we take the same share, at least one: those whose worse rank is best.

    Args:
        ranked: `rank_heads` on the prompts of that gold label.
        located: `Located.heads`.

    Returns:
        `layer, head, harm_rank, raise_rank, worse_rank`, ranks from 1 among deep heads, best first.
    """
    deep = n_layers / 2
    harm = ranked[ranked["layer"] >= deep].copy()
    harm["harm_rank"] = np.arange(1, len(harm) + 1)
    rises = located[(located["label"] == label) & (located["layer"] >= deep)]
    rises = rises.sort_values("log_increase", ascending=False).copy()
    rises["raise_rank"] = np.arange(1, len(rises) + 1)
    both = harm.merge(rises[["layer", "head", "raise_rank"]], on=["layer", "head"])
    both["worse_rank"] = both[["harm_rank", "raise_rank"]].max(axis=1)
    number = max(1, round(PAPER_SHARE * len(ranked)))
    columns = ["layer", "head", "harm_rank", "raise_rank", "worse_rank"]
    return both.sort_values(["worse_rank", "raise_rank"], ignore_index=True)[columns].head(number)


def write_selected(serving: Mapping[str, Sequence[Head]]) -> None:
    """Keep the in-context heads of each label in the run folder, for the chapters after this one."""
    every = sorted({head for heads in serving.values() for head in heads})
    record = {label: [list(head) for head in heads] for label, heads in serving.items()}
    run_folder().mkdir(parents=True, exist_ok=True)
    (run_folder() / "heads.json").write_text(json.dumps(record | {"all": every}) + "\n", encoding="utf-8")


def read_selected(study: Study) -> dict[str, list[Head]]:
    """The in-context heads that the knock-out chapter selected: a list for each label, and `all` of them.

    Raises:
        HeadError: the knock-out chapter has not been run for this model.
    """
    for folder in (run_folder().parent, run_folder()):
        if (folder / "heads.json").is_file():
            record = json.loads((folder / "heads.json").read_text(encoding="utf-8"))
            return {name: [(int(layer), int(head)) for layer, head in heads] for name, heads in record.items()}
    raise HeadError(f"The in-context heads of {study.model.name} are not selected yet; run the chapter knockout first.")


def extra_cost(removed: pd.DataFrame, n: int) -> pd.DataFrame:
    """C4 from a `dose` table: accuracy with random heads removed minus with the top n, a row per prompt."""
    chosen = removed[removed["removed"] == n].groupby(["kind", "set", "query"])["accuracy"].mean()
    return (chosen["random"] - chosen["top"]).rename("effect").reset_index()


def own_label_effect(prompts: pd.DataFrame) -> pd.DataFrame:
    """C5 from a `named_groups` table with "none" and "<label>-heads": accuracy lost on prompts of the heads' own
    label minus that on prompts of the other label, mean over both labels; a row per demonstration set."""
    means = prompts.groupby(["name", "label", "set"])["accuracy"].mean().unstack("set")
    labels = sorted(prompts["label"].unique())
    lost = {own: means.loc["none"] - means.loc[f"{own}-heads"] for own in labels}
    effect = sum(lost[own].loc[own] - lost[own].drop(index=own).iloc[0] for own in labels) / len(labels)
    return effect.rename("effect").reset_index()


def _intact(model: Model, sets: Sequence[PromptSet], n_groups: int) -> pd.DataFrame:
    """As `outcomes`, for groups that are all empty: many sets in one forward."""
    tables: list[pd.DataFrame] = []
    for batch in batches(model, sets):
        rows, index = answers(model, batch), len(tables)
        sizes = batch.row.bincount().tolist()
        parts = zip(*(x.split(sizes) for x in (rows.labels, rows.log_norm, rows.best)), strict=True)
        tables += [outcome_table(Answers(*part), sets[index + i], 0, index + i) for i, part in enumerate(parts)]
    table = pd.concat(tables, ignore_index=True)
    return pd.concat([table.assign(group=number) for number in range(n_groups)], ignore_index=True)


def _halved(error: Exception, rows: int) -> int:
    """Half as many rows, if memory ran out; raises the error again if it is another, or nothing is left to halve."""
    out_of_memory = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    if not out_of_memory:
        raise error
    if rows == 1:
        raise MemoryLimitError(
            "There is too little memory for one prompt set; use fewer queries or shots a set, or a smaller dtype."
        ) from error
    return rows // 2


def _zero_mask(model: Model, groups: Sequence[Sequence[Head]]) -> torch.Tensor:
    zero = torch.zeros(len(groups), model.arch.n_layers, model.arch.n_heads, dtype=torch.bool)
    for row, group in enumerate(groups):
        for layer, head in group:
            zero[row, layer, head] = True
    return zero


def _by_row(rows: Answers, numbers: Sequence[int]) -> dict[int, Answers]:
    parts = (x.chunk(len(numbers)) for x in (rows.labels, rows.log_norm, rows.best))
    return {number: Answers(*part) for number, *part in zip(numbers, *parts, strict=True)}


def outcome_table(rows: Answers, s: PromptSet, group: int, index: int) -> pd.DataFrame:
    """Rows of `outcomes` for one group and one prompt set, the `index`-th."""
    prompts, gold_index = torch.arange(len(s.gold)), torch.tensor(s.gold)
    gold, other = rows.labels[prompts, gold_index], rows.labels[prompts, 1 - gold_index]
    correct = rows.best == torch.tensor(s.label_ids)[gold_index]
    return pd.DataFrame(
        {
            "group": group,
            "set": index,
            "query": prompts.numpy(),
            "label": [label for _, label in s.queries],
            "accuracy": correct.double().numpy(),
            "accuracy_two_way": (gold > other).double().numpy(),
            "margin": (gold - other).double().numpy(),
        }
    )

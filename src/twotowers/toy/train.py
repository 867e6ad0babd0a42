"""Train the model `toy-gpt2`: a small GPT-2 that learns from demonstrations. Run it with `python -m twotowers.toy`.

The loss is that of every next token, with the weight of labels raised. Training begins with one word a category, where
repeating what stood behind the same word is enough, and goes on to more words, where the word must be matched with
others of its category. Every few steps accuracy on held-out pairs of categories and measures of the mechanism are
written to `curve.csv`, so that one can watch the heads of the book's chapters come into being.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.random import Generator
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from .data import Words, draw_held_out_categories, draw_training_categories, lists, make_tokenizer, prompts, read_words

SHAPE: dict[str, Any] = {"n_layer": 4, "n_head": 4, "n_embd": 64, "n_positions": 128}
SPREAD = 0.12  # standard deviation of the initial weight matrices; with GPT-2's 0.02 so small a model hardly starts
FEW = (1, 2, 4, 8, 64)  # words of a category a prompt may use, stage by stage; 64 is all
PACKAGES = ("twotowers", "torch", "transformers", "numpy")
ROWS = 256  # evaluation prompts
COLUMNS = ("step", "training", "held_out", "seen_pairs", "repetition", "gather", "match_last", "match_query", "hand_on")
SHOTS = 17  # demonstrations of an evaluation prompt with its query: 16 and 1, as in the book


@dataclass(frozen=True)
class Recipe:
    """How it is trained, in three stages. One begins when the one before is mastered, or has lasted `patience` steps.

    In the first a prompt is short, repeats its words, and has no colon between word and label; in the second it has
    the colon. In the third, prompts grow for `growth` steps in length and in words of a category; then all words may
    come. It lasts `steps`.

    Attributes:
        mastered: accuracy of labels that can be known, over the last 50 steps, with which a stage ends.
        batch: short prompts a step, half as many long ones, and `lists` lists in the third stage.
        others: weight of the loss of tokens that are no labels.
    """

    steps: int = 2700
    growth: int = 1300
    patience: int = 2000
    mastered: float = 0.86
    warm_up: int = 50
    rate: float = 4e-3
    decay: float = 0.05
    batch: int = 128
    lists: int = 24
    short: int = 5
    longest: int = 20
    others: float = 0.3
    every: int = 100
    seed: int = 0


def new_model(vocabulary: int, seed: int) -> GPT2LMHeadModel:
    """Random weights; embedding and unembedding are two matrices, so that a word read is not the word written.

    Position embeddings are learnt as all other weights are, but begin as sinusoids of many wavelengths, in which a
    fixed distance is a fixed rotation: else a head has to learn "two tokens before" anew at every position.
    """
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary, **SHAPE, tie_word_embeddings=False, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    network = GPT2LMHeadModel(config)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 2:
                weight.mul_(SPREAD / config.initializer_range)
        table = network.transformer.wpe.weight
        n, d = table.shape
        angle = torch.arange(n)[:, None] * torch.exp(torch.arange(0, d, 2) / d * -math.log(200.0))
        table.copy_(torch.stack([angle.sin(), angle.cos()], -1).flatten(1) * SPREAD * math.sqrt(2))
    return network


def learning_rate(recipe: Recipe, step: int, begun: Sequence[int]) -> float:
    """A straight rise over `warm_up` steps, constant while words repeat, then a cosine down to a fiftieth."""
    if len(begun) < 3:
        return recipe.rate * min(1.0, (step + 1) / recipe.warm_up)
    return recipe.rate * (0.02 + 0.98 * (1 + math.cos(math.pi * (step - begun[2]) / recipe.steps)) / 2)


def batch(
    recipe: Recipe, words: Words, rng: Generator, step: int, begun: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Prompts (rows, T), the classes of their demonstrations, where their labels stand (T), and lists if any.

    `begun` has the first step of each stage that has begun.
    """
    rows, k, n, few, listed = recipe.batch, 3, recipe.short, FEW[0], None
    if len(begun) == 3:
        grown = min(1.0, (step - begun[2]) / recipe.growth)
        rows, k = rows // 2, int(rng.choice([2, 3, 4], p=[0.6, 0.2, 0.2]))
        n = int(rng.integers(4, round(recipe.short + 1 + grown * (recipe.longest - recipe.short - 1)) + 1))
        hardest = min(len(FEW) - 1, 1 + int(grown * (len(FEW) - 1)))
        few = FEW[hardest] if rng.random() < 0.6 else FEW[int(rng.integers(hardest + 1))]
        listed = lists(words, rng, recipe.lists, 16)
    category = draw_training_categories(words, rng, rows, k)
    tokens, which, period = prompts(words, rng, category, n, few, colon=len(begun) > 1)
    is_label = torch.arange(tokens.shape[1]) % period == (2 if len(begun) > 1 else 1)
    return tokens, which, is_label, listed


def loss_of(
    network: GPT2LMHeadModel, tokens: Int[Tensor, "rows T"], is_label: Tensor, listed: Tensor | None, others: float
) -> tuple[Float[Tensor, ""], Tensor]:
    """Weighted loss of a step (nats), and whether each label (rows, n) was the most likely token where it stands."""

    def each(ids: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(ids, use_cache=False).logits[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return loss.view(len(ids), -1), logits.argmax(-1) == ids[:, 1:]

    loss, right = each(tokens)
    labels, rest = loss[:, is_label[1:]].mean(), loss[:, ~is_label[1:]].mean()
    if listed is not None:
        rest = rest + each(listed)[0].mean()
    return labels + others * rest, right[:, is_label[1:]]


def known(which: Int[Tensor, "rows n"]) -> Tensor:
    """True for demonstrations whose class stood before in their prompt, so that their label can be known."""
    return torch.stack([(which[:, :i] == which[:, i : i + 1]).any(1) for i in range(which.shape[1])], dim=1)


@torch.no_grad()
def measure(network: GPT2LMHeadModel, words: Words, seed: int) -> dict[str, float]:
    """Accuracy (full vocabulary) on held-out pairs, on pairs of training and if words repeat; and `steps_taken`, on
    held-out pairs."""
    result: dict[str, float] = {}
    rows = ROWS
    rng = np.random.default_rng([seed, 1])
    held = draw_held_out_categories(words, rng, rows)
    seen = draw_training_categories(words, rng, rows, 2)
    for name, category, few in (("held_out", held, 64), ("seen_pairs", seen, 64), ("repetition", held, 1)):
        ids, which, period = prompts(words, rng, category, SHOTS, few, labels=True)
        if name == "held_out":
            network.set_attn_implementation("eager")
            out = network(ids[:, :-1], use_cache=False, output_attentions=True)
            network.set_attn_implementation("sdpa")
            result |= steps_taken(torch.stack(out.attentions), which, period)
            logits = out.logits[:, -1]
        else:
            logits = network(ids[:, :-1], use_cache=False).logits[:, -1]
        result[name] = (logits.argmax(-1) == ids[:, -1]).float().mean().item()
    return result


def steps_taken(
    pattern: Float[Tensor, "layers rows heads T T"], which: Int[Tensor, "rows n"], period: int
) -> dict[str, float]:
    """Attention weights of the steps that could make up the mechanism, each in the head where it is largest.

    Args:
        pattern: of prompts that end with the query and a colon: `word : label word : label ... word :`.
        which: class of each demonstration, and of the query last.
        period: tokens of a demonstration.

    Returns:
        `gather`: from label positions to the text of their own demonstration. `match_last`, `match_query`: from the
        last position, or the query's word, to labels of the query's class, less those of others. `hand_on`: from the
        last position to the query's word.
    """
    last, label = pattern.shape[-1] - 1, torch.arange(period - 1, pattern.shape[-1] - 1, period)
    query = last - (period - 2)
    sign = torch.where(which[:, :-1] == which[:, -1:], 1.0, -1.0)[None, :, None]
    weights = {
        "gather": pattern[:, :, :, label, label - (period - 1)].mean(-1),
        "match_last": (pattern[:, :, :, last, label] * sign).sum(-1),
        "match_query": (pattern[:, :, :, query, label] * sign).sum(-1),
        "hand_on": pattern[:, :, :, last, query],
    }
    return {name: weight.mean(1).max().item() for name, weight in weights.items()}


def train(recipe: Recipe, folder: Path) -> None:
    """Train, and write model, tokenizer and `curve.csv` into a folder."""
    tokenizer = make_tokenizer()
    words = read_words(tokenizer)
    network = new_model(len(tokenizer), recipe.seed)
    network.set_attn_implementation("sdpa")
    rng = np.random.default_rng([recipe.seed, 0])
    optimiser = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.98), weight_decay=recipe.decay)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    begun, since = [0], 0  # the stages' first steps; how many steps had been made at the last evaluation
    rights: list[float] = []  # share of right answers, a number a step
    with (folder / "curve.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for step in itertools.count():
            last = len(begun) == 3 and step == begun[2] + recipe.steps
            if last or step % recipe.every == 0:
                row = {"step": float(step), "training": float(np.mean(rights[since:] or [math.nan]))}
                row |= measure(network, words, recipe.seed)
                since = len(rights)
                writer.writerow({name: f"{value:.5g}" for name, value in row.items()})
                file.flush()
                _say(recipe, begun, row, time.monotonic() - start)
            if last:
                break
            if len(begun) < 3 and _mastered(recipe, rights[begun[-1] :]):
                begun.append(step)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, step, begun)
            tokens, which, is_label, listed = batch(recipe, words, rng, step, begun)
            loss, right = loss_of(network, tokens, is_label, listed, recipe.others)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            rights.append(right[known(which)].float().mean().item())
    record = _record(recipe, begun, network, time.monotonic() - start)
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    network.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _mastered(recipe: Recipe, rights: Sequence[float]) -> bool:
    """Whether a stage with these shares of right answers, a number a step, is over."""
    enough = len(rights) >= 50 and float(np.mean(rights[-50:])) >= recipe.mastered
    return enough or len(rights) >= recipe.patience


def _say(recipe: Recipe, begun: Sequence[int], row: dict[str, float], spent: float) -> None:
    """Progress, and the time left once it can be known: in the last stage."""
    left = "?"
    if len(begun) == 3 and row["step"]:
        left = f"{spent / row['step'] * (begun[2] + recipe.steps - row['step']):.0f} s"
    shown = ", ".join(f"{name} {value:.3g}" for name, value in row.items())
    print(f"{spent:.0f} s, {left} left, stage {len(begun)}: {shown}", flush=True)


def _record(recipe: Recipe, begun: Sequence[int], network: GPT2LMHeadModel, seconds: float) -> dict[str, object]:
    """What the book's page says of the training."""
    stages = {"with a colon": begun[1], "with more words": begun[2], "with all words": begun[2] + recipe.growth}
    changed = {f.name: getattr(recipe, f.name) for f in fields(recipe) if getattr(recipe, f.name) != f.default}
    options = "".join(f" --{name.replace('_', '-')} {value}" for name, value in changed.items())
    return {
        "figure": "toy-training", "model": "toy-gpt2", "parameters": network.num_parameters(), "shape": SHAPE,
        "seconds": round(seconds, 1), "device": f"{torch.get_num_threads()} CPU threads", "recipe": asdict(recipe),
        "stages": stages, "rows": ROWS, "demonstrations": SHOTS - 1,
        "command": f"python -m twotowers.toy FOLDER{options}",
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m twotowers.toy", description=__doc__)
    parser.add_argument("folder", type=Path)
    for name in ("steps", "growth", "patience", "batch", "every", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Recipe, name))
    for name in ("mastered", "rate", "decay", "others"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Recipe, name))
    given = vars(parser.parse_args(arguments))
    folder = given.pop("folder")
    train(Recipe(**given), folder)
    return 0

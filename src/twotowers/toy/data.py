"""What the model `toy-gpt2` learns from: its words, its tokenizer, and endless random sequences of them.

Two kinds of sequences. A *prompt* is the book's word task: `word : label word : label ...` with categories drawn for
this prompt and a label drawn at random for each, so that nothing but the demonstrations tells which label comes. A
*list* is words of one category, as a text about one subject would have them: it teaches which words belong together.

Some pairs of categories of the book's word task are held out: no sequence of training has words of both. The other
pairs, and further categories that only training uses, are where the model can learn to compare.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
import yaml
from jaxtyping import Bool, Int
from numpy.random import Generator
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ..prompts.sets import CONTENT_FREE
from ..prompts.task_labels import TaskLabels

USUAL = TaskLabels().names
# Labels without a meaning; which of them a prompt uses, and for which category, is random.
TRAINING_LABELS = (
    *USUAL, "baz", "qux", "quux", "corge", "grault", "garply", "plugh", "xyzzy", "thud", "wibble", "wobble", "blip",
    "zorp", "flurp", "snark", "boojum", "dax", "wug", "tove", "rath", "mome", "vorp", "quib", "zeb", "nim", "lorp",
    "fep", "gorp", "tiv", "mib",
)  # fmt: skip
UNKNOWN, STEM = "<unk>", "a"  # STEM stands for any text where the package asks how a label is tokenised
SEPARATORS = ("", "\n")  # between demonstrations: of the templates "paper" (a space is no token) and "lines"
CHANCE_OF_LINES = 0.15
CHANCE_OF_CONTENT_FREE = 0.01  # of a text being "N/A", which belongs to no category


@dataclass(frozen=True)
class Words:
    """Token ids of the words of every category; the first `n_book` categories are those of the book's task.

    Attributes:
        names: the categories.
        ids: a row of token ids a category, padded with -1 to the longest.
    """

    names: tuple[str, ...]
    n_book: int
    ids: Int[np.ndarray, "categories longest"]
    labels: Int[np.ndarray, " labels"]
    colon: int
    line: int
    content_free: int


@functools.cache
def categories() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Words by category: of the book's task, and of training only."""
    book, own = (
        yaml.safe_load((resources.files("twotowers") / wing / "words.yaml").read_text(encoding="utf-8"))
        for wing in ("prompts", "toy")
    )
    return book, own


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token for every word, label, colon and line break; spaces are dropped, other words are `<unk>`."""
    book, own = categories()
    texts = [word for group in (book, own) for words in group.values() for word in words]
    vocabulary = [UNKNOWN, ":", "\n", STEM, CONTENT_FREE, *TRAINING_LABELS, *texts]
    tokenizer = Tokenizer(models.WordLevel({text: i for i, text in enumerate(vocabulary)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\s:]+|:|\n"), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN)


def read_words(tokenizer: PreTrainedTokenizerFast) -> Words:
    """The words of both files as token ids."""
    book, own = categories()
    groups = book | own
    ids = np.full((len(groups), max(map(len, groups.values()))), -1)
    for row, words in zip(ids, groups.values(), strict=True):
        row[: len(words)] = tokenizer.convert_tokens_to_ids(words)
    colon, line, free = (tokenizer.get_vocab()[token] for token in (":", "\n", CONTENT_FREE))
    labels = np.array(tokenizer.convert_tokens_to_ids(list(TRAINING_LABELS)))
    return Words(tuple(groups), len(book), ids, labels, colon, line, free)


def held_out(words: Words) -> Bool[np.ndarray, "categories categories"]:
    """True for two categories of the book that no training sequence has: neighbours and opposites in a circle.

    More than a quarter of the book's pairs. No three categories are held out from each other, so that whatever two of
    them may be confused, others tell them apart in training.
    """
    number = np.arange(len(words.names))
    both = (number[:, None] < words.n_book) & (number < words.n_book)
    apart = (number[:, None] - number) % words.n_book
    return both & np.isin(apart, (1, words.n_book // 2, words.n_book - 1))


def draw_training_categories(words: Words, rng: Generator, rows: int, k: int) -> Int[np.ndarray, "rows k"]:
    """k different categories a row, of the book's and of training's own, never two of a held-out pair."""
    forbidden = held_out(words)
    drawn = rng.random((rows, len(words.names))).argsort(1)[:, :k]
    while len(again := np.flatnonzero(forbidden[drawn[:, :, None], drawn[:, None]].any((1, 2)))):
        drawn[again] = rng.random((len(again), len(words.names))).argsort(1)[:, :k]
    return drawn


def draw_held_out_categories(words: Words, rng: Generator, rows: int) -> Int[np.ndarray, "rows 2"]:
    """A held-out pair a row, in either order."""
    pairs = np.argwhere(held_out(words))
    return pairs[rng.integers(len(pairs), size=rows)]


def draw_words(
    words: Words, rng: Generator, category: Int[np.ndarray, "rows k"], few: int, n: int
) -> Int[np.ndarray, "rows k n"]:
    """n words of each category, from `few` of them chosen for the row: without repetition as far as they reach."""
    ids = words.ids[category]  # (rows, k, longest)
    order = np.where(ids < 0, 2.0, rng.random(ids.shape)).argsort(-1)
    shuffled = np.take_along_axis(ids, order, -1)
    size = np.minimum((ids >= 0).sum(-1), few)[..., None]  # (rows, k, 1)
    return np.take_along_axis(shuffled, np.arange(n) % size, -1)


def prompts(
    words: Words,
    rng: Generator,
    category: Int[np.ndarray, "rows k"],
    n: int,
    few: int,
    *,
    labels: bool = False,
    colon: bool = True,
) -> tuple[Int[Tensor, "rows T"], Int[Tensor, "rows n"], int]:
    """Rows of n demonstrations `word : label`, the last of which stands for a query with its answer.

    Args:
        few: how many words of a category a prompt uses at most; 1 makes the prompt pure repetition.
        colon: False leaves out the colon between word and label, which makes a prompt easier to learn from.
        labels: use the book's two labels (for two categories), else random ones.

    Returns:
        token ids, the class (0 to k - 1) of each demonstration, and the tokens of one demonstration (its period).
    """
    rows, k = category.shape
    which = rng.integers(k, size=(rows, n))
    drawn = draw_words(words, rng, category, few, n)
    rank = np.stack([(which[:, :i] == which[:, i : i + 1]).sum(1) for i in range(n)], axis=1)  # how many came before
    row = np.arange(rows)[:, None]
    text = drawn[row, which, rank]
    pool = words.labels[: len(USUAL)] if labels else words.labels
    label = pool[rng.random((rows, len(pool))).argsort(1)[:, :k]][row, which]
    if not labels:
        text = np.where(rng.random(text.shape) < CHANCE_OF_CONTENT_FREE, words.content_free, text)
    parts = [text, np.full_like(text, words.colon), label] if colon else [text, label]
    if not labels and colon and few > 1 and rng.random() < CHANCE_OF_LINES:
        parts.append(np.full_like(text, words.line))
    tokens = np.stack(parts, axis=2)
    return torch.from_numpy(tokens.reshape(rows, -1)), torch.from_numpy(which), len(parts)


def lists(words: Words, rng: Generator, rows: int, n: int) -> Int[Tensor, "rows n"]:
    """Rows of n words of one category each, of all categories."""
    category = rng.integers(len(words.names), size=(rows, 1))
    return torch.from_numpy(draw_words(words, rng, category, words.ids.shape[1], n)[:, 0])

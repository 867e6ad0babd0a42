"""Prompts: one demonstration set with many queries, as tokens, spans and positions.

A `PromptSet` shares its demonstrations among its queries; `packing` lays several sets out as one batch.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from ..arguments import brief, require_seed, require_whole
from ..errors import LabelError, PromptError
from .design import category_groups
from .encoding import Reader, Span, encode, require_reader, require_text, require_within, token_names, tokens_of
from .label_tokens import label_tokens, single_tokens, template_parts
from .task_labels import ROLES, TaskLabels
from .tasks import Task, find_half

CONTENT_FREE = "N/A"

Pair = tuple[str, str]  # a text and its label

# (template, separator): one demonstration to a line, and the paper's way, everything on one line.
TEMPLATES: dict[str, tuple[str, str]] = {
    "lines": ("{text}: {label}", "\n"),
    "paper": ("{text} : {label}", " "),
}


@dataclass(frozen=True)
class Prompt:
    """One prompt in its own token coordinates (the first token is 0).

    Attributes:
        ids: token ids; the next token after `last` is to be the label.
        demonstrations: token span of each demonstration's text.
        label_positions: position of each demonstration's label token.
        query: token span of the query's text, but for the last position: where a tokenizer joins the text's end with
            the template's mark (`ended.:`), that token is where the answer is made, and no longer text.
    """

    ids: tuple[int, ...]
    demonstrations: tuple[Span, ...]
    label_positions: tuple[int, ...]
    query: Span

    @property
    def last(self) -> int:
        return len(self.ids) - 1


@dataclass(frozen=True)
class PromptSet:
    """One demonstration set and its queries.

    Attributes:
        demonstrations, queries: (text, label) pairs.
        labels: two or more, sorted; `label_ids` are their tokens, and `words` what is written for them, in the same
            order.
        prompts: one per query.
        shared: number of leading tokens that all prompts share (0 if the tokenizer merges across the boundary).
        categories: of a task, behind `labels`; empty where they are not known.
        tokens: what the tokenizer calls `label_ids`, by which another one is found out; empty where it is not known.
    """

    demonstrations: tuple[Pair, ...]
    queries: tuple[Pair, ...]
    labels: tuple[str, ...]
    label_ids: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    shared: int
    categories: tuple[str, ...] = ("", "")
    words: tuple[str, ...] = ("", "")
    tokens: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        if not any(self.words):
            object.__setattr__(self, "words", self.labels)

    @property
    def written(self) -> dict[str, str]:
        """What is written for each label."""
        return dict(zip(self.labels, self.words, strict=True))

    @property
    def gold(self) -> tuple[int, ...]:
        """Index into `labels` of each query's label."""
        return tuple(self.labels.index(label) for _, label in self.queries)

    @property
    def packed_length(self) -> int:
        return self.shared + sum(len(prompt.ids) - self.shared for prompt in self.prompts)


def prompt_set(
    model: Reader,
    demonstrations: Sequence[Any],
    queries: Sequence[Any],
    *,
    template: str = TEMPLATES["lines"][0],
    separator: str = TEMPLATES["lines"][1],
    words: Mapping[str, str] | None = None,
) -> PromptSet:
    """Tokenise one demonstration set with its queries.

    Args:
        model: gives tokenizer and context length; its weights are not needed.
        demonstrations, queries: (text, label) pairs; two labels or more among them, written without a space.
        template: contains `{text}` and then `{label}`; a query is cut before its label.
        separator: stands between demonstrations.
        words: what is written for each label; left out, the label itself.

    Raises:
        LabelError: fewer than two labels, labels that are not one token each, or one of more than two that no
            demonstration has.
        PromptError: empty texts, a template that cannot be used, or a prompt longer than the model's context.
    """
    require_reader(model)
    require_text(separator, "separator")
    demonstrations, queries = _as_pairs(demonstrations), _as_pairs(queries)
    if not demonstrations or not queries:
        raise PromptError("A prompt set needs at least one demonstration and one query; give both lists.")
    found = sorted({label for _, label in (*demonstrations, *queries)})
    if len(found) < 2:
        raise LabelError(f"A prompt set needs at least two labels, not only '{found[0]}'; add texts of another.")
    labels, demonstrated = tuple(found), {label for _, label in demonstrations}
    if len(found) > 2 and (never := [label for label in found if label not in demonstrated]):
        raise LabelError(f"No demonstration has the label '{never[0]}', which a query has; add some, or change it.")
    written = _words(labels, words)
    ids = label_tokens(model, [*written.values()], template)
    shown = [(text, written[label]) for text, label in demonstrations]
    prompts = [_prompt(model, shown, (text, written[label]), template, separator) for text, label in queries]
    for prompt in prompts:
        for (_, word), position in zip(shown, prompt.label_positions, strict=True):
            if prompt.ids[position] != ids[word]:
                raise LabelError(
                    f"The tokenizer of {model.name} reads the label '{word}' differently inside this prompt; "
                    f"use a template or separator with a space or line break around it."
                )
    label_ids = tuple(ids[written[label]] for label in labels)
    return PromptSet(
        demonstrations=demonstrations,
        queries=queries,
        labels=labels,
        label_ids=label_ids,
        prompts=tuple(prompts),
        shared=_shared_prefix(model, prompts),
        words=tuple(written[label] for label in labels),
        tokens=token_names(model, label_ids),
    )


def as_sets(model: Any, prompt_sets: PromptSet | Iterable[PromptSet]) -> list[PromptSet]:
    """One prompt set or several for a model, as a list.

    Raises:
        ModelError: no model.
        PromptError: there is no set, or something else among them, or one that was made for another model: with tokens
            that this one lacks or calls otherwise, or longer than its context.
    """
    require_reader(model)
    sets = [prompt_sets] if isinstance(prompt_sets, PromptSet) else _listed(prompt_sets)
    if not sets or not all(isinstance(s, PromptSet) for s in sets):
        raise PromptError("Prompt sets are given as a list of at least one, each of them made by prompt_set.")
    rows = getattr(getattr(model, "config", None), "vocab_size", None)
    if rows is not None and max(max(prompt.ids) for s in sets for prompt in s.prompts) >= rows:
        raise PromptError(f"A prompt set has tokens that {model.name} lacks; make it with prompt_set for this model.")
    for ids, tokens in {(s.label_ids, s.tokens) for s in sets if s.tokens}:
        if token_names(model, ids) != tokens:
            raise PromptError(
                f"A prompt set is of another tokenizer than {model.name} has; make it with prompt_set for this model."
            )
    for prompt in (prompt for s in sets for prompt in s.prompts):
        require_within(model, prompt.ids)
    return sets


def require_two(sets: Sequence[PromptSet], what: str) -> None:
    """Refuse prompt sets of more than two labels where a question is asked of two.

    Raises:
        LabelError: a set has more.
    """
    if found := next((s.labels for s in sets if len(s.labels) != 2), None):
        raise LabelError(f"{what} needs two labels, but a prompt set has {len(found)} ({', '.join(found)}); give two.")


def _listed(given: Any) -> list[Any]:
    try:
        return list(given)
    except TypeError:
        return []


def _words(labels: tuple[str, ...], words: Mapping[str, str] | None) -> dict[str, str]:
    """What is written for each label."""
    if words is None:
        return {label: label for label in labels}
    if not isinstance(words, Mapping) or not set(labels) <= set(words):
        all_of = "both" if len(labels) == 2 else "all"
        named = " and ".join(labels)
        raise LabelError(f"The words {brief(words)} do not say what is written for {named}; name {all_of}.")
    written = {label: words[label] for label in labels}
    for word in written.values():
        require_text(word, "word for a label")
    if len(set(written.values())) < len(labels):
        if len(labels) == 2:
            raise LabelError(f"Both labels are written '{written[labels[0]]}'; give two different words.")
        raise LabelError(f"Two labels are written alike ({', '.join(written.values())}); give different words.")
    return written


def _as_pairs(given: Sequence[Any]) -> tuple[Pair, ...]:
    pairs = []
    for pair in _listed(given):
        pair = pair.tolist() if isinstance(pair, np.ndarray) else pair
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise PromptError(f"Demonstrations and queries are (text, label) pairs, unlike {brief(pair)}.")
        text, label = pair
        require_text(text, "text")
        if not isinstance(label, str):
            raise LabelError(f"The label {label!r} of '{text}' is no text; give it in quotes.")
        require_text(label, "label")
        pairs.append((text, label))
    return tuple(pairs)


def sample_sets(
    model: Reader,
    task: Task,
    half: str,
    *,
    n_sets: int,
    shots: int,
    n_queries: int,
    seed: int,
    template: str = TEMPLATES["lines"][0],
    separator: str = TEMPLATES["lines"][1],
    labels: TaskLabels | None = None,
) -> list[PromptSet]:
    """Draw prompt sets: as many categories each as there are labels, by `category_groups`, `shots` demonstrations a
    label, shuffled.

    Queries are balanced over the labels and differ from the demonstrations. Set i depends on (seed, half, i)
    only, so a longer list begins with the shorter one; its queries are the same for any number of shots. The labels are
    those of the task, unless others are given.

    Raises:
        TaskError: a category has too few texts.
        LabelError: a label is several tokens, in whichever set it would be.
        UnknownNameError, SeedError: no such half; a seed that is none.
    """
    own = find_half(half)
    require_seed(seed)
    for name, number in (("n_sets", n_sets), ("shots", shots), ("n_queries", n_queries)):
        require_whole(name, number)
    pair = labels or task.labels
    number = len(pair.names)
    if n_queries % number:
        many = "two" if number == 2 else str(number)
        asked = "an even number" if number == 2 else f"a multiple of {number}"
        raise PromptError(f"{n_queries} queries cannot be balanced over {many} labels; ask for {asked}.")
    each = n_queries // number
    task.require(shots + each)
    single_tokens(model, pair.all_words(task.categories), template, number)
    design = np.random.default_rng([seed, half == "selection"])
    sets = []
    for i, categories in enumerate(category_groups(task.categories, n_sets, design, shown=number)):
        rng = np.random.default_rng([seed, half == "selection", i])
        demonstrations: list[Pair] = []
        queries: list[Pair] = []
        for category, label in zip(categories, pair.names, strict=True):
            texts = rng.permutation(np.array(task.texts[category][own], dtype=object))
            demonstrations += [(text, label) for text in texts[:shots]]
            queries += [(text, label) for text in texts[len(texts) - each :]]
        demonstrations = [demonstrations[j] for j in rng.permutation(len(demonstrations))]
        words = pair.words(categories)
        made = prompt_set(model, demonstrations, queries, template=template, separator=separator, words=words)
        behind = dict(zip(pair.names, categories, strict=True))
        sets.append(replace(made, categories=tuple(behind[label] for label in made.labels)))
    return sets


def categories_of(prompt_sets: Sequence[PromptSet]) -> pd.DataFrame:
    """The categories of each set, as `statistics.judge` takes them: `set, first, second`, and of more labels `third`
    and so on, in the order of labels."""
    rows = [(i, *s.categories) for i, s in enumerate(prompt_sets)]
    return pd.DataFrame(rows, columns=["set", *ROLES[: len(prompt_sets[0].categories)]])


def _prompt(model: Reader, demonstrations: Sequence[Pair], query: Pair, template: str, separator: str) -> Prompt:
    before, between, after = template_parts(template)
    text = ""
    spans: list[tuple[Span, Span]] = []  # characters of each demonstration's text and label
    for words, label in (*demonstrations, query):
        if not words.strip():
            raise PromptError("A demonstration or query has an empty text; remove it.")
        start = len(text + before)
        label_start = start + len(words + between)
        spans.append(((start, start + len(words)), (label_start, label_start + len(label))))
        text += before + words + between + label + after + separator
    text = text[: spans[-1][0][1]] + between.rstrip()
    ids, offsets = encode(model, text)
    require_within(model, ids)
    texts: list[Span] = []
    labels: list[Span] = []
    for characters, label_characters in spans[:-1]:
        texts.append(tokens_of(model, text, offsets, characters, labels[-1][0] if labels else 0))
        labels.append(tokens_of(model, text, offsets, label_characters, texts[-1][0]))
    for (_, label), (first, end) in zip(demonstrations, labels, strict=True):
        if end - first != 1:
            raise LabelError(
                f"The label '{label}' is {end - first} tokens for the tokenizer of {model.name}; choose a label "
                f"that is one token with its leading space."
            )
    first, end = tokens_of(model, text, offsets, spans[-1][0], labels[-1][0])
    return Prompt(
        ids=tuple(ids),
        demonstrations=tuple(texts),
        label_positions=tuple(first for first, _ in labels),
        query=(first, min(end, len(ids) - 1)),
    )


def _shared_prefix(model: Reader, prompts: Sequence[Prompt]) -> int:
    """Leading tokens common to all prompts, up to the query; 0 (separate prompts) if a label lies beyond them."""
    columns = zip(*(prompt.ids for prompt in prompts), strict=False)
    common = sum(1 for _ in itertools.takewhile(lambda ids: len(set(ids)) == 1, columns))
    shared = min(common, *(prompt.query[0] for prompt in prompts))
    if shared <= prompts[0].label_positions[-1]:
        warnings.warn(
            f"The tokenizer of {model.name} reads the demonstrations differently before different queries: "
            f"each prompt is computed by itself, which is slower and equally exact.",
            stacklevel=3,
        )
        return 0
    return shared

"""Texts as tokens, with the place of every token in the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from ..arguments import brief
from ..errors import ModelError, PromptError
from ..hub import first_line
from .spelling import named

Span = tuple[int, int]  # first and one past the last, of tokens or characters


@runtime_checkable
class Reader(Protocol):
    """What building prompts needs of a model; `Model` has it before its weights are loaded."""

    @property
    def name(self) -> str: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def context_length(self) -> int: ...


def require_reader(model: Any) -> None:
    """Raise `ModelError` unless prompts can be built for this: a model, before or after its weights are loaded."""
    if not isinstance(model, Reader):
        raise ModelError(f"{brief(model)} is no model; give what twotowers.load returns.")


def require_text(text: Any, what: str) -> None:
    """Raise `PromptError` unless this is a text that a tokenizer can take: without halves of characters."""
    if not isinstance(text, str):
        raise PromptError(f"The {what} {brief(text)} is no text; give it in quotes.")
    if half := re.search("[\ud800-\udfff]", text):
        raise PromptError(f"The {what} {brief(text)} has half a character (U+{ord(half[0]):04X}); remove it.")


def encode(model: Reader, text: str) -> tuple[list[int], list[Span]]:
    """Token ids (with the tokenizer's own special tokens) and the character span of each."""
    if not model.tokenizer.is_fast:
        raise PromptError(f"The tokenizer of {model.name} gives no character offsets; use its fast version.")
    try:
        encoded = model.tokenizer(text, return_offsets_mapping=True)
    except Exception as error:  # the tokenizers library raises plain Exception, as for a word that has no token
        raise PromptError(
            f"The tokenizer of {model.name} cannot read '{text[:40]}' ({first_line(error)}); use words that it knows."
        ) from error
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    for token, (start, end) in zip(ids, offsets, strict=True):
        if token == unknown and text[start:end] not in ("", model.tokenizer.unk_token):
            raise PromptError(
                f"The tokenizer of {model.name} does not know '{text[start:end]}'; use words that it knows."
            )
    require_embedded(model, ids)
    if tokens_of(model, text, offsets, (len(text) - 1, len(text)))[1] != len(ids):
        raise PromptError(f"The tokenizer of {model.name} adds a token after the prompt; use one that does not.")
    return ids, offsets


def marked(model: Reader, texts: Sequence[str]) -> str:
    """Which texts have in them what a tokenizer reads as a special token, in a sentence; empty if none has."""
    marks = re.compile("|".join(map(re.escape, model.tokenizer.all_special_tokens)) or "(?!)")
    found = [text for text in texts if marks.search(text)]
    what = f"{len(found):,} of the texts have in them what the tokenizer of {model.name} reads as a special token"
    return f"Perhaps not meant: {what}: {named(found, 3)}." if found else ""


def require_embedded(model: Reader, ids: Sequence[int]) -> None:
    """Refuse tokens that were added to the tokenizer, but not to the model.

    Raises:
        PromptError: a token has no row in the model's embedding; a reader that is no model has any token.
    """
    rows = getattr(getattr(model, "config", None), "vocab_size", None)
    for token in ids:
        if rows is not None and token >= rows:
            raise PromptError(
                f"The tokenizer of {model.name} has the token '{model.tokenizer.convert_ids_to_tokens(token)}', number "
                f"{token}, but the model embeds {rows} only; leave it out of prompts, or resize the model's embedding."
            )


def require_within(model: Reader, ids: Sequence[int]) -> None:
    """Refuse a prompt that is longer than the model's context.

    Raises:
        PromptError: with both numbers of tokens.
    """
    if len(ids) > model.context_length:
        raise PromptError(
            f"A prompt has {len(ids)} tokens but {model.name} reads at most {model.context_length}; use fewer or "
            f"shorter demonstrations."
        )


def token_names(model: Reader, ids: Sequence[int]) -> tuple[str, ...]:
    """What the tokenizer calls some tokens."""
    return tuple(map(str, model.tokenizer.convert_ids_to_tokens(list(ids))))


def tokens_of(model: Reader, text: str, offsets: Sequence[Span], characters: Span, start: int = 0) -> Span:
    """The tokens that overlap a span of characters, of those from `start` on; a long prompt has many spans."""
    inside = []
    for i in range(start, len(offsets)):
        if offsets[i][0] >= characters[1]:
            break
        if offsets[i][1] > characters[0]:
            inside.append(i)
    if not inside:
        raise PromptError(
            f"The tokenizer of {model.name} keeps nothing of '{text[slice(*characters)]}'; use words that it knows."
        )
    return inside[0], inside[-1] + 1

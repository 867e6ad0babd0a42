"""The single token with which each label continues a prompt, or which other labels have one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from ..arguments import brief
from ..errors import LabelError, PromptError
from .encoding import Reader, encode, require_text
from .task_labels import WORDS

# What is offered where a label is several tokens; no text of the shipped task is among them.
CANDIDATES = (("foo", "bar"), ("yes", "no"), ("red", "blue"), ("up", "down"), ("left", "right"), ("true", "false"))
SINGLE = (*WORDS, "red", "blue", "green", "gold", "box", "cup", "pen", "key")  # where there are more than two labels
OFFERED = 2  # pairs that are named at most, and words for each label


def template_parts(template: str) -> tuple[str, str, str]:
    """Split a template into what stands before the text, between text and label, and after the label.

    Raises:
        PromptError: it lacks one of them, or has one twice.
    """
    require_text(template, "template")
    before, _, rest = template.partition("{text}")
    between, found, after = rest.partition("{label}")
    if not found or not between or any(place in after + between + before for place in ("{text}", "{label}")):
        raise PromptError(
            f"The template {brief(template)} cannot be used; it must be like '{{text}}: {{label}}', with each once."
        )
    return before, between, after


def label_tokens(model: Reader, labels: Sequence[str], template: str) -> dict[str, int]:
    """The single token with which each label continues a prompt. Needs no weights.

    Raises:
        LabelError: a label is several tokens, or two labels are the same token; pairs of words that are one token each
            are named, or single ones where there are more than two labels.
    """
    tokens: dict[str, int] = {}
    for label in labels:
        pieces = _pieces(model, label, template)
        if len(pieces) != 1:
            shown = " ".join(repr(piece) for piece in model.tokenizer.convert_ids_to_tokens(pieces))
            raise LabelError(
                f"The label '{label}' is {len(pieces)} tokens ({shown}) for the tokenizer of {model.name}; "
                f"choose a label that is one token with its leading space{_such_as(model, template, len(labels))}."
            )
        tokens[label] = pieces[0]
    if len(set(tokens.values())) < len(tokens):
        raise LabelError(f"The labels {', '.join(labels)} are the same token for {model.name}; choose others.")
    return tokens


def _pieces(model: Reader, label: str, template: str) -> list[int]:
    """The tokens with which a label continues a prompt."""
    before, between, _ = template_parts(template)
    if not label.strip():
        raise LabelError("A label is empty; give a word that is one token with its leading space.")
    stem = encode(model, f"{before}a{between.rstrip()}")[0]
    ids = encode(model, f"{before}a{between}{label}")[0]
    if ids[: len(stem)] != stem:
        raise LabelError(
            f"The tokenizer of {model.name} joins the label '{label}' with what stands before it; use a "
            f"template with a space or line break there."
        )
    return ids[len(stem) :]


def _such_as(model: Reader, template: str, labels: int) -> str:
    """Labels that are one token each, to stand behind what is wrong with others; empty if none are."""
    if labels > 2:
        words = [word for word in SINGLE if _single(model, template, word)][: OFFERED * labels]
        return f", such as {', '.join(words)}" if len(words) >= labels else ""
    found = [f"{one},{other}" for one, other in _pairs(model, template)][:OFFERED]
    return f", as those of {' and of '.join(found)} are" if found else ""


def _single(model: Reader, template: str, *words: str) -> bool:
    """Whether words are one token each, and different ones."""
    with contextlib.suppress(LabelError, PromptError):
        tokens = [_pieces(model, word, template) for word in words]
        return all(len(pieces) == 1 for pieces in tokens) and len({*map(tuple, tokens)}) == len(words)
    return False


def _pairs(model: Reader, template: str) -> Iterator[tuple[str, str]]:
    return (pair for pair in CANDIDATES if _single(model, template, *pair))

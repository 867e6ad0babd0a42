"""Labels as tokens: one each, with which they continue a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from ..arguments import brief
from ..errors import LabelError, PromptError
from .encoding import Reader, encode, require_text
from .label_pairs import WORDS

# Words that a message names where a label is several tokens: those of them that are one.
SHORT_WORDS = (*WORDS, "red", "blue", "green", "gold", "box", "cup", "pen", "key")


def template_parts(template: str) -> tuple[str, str, str]:
    """Split a template into what stands before the text, between text and label, and after the label."""
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
        LabelError: a label is several tokens, or two labels are the same token.
    """
    before, between, _ = template_parts(template)
    stem = encode(model, f"{before}a{between.rstrip()}")[0]
    tokens: dict[str, int] = {}
    for label in labels:
        if not label.strip():
            raise LabelError("A label is empty; give a word that is one token with its leading space.")
        ids = encode(model, f"{before}a{between}{label}")[0]
        if ids[: len(stem)] != stem:
            raise LabelError(
                f"The tokenizer of {model.name} joins the label '{label}' with what stands before it; use a "
                f"template with a space or line break there."
            )
        pieces = model.tokenizer.convert_ids_to_tokens(ids[len(stem) :])
        if len(pieces) != 1:
            shown = " ".join(repr(piece) for piece in pieces)
            raise LabelError(
                f"The label '{label}' is {len(pieces)} tokens ({shown}) for the tokenizer of {model.name}; "
                f"choose a label that is one token with its leading space{_such_as(model, template, stem)}."
            )
        tokens[label] = ids[-1]
    if len(set(tokens.values())) < len(tokens):
        raise LabelError(f"The labels {', '.join(labels)} are the same token for {model.name}; choose others.")
    return tokens


def _such_as(model: Reader, template: str, stem: Sequence[int]) -> str:
    """Words that could be labels instead, as the end of a sentence; nothing if none of ours is one token."""
    before, between, _ = template_parts(template)
    found = []
    for word in SHORT_WORDS:
        try:
            ids = encode(model, f"{before}a{between}{word}")[0]
        except PromptError:  # the tokenizer does not know it
            continue
        if len(ids) == len(stem) + 1 and ids[: len(stem)] == list(stem):
            found.append(word)
    return f", such as {', '.join(found[:8])}" if found else ""

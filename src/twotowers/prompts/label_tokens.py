"""The single token with which each label continues a prompt, or which other labels have one."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from ..arguments import brief
from ..errors import LabelError, PromptError
from .encoding import Reader, encode, require_text
from .spelling import listed
from .written import cut

# What is offered where a label is several tokens, two by two; no text of the shipped task is among them.
CANDIDATES = (
    ("foo", "bar"), ("red", "blue"), ("green", "gold"), ("box", "cup"), ("pen", "key"), ("yes", "no"), ("up", "down"),
    ("left", "right"), ("true", "false"),
)  # fmt: skip
OFFERED = 2  # how often as many words as there are labels are named, at most
SHOWN, PIECES = 4, 8  # labels that are named at most where several are several tokens, and tokens of each


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
        LabelError: a label is several tokens, or two labels are the same token; as many words that are one token each
            are named.
    """
    tokens = single_tokens(model, labels, template, len(labels))
    if len(set(tokens.values())) < len(tokens):
        raise LabelError(
            f"The labels {', '.join(labels)} are the same token for {model.name}; choose others"
            f"{_such_as(model, template, len(labels))}."
        )
    return tokens


def single_tokens(model: Reader, words: Sequence[str], template: str, number: int) -> dict[str, int]:
    """The token of each of these words as a label; the same token may stand for two of them.

    Args:
        number: labels of a prompt set: so many words are offered in the place of those that are several tokens.

    Raises:
        LabelError: some are several tokens; all of these are named.
    """
    pieces = {word: _pieces(model, word, template) for word in words}
    wrong = [_spelt(model, word, own) for word, own in pieces.items() if len(own) != 1]
    if wrong:
        choose = "a label that is one token" if len(wrong) == 1 else "labels that are one token each"
        raise LabelError(
            f"The label {listed(wrong, SHOWN)} for the tokenizer of {model.name}; choose {choose} with "
            f"{'its' if len(wrong) == 1 else 'their'} leading space{_such_as(model, template, number)}."
        )
    return {word: own[0] for word, own in pieces.items()}


def _spelt(model: Reader, word: str, ids: Sequence[int]) -> str:
    tokens = " ".join(map(repr, model.tokenizer.convert_ids_to_tokens(ids[:PIECES])))
    return f"'{cut(word)}' is {len(ids)} tokens ({tokens}{' ...' if len(ids) > PIECES else ''})"


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


def _such_as(model: Reader, template: str, number: int) -> str:
    """As many labels as are needed that are one token each, to stand behind what is wrong with others; empty if none
    are."""
    words = words_of_one_token(model, template)
    sets = [",".join(words[i : i + number]) for i in range(0, len(words) - number + 1, number)][:OFFERED]
    return f", as those of {' and of '.join(sets)} are" if sets else ""


def words_of_one_token(model: Reader, template: str) -> list[str]:
    """Words that may be labels, each of one token and no two of the same."""
    single: dict[int, str] = {}
    for pair in CANDIDATES:
        tokens = _single(model, template, pair)
        if len({*tokens} - {*single}) == len(pair):
            single |= dict(zip(tokens, pair, strict=True))
    return [*single.values()]


def _single(model: Reader, template: str, words: Sequence[str]) -> list[int]:
    """The token of each of these words as a label; empty unless each has one."""
    with contextlib.suppress(LabelError, PromptError):
        pieces = [_pieces(model, word, template) for word in words]
        if all(len(own) == 1 for own in pieces):
            return [own[0] for own in pieces]
    return []

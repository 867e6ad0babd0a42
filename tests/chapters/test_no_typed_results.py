"""The prose of a chapter is the same for every model, so no sentence of it states a result: results are computed."""

import re
from pathlib import Path

import jupytext
import pytest

from twotowers.chapters.registry import CHAPTERS

BOOK = Path(__file__).resolve().parents[2] / "book"
# What a sentence says that knows how an experiment came out.
RESULT = re.compile(
    r"\b("
    r"(we|this) (find|found|finds|see|saw|observed?|confirms?|shows? that)"
    r"|turns? out|indeed|in fact|clearly|surprisingly|as expected|it does( not)?(?=[.,;])"
    r"|neither is|both (only|are|lie|fall|rise)|only guess(es)?"
    r"|(far|much|slightly) (more|less|fewer|larger|smaller|better|worse|higher|lower)"
    r"|(most|little|none|all) of (it|them|such)|hardly|barely|almost (all|none|no|nothing)"
    r"|(falls?|drops?|rises?|grows?|shrinks?|goes) (to|by|from|sharply)|collapses?"
    r"|(is|are|stays?|remains?) (negligible|large|small|strong|weak|high|low|clear|perfect|near zero|at chance)"
    r"|more \w+, (better|worse)|(holds?|hold) the labels?|leans? towards|matters? (more|less|most)"
    r"|\d+(\.\d+)? ?(%|percent|points|nats|logits)"
    r")(?!\w)",
    re.IGNORECASE,
)
# A sentence that says what would follow, what is asked, or what others say.
OPEN = re.compile(
    r"\b(if|whether|would|could|can|cannot|may|might|should|suppose|claims?|paper|paper's|authors'?|asks?|does it)\b"
    r"|\?|\{cite",
    re.IGNORECASE,
)
ALLOWED = (
    "one half is guessing, one is perfect",  # a scale
    "at -100% everything that the answer needs still stands at that place, at 100% it has left",  # a scale
    "at 200% the answer has fully turned round",  # a scale
    "its 95% interval is",  # a method
    "almost all *bar* to almost all *foo*",  # a design
    "almost all *foo* and prompts that are almost all *bar*",  # a design
)


def sentences(text):
    """The prose of a chapter, sentence by sentence, without code and formulas."""
    cells = [cell.source for cell in jupytext.reads(text, fmt="md:myst").cells if cell.cell_type == "markdown"]
    prose = re.sub(r"```.*?```", "", "\n\n".join(cells), flags=re.DOTALL)
    for paragraph in re.split(r"\n\s*\n|\n(?=[-#:])|(?<=[.?!:])\n", prose):
        yield from re.split(r"(?<=[.?!]) +(?=[A-Z*`])", " ".join(paragraph.split()))


def typed(text):
    """Sentences that state a result."""
    found = []
    for sentence in sentences(text):
        said = RESULT.search(sentence)
        if said and not OPEN.search(sentence) and not any(part in sentence for part in ALLOWED):
            found.append(f"'{said[0]}' in: {sentence}")
    return found


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_sentence_of_a_chapter_states_a_result(chapter):
    assert typed((BOOK / "chapters" / f"{chapter}.md").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "sentence",
    [
        "Of the two, neither is negligible.",
        "Shown seven, it leans towards the seven.",
        "The order ought not to play a part, but it does.",
        "More demonstrations, better answers.",
        "Values hold the labels.",
        "At first both only guess.",
        "Accuracy falls to one half.",
        "Without them 12 % are lost.",
        "We find little of it here.",
    ],
)
def test_sentences_that_once_stood_there_and_were_wrong_are_found(sentence):
    assert typed(f"# A chapter\n\nSome method. {sentence}\n")
    assert not typed(f"# A chapter\n\nThe paper claims: {sentence[0].lower()}{sentence[1:]}\n")

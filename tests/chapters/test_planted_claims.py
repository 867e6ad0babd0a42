"""Claims that are true or false by construction come out so, by the chapters' own measures and the book's own rule."""

import ast

import pytest

from planted_claims import BOOK, gathered, statements, verdicts
from planted_models import BIAS, COPY, IGNORED, Studies
from twotowers.chapters.registry import CHAPTERS
from twotowers.paper import CLAIMS
from twotowers.statistics import ABSENT, CONTRADICTED, SUPPORTED, UNTESTABLE, judge

ON_HEADS = ("task", "knockout", "values", "towers")
# C4 is held against heads of the same layer: to be the best of eight, as a planted head is, is not one in twenty.
BEST_OF_EIGHT = "there are only 7 random groups, too few to tell, though none does as well"


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return Studies(tmp_path_factory.mktemp)


@pytest.fixture(scope="module")
def judged(studies):
    return lambda kind, family="gpt2", heads=None, chapters=ON_HEADS: in_words(
        gathered(studies(kind, family), heads, chapters)
    )


def in_words(evidence):
    """Verdicts by claim; the reason where it is that a head is the best of eight."""
    return {n: v.reason if v.reason == BEST_OF_EIGHT else v.verdict for n, v in verdicts(evidence).items()}


def test_every_claim_is_gathered():
    found = [ast.unparse(s) for name in CHAPTERS for s in statements(BOOK / f"{name}.md")]
    assert {claim for claim in CLAIMS if any(f"page.judge('{claim}'" in text for text in found)} == set(CLAIMS)
    assert not any("page.show" in text or "page.tell" in text for text in found)


# C5 is contradicted: one head serves both labels, so that without it one label loses all and the other nothing.
# Of C13 it is not decided whether a constant of equal size takes off less: that depends on how far answers are from one
# half. The rest of it is: the remedy takes the majority's pull away in the planted head, and in no random group.
TOWERS = dict.fromkeys(CLAIMS, SUPPORTED) | {"C4": BEST_OF_EIGHT, "C5": CONTRADICTED}


@pytest.mark.parametrize(("family", "chapters"), [("llama", CHAPTERS[:-2]), ("gpt2", (*ON_HEADS, "order"))])
def test_two_towers_are_found_out(studies, family, chapters):
    evidence = gathered(studies("towers", family), None, chapters)
    if remedy := evidence.pop("C13", None):
        given = {"random": remedy.random, "before": remedy.before, "accuracy": remedy.accuracy}
        assert judge(remedy.effects, CLAIMS["C13"].smallest, **given).verdict == SUPPORTED
    found = in_words(evidence)
    assert found == {claim: TOWERS[claim] for claim in found}
    assert set(found) == {claim for claim in CLAIMS if CLAIMS[claim].chapter in chapters} - {"C13"}


def test_a_head_that_reads_one_place_carries_labels_that_no_query_chooses(judged):
    """Of C8 and C10 nothing is decided: a single weight that does not vary, and a label that stands elsewhere."""
    found = judged("nearest", "llama", [COPY])
    assert (found["C4"], found["C6"], found["C9"]) == (BEST_OF_EIGHT, SUPPORTED, ABSENT)
    assert found["C7"] != SUPPORTED  # exactly zero in every set, which is too few to call it absent


def test_a_table_that_is_looked_up_later_has_neither_towers_nor_values_that_change_places(judged):
    """C6 is absent though values carry the labels: their sum is the same when they change places."""
    found = judged("table", heads=[COPY])
    assert (found["C4"], found["C6"], found["C7"], found["C9"]) == (BEST_OF_EIGHT, ABSENT, ABSENT, ABSENT)


def test_where_no_query_chooses_the_selected_heads_support_nothing(judged):
    assert SUPPORTED not in judged("table").values()


@pytest.mark.parametrize("head", [BIAS, IGNORED])
def test_in_a_model_with_towers_a_head_that_does_not_answer_supports_nothing(judged, head):
    """`IGNORED` does attend by class, but so does one other head of 32: too many for C7's random groups.

    C8 is not decided for it: what it moves, by a norm's scale alone, is next to nothing, but has a rank.
    """
    found = judged("towers", heads=[head])
    assert SUPPORTED not in found.values()
    assert (found["C6"], found["C9"]) == (ABSENT, ABSENT)


@pytest.mark.parametrize("kind", ["bias", "ignored", "nothing"])
def test_where_nothing_is_learnt_in_context_nothing_is_testable(judged, kind):
    assert set(judged(kind, chapters=("task", "locate", "knockout", "values")).values()) == {UNTESTABLE}

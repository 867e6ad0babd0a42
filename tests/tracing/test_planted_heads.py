"""Heads set by hand are found, and do in the exchange and hand-over tests what they were made for."""

import pytest

import twotowers
from planted_models import BIAS, CHOICE, COPY, IGNORED, LAYERS, Studies
from twotowers.chapters.knockout.scores import head_scores, in_context_heads
from twotowers.tracing.exchange import PARTS, exchanges
from twotowers.tracing.hand_over import PLACES

FLIPPED, KEPT = -1.0, 1.0  # of the intact margin
CLOSE = 0.05
CASES = [("towers", "gpt2"), ("towers", "llama"), ("nearest", "llama"), ("table", "gpt2")]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return Studies(tmp_path_factory.mktemp)


@pytest.fixture(scope="module")
def scores(studies):
    return {case: head_scores(studies(*case).model, studies(*case).selection[:2]) for case in CASES}


def intact(study, sets=None):
    return twotowers.knockout(study.model, study.evaluation[:sets], heads=[])


def exchanged(study, head):
    """Margins with each part of a head exchanged, as shares of the intact margin."""
    table = exchanges(study.model, study.evaluation[:6], [([head], part) for part in PARTS])
    means = table.groupby("group")["margin"].mean()
    return {part: means[i] / means[0] for i, part in enumerate(PARTS)}


@pytest.mark.parametrize("case", CASES)
def test_what_is_planted_does_the_task(studies, case):
    answers = intact(studies(*case))
    assert answers["accuracy"].min() == 1  # over the full vocabulary
    assert answers["margin"].mean() > 1


@pytest.mark.parametrize("kind", ["bias", "ignored", "nothing"])
def test_what_does_not_reach_the_answer_does_not(studies, kind):
    assert intact(studies(kind))["accuracy_two_way"].mean() == 0.5


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_where_query_and_key_choose_the_selection_finds_it(studies, scores, family):
    table, margin = scores["towers", family], intact(studies("towers", family))["margin"].mean()
    assert in_context_heads(table, LAYERS) == [CHOICE]
    others = table.set_index(["layer", "head"])["exchange"].drop(CHOICE)
    assert others.abs().max() < CLOSE * margin  # a bias and a head that nobody reads among them
    assert others.loc[[BIAS, IGNORED]].abs().max() < CLOSE * margin


@pytest.mark.parametrize("case", [("nearest", "llama"), ("table", "gpt2")])
def test_where_no_query_chooses_no_head_has_a_score(studies, scores, case):
    table, margin = scores[case], intact(studies(*case))["margin"].mean()
    assert table["exchange"].abs().max() < CLOSE * margin


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_exchanging_queries_keys_or_values_of_two_towers_flips_the_answer(studies, family):
    found = exchanged(studies("towers", family), CHOICE)
    expected = {"none": KEPT, "query-other": FLIPPED, "query-same": KEPT}
    expected |= {"keys": FLIPPED, "values": FLIPPED, "keys-values": KEPT}
    assert found == pytest.approx(expected, abs=0.15)  # later labels weigh more, so a pair is not quite symmetric


@pytest.mark.parametrize("head", [BIAS, IGNORED])
def test_exchanging_anything_in_what_does_not_choose_does_nothing(studies, head):
    found = exchanged(studies("towers"), head)
    assert found == pytest.approx(dict.fromkeys(PARTS, KEPT), abs=CLOSE)


def test_a_head_that_reads_one_place_has_its_label_in_the_values_alone(studies):
    expected = dict.fromkeys(PARTS, KEPT) | {"values": FLIPPED, "keys-values": FLIPPED}
    assert exchanged(studies("nearest", "llama"), COPY) == pytest.approx(expected, abs=CLOSE)


def test_a_head_that_reads_all_labels_alike_does_not_see_them_change_places(studies):
    """A table of which class has which label is a sum: the exchange of values leaves it, though values carry it."""
    assert exchanged(studies("table"), COPY) == pytest.approx(dict.fromkeys(PARTS, KEPT), abs=CLOSE)
    study = studies("table")
    assert twotowers.knockout(study.model, study.evaluation[:6], heads=[COPY])["accuracy_two_way"].mean() < 0.75


# The class leaves the text in layer 0, the colon in layer 1 and the label in layer 5; the answer arrives there, too.
LEAVES = {"text": 1, "text+separator": 2, "label": 6, "query": 1}


@pytest.mark.parametrize("case", [("towers", "llama"), ("towers", "gpt2"), ("nearest", "llama")])
@pytest.mark.parametrize("place", PLACES)
def test_the_class_is_handed_over_where_it_was_planted(studies, case, place):
    study = studies(*case)
    table = twotowers.hand_over(study.model, study.evaluation[:3], place)
    share = (table.groupby("layer")["margin"].mean() / intact(study, 3)["margin"].mean()).tolist()
    if place == "last":  # the mirror of the query: what it does not hold any more, the last position does
        expected = [KEPT] * LEAVES["query"] + [FLIPPED] * (LAYERS + 1 - LEAVES["query"])
    else:
        expected = [FLIPPED] * LEAVES[place] + [KEPT] * (LAYERS + 1 - LEAVES[place])
    assert share == pytest.approx(expected, abs=0.15)

"""Samples of sentences are drawn by the texts alone, and every row is counted; the table of data sets is sound."""

import itertools
from pathlib import Path

from sentence_files import PLACES, made, rows
from twotowers.prompts import datasets as sentences
from twotowers.prompts import sampling
from twotowers.prompts.datasets import SETS
from twotowers.prompts.sampling import draw


def test_the_same_rows_in_another_order_give_the_same_sample():
    data = SETS["ag-news"]
    pairs = rows(data, 200)
    assert draw(data, pairs).texts == draw(data, reversed(pairs)).texts


def test_every_row_is_counted_once_whatever_becomes_of_it(monkeypatch):
    monkeypatch.setattr(sampling, "SAMPLE", 60)
    data = SETS["sst2"]
    good = rows(data)
    part = "a rather long walk by the sea"
    odd = {
        "without a label": [("some words with no label at all", -1), ("and another of the same kind", None)],
        "shorter than 5 words": [("only four words here", 0), ("", 1), (None, 1)],
        "longer than 40 words": [("word " * 41, 0)],
        "repeated": [(good[0][0].upper(), 0), (f"  {good[0][0]} ", 0)],
        "with two labels": [("this is said of both classes", 0), ("This is said of both classes", 1)] * 2,
    }
    facts = draw(data, [*good, *itertools.chain(*odd.values()), (part, 0), (f"{part} again", 1)]).facts
    assert facts["dropped"] == {reason: len(own) for reason, own in odd.items()}
    assert facts["rows"] == sum(facts["dropped"].values()) + sum(facts["left"].values())
    assert facts["drawn"] == {"negative": 30, "positive": 30}


def test_no_sentence_is_part_of_another():
    data = SETS["sst2"]
    whole = made("garden", 180)[:: len(PLACES)]
    pieces = [(" ".join(text.split()[:6]), i % 2) for i, text in enumerate(whole)]
    drawn = draw(data, [*((text, i % 2) for i, text in enumerate(whole)), *pieces])
    taken = [text.casefold() for own in drawn.texts.values() for text in own]
    assert not [(a, b) for a, b in itertools.permutations(taken, 2) if a in b]
    assert sum(drawn.facts["passed_over"].values()) == sum(drawn.facts["left"].values()) - len(taken) > 0


def test_spaces_and_line_breaks_inside_a_sentence_become_one_space():
    ((text,), _) = draw(SETS["sst2"], [("one  two\nthree\tfour five ", 0)]).texts.values()
    assert text == "one two three four five"


def test_the_table_is_sound():
    for key, data in SETS.items():
        assert key == data.key == key.lower()
        assert len(set(data.classes)) == len(data.classes) >= 2
        assert sentences.choose(key) == data.pair
        assert not any(set(name) & set(":, ") for name in data.classes)


def test_the_page_lists_the_table():
    page = (Path(__file__).parents[2] / "book" / "rerun.md").read_text()
    for data in SETS.values():
        names = ", ".join(f"**{name}**" if name in data.pair else name for name in data.classes)
        assert f"| `{data.key}` | {data.holds} | {names} | `{data.source}`, {data.licence} |" in page
    assert f"Sentences of {sampling.WORDS[0]} to {sampling.WORDS[1]} words" in page
    assert f"up to {sampling.SAMPLE // 2} of each class" in page
    assert f"at most {sentences.SHOTS} demonstrations of each label" in page

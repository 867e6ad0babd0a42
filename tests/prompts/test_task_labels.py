"""Which words are written for labels: as asked, either for either class as often, and in every prompt that is made."""

import itertools
from collections import Counter

import pytest
import torch

import twotowers
from twotowers.chapters.imbalance.designs import share_sets
from twotowers.errors import LabelError, TaskError
from twotowers.models.model import open_model
from twotowers.prompts.sets import PromptSet
from twotowers.prompts.task_labels import TaskLabels, task_labels
from twotowers.prompts.tasks import load_task, portable
from twotowers.prompts.variants import all_dealt, few_queries, reorder, swapped
from twotowers.publishing.provenance import run_name, run_title
from twotowers.study import open_study
from twotowers.tracing import check
from twotowers.tracing.outcomes import outcomes

ONE_TOKEN = ("animals", "countries", "family", "manner", "motion", "names", "numbers", "time")


@pytest.fixture(scope="module")
def reader():
    return open_model("smollm2-135m")


def study(labels, scale="smoke"):
    return open_study("smollm2-135m", f"words:labels={labels}", scale)


def labels_in(model, s: PromptSet):
    """The words at the label positions of a set's prompts, as the tokenizer gives them back."""
    return [[model.tokenizer.decode(p.ids[i]).strip() for i in p.label_positions] for p in s.prompts]


def every_variant(of):
    yield from of.evaluation
    yield from all_dealt(of.model, of.evaluation)
    for s in of.evaluation:
        yield from (swapped(s), few_queries(s), reorder(of.model, s, tuple(range(len(s.demonstrations)))[::-1]))
    for sets in share_sets(of).values():
        yield from sets


@pytest.mark.parametrize("labels", ["foo,bar", "yes,no", "natural", "flipped"])
def test_every_prompt_that_is_made_of_a_set_has_its_words_at_the_label_positions(labels):
    own = study(labels)
    for s in every_variant(own):
        wanted = [s.written[label] for _, label in s.demonstrations]
        assert labels_in(own.model, s) == [wanted] * len(s.prompts)
        assert [own.model.tokenizer.decode(i).strip() for i in s.label_ids] == list(s.words)


def test_two_words_stand_for_either_class_as_often_and_in_any_order_are_the_same():
    assert task_labels("yes,no") == task_labels(" no , yes ")
    assert task_labels("bar,foo") == TaskLabels()
    sets = study("no,yes", "paper").evaluation
    shown = Counter((s.written[label], name) for s in sets for label, name in zip(s.labels, s.categories, strict=True))
    for name in {name for _, name in shown}:
        assert shown["yes", name] == shown["no", name]


def test_natural_writes_a_class_by_its_own_name_and_flipped_by_the_other(reader):
    for labels, step in (("natural", 1), ("flipped", -1)):
        for s in study(labels, "book").evaluation:
            named = [{"little_words": "function", "bad_qualities": "negative", "good_qualities": "positive",
                      "thinking_and_speaking": "thought"}.get(name, name) for name in s.categories]  # fmt: skip
            assert list(s.words) == named[::step]
            assert set(ONE_TOKEN) & set(s.categories) <= set(s.words)


def test_the_words_change_nothing_else():
    for labels in ("yes,no", "natural"):
        for own, usual in zip(study(labels).evaluation, study("foo,bar").evaluation, strict=True):
            texts = [[text for text, _ in pairs] for pairs in (own.demonstrations, usual.demonstrations)]
            assert texts[0] == texts[1]
            assert [text for text, _ in own.queries] == [text for text, _ in usual.queries]
            assert set(own.categories) == set(usual.categories)


@pytest.mark.parametrize("asked", ["foo", "foo,foo", "foo,", ",", "", "a,b,c", "Natural", "natural,"])
def test_what_is_no_pair_is_refused_by_name(asked):
    with pytest.raises(TaskError, match="labels"):
        load_task(f"words:labels={asked}")


def test_a_name_of_several_tokens_is_refused_before_weights_load():
    with pytest.raises(LabelError, match=r"'xylophonist' is . tokens"):
        _ = study("xylophonist,no").evaluation


def test_labels_and_shots_may_follow_a_task_in_any_order(tmp_path):
    for said in (":shots=2:labels=yes,no", ":labels=no,yes:shots=2"):
        task = load_task(f"words{said}")
        assert (task.name, task.shots, task.labels.names) == ("words:shots=2:labels=yes,no", 2, ("yes", "no"))
    with pytest.raises(TaskError, match="twice"):
        load_task("words:labels=a,b:labels=c,d")
    (tmp_path / "own.csv").touch()
    assert portable(f"{tmp_path}/own.csv:shots=2:labels=yes,no").endswith("own.csv:shots=2:labels=yes,no")


def test_labels_are_part_of_a_run_and_never_meet():
    every = ["foo,bar", "yes,no", "Yes,No", "é,ü", "á,ü", "natural", "flipped", "+,-", "*,/"]
    studies = [open_study("smollm2-135m", f"words:labels={labels}", "smoke") for labels in every]
    assert run_name(studies[0]) == "smollm2-135m"
    assert run_name(studies[1]) == "smollm2-135m-on-words-labels-yes-no"
    assert len({run_name(one) for one in studies}) == len({run_title(one) for one in studies}) == len(every)
    for one, other in itertools.combinations(studies, 2):
        assert one.digest != other.digest


@pytest.mark.parametrize("labels", ["natural", "yes,no"])
def test_margins_are_between_the_words_that_are_written_as_plain_transformers_has_them(real, labels):
    s = study(labels).evaluation[0]
    found = outcomes(real, [s], [()])
    for query, (prompt, gold) in enumerate(zip(s.prompts, s.gold, strict=True)):
        with torch.no_grad():
            logits = real.nn._module(torch.tensor([prompt.ids])).logits[0, -1]
        right, wrong = (real.tokenizer.encode(f": {s.words[i]}")[-1] for i in (gold, 1 - gold))
        assert found.iloc[query]["margin"] == pytest.approx(float(logits[right] - logits[wrong]), abs=1e-3)


def test_the_identities_are_measured_with_the_labels_of_the_run(real, monkeypatch):
    shown, true = [], check.pack
    monkeypatch.setattr(check, "pack", lambda sets, *rest: shown.extend(sets) or true(sets, *rest))
    assert twotowers.check(real, ("yes", "no"))["holds"].all()
    assert {s.words for s in shown} == {("no", "yes")}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("bar,foo", "The two categories of a set are labelled foo and bar, and the draw is made anew for every "
         "demonstration set, so only the demonstrations say which is which."),
        ("no,yes", "Where the text says foo and bar, read yes and no."),
        ("natural", "Each category is labelled with its own name; the two of a set are called first and second. Where "
         "the text says foo and bar, read second and first."),
        ("flipped", "with the name of another of its set, so only"),
    ],
)  # fmt: skip
def test_the_task_says_what_its_labels_are(labels, said):
    assert said in load_task(f"words:labels={labels}").account
    first, second = study(labels).evaluation[0].labels
    assert task_labels(labels) == TaskLabels() or f"read {second} and {first}." in task_labels(labels).account()

"""Long prompts: counted before weights load, whatever the chapter, and computed exactly when they fit."""

import dataclasses
import itertools
from dataclasses import replace

import pytest
import torch

from twotowers.chapters.imbalance.designs import number_of_demonstrations, share_sets
from twotowers.errors import PromptError, TaskError
from twotowers.models.loading import Loading
from twotowers.pipeline.lengths import longest, require_fit
from twotowers.pipeline.run import prepare
from twotowers.prompts.packing import pack
from twotowers.study import SCALES, open_study
from twotowers.tracing.capture import batches, capture

ANIMALS, TOOLS = ("cat", "dog", "horse", "cow"), ("saw", "hammer", "drill", "chisel")
VERBS, ENDS = ("saw", "met", "liked"), ("once", "twice")


@pytest.fixture
def task(tmp_path):
    """A CSV file of 24 texts in each of two categories."""

    def write(words):
        lines = [
            f"{' '.join([verb, name, end] + ['very'] * words)},{label}"
            for label, names in (("animal", ANIMALS), ("tool", TOOLS))
            for name, verb, end in itertools.product(names, VERBS, ENDS)
        ]
        (tmp_path / "long.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
        return str(tmp_path / "long.csv")

    return write


@pytest.fixture
def small_book(monkeypatch):
    """Scale `book` with fewer sets: the longest prompt is found as soon."""
    monkeypatch.setitem(SCALES, "book", replace(SCALES["book"], selection_sets=4, evaluation_sets=4))


def test_a_task_has_no_more_shots_than_it_says_and_a_scale_no_more_than_its_own(tiny_folders, task):
    shots = {
        (scale, name): open_study(str(tiny_folders["gpt2"]), name, scale).scale.shots
        for scale in SCALES
        for name in ("words", "words:shots=4")
    }
    assert shots == {
        ("smoke", "words"): 2,
        ("smoke", "words:shots=4"): 2,
        ("book", "words"): 8,
        ("book", "words:shots=4"): 4,
        ("paper", "words"): 8,
        ("paper", "words:shots=4"): 4,
    }


def test_the_longest_prompt_is_that_of_any_chapter(tiny_folders, task):
    study = open_study(str(tiny_folders["gpt2"]), task(3), "smoke")
    shown = [study.selection, study.evaluation, *share_sets(study).values()]
    most = max(len(prompt.ids) for sets in shown for s in sets for prompt in s.prompts)
    assert longest(study) >= most
    assert longest(dataclasses.replace(study, scale=dataclasses.replace(study.scale, shots=4))) > longest(study)


def test_a_prompt_that_does_not_fit_names_both_lengths_and_the_shots_that_do(tiny_folders, task, small_book):
    name = task(6)
    with pytest.raises(PromptError) as caught:
        prepare(str(tiny_folders["gpt2"]), name, "book", 0, Loading())
    message = str(caught.value)
    study = open_study(str(tiny_folders["gpt2"]), name, "book")
    for part in (
        f"has {longest(study):,} tokens",
        "with 8 demonstrations of each label",
        "tiny-gpt2 reads at most 256",
    ):
        assert part in message
    fitting = message.partition("--task ")[2].partition(",")[0]
    assert fitting.startswith("long.csv:shots=")
    fits = prepare(str(tiny_folders["gpt2"]), name + fitting.removeprefix("long.csv"), "book", 0, Loading()).study
    assert longest(fits) <= 256


def test_texts_that_are_too_long_for_any_shots_are_refused(tiny_folders, task):
    study = open_study(str(tiny_folders["gpt2"]), task(90), "smoke")
    with pytest.raises(PromptError, match=r"tokens with 2 .* reads at most 256; give a task with shorter texts\.$"):
        require_fit(study)


@pytest.mark.parametrize(
    ("scale", "texts", "advice"),
    [
        ("book", 8, "add texts, or ask for fewer demonstrations with --task few.csv:shots=2."),
        ("book", 4, "add texts."),
        ("smoke", 3, "add texts."),  # the chapter on imbalance shows three of one label, whatever the shots
        ("smoke", 1, "add texts."),
    ],
)
def test_too_few_texts_are_told_with_the_shots_that_have_enough(
    tiny_folders, tmp_path, small_book, scale, texts, advice
):
    file = tmp_path / "few.csv"
    rows = itertools.product(("animal", "tool"), range(2 * texts))
    file.write_text("text,label\n" + "".join(f"{label} {'so ' * i},{label}\n" for label, i in rows))
    with pytest.raises(TaskError) as caught:
        prepare(str(tiny_folders["gpt2"]), str(file), scale, 0, Loading())
    assert "category 'animal' has" in str(caught.value)
    assert str(caught.value).endswith(f"one prompt set; {advice}")
    if "shots=" in advice:
        prepare(str(tiny_folders["gpt2"]), f"{file}:shots={advice[-2]}", scale, 0, Loading())


def test_sets_that_imbalanced_prompts_are_made_from_may_be_longer_than_the_context(tiny_folders, task, small_book):
    """Four shots choose 8 demonstrations out of 14: only the 8 have to fit."""
    study = open_study(str(tiny_folders["gpt2"]), task(2) + ":shots=4", "book")
    assert number_of_demonstrations(study) == 8
    with pytest.raises(PromptError, match="at most 256"):
        study.sets("evaluation", shots=7)
    require_fit(study)
    assert all(len(s.demonstrations) == 8 for sets in share_sets(study).values() for s in sets)


@pytest.mark.parametrize("family", ["gpt2", "llama-gqa"])
def test_a_packed_row_may_be_longer_than_the_context_if_its_prompts_are_not(tiny_models, tiny_folders, task, family):
    study = open_study(str(tiny_folders[family]), task(3), "book")
    study = replace(study, scale=replace(study.scale, queries=8))
    sets = study.sets("evaluation", shots=4, n_sets=2)
    assert all(s.packed_length > 256 > len(prompt.ids) for s in sets for prompt in s.prompts)
    model = tiny_models[family]
    together = capture(model, pack(sets), logits=True).logits
    with torch.no_grad():
        apart = [model.arch.model(torch.tensor([p.ids])).logits[0, -1] for s in sets for p in s.prompts]
    assert torch.allclose(together, torch.stack(apart), atol=1e-3)


def test_a_set_longer_than_the_budget_is_a_batch_of_its_own(tiny_models, tiny_folders, task):
    sets = open_study(str(tiny_folders["gpt2"]), task(1), "smoke").sets("evaluation", n_sets=3)
    assert [len(batch.input_ids) for batch in batches(tiny_models["gpt2"], sets, budget=10)] == [1, 1, 1]

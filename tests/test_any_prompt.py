"""Prompts made by chance: right tokens and the numbers of plain transformers, or a refusal by name."""

import numpy as np
import pytest
import torch
from hypothesis import event, example, given
from hypothesis import strategies as st

import twotowers
from conftest import DEMONSTRATIONS, QUERIES
from twotowers.errors import UserError
from twotowers.prompts.sets import sample_sets
from twotowers.prompts.tasks import load_task

ODD = "\0\t\n\r\x85\u2028\u200b\u202e\ud800é漢🜁{}%\\'\"<>:#$*_`|-9 "
TEXTS = (
    st.text(st.sampled_from("abcdef" + ODD), max_size=8) | st.text(max_size=4) | st.sampled_from(["cat", "two", "dog"])
)
LABELS = st.sampled_from(["foo", "bar", "foo", "bar", "cat", "two", "", " foo", "Foo", "foo bar", "\ud800", "1"])
PAIRS = st.lists(st.tuples(TEXTS, LABELS), max_size=5)
PAIRS |= st.lists(st.tuples(TEXTS.filter(str.isprintable), st.sampled_from(["foo", "bar"])), min_size=2, max_size=5)
TEMPLATES = st.sampled_from(
    ["{text}: {label}", "{text} : {label}", "Q {text}\nA {label}.", "{text}->{label}", "{text}{label}"]
)
TEMPLATES |= st.lists(st.sampled_from(["{text}", "{label}", ":", " ", "\n", "{", "}", "é"]), max_size=6).map("".join)
SEPARATORS = st.sampled_from(["\n", " ", "", "\n\n", "; ", " | "]) | st.text(max_size=2)


def plain(model, ids):
    """Logits of plain transformers for the token after the last."""
    with torch.no_grad():
        return model.nn._module(torch.tensor([ids])).logits[0, -1]


def require_right(model, s, template, separator):
    """The prompts are the tokens of their text, and answers are those of plain transformers."""
    margins, leads = [], []
    for prompt, (text, label) in zip(s.prompts, s.queries, strict=True):
        shown = separator.join(
            template.replace("{text}", "\1").replace("{label}", b).replace("\1", a) for a, b in s.demonstrations
        )
        asked = template.partition("{label}")[0].replace("{text}", text).rstrip()
        whole = shown + separator + asked
        if "\1" not in whole:
            assert list(prompt.ids) == model.tokenizer(whole)["input_ids"]
        assert [prompt.ids[p] for p in prompt.label_positions] == [
            s.label_ids[s.labels.index(b)] for _, b in s.demonstrations
        ]
        logits = plain(model, prompt.ids)
        own = s.labels.index(label)
        others = logits[[token for i, token in enumerate(s.label_ids) if i != own]]
        margins.append(float(logits[s.label_ids[own]] - others.mean()))
        leads.append(float(logits[s.label_ids[own]] - others.max()))
    measured = twotowers.knockout(model, s, heads=[]).loc[0]
    assert measured["margin"] == pytest.approx(np.mean(margins), abs=1e-4)
    decided = all(abs(lead) > 1e-4 for lead in leads)
    assert measured["accuracy_two_way"] == pytest.approx(np.mean(np.array(leads) > 0), abs=1e-9) or not decided


@given(
    demonstrations=PAIRS | st.just(DEMONSTRATIONS),
    queries=PAIRS | st.just(QUERIES),
    template=TEMPLATES,
    separator=SEPARATORS,
)
@example([("9", "bar"), ("9", " foo"), ("9", "1")], [("9", "bar"), ("cat", "1")], "{text}->{label}", "\n")
def test_any_prompt_has_the_numbers_of_plain_transformers_or_is_refused(
    tiny_gpt2, demonstrations, queries, template, separator
):
    try:
        s = twotowers.prompt_set(tiny_gpt2, demonstrations, queries, template=template, separator=separator)
    except UserError as error:
        refused = str(error)
        assert len(refused.splitlines()) == 1
        return
    event("read")
    require_right(tiny_gpt2, s, template, separator)


@given(
    number=st.integers(-2, 70),
    shots=st.integers(-2, 40),
    queries=st.integers(-2, 40),
    seed=st.integers(-(2**70), 2**70),
    half=st.sampled_from(["selection", "evaluation", "Evaluation", ""]),
)
def test_any_draw_is_balanced_and_its_queries_are_new_or_it_is_refused(tiny_gpt2, number, shots, queries, seed, half):
    task, size = load_task("words"), {"shots": shots, "n_queries": queries, "seed": seed}
    try:
        sets = sample_sets(tiny_gpt2, task, half, n_sets=min(number, 3), **size)
    except UserError as error:
        refused = str(error)
        assert len(refused.splitlines()) == 1
        return
    event("drawn")
    assert sets[:1] == sample_sets(tiny_gpt2, task, half, n_sets=1, **size)
    for s in sets:
        for pairs, each in ((s.demonstrations, shots), (s.queries, queries // 2)):
            assert [[label for _, label in pairs].count(name) for name in s.labels] == [each, each]
        texts = [text for text, _ in (*s.demonstrations, *s.queries)]
        assert len(texts) == len(set(texts))
        own = {text for category in s.categories for text in task.texts[category][half]}
        assert set(texts) <= own

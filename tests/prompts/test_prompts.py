"""Prompts: every span is where it says, a branch sees the prefix and itself, and what cannot be read is refused."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

import twotowers
from twotowers.errors import LabelError, PromptError
from twotowers.prompts.label_tokens import label_tokens
from twotowers.prompts.packing import pack
from twotowers.prompts.sets import TEMPLATES, prompt_set
from twotowers.tracing.capture import answers

DEMONSTRATIONS = [("grandmother", "foo"), ("seven", "bar"), ("elephant", "foo"), ("two", "bar")]
QUERIES = [("cat", "foo"), ("eleven", "bar"), ("grandfather", "foo")]


@dataclass
class Reader:
    """What building prompts needs of a model, without a model."""

    tokenizer: Any
    name: str = "reader"
    context_length: int = 256


class Changed:
    """A tokenizer that differs from a sound one in one respect."""

    is_fast = True

    def __init__(self, sound):
        self.sound = sound

    def convert_ids_to_tokens(self, ids):
        return self.sound.convert_ids_to_tokens(ids)

    def __call__(self, text, return_offsets_mapping):
        encoded = self.sound(text, return_offsets_mapping=True)
        return self.change(text, encoded["input_ids"], encoded["offset_mapping"])


class Marking(Changed):
    """Adds special tokens of no characters before and after the text."""

    def __init__(self, sound, before=0, after=0):
        super().__init__(sound)
        self.before, self.after = before, after

    def change(self, text, ids, offsets):
        nothing = [(0, 0)]
        return {
            "input_ids": [1] * self.before + ids + [2] * self.after,
            "offset_mapping": nothing * self.before + offsets + nothing * self.after,
        }


class LowerCase(Changed):
    """Reads capitals as small letters."""

    def change(self, text, ids, offsets):
        return self.sound(text.lower(), return_offsets_mapping=True)


class Unstable(Changed):
    """Cuts the first letter of a prompt off if the prompt ends with `cat:`."""

    def change(self, text, ids, offsets):
        if not text.endswith("cat:"):
            return {"input_ids": ids, "offset_mapping": offsets}
        rest = self.sound(text[1:], return_offsets_mapping=True)
        shifted = [(a + 1, b + 1) for a, b in rest["offset_mapping"]]
        return {
            "input_ids": self.sound(text[0])["input_ids"] + rest["input_ids"],
            "offset_mapping": [(0, 1), *shifted],
        }


@pytest.fixture(params=["tiny", pytest.param("real", marks=pytest.mark.real)])
def reader(request):
    """The tokenizer of a tiny model, and that of the default model."""
    return request.getfixturevalue("tiny_gpt2" if request.param == "tiny" else "real")


@pytest.fixture
def sound(tiny_gpt2):
    return tiny_gpt2.tokenizer


@pytest.fixture(params=TEMPLATES)
def layout(request):
    template, separator = TEMPLATES[request.param]
    return {"template": template, "separator": separator}


# Spans and positions


def decode(reader, ids):
    return reader.tokenizer.decode(list(ids))


def test_a_prompt_reads_as_its_template_says(reader, layout):
    prompt = prompt_set(reader, DEMONSTRATIONS, QUERIES, **layout).prompts[1]
    lines = [layout["template"].format(text=text, label=label) for text, label in DEMONSTRATIONS]
    end = layout["template"].format(text="eleven", label="").rstrip()
    assert decode(reader, prompt.ids) == layout["separator"].join([*lines, end])


def test_spans_are_the_texts(reader, layout):
    s = prompt_set(reader, DEMONSTRATIONS, QUERIES, **layout)
    for (query, _), prompt in zip(QUERIES, s.prompts, strict=True):
        texts = [decode(reader, prompt.ids[a:b]).strip() for a, b in prompt.demonstrations]
        assert texts == [text for text, _ in DEMONSTRATIONS]
        assert decode(reader, prompt.ids[slice(*prompt.query)]).strip() == query


def test_words_of_several_tokens_have_spans_of_several_tokens(tiny_gpt2):
    prompt = prompt_set(tiny_gpt2, DEMONSTRATIONS, QUERIES).prompts[2]
    assert [b - a for a, b in (prompt.demonstrations[0], prompt.query)] == [2, 2]  # grand-mother, grand-father


def test_label_positions_hold_the_labels_with_their_space(reader, layout):
    s = prompt_set(reader, DEMONSTRATIONS, QUERIES, **layout)
    assert s.labels == ("bar", "foo")
    assert [decode(reader, [token]) for token in s.label_ids] == [" bar", " foo"]
    for prompt in s.prompts:
        found = [decode(reader, [prompt.ids[position]]) for position in prompt.label_positions]
        assert found == [f" {label}" for _, label in DEMONSTRATIONS]


def test_the_token_after_the_last_is_the_label(reader, layout):
    s = prompt_set(reader, DEMONSTRATIONS, QUERIES, **layout)
    for gold, (_, label), prompt in zip(s.gold, QUERIES, s.prompts, strict=True):
        complete = decode(reader, prompt.ids) + f" {label}"
        assert reader.tokenizer(complete)["input_ids"] == [*prompt.ids, s.label_ids[gold]]
        assert prompt.last == len(prompt.ids) - 1


def test_all_prompts_share_everything_before_the_query(reader):
    s = prompt_set(reader, DEMONSTRATIONS, QUERIES)
    assert {prompt.query[0] for prompt in s.prompts} == {s.shared}
    assert len({prompt.ids[: s.shared] for prompt in s.prompts}) == 1


def test_queries_that_begin_alike_are_not_shared(tiny_gpt2):
    """Grand-mother and grand-father: the query belongs to the branch, even where its tokens agree."""
    s = prompt_set(tiny_gpt2, DEMONSTRATIONS[1:], [("grandmother", "foo"), ("grandfather", "foo")])
    assert s.prompts[0].ids[s.shared] == s.prompts[1].ids[s.shared]
    assert s.shared == s.prompts[0].query[0]


def test_a_leading_special_token_moves_every_position_by_one(sound):
    plain = prompt_set(Reader(sound), DEMONSTRATIONS, QUERIES)
    marked = prompt_set(Reader(Marking(sound, before=1)), DEMONSTRATIONS, QUERIES)
    assert marked.shared == plain.shared + 1
    assert marked.label_ids == plain.label_ids
    for a, b in zip(plain.prompts, marked.prompts, strict=True):
        assert b.ids == (1, *a.ids)
        assert b.label_positions == tuple(position + 1 for position in a.label_positions)
        assert b.query == (a.query[0] + 1, a.query[1] + 1)


def test_an_unstable_prefix_falls_back_to_separate_prompts_and_stays_right(tiny_gpt2):
    unstable = Reader(Unstable(tiny_gpt2.tokenizer), name="shaky")
    with pytest.warns(UserWarning, match="tokenizer of shaky reads the demonstrations differently"):
        s = prompt_set(unstable, DEMONSTRATIONS, QUERIES)
    assert s.shared == 0
    cut, whole = s.prompts[:2]
    assert cut.ids[: len(whole.ids)] != whole.ids
    for prompt in s.prompts:
        for (text, label), span, position in zip(
            DEMONSTRATIONS, prompt.demonstrations, prompt.label_positions, strict=True
        ):
            assert decode(tiny_gpt2, prompt.ids[slice(*span)]) == text
            assert decode(tiny_gpt2, [prompt.ids[position]]) == f" {label}"
    with torch.no_grad():
        plain = [tiny_gpt2.arch.model(torch.tensor([p.ids])).logits[0, -1, list(s.label_ids)] for p in s.prompts]
    torch.testing.assert_close(answers(tiny_gpt2, pack([s])).labels, torch.stack(plain), rtol=1e-4, atol=1e-4)


# Errors

ONE = [("cat", "foo"), ("two", "bar")]

LABEL_ERRORS = {
    "a third label in the queries": (ONE, [("saw", "baz")], {}, "No demonstration has the label 'baz'"),
    "one label": ([("cat", "foo")], [("dog", "foo")], {}, "at least two labels, not only 'foo'"),
    "empty label": ([("cat", "foo"), ("two", "")], ONE[:1], {}, "A label is empty"),
    "label joined to what follows": (
        [("cat", "ele"), ("two", "don")],
        [("dog", "ele")],
        {"template": "{text}:{label}", "separator": "ven\n"},
        "The tokenizer of reader reads the label 'ele' differently inside this prompt",
    ),
}
PROMPT_ERRORS = {
    "no demonstrations": ([], ONE, {}, "at least one demonstration and one query"),
    "no queries": (ONE, [], {}, "at least one demonstration and one query"),
    "empty text": ([*ONE, ("", "foo")], ONE, {}, "empty text"),
    "blank query": (ONE, [(" ", "foo")], {}, "empty text"),
    "template without text": (ONE, ONE, {"template": "word: {label}"}, "'word: {label}' cannot be used"),
    "template without label": (ONE, ONE, {"template": "{text}: foo"}, "'{text}: foo' cannot be used"),
    "template in the wrong order": (ONE, ONE, {"template": "{label}: {text}"}, "must be like '{text}: {label}'"),
    "nothing between": (ONE, ONE, {"template": "{text}{label}"}, "must be like '{text}: {label}'"),
    "too long": (ONE * 60, ONE, {}, "tokens but reader reads at most 256; use fewer or shorter"),
}


def refused(kind, reader, demonstrations, queries, **layout):
    """The message with which a prompt set is refused: one line."""
    with pytest.raises(kind) as caught:
        prompt_set(reader, demonstrations, queries, **layout)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("demonstrations", "queries", "layout", "part"), LABEL_ERRORS.values(), ids=LABEL_ERRORS)
def test_bad_labels_are_refused(sound, demonstrations, queries, layout, part):
    assert part in refused(LabelError, Reader(sound), demonstrations, queries, **layout)


@pytest.mark.parametrize(("demonstrations", "queries", "layout", "part"), PROMPT_ERRORS.values(), ids=PROMPT_ERRORS)
def test_bad_prompts_are_refused(sound, demonstrations, queries, layout, part):
    assert part in refused(PromptError, Reader(sound), demonstrations, queries, **layout)


def test_a_label_of_several_tokens_is_refused_with_tokenizer_label_and_pieces(reader):
    label = "antidisestablishment"
    pieces = reader.tokenizer.convert_ids_to_tokens(reader.tokenizer(f": {label}")["input_ids"])[1:]
    message = refused(LabelError, reader, [("cat", "foo"), ("two", label)], QUERIES[:1])
    assert len(pieces) > 1
    more = " ..." if len(pieces) > 8 else ""
    assert f"The label '{label}' is {len(pieces)} tokens ({' '.join(map(repr, pieces[:8]))}{more})" in message
    assert f"tokenizer of {reader.name}" in message
    assert "one token with its leading space" in message


def test_two_labels_of_the_same_token_are_refused(sound):
    message = refused(LabelError, Reader(LowerCase(sound)), [("cat", "foo"), ("two", "FOO")], [("dog", "foo")])
    assert "FOO, foo are the same token for reader; choose others" in message


def test_a_label_that_joins_with_what_stands_before_it_is_refused(sound):
    with pytest.raises(LabelError, match="joins the label 'ven' with what stands before it"):
        label_tokens(Reader(sound), ["ven"], "{text}:ele{label}")


def test_a_tokenizer_that_adds_a_token_at_the_end_is_refused(sound):
    assert "adds a token after the prompt" in refused(PromptError, Reader(Marking(sound, after=1)), ONE, ONE)


def test_a_tokenizer_without_offsets_is_refused(sound):
    slow = Marking(sound)
    slow.is_fast = False
    assert "no character offsets" in refused(PromptError, Reader(slow, name="slow"), ONE, ONE)


def test_a_mistake_in_a_prompt_is_a_user_error_of_the_package(sound):
    with pytest.raises(twotowers.UserError):
        prompt_set(Reader(sound), [], [])

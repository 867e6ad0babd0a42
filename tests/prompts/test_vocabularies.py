"""Released vocabularies, Llama's, GPT-2's and a SentencePiece file alone: tokens, places, lengths, answers."""

import functools
import re

import pytest
import torch
from transformers import AutoModelForCausalLM

import twotowers
from conftest import message
from twotowers.errors import LabelError, PromptError
from twotowers.models.model import open_model
from twotowers.pipeline.lengths import longest, require_fit
from twotowers.prompts.datasets import SETS
from twotowers.prompts.label_tokens import label_tokens
from twotowers.prompts.sets import TEMPLATES, prompt_set
from twotowers.prompts.tasks import HALVES, load_task
from twotowers.study import open_study
from twotowers.tracing.outcomes import outcomes
from vocabularies import CONTEXT, PACKAGES, by_their_own_code

FOO_BAR = {"llama": (7953, 2594), "sentencepiece": (19222, 2843), "gpt2": (22944, 2318)}
EACH = 6  # demonstrations of a label
FIRST = {"llama": [1], "sentencepiece": [1], "gpt2": []}  # what the tokenizer puts before a text


@pytest.fixture(params=PACKAGES)
def name(request):
    return request.param


@pytest.fixture
def place(vocabularies, name):
    return vocabularies(name)


@pytest.fixture
def reader(place):
    return open_model(place)


@functools.cache
def every_word():
    texts = load_task("words").texts
    return {category: [text for half in HALVES for text in texts[category][half]] for category in texts}


@functools.cache
def sets_of_every_word(folder, template):
    """Prompt sets in which each word of the shipped task is shown, and is asked for in another one."""
    reader, (text, separator) = open_model(folder), TEMPLATES[template]
    made, words = [], [*every_word().values()]
    for one, other in zip(words[::2], words[1::2], strict=True):
        rounds = -(-max(len(one), len(other)) // EACH)
        parts = [[own[i % len(own)] for i in range(rounds * EACH)] for own in (one, other)]
        shown = [
            [(word, label) for part, label in zip(parts, ("foo", "bar"), strict=True) for word in part[i : i + EACH]]
            for i in range(0, rounds * EACH, EACH)
        ]
        for pairs, queries in zip(shown, shown[1:] + shown[:1], strict=True):
            made.append(prompt_set(reader, pairs, queries, template=text, separator=separator))
    return made


def written(s, query, template):
    """A prompt's text, made here: what its tokens must be the tokens of."""
    text, separator = TEMPLATES[template]
    shown = [text.format(text=word, label=s.written[label]) for word, label in s.demonstrations]
    return separator.join([*shown, text.partition("{label}")[0].format(text=query).rstrip()])


def spelt(reader, ids):
    """What tokens say, with every space; a byte of its own is that character."""
    pieces = reader.tokenizer.convert_ids_to_tokens(list(ids))
    text = "".join(pieces).replace("\N{LOWER ONE EIGHTH BLOCK}", " ").replace("<0x0A>", "\n")
    return text.replace("\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}", " ").replace(
        "\N{LATIN CAPITAL LETTER C WITH DOT ABOVE}", "\n"
    )


# Tokens


def test_tokens_are_those_of_the_packages_own_code(reader, name):
    texts = [
        written(s, s.queries[0][0], template)
        for template in TEMPLATES
        for s in sets_of_every_word(reader.folder, template)
    ]
    texts += ["cat :", "N/A :", "Zürich : foo naïve : bar \N{SNOWMAN} :"]
    theirs = by_their_own_code(name, texts)
    assert [reader.tokenizer(text)["input_ids"] for text in texts] == theirs
    assert {tuple(ids[: len(FIRST[name])]) for ids in theirs} == {tuple(FIRST[name])}


@pytest.mark.parametrize("template", TEMPLATES)
def test_foo_and_bar_are_one_token_with_their_space(reader, name, template):
    tokens = label_tokens(reader, ["foo", "bar"], TEMPLATES[template][0])
    assert tuple(tokens.values()) == FOO_BAR[name]
    assert [spelt(reader, [token]) for token in tokens.values()] == [" foo", " bar"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_word_label_and_separator_is_at_its_place(reader, name, template):
    """Text, label and what is between them, put together again from the spans, are the prompt as it is written."""
    seen = set()
    for s in sets_of_every_word(reader.folder, template):
        assert s.shared > s.prompts[0].label_positions[-1]
        for (query, _), prompt in zip(s.queries, s.prompts, strict=True):
            assert list(prompt.ids[: len(FIRST[name])]) == FIRST[name]
            assert spelt(reader, prompt.ids[len(FIRST[name]) :]).lstrip() == written(s, query, template)
            for (word, label), (first, end), place in zip(
                s.demonstrations, prompt.demonstrations, prompt.label_positions, strict=True
            ):
                assert spelt(reader, prompt.ids[first:end]).strip() == word
                assert spelt(reader, [prompt.ids[place]]) == f" {label}"
                assert spelt(reader, prompt.ids[end:place]).strip() == ":"
                seen.add(word)
            assert spelt(reader, prompt.ids[slice(*prompt.query)]).strip() == query
            assert spelt(reader, prompt.ids[prompt.query[1] :]).strip() == ":"
            assert prompt.query[1] == prompt.last
    assert seen == {word for words in every_word().values() for word in words}


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_label_continues_every_prompt_as_the_token_that_is_measured(reader, template):
    for s in sets_of_every_word(reader.folder, template):
        for (query, _), prompt in zip(s.queries, s.prompts, strict=True):
            for label, token in zip(s.words, s.label_ids, strict=True):
                whole = reader.tokenizer(f"{written(s, query, template)} {label}")["input_ids"]
                assert whole == [*prompt.ids, token]


# Labels


@pytest.mark.parametrize("task", ["words", *SETS])
def test_classes_are_written_by_their_own_names_in_one_token_each(reader, task):
    if task == "words":
        own = load_task("words:labels=natural")
        names = [*own.labels.words(own.categories[:2]).values()] + [own.labels.own.get(c, c) for c in own.categories]
    else:
        names = [SETS[task].written.get(name, name) for name in SETS[task].classes]
    for template, _ in TEMPLATES.values():
        assert len(set(label_tokens(reader, names, template).values())) == len(set(names))


@pytest.mark.parametrize("number", [2, 3, 4, 5, 8])
def test_where_labels_are_several_tokens_as_many_others_are_named_that_are_one_each(reader, number):
    template = TEMPLATES["paper"][0]
    labels = ["xylophonist", "foo", "grault", "garply", "quux", "corge", "bassoonists", "qux"][:number]
    text = message(LabelError, lambda: label_tokens(reader, labels, template))
    assert text.startswith("The label 'xylophonist' is ")
    assert all(f"'{label}' is " in text for label in labels[:5] if label != "foo")
    offered = [own.split(",") for own in re.findall(r"[a-z]+(?:,[a-z]+)+", text.partition("as those of ")[2])]
    assert offered[0][:2] == ["foo", "bar"]
    assert number > 2 or offered[1:] == [["red", "blue"]]
    for own in offered:
        assert len(label_tokens(reader, own, template)) == number


@pytest.mark.parametrize("labels", ["xylophonist,no", "natural", "flipped"])
def test_labels_of_a_task_that_are_several_tokens_are_refused_with_others(reader, tmp_path, labels):
    texts = every_word()
    rows = [f"{word},{name}" for name, own in zip(("xylophonist", "bassoonists"), texts, strict=False)
            for word in texts[own]]  # fmt: skip
    (tmp_path / "own.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    text = message(LabelError, lambda: open_study(str(reader.folder), f"{tmp_path}/own.csv:labels={labels}").evaluation)
    assert text.startswith("The label 'xylophonist' is " if labels.endswith("no") else "The label 'bassoonists' is ")
    assert "'xylophonist' is " in text
    assert text.endswith("as those of foo,bar and of red,blue are.")


# Lengths


def test_the_prompts_of_all_chapters_fit_the_models_context(place, name):
    study = open_study(str(place))
    assert study.model.context_length == CONTEXT[name]
    require_fit(study)
    assert max(len(p.ids) for s in study.evaluation for p in s.prompts) <= longest(study) < 100


@pytest.mark.parametrize("more", [0, 1])
def test_a_prompt_may_be_as_long_as_the_context_and_not_one_token_longer(place, name, more):
    model = twotowers.load(place)
    one = prompt_set(
        model, [("cat", "foo"), ("two", "bar")], [("dog", "foo")], template="{text} : {label}", separator=" "
    )
    words = CONTEXT[name] - len(one.prompts[0].ids) + 1 + more
    pairs = [("cat", "foo"), (" ".join(["two"] * words), "bar")]
    build = lambda: prompt_set(model, pairs, [("dog", "foo")], template="{text} : {label}", separator=" ")  # noqa: E731
    if more:
        text = message(PromptError, build)
        assert f"A prompt has {CONTEXT[name] + 1} tokens but {model.name} reads at most {CONTEXT[name]};" in text
        return
    s = build()
    assert len(s.prompts[0].ids) == CONTEXT[name]
    assert outcomes(model, [s], [()])["margin"].item() == pytest.approx(plain_margins(model, s, "paper")[0], abs=1e-4)


# Answers


def plain_margins(model, s, template):
    """Margins from plain transformers, which reads each prompt's text with its own tokenizer."""
    network = AutoModelForCausalLM.from_pretrained(model.folder).eval()
    margins = []
    for (query, _), gold in zip(s.queries, s.gold, strict=True):
        ids = model.tokenizer(written(s, query, template), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = network(ids).logits[0, -1]
        right, wrong = (model.tokenizer(f": {s.words[i]}")["input_ids"][-1] for i in (gold, 1 - gold))
        margins.append(float(logits[right] - logits[wrong]))
    return margins


@pytest.mark.parametrize("labels", ["foo,bar", "natural", "flipped"])
def test_margins_are_those_of_plain_transformers(place, labels):
    study = open_study(str(place), f"words:labels={labels}", "smoke")
    for template in TEMPLATES:
        for s in study.sets("evaluation", template=template):
            found = outcomes(study.model, [s], [()])["margin"].tolist()
            assert found == pytest.approx(plain_margins(study.model, s, template), abs=1e-4)
            assert max(map(abs, found)) > 0.1


def test_every_identity_holds_with_the_vocabulary(place):
    table = twotowers.check(twotowers.load(place))
    assert table["holds"].all(), table

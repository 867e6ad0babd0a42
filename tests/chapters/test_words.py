"""Words: what a head's values and sums of them say in the vocabulary, and how the page shows it."""

import warnings

import pandas as pd
import pytest
import torch

import twotowers
from facts import make_facts
from twotowers.chapters.values import page as figures_values
from twotowers.chapters.values import words
from twotowers.chapters.values.words import labels_read, read_words, readable, word_vectors
from twotowers.errors import PromptError
from twotowers.paper import PAPER_PROMPT
from twotowers.prompts.packing import pack
from twotowers.publishing.markdown import escape
from twotowers.publishing.publish import figure_of
from twotowers.tracing.capture import capture
from twotowers.tracing.heads import every_head
from twotowers.tracing.projection import project

# words ----------------------------------------------------------------------------------------------------------------


def captured_prompt(model, text):
    batch = words._one_prompt(model, model.tokenizer(text)["input_ids"])
    return batch, capture(model, batch, pattern=True, inputs=True, written=True)


def test_projected_values_add_up_to_the_projected_head(tiny):
    _, captured = captured_prompt(tiny, "cat : foo seven : bar dog :")
    final = captured.resid_pre[-1]
    for layer, head in every_head(tiny):
        v = word_vectors(tiny.arch, captured, layer, head)["value"]
        parts = project(tiny.arch, v, final.expand(len(v), -1)).sum(0, keepdim=True)
        whole = project(tiny.arch, captured.z[layer, :, head] @ tiny.arch.w_o(layer)[head], final)
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-3)


def test_what_attention_wrote_is_captured_at_every_position(tiny, two_sets):
    """At the last positions it is attn_out; at layer l + 1, embedding, attention and MLP make up what enters."""
    batch = pack(two_sets)
    captured = capture(tiny, batch, inputs=True, written=True)
    assert capture(tiny, batch).written is None
    torch.testing.assert_close(captured.written[:, batch.row, batch.last], captured.attn_out)
    _, alone = captured_prompt(tiny, "cat : foo seven :")
    network = tiny.arch.model
    blocks = network.transformer.h if tiny.arch.family.norm == "layer" else network.model.layers
    norm = (lambda b: b.ln_2) if tiny.arch.family.norm == "layer" else (lambda b: b.post_attention_layernorm)
    for layer in range(tiny.arch.n_layers - 1):
        middle = alone.inputs[layer] + alone.written[layer]
        with torch.no_grad():
            after = middle + blocks[layer].mlp(norm(blocks[layer])(middle))
        torch.testing.assert_close(after, alone.inputs[layer + 1], rtol=1e-3, atol=1e-3)


def test_words_are_the_tokens_of_the_largest_logits(tiny):
    text = "cat : foo seven : bar dog :"
    table = read_words(tiny, text, [(3, 1), (0, 0)], top=4, top_key=6)
    batch, captured = captured_prompt(tiny, text)
    n, final = batch.input_ids.shape[1], captured.resid_pre[-1]
    assert len(table) == 2 * 3 * n
    assert table["token"].iloc[::3].tolist() == 2 * readable(tiny, batch.input_ids[0].tolist())
    rows = table[table["layer"] == 3].set_index(["position", "part"])
    assert rows.xs("value", level="part")["weight"].sum() == pytest.approx(1, abs=1e-4)
    for p, part, vector in (
        (2, "layer input", captured.inputs[3, 0, 2]),
        (2, "key", captured.written[:3, 0, 2].sum(0)),
        (n - 1, "query", captured.attn_out[:3, 0].sum(0)),
    ):
        k = 4 if part == "layer input" else 6
        best = project(tiny.arch, vector[None], final)[0, : len(tiny.tokenizer)].topk(k).indices
        assert list(rows.loc[(p, part), "words"]) == readable(tiny, best.tolist())
    assert set(table.query("position == @n - 1")["part"]) == {"value", "query", "layer input"}
    lowest = table[(table["layer"] == 0) & table["part"].isin(["key", "query"])]
    assert (lowest["words"] == ()).all()  # below layer 0 attention has written nothing


def test_a_prompt_set_reads_as_its_text(tiny):
    demonstrations, queries = [("cat", "foo"), ("seven", "bar")], [("dog", "foo"), ("nine", "bar")]
    s = twotowers.prompt_set(tiny, demonstrations, queries, template="{text} : {label}", separator=" ")
    pd.testing.assert_frame_equal(
        read_words(tiny, s, [(3, 1)], query=1), read_words(tiny, "cat : foo seven : bar nine :", [(3, 1)])
    )


def test_without_heads_three_deep_ones_are_read(tiny):
    table = read_words(tiny, "cat : foo seven :")
    heads = table[["layer", "head"]].drop_duplicates()
    assert len(heads) == 3
    assert (heads["layer"] >= 2).all()


def test_prompts_that_cannot_be_read_are_refused(tiny_gpt2):
    with pytest.raises(PromptError, match="empty"):
        read_words(tiny_gpt2, "  ")
    with pytest.raises(PromptError, match="at most 256"):
        read_words(tiny_gpt2, "cat : foo " * 200)


@pytest.mark.real
def test_tokens_are_readable(real):
    ids = [real.tokenizer.convert_tokens_to_ids(token) for token in ("Ġfoo", "foo", "Ċ")]
    assert readable(real, ids) == ["␣foo", "foo", "⏎"]
    assert words._visible("foo", "▁foo") == "␣foo"  # a decoder that drops the leading space
    assert words._visible("", "") == "∅"
    assert words._visible(" " * 20, "Ġ" * 20) == "␣␣␣…"
    everything = readable(real, list(range(0, len(real.tokenizer), 7)))
    assert all(text and text.isprintable() and not any(c.isspace() for c in text) for text in everything)


def test_markdown_of_words_is_a_table_whatever_the_words(tiny_gpt2):
    table = read_words(tiny_gpt2, "cat : foo", [(3, 1)], top=1, top_key=1)
    table["words"] = [("|`$<b>{x}\\*_[a](b)",)] * len(table)
    lines = figures_values.words_markdown(words.joined(table)).splitlines()
    assert {line.count("|") for line in lines} == {7}
    assert len(lines) == 2 + table["position"].nunique()
    assert not set("`$<>{}\\*_[]()") & set(escape(table["words"][0][0]))
    assert escape("␣foo") == "␣foo"


def test_labels_are_looked_for_at_label_positions():
    rows = [(0, "cat", "value", ("foo",)), (1, "␣foo", "value", ("␣x", "Foo")), (1, "␣foo", "key", ("foo",))]
    rows += [(2, "␣bar", "value", ("␣foo",))]
    table = pd.DataFrame(rows, columns=["position", "token", "part", "words"])
    assert labels_read(table, ["bar", "foo"])["hit"].tolist() == [True, False]
    assert labels_read(table, ["baz"]).empty


def test_the_table_of_words_draws_any_token_without_a_warning(tiny_gpt2, tmp_path):
    table = read_words(tiny_gpt2, PAPER_PROMPT, [(3, 1)], top=3, top_key=3)
    table["words"] = [("好的", "$x_1$a", "\N{REPLACEMENT CHARACTER}" * 30)] * len(table)
    inputs = {"read": words.joined(table), "prompt": PAPER_PROMPT}
    figure, *_ = figure_of(figures_values.WORDS, make_facts(), inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "words.svg")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "$x_1$a" in " ".join(texts)
    assert "□□" in " ".join(texts)
    assert sum(text == f"{w:.3f}" for w in table["weight"].unique() for text in texts) >= 1
    assert len(texts) == 5 * (table["position"].nunique() + 1)

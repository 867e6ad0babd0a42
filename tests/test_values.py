"""What values carry: identities on every family, and planted values for which the answer is known, right and wrong."""

import dataclasses
import warnings

import pandas as pd
import pytest
import torch

import twotowers
from conftest import DEMONSTRATIONS, QUERIES, make_sets
from twotowers import figures_values, values, words
from twotowers.claims import judge
from twotowers.errors import PromptError
from twotowers.knockout import HeadError, every_head
from twotowers.project import project
from twotowers.prompts import pack
from twotowers.trace import capture
from twotowers.values import (
    beside_paper,
    by_group,
    head_groups,
    label_forms,
    label_in_top,
    logit_minus_effect,
    position_kinds,
    position_logit_minus,
    ranks,
)
from twotowers.words import PAPER_PROMPT, escape, labels_read, read_words, readable, word_vectors, words_markdown

HEADS = [(2, 0), (3, 1)]


def logit_difference(model, v, captured, batch):
    """Second label's logit minus the first's, from the projection onto the whole vocabulary."""
    logits = project(model.arch, v, captured.resid_pre[-1]).gather(1, batch.label_ids)
    return logits[:, 1] - logits[:, 0]


# identities on real forwards ------------------------------------------------------------------------------------------


def test_weighted_logit_minus_adds_up_to_that_of_the_head_output(tiny, two_sets):
    table = position_logit_minus(tiny, two_sets, every_head(tiny))
    sums = table.groupby(["layer", "head", "set", "query"])["weighted"].sum()
    batch = pack(two_sets)
    captured = capture(tiny, batch)
    for layer, head in every_head(tiny):
        output = captured.z[layer, :, head] @ tiny.arch.w_o(layer)[head]
        expected = logit_difference(tiny, output, captured, batch)
        ours = torch.tensor(sums.loc[layer, head].to_numpy(), dtype=torch.float32)
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_unweighted_logit_minus_is_the_mean_over_the_positions_of_a_kind(tiny, two_sets):
    """Against vo of one prompt at a time, projected onto the whole vocabulary."""
    table = position_logit_minus(tiny, two_sets, HEADS).set_index(["layer", "head", "kind", "set", "query"])
    for i, s in enumerate(two_sets):
        batch = pack([dataclasses.replace(s, queries=s.queries[1:2], prompts=s.prompts[1:2])])
        captured = capture(tiny, batch, inputs=True)
        own = captured.inputs[:, 0, batch.index[0]]
        for layer, head in HEADS:
            weight, bias = tiny.arch.w_v(layer)
            vo = (tiny.arch.norm_in(layer, own[layer]) @ weight[head] + bias[head]) @ tiny.arch.w_o(layer)[head]
            logits = project(tiny.arch, vo, captured.resid_pre[-1].expand(len(vo), -1))
            minus = logits[:, s.label_ids[1]] - logits[:, s.label_ids[0]]
            places = s.prompts[1].label_positions
            foo = [p for p, (_, label) in zip(places, s.demonstrations, strict=True) if label == "foo"]
            other = [p for p in range(len(minus)) if p not in places]
            for kind, positions in (("foo", foo), ("other", other)):
                expected = minus[positions].mean().item()
                assert table.loc[(layer, head, kind, i, 1), "unweighted"] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_every_token_of_a_prompt_has_one_kind(tiny, two_sets):
    kinds = position_kinds(two_sets, pack(two_sets))
    prompts = [(s, prompt) for s in two_sets for prompt in s.prompts]
    for row, (s, prompt) in zip(kinds, prompts, strict=True):
        labels = [label for _, label in s.demonstrations]
        assert (row[: len(prompt.ids)] >= 0).all()
        assert (row[len(prompt.ids) :] == -1).all()
        assert (row == 0).sum() == labels.count("bar")
        assert (row == 1).sum() == labels.count("foo")


def test_one_set_a_batch_or_all_at_once_give_the_same_table(tiny_gpt2, monkeypatch):
    sets = make_sets(tiny_gpt2)
    together = position_logit_minus(tiny_gpt2, sets, HEADS)
    found = label_in_top(tiny_gpt2, sets, HEADS)
    monkeypatch.setattr(values, "batches", lambda model, sets: (pack([s]) for s in sets))
    keys = ["layer", "head", "kind", "set", "query"]
    apart = position_logit_minus(tiny_gpt2, sets, HEADS).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(apart, together.sort_values(keys, ignore_index=True), rtol=1e-3, atol=1e-4)
    keys = ["layer", "head", "set", "position"]
    again = label_in_top(tiny_gpt2, sets, HEADS).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(again, found.sort_values(keys, ignore_index=True))


def test_a_prompt_that_shows_one_label_only_has_no_effect(tiny):
    s = twotowers.prompt_set(tiny, [("cat", "foo"), ("dog", "foo")], QUERIES)
    table = position_logit_minus(tiny, [s, *make_sets(tiny)], HEADS)
    effect = logit_minus_effect(table, HEADS).set_index("set")["effect"]
    assert effect.loc[0].isna().all()
    assert effect.loc[1:].notna().all()


def test_a_head_that_does_not_exist_is_refused(tiny_gpt2):
    for function in (position_logit_minus, label_in_top):
        with pytest.raises(HeadError, match="has no head"):
            function(tiny_gpt2, make_sets(tiny_gpt2), [(2, 9)])
    with pytest.raises(HeadError, match="has no head"):
        read_words(tiny_gpt2, "cat : foo", [(9, 0)])


# planted truth --------------------------------------------------------------------------------------------------------


@pytest.fixture
def planted(tiny, two_sets, monkeypatch):
    """Plant what every label position's vo says, and where the last position looks.

    The norm before attention is taken out, so that inputs can be chosen for which vo is the wanted direction as far
    as W_O reaches. `says` gives +1 (foo's unembedding minus bar's), -1 or 0 for each label; `looks` a weight for each.
    """
    batch = pack(two_sets)
    intact = capture(tiny, batch, pattern=True, inputs=True)
    kinds = position_kinds(two_sets, batch)
    monkeypatch.setattr(tiny.arch, "norm_in", lambda layer, entering: entering)
    foo, bar = two_sets[0].label_ids[1], two_sets[0].label_ids[0]
    w_u = tiny.arch.w_u()

    def plant(says, looks):
        inputs = torch.zeros_like(intact.inputs)
        pattern = torch.zeros_like(intact.pattern)
        for layer, head in HEADS:
            towards = tiny.arch.norm_shape(tiny.arch.w_o(layer)[head]) @ (w_u[foo] - w_u[bar])
            weight, bias = tiny.arch.w_v(layer)
            back = torch.linalg.pinv(weight[head])
            inputs[layer] = -bias[head] @ back  # value zero
            for n, row in enumerate(kinds):
                for code, label in enumerate(("bar", "foo")):
                    (places,) = torch.where(row == code)
                    value = says[label] * towards - bias[head]
                    inputs[layer, batch.row[n], batch.index[n, places]] = value @ back
                    pattern[layer, n, head, places] = looks[label]
        capture_ = dataclasses.replace(intact, inputs=inputs, pattern=pattern)
        monkeypatch.setattr(values, "capture", lambda *args, **options: capture_)
        return position_logit_minus(tiny, two_sets, HEADS)

    return plant


EVEN = {"foo": 0.1, "bar": 0.1}


def test_labels_in_the_values_are_found(planted):
    table = planted({"foo": 1, "bar": -1}, EVEN)
    effect = logit_minus_effect(table, HEADS)
    assert list(effect.columns) == ["set", "query", "label", "effect"]
    assert len(effect) == 6
    assert (effect["effect"] > 0.1).all()
    assert judge("C6", effect).verdict == "supported"
    assert table[table["kind"] == "other"]["unweighted"].abs().max() < 1e-3


def test_swapped_values_contradict_the_claim(planted):
    effect = logit_minus_effect(planted({"foo": -1, "bar": 1}, EVEN), HEADS)
    assert (effect["effect"] < -0.1).all()
    assert judge("C6", effect).verdict == "contradicted"


def test_a_head_that_likes_foo_everywhere_carries_no_label(planted):
    table = planted({"foo": 1, "bar": 1}, EVEN)
    assert (table[table["kind"] != "other"]["unweighted"] > 0.05).all()
    assert logit_minus_effect(table, HEADS)["effect"].abs().max() < 1e-3


def test_labels_in_the_weights_only_are_not_called_values(planted):
    """The head looks at foo more than at bar, but takes the same from both: only the weighted values differ."""
    table = planted({"foo": 1, "bar": 1}, {"foo": 0.3, "bar": 0.01})
    assert logit_minus_effect(table, HEADS)["effect"].abs().max() < 1e-3
    assert (logit_minus_effect(table, HEADS, "weighted")["effect"] > 0.01).all()


def test_doubled_weights_double_the_weighted_values_only(planted):
    once, twice = (planted({"foo": 1, "bar": -1}, {"foo": w, "bar": w}) for w in (0.1, 0.2))
    torch.testing.assert_close(torch.tensor(twice["weighted"]), 2 * torch.tensor(once["weighted"]))
    torch.testing.assert_close(torch.tensor(twice["unweighted"]), torch.tensor(once["unweighted"]))


@pytest.mark.parametrize(("says", "share"), [(("foo", "bar"), 1.0), (("bar", "foo"), 0.0)])
def test_a_planted_label_is_in_the_top_words(tiny, two_sets, monkeypatch, says, share):
    """A head whose output matrix reads two dimensions as the two labels, and whose values at a label name one."""
    batch = pack(two_sets)
    captured = capture(tiny, batch, inputs=True)
    kinds, label_ids = (
        position_kinds(two_sets, batch),
        dict(zip(two_sets[0].labels, two_sets[0].label_ids, strict=True)),
    )
    d_head, width = tiny.arch.d_head, tiny.arch.d_model
    value = torch.zeros(*batch.input_ids.shape, 1, d_head)
    for n, row in enumerate(kinds):
        for code, label in enumerate(("bar", "foo")):
            value[batch.row[n], batch.index[n, row == code], 0, 0 if says[1 - code] == "foo" else 1] = 5.0
            assert label == two_sets[0].labels[code]
    w_o = torch.zeros(tiny.arch.n_heads, d_head, width)
    w_u = torch.randn(tiny.arch.d_vocab, width, generator=torch.Generator().manual_seed(0))
    w_u = torch.nn.functional.normalize(w_u - w_u.mean(-1, keepdim=True), dim=-1)
    w_o[1, 0], w_o[1, 1] = w_u[label_ids["foo"]], w_u[label_ids["bar"]]
    monkeypatch.setattr(values, "capture", lambda *args, **options: captured)
    monkeypatch.setattr(values, "values_of", lambda *args: value)
    monkeypatch.setattr(values, "label_forms", lambda model, label, token: [token])
    monkeypatch.setattr(tiny.arch, "w_o", lambda layer: w_o)
    monkeypatch.setattr(tiny.arch, "w_u", lambda: w_u)
    monkeypatch.setattr(tiny.arch, "norm_shape", lambda v: v)
    table = label_in_top(tiny, two_sets, [(3, 1)], k=1)
    assert len(table) == len(DEMONSTRATIONS) + 3  # once a label position, however many queries share it
    assert (table["in_top"] == share).all()
    assert (table["other_in_top"] == 1 - share).all()


def test_ranks_count_the_tokens_ahead_of_the_best_form(monkeypatch):
    monkeypatch.setattr(values, "CHUNK", 2)
    readout = torch.eye(4)
    value = torch.tensor([[4.0, 3, 2, 1], [1, 2, 3, 4], [0, 5, 0, 1]])
    own, other = ranks(value, readout, [[2, 3], [0], [1]], [[0], [3], [3]])
    assert own.tolist() == [2, 3, 0]
    assert other.tolist() == [0, 0, 1]


@pytest.mark.real
def test_forms_of_a_label_differ_in_case_and_space_only(real):
    s = twotowers.prompt_set(real, DEMONSTRATIONS, QUERIES)
    forms = label_forms(real, "foo", s.label_ids[1])
    texts = {real.tokenizer.decode([i]) for i in forms}
    assert {" foo", "foo"} <= texts
    assert {text.strip().lower() for text in texts} == {"foo"}
    assert label_forms(real, "no token reads like this", 5) == [5]


# groups and comparisons -----------------------------------------------------------------------------------------------


def test_the_control_is_other_deep_heads_drawn_with_a_seed(tiny_gpt2):
    selected = {"foo": [(3, 1)], "bar": [(3, 1), (2, 0)], "all": [(2, 0), (3, 1)]}
    groups = head_groups(selected, tiny_gpt2, seed=1)
    assert list(groups) == ["bar-heads", "foo-heads", "in-context heads", "other deep heads"]
    deep = {(layer, head) for layer, head in every_head(tiny_gpt2) if layer >= 2}
    assert set(groups["other deep heads"]) == deep - set(selected["all"])
    few = head_groups(selected, tiny_gpt2, seed=1, limit=3)["other deep heads"]
    assert len(few) == 3
    assert few == head_groups(selected, tiny_gpt2, seed=1, limit=3)["other deep heads"]
    assert "foo-heads" not in head_groups(selected | {"foo": []}, tiny_gpt2)


def test_a_head_in_two_groups_counts_in_both():
    table = pd.DataFrame({"layer": [2, 2, 3], "head": [0, 1, 1], "x": [1.0, 2.0, 3.0]})
    grouped = by_group(table, {"a": [(2, 0), (3, 1)], "b": [(3, 1)]})
    assert grouped["x"].tolist() == [1.0, 3.0, 3.0]
    assert grouped["group"].tolist() == ["a", "a", "b"]


def test_our_sign_is_compared_with_the_papers_by_the_interval():
    rows = [("foo-heads", "foo", -0.3, -0.4, -0.2), ("foo-heads", "bar", -0.3, -0.4, -0.2)]
    rows += [("bar-heads", "bar", -0.1, -0.3, 0.1), ("other deep heads", "bar", 0.0, 0.0, 0.0)]
    table = beside_paper(pd.DataFrame(rows, columns=["group", "kind", "mean", "low", "high"]))
    assert table["sign"].tolist() == ["the opposite", "the same", "not decided"]
    assert len(beside_paper(pd.DataFrame(rows[:1], columns=["group", "kind", "mean", "low", "high"]))) == 1


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
    lines = words_markdown(table).splitlines()
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


# figures --------------------------------------------------------------------------------------------------------------


def test_logit_minus_draws_a_panel_a_measure_and_a_series_a_kind():
    rows = [
        (m, g, k, i + j / 10) for i, m in enumerate("ab") for j, g in enumerate("xy") for k in ("bar", "foo", "other")
    ]
    table = pd.DataFrame(rows, columns=["measure", "group", "kind", "mean"])
    figure = figures_values.logit_minus(table.assign(low=table["mean"] - 0.1, high=table["mean"] + 0.1))
    assert [ax.get_title() for ax in figure.axes] == ["a", "b"]
    for i, ax in enumerate(figure.axes):
        drawn = {container.get_label(): list(container[0].get_xdata()) for container in ax.containers}
        assert drawn == {f"{kind} positions": [i, i + 0.1] for kind in ("foo", "bar", "other")}


def test_the_table_of_words_draws_any_token_without_a_warning(tiny_gpt2, tmp_path):
    table = read_words(tiny_gpt2, PAPER_PROMPT, [(3, 1)], top=3, top_key=3)
    table["words"] = [("好的", "$x_1$ a", "\N{REPLACEMENT CHARACTER}" * 30)] * len(table)
    figure = figures_values.words(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "words.svg")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "$x_1$ a" in " ".join(texts)
    assert "□□" in " ".join(texts)
    assert sum(text == f"{w:.3f}" for w in table["weight"].unique() for text in texts) >= 1
    assert len(texts) == 5 * (table["position"].nunique() + 1)


# the default model ----------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_a_label_head_of_the_default_model_carries_labels(real):
    """Head 23.1 reads as the label at label positions of the paper's own prompt; head 22.1 does not."""
    table = read_words(real, PAPER_PROMPT, [(23, 1), (22, 1)])
    hits = labels_read(table, ["bar", "foo"]).groupby("layer")["hit"].sum()
    assert hits.to_dict() == {22: 0, 23: 4}

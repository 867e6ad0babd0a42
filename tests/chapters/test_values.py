"""What values carry: identities on every family, and planted values for which the answer is known, right and wrong."""

import dataclasses

import pandas as pd
import pytest
import torch

import twotowers
from conftest import DEMONSTRATIONS, QUERIES, make_sets
from twotowers.chapters.values import page as figures_values
from twotowers.chapters.values import top_words
from twotowers.chapters.values.logit_minus import (
    beside_paper,
    by_group,
    head_groups,
    logit_minus_effect,
    position_logit_minus,
)
from twotowers.chapters.values.top_words import label_forms, label_in_top, ranks
from twotowers.chapters.values.words import labels_read, read_words
from twotowers.errors import HeadError
from twotowers.paper import PAPER_PROMPT
from twotowers.prompts.packing import pack
from twotowers.tracing import capture as tracing
from twotowers.tracing import sweep
from twotowers.tracing.capture import capture
from twotowers.tracing.heads import every_head
from twotowers.tracing.labels import position_kinds
from twotowers.tracing.projection import project

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
    monkeypatch.setattr(tracing, "batches", lambda model, sets, _: (pack([s]) for s in sets))
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
        monkeypatch.setattr(sweep, "capture", lambda *args, **options: capture_)
        return position_logit_minus(tiny, two_sets, HEADS)

    return plant


EVEN = {"foo": 0.1, "bar": 0.1}


def test_labels_in_the_values_are_found(planted):
    table = planted({"foo": 1, "bar": -1}, EVEN)
    effect = logit_minus_effect(table, HEADS)
    assert list(effect.columns) == ["set", "query", "label", "effect"]
    assert len(effect) == 6
    assert (effect["effect"] > 0.1).all()
    assert table[table["kind"] == "other"]["unweighted"].abs().max() < 1e-3


def test_swapped_values_contradict_the_claim(planted):
    effect = logit_minus_effect(planted({"foo": -1, "bar": 1}, EVEN), HEADS)
    assert (effect["effect"] < -0.1).all()


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
    monkeypatch.setattr(sweep, "capture", lambda *args, **options: captured)
    monkeypatch.setattr(top_words, "values_of", lambda *args: value)
    monkeypatch.setattr(top_words, "label_forms", lambda model, label, token: [token])
    monkeypatch.setattr(tiny.arch, "w_o", lambda layer: w_o)
    monkeypatch.setattr(tiny.arch, "w_u", lambda: w_u)
    monkeypatch.setattr(tiny.arch, "norm_shape", lambda v: v)
    table = label_in_top(tiny, two_sets, [(3, 1)], k=1)
    assert len(table) == len(DEMONSTRATIONS) + 3  # once a label position, however many queries share it
    assert (table["in_top"] == share).all()
    assert (table["other_in_top"] == 1 - share).all()


def test_ranks_count_the_tokens_ahead_of_the_best_form(monkeypatch):
    monkeypatch.setattr(top_words, "CHUNK", 2)
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


# figures --------------------------------------------------------------------------------------------------------------


def test_logit_minus_draws_a_panel_a_measure_and_a_series_a_kind():
    rows = [
        (m, g, k, i + j / 10) for i, m in enumerate("ab") for j, g in enumerate("xy") for k in ("bar", "foo", "other")
    ]
    table = pd.DataFrame(rows, columns=["measure", "group", "kind", "mean"])
    figure = figures_values.logit_minus_figure(table.assign(low=table["mean"] - 0.1, high=table["mean"] + 0.1))
    assert [ax.get_title() for ax in figure.axes] == ["a", "b"]
    for i, ax in enumerate(figure.axes):
        drawn = {container.get_label(): list(container[0].get_xdata()) for container in ax.containers}
        assert drawn == {f"{kind} positions": [i, i + 0.1] for kind in ("foo", "bar", "other")}


# the default model ----------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_a_label_head_of_the_default_model_carries_labels(real):
    """Head 23.1 reads as the label at label positions of the paper's own prompt; head 22.1 does not."""
    table = read_words(real, PAPER_PROMPT, [(23, 1), (22, 1)])
    hits = labels_read(table, ["bar", "foo"]).groupby("layer")["hit"].sum()
    assert hits.to_dict() == {22: 0, 23: 4}

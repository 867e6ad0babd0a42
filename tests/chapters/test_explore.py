"""Single prompts in single heads: the numbers of a run's page, against those of plain functions."""

import numpy as np
import pytest
import torch

import twotowers
from conftest import make_sets
from twotowers.chapters.towers import explore
from twotowers.chapters.towers.reading import read_heads
from twotowers.prompts.packing import pack
from twotowers.tracing.capture import capture
from twotowers.tracing.exchange import PARTS, exchanged_z
from twotowers.tracing.label_edges import label_edges
from twotowers.tracing.projection import prompt_values

HEADS = {(3, 1): explore.IN_CONTEXT, (2, 0): explore.LOWEST}
TOGETHER = [(3, 1), (3, 3)]
KEY = ["set", "query"]


@pytest.fixture(scope="module", params=["gpt2", "llama-gqa"])
def explored(request, tiny_models):
    model = tiny_models[request.param]
    sets = make_sets(model)
    return model, sets, explore.explore(model, sets, HEADS, TOGETHER)


def test_the_first_query_of_each_label_is_taken_with_its_donors(explored):
    _, _, tables = explored
    assert [tuple(row) for row in tables["prompts"].to_numpy()] == [
        (0, 0, "bar", "dog", "foo", "eleven", "grandmother"),
        (0, 1, "foo", "eleven", "bar", "dog", "eleven"),
        (1, 0, "bar", "grandmother", "foo", "eleven", "dog"),
        (1, 1, "foo", "eleven", "bar", "grandmother", "eleven"),
    ]
    assert set(tables["labels"][KEY].itertuples(index=False, name=None)) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_attention_over_a_prompt_adds_up_to_one_and_is_the_weight_of_its_labels(explored):
    _, sets, tables = explored
    for (number, query), tokens in tables["tokens"].groupby(KEY):
        prompt, s = sets[number].prompts[query], sets[number]
        assert len(tokens) == len(prompt.ids)
        at_labels = tokens[tokens["kind"] == "label"]
        assert tuple(at_labels["position"]) == prompt.label_positions
        assert tuple(at_labels["demonstration"]) == tuple(range(len(s.demonstrations)))
        assert [token.strip("␣") for token in at_labels["token"]] == [label for _, label in s.demonstrations]
        assert tokens["demonstration"].iloc[-1] == len(s.demonstrations)
        labels = tables["labels"].query(f"set == {number} and query == {query}")
        for head in map(explore.name_of, HEADS):
            assert tokens[head].sum() == pytest.approx(1, abs=1e-4)
            own = labels[labels["head"] == head].sort_values("demonstration")
            assert at_labels[head].to_numpy() == pytest.approx(own["weight"].to_numpy(), abs=2e-6)
            assert list(own["text"]) == [text for text, _ in s.demonstrations]


def test_the_score_is_what_the_softmax_takes(explored):
    rows = explored[2]["labels"]
    rows = rows[rows["weight"] > 1e-3]  # a rounded logarithm of less is another
    rest = (np.log(rows["weight"]) - rows["score"]).groupby([rows[name] for name in (*KEY, "head")])
    assert (rest.max() - rest.min()).max() < 1e-2


@pytest.mark.parametrize("part", ["none", *explore.MOVED_WEIGHTS])
def test_weights_after_an_exchange_are_those_that_the_exchange_uses(explored, part):
    model, (s, _), _ = explored
    batch = pack([s], model.pad_id)
    intact = capture(model, batch, pattern=True, inputs=True)
    weights = explore.weights_after(model, s, batch, intact, (3, 1), part)
    values = prompt_values(model.arch, intact, batch, 3, [1])[:, :, 0]
    z = torch.einsum("ns,nse->ne", weights, values)
    assert torch.allclose(z, exchanged_z(model, s, batch, intact, [(3, 1)], part)[3, 1], atol=1e-5)
    assert torch.allclose(weights.sum(1), torch.ones(len(weights)), atol=1e-5)


def test_weights_after_an_exchange_stand_beside_the_intact_ones(explored):
    model, (s, _), tables = explored
    batch = pack([s], model.pad_id)
    intact = capture(model, batch, pattern=True, inputs=True)
    rows = tables["labels"].query("set == 0 and query == 1 and head == '2.0'").set_index("demonstration")
    for part, name in explore.MOVED_WEIGHTS.items():
        weights = explore.weights_after(model, s, batch, intact, (2, 0), part)[1]
        plain = [float(weights[position]) for position in s.prompts[1].label_positions]
        assert rows[name].to_numpy() == pytest.approx(plain, abs=2e-6)
        if part != "query-same":  # the query is the only one of its label: its own donor
            assert np.abs(rows[name] - rows["weight"]).max() > 1e-4


def test_margins_are_those_of_the_exchange(explored):
    model, sets, tables = explored
    groups = {explore.name_of(head): [head] for head in HEADS} | {"in-context heads": TOGETHER}
    wanted = tables["prompts"][KEY]
    for name, heads in groups.items():
        for part in PARTS[1:]:
            ours = tables["exchanged"].query(f"head == '{name}' and part == '{part}'")
            plain = twotowers.exchange(model, sets, heads, part).merge(wanted)
            assert ours["margin"].to_numpy() == pytest.approx(plain["margin"].to_numpy(), abs=1e-4)
    plain = twotowers.exchange(model, sets, [(0, 0)], "none").merge(wanted)
    ours = tables["exchanged"].query("head == 'intact'")
    assert ours["margin"].to_numpy() == pytest.approx(plain["margin"].to_numpy(), abs=1e-4)


def test_what_a_label_moves_and_says_is_what_edges_and_reading_have(explored):
    model, sets, tables = explored
    edges = label_edges(model, sets[0])
    read = read_heads(model, sets[:1], [(3, 1)])
    for query in (0, 1):
        own = tables["labels"].query(f"set == 0 and query == {query} and head == '3.1'")
        plain = edges.moved[3, :, 1].numpy()[(edges.frame["query"] == query).to_numpy()]
        assert own["moved"].to_numpy() == pytest.approx(plain, abs=2e-6)
        assert own["moved"].abs().max() > 0
        value = read.loc[read["query"] == query, "value"].to_numpy()
        assert own["value"].to_numpy() == pytest.approx(value, abs=2e-6)


def test_of_three_labels_each_prompt_is_moved_to_each_other_one(tiny_models):
    model, labels = tiny_models["llama-gqa"], ("foo", "bar", "fo")
    pairs = [(text, label) for text, label in zip(["dog", "cat", "two", "six", "ten", "one"], labels * 2, strict=True)]
    s = twotowers.prompt_set(model, pairs, pairs[::-1])
    tables = explore.explore(model, [s], HEADS, TOGETHER)
    entries = tables["prompts"][["label", "towards"]].itertuples(index=False, name=None)
    assert sorted(entries) == sorted((one, other) for one in labels for other in labels if one != other)
    by_label = {label: {text for text, own in s.queries if own == label} for label in labels}
    assert all(row.other in by_label[row.towards] for row in tables["prompts"].itertuples())
    for towards in labels:
        for part in ("none", "query-other", "keys"):
            plain = twotowers.exchange(model, s, TOGETHER, part, towards=towards).merge(tables["prompts"])
            name = "intact" if part == "none" else "in-context heads"
            ours = tables["exchanged"].query(f"head == '{name}' and part == '{part}' and towards == '{towards}'")
            own = plain[plain["towards"] == towards].sort_values("query")
            assert len(own) == 2
            assert ours.sort_values("query")["margin"].to_numpy() == pytest.approx(own["margin"].to_numpy(), abs=1e-4)
    following = dict(zip(s.labels, (*s.labels[1:], s.labels[0]), strict=True))
    edges = label_edges(model, s)
    frame = edges.frame.assign(plain=edges.moved[3, :, 1].numpy(), towards=edges.frame["gold"].map(following))
    both = tables["labels"].query("head == '3.1'").merge(frame[[*KEY, "towards", "demonstration", "plain"]])
    assert len(both) == 3 * len(pairs)
    assert both["moved"].to_numpy() == pytest.approx(both["plain"].to_numpy(), abs=2e-6)


def test_no_head_stands_twice_and_roles_are_what_they_say():
    ranking = [(3, 0), (2, 1), (2, 0), (3, 1), (2, 2)]
    chosen = explore.heads_to_explore([(3, 0)], ranking, [(2, 2), (2, 1)])
    assert chosen == {(3, 0): explore.IN_CONTEXT, (2, 2): explore.SHARPEST, (3, 1): explore.MIDDLE}
    assert explore.heads_to_explore([(0, 0)], [(0, 0)], [(0, 0)]) == {(0, 0): explore.IN_CONTEXT}
    assert explore.heads_to_explore([(1, 0)], [(1, 0), (1, 1)]) == {
        (1, 0): explore.IN_CONTEXT, (1, 1): explore.LOWEST
    }  # fmt: skip
    many = explore.heads_to_explore([(3, i) for i in range(9)], [])
    assert len(many) == explore.MOST
    # An in-context head that is not among those shown plays no other part.
    assert (3, 8) not in explore.heads_to_explore([(3, i) for i in range(9)], [(3, i) for i in range(9)], [(3, 8)])


def test_a_model_of_one_layer_and_head_can_be_explored(tiny_models):
    model = tiny_models["gpt2"]
    (s, _) = make_sets(model)
    tables = explore.explore(model, [s], {(0, 0): explore.IN_CONTEXT}, [(0, 0)])
    assert list(tables["roles"]["head"]) == ["0.0"]
    assert not any(table.isna().any(axis=None) for table in tables.values())

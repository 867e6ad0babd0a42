"""The exchange test's identities, donors and edges, and what it refuses; `test_family_exchange` has the rest."""

import numpy as np
import pytest
import torch

import twotowers
from conftest import make_sets, message
from twotowers.chapters.values.logit_minus import position_logit_minus
from twotowers.prompts.packing import pack
from twotowers.tracing.capture import capture
from twotowers.tracing.exchange import PARTS, exchanged_z, exchanges, label_pairs, query_donors
from twotowers.tracing.label_edges import label_edges
from twotowers.tracing.outcomes import outcomes
from twotowers.tracing.projection import values_of
from twotowers.tracing.rewriting import rewrite

COLUMNS = ["group", "set", "query", "label", "accuracy", "accuracy_two_way", "margin"]


def test_nothing_exchanged_is_the_intact_model(tiny, two_sets):
    every = [(layer, head) for layer in range(tiny.arch.n_layers) for head in range(tiny.arch.n_heads)]
    intact = outcomes(tiny, two_sets, [[]])
    for heads in (every, every[:1], []):
        ours = twotowers.exchange(tiny, two_sets, heads, "none")
        assert list(ours.columns) == COLUMNS
        assert ours["margin"].to_numpy() == pytest.approx(intact["margin"].to_numpy(), abs=1e-4)
    for part in PARTS[1:]:
        moved = abs(twotowers.exchange(tiny, two_sets, every, part)["margin"] - intact["margin"]).max()
        # Without rotation, keys and values that change places together are the same sum in another order.
        assert (moved < 1e-4) == (part == "keys-values" and tiny.config.model_type == "gpt2")


def test_parts_come_from_the_intact_run_whatever_lower_heads_do(tiny, two_sets):
    """Heads of two layers exchanged together are the rewriting of what each has alone."""
    s = two_sets[0]
    heads = [(1, 0), (3, 2)]
    batch = pack([s])
    intact = capture(tiny, batch, inputs=True)
    z = {h: exchanged_z(tiny, s, batch, intact, [h], "query-other")[h] for h in heads}
    ours = twotowers.exchange(tiny, s, heads, "query-other")
    labels = rewrite(tiny, batch, intact, [z]).labels
    gold = torch.tensor(s.gold)
    theirs = labels[torch.arange(len(gold)), gold] - labels[torch.arange(len(gold)), 1 - gold]
    assert ours["margin"].to_numpy() == pytest.approx(theirs.numpy(), abs=1e-5)


def test_choices_are_independent_of_each_other(tiny, two_sets):
    choices = [([(3, 1)], "values"), ([], "none"), ([(0, 2), (2, 0)], "query-other")]
    together = exchanges(tiny, two_sets, choices)
    for number, (heads, part) in enumerate(choices):
        alone = twotowers.exchange(tiny, two_sets, heads, part)
        mine = together[together["group"] == number]
        assert mine["margin"].to_numpy() == pytest.approx(alone["margin"].to_numpy(), abs=1e-4)


def test_a_server_gives_the_same(tiny_folders):
    for family in ("gpt2", "llama-gqa"):
        here, there = twotowers.load(tiny_folders[family]), twotowers.load(tiny_folders[family], remote="local")
        for part in ("query-other", "keys-values"):
            ours, theirs = (twotowers.exchange(m, make_sets(m)[0], [(1, 0), (3, 1)], part) for m in (here, there))
            assert ours["margin"].to_numpy() == pytest.approx(theirs["margin"].to_numpy(), abs=1e-4)


def test_donors_are_fixed(tiny_gpt2):
    queries = [("dog", "foo"), ("one", "bar"), ("cow", "foo"), ("ten", "bar"), ("cat", "foo")]
    s = twotowers.prompt_set(tiny_gpt2, [("horse", "foo"), ("six", "bar"), ("goat", "foo")], queries)
    assert query_donors(s, other=True).tolist() == [1, 0, 3, 2, 1]
    assert query_donors(s, other=False).tolist() == [2, 3, 4, 1, 0]
    assert label_pairs(s) == [(1, 0)]  # bar is the first label; the second foo stays


def test_refused_in_one_sentence(tiny_gpt2):
    s = make_sets(tiny_gpt2)[0]
    assert "no head (9, 0)" in message(twotowers.UserError, lambda: twotowers.exchange(tiny_gpt2, s, [(9, 0)], "keys"))
    assert "query-same" in message(twotowers.UserError, lambda: twotowers.exchange(tiny_gpt2, s, [(1, 0)], "query"))
    one = twotowers.prompt_set(tiny_gpt2, s.demonstrations, s.queries[:1])
    assert "both" in message(twotowers.UserError, lambda: twotowers.exchange(tiny_gpt2, one, [(1, 0)], "query-other"))


def test_an_edge_is_the_derivative_of_the_margin(tiny, two_sets):
    """What a label position moves, to first order, is what a small part of its contribution moves exactly."""
    s, step = two_sets[0], 1e-2
    batch = pack([s])
    intact = capture(tiny, batch, pattern=True, inputs=True)
    edges = label_edges(tiny, s)
    gold, prompts = torch.tensor(s.gold), torch.arange(len(s.gold))
    for layer, head in ((0, 1), (2, 3)):
        values = values_of(tiny.arch, intact, layer, [head])[:, :, 0]
        position = torch.tensor([p.label_positions[1] for p in s.prompts])
        part = intact.pattern[layer][prompts, head, position, None] * values[batch.row, batch.index[prompts, position]]
        z = intact.z[layer][:, head]
        labels = rewrite(
            tiny, batch, intact, [{(layer, head): z + step * part}, {(layer, head): z - step * part}]
        ).labels
        up, down = (x[prompts, gold] - x[prompts, 1 - gold] for x in labels.chunk(2))
        rows = (edges.frame["demonstration"] == 1).to_numpy().nonzero()[0]
        assert edges.moved[layer][rows, head] == pytest.approx(((up - down) / (2 * step)).numpy(), rel=2e-2, abs=1e-3)


def test_what_is_written_is_the_weighted_logit_minus_of_values(tiny, two_sets):
    table = position_logit_minus(tiny, two_sets, [(2, 1), (3, 0)])
    for number, edges in enumerate(label_edges(tiny, s, i) for i, s in enumerate(two_sets)):
        frame = edges.frame
        sign = np.where(frame["gold"] == two_sets[number].labels[1], 1, -1)
        for layer, head in ((2, 1), (3, 0)):
            ours = frame.assign(m=sign * edges.written[layer][:, head].numpy()).groupby(["query", "label"])["m"].sum()
            theirs = table[(table["set"] == number) & (table["layer"] == layer) & (table["head"] == head)]
            theirs = theirs[theirs["kind"] != "other"].set_index(["query", "kind"])["weighted"]
            assert ours.to_numpy() == pytest.approx(theirs.loc[list(ours.index)].to_numpy(), abs=1e-4)

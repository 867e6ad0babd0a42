"""The exchange test equals plain transformers with hooks and edited caches, and refuses what it cannot do."""

import numpy as np
import pytest
import torch
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

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
LAYER = 1


def margin(logits, s, query):
    gold = s.gold[query]
    return float(logits[s.label_ids[gold]] - logits[s.label_ids[1 - gold]])


def plain(model, s, query, hooks=(), cache=None):
    """Margin of one prompt by transformers alone; hooks are (module, function) pairs."""
    network, ids = model.arch.model, torch.tensor([s.prompts[query].ids])
    handles = [module.register_forward_hook(function) for module, function in hooks]
    try:
        with torch.no_grad():
            logits = network(ids if cache is None else ids[:, -1:], past_key_values=cache).logits[0, -1]
    finally:
        for handle in handles:
            handle.remove()
    return margin(logits, s, query)


def projection(model, which):
    """The module that gives queries (0), keys (1) or values (2) of the layer, and the slice of its output."""
    attention, size = model.arch.attention(LAYER), model.arch.n_heads * model.arch.d_head
    if model.config.model_type == "gpt2":
        return attention.c_attn, slice(which * size, (which + 1) * size)
    return (attention.q_proj, attention.k_proj, attention.v_proj)[which], slice(None)


def plain_query(model, s, query, head):
    """A head's query at the last position, as the projection gives it."""
    found, (module, part), size = [], projection(model, 0), model.arch.d_head
    plain(model, s, query, [(module, lambda _m, _i, out: found.append(out[0, -1, part].clone()))])
    return found[0][head * size : (head + 1) * size]


@pytest.mark.parametrize("part", ["query-other", "query-same"])
def test_exchanged_queries_are_those_of_a_plain_forward(tiny, two_sets, part):
    heads = [(LAYER, 0), (LAYER, 3)]
    ours = twotowers.exchange(tiny, two_sets, heads, part)
    module, own = projection(tiny, 0)
    for row in ours.itertuples():
        s, size = two_sets[row.set], tiny.arch.d_head
        donor = int(query_donors(s, other=part == "query-other")[row.query])
        new = {head: plain_query(tiny, s, donor, head) for _, head in heads}

        def put(_module, _inputs, output, new=new, size=size):
            for head, q in new.items():
                output[0, -1, own][head * size : (head + 1) * size] = q
            return output

        assert row.margin == pytest.approx(plain(tiny, s, row.query, [(module, put)]), abs=1e-4)


def edited_cache(model, s, query, part):
    """Keys and values of all but the last token, with those of label positions exchanged in the layer."""
    cache, ids = DynamicCache(), torch.tensor([s.prompts[query].ids[:-1]])
    module, own = projection(model, 1)
    found = []
    handle = module.register_forward_hook(lambda _m, _i, out: found.append(out[0, :, own].clone()))
    with torch.no_grad():
        model.arch.model(ids, past_key_values=cache)
    handle.remove()
    layer, places = cache.layers[LAYER], s.prompts[query].label_positions
    source = torch.arange(ids.shape[1])
    for a, b in label_pairs(s):
        source[places[a]], source[places[b]] = places[b], places[a]
    if part != "keys":
        layer.values = layer.values[:, :, source]
    if part != "values":
        keys = found[0].unflatten(-1, (-1, model.arch.d_head)).transpose(0, 1)[None][:, :, source]
        if model.config.model_type == "llama":
            cos, sin = model.arch.model.model.rotary_emb(keys, torch.arange(ids.shape[1])[None])
            keys = apply_rotary_pos_emb(keys, keys, cos, sin)[1]
        layer.keys = keys
    return cache


@pytest.mark.parametrize("part", ["keys", "values", "keys-values"])
def test_exchanged_keys_and_values_are_those_of_an_edited_cache(tiny, two_sets, part):
    every = [(LAYER, head) for head in range(tiny.arch.n_heads)]  # heads that share a key are edited together
    for row in twotowers.exchange(tiny, two_sets, every, part).itertuples():
        s = two_sets[row.set]
        theirs = plain(tiny, s, row.query, cache=edited_cache(tiny, s, row.query, part))
        assert row.margin == pytest.approx(theirs, abs=1e-4)


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
    (edges,) = label_edges(tiny, [s])
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
    for number, edges in enumerate(label_edges(tiny, two_sets)):
        frame = edges.frame
        sign = np.where(frame["gold"] == two_sets[number].labels[1], 1, -1)
        for layer, head in ((2, 1), (3, 0)):
            ours = frame.assign(m=sign * edges.written[layer][:, head].numpy()).groupby(["query", "label"])["m"].sum()
            theirs = table[(table["set"] == number) & (table["layer"] == layer) & (table["head"] == head)]
            theirs = theirs[theirs["kind"] != "other"].set_index(["query", "kind"])["weighted"]
            assert ours.to_numpy() == pytest.approx(theirs.loc[list(ours.index)].to_numpy(), abs=1e-4)

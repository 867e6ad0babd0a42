"""In every family the exchange test equals plain transformers with hooks and edited caches.

Queries are put in by a hook. Keys and values are exchanged in a cache: a forward whose projection is hooked gives them,
rotated by the model itself, and an intact one everything else.
"""

import pytest
import torch
from family_configs import CONFIGS, save
from transformers import DynamicCache

import twotowers
from conftest import make_sets
from twotowers.tracing.exchange import exchanges, label_pairs, query_donors

LAYER, HEADS = 1, (0, 3)
FUSED = {"gpt2": "c_attn", "phi3": "qkv_proj"} | dict.fromkeys(("gpt_neox", "bloom", "falcon"), "query_key_value")


@pytest.fixture(scope="module")
def models(tiny_models, tmp_path_factory):
    made = tmp_path_factory.mktemp("families")
    return {**tiny_models, **{name: twotowers.load(save(own, made / name)) for name, own in CONFIGS.items()}}


@pytest.fixture(params=["gpt2", "llama-mha", "llama-gqa", *CONFIGS])
def model(request, models):
    return models[request.param]


def columns(family, heads, groups, size):
    """For queries, keys and values, columns of each head in the output of one projection to all of them."""
    number = torch.arange((heads + 2 * groups) * size)
    if family in ("gpt2", "phi3"):
        return [part.unflatten(0, (-1, size)) for part in number.split([heads * size, groups * size, groups * size])]
    by_group = number.reshape(groups, heads // groups + 2, size)
    return [by_group[:, :-2].flatten(0, 1), by_group[:, -2], by_group[:, -1]]


def part_of(model, which):
    """The module that gives queries, keys or values (0, 1, 2) of the layer, and each head's columns of its output."""
    attention, family, arch = model.arch.attention(LAYER), model.config.model_type, model.arch
    heads = arch.n_heads if which == 0 else arch.n_kv_heads
    if family in FUSED:
        found = columns(family, arch.n_heads, arch.n_kv_heads, arch.d_head)[which]
        return getattr(attention, FUSED[family]), found
    if family == "olmo2" and which < 2:  # one norm of all heads, behind which they are exchanged
        module = (attention.q_norm, attention.k_norm)[which]
    else:
        module = (attention.q_proj, attention.k_proj, attention.v_proj)[which]
    return module, torch.arange(heads * arch.d_head).reshape(heads, -1)


def plain(model, ids, cache=None, hook=None):
    """Logits at the last position by transformers alone; the hook is of a module, on its output."""
    handle = hook and hook[0].register_forward_hook(hook[1])
    try:
        with torch.no_grad():
            return model.arch.model(torch.tensor([ids]), past_key_values=cache).logits[0, -1]
    finally:
        if handle:
            handle.remove()


def margin(s, query, logits):
    gold = s.gold[query]
    return float(logits[s.label_ids[gold]] - logits[s.label_ids[1 - gold]])


@pytest.mark.parametrize("part", ["query-other", "query-same"])
def test_queries(model, part):
    (module, own), sets = part_of(model, 0), make_sets(model)
    for row in twotowers.exchange(model, sets, [(LAYER, head) for head in HEADS], part).itertuples():
        s = sets[row.set]
        donor = int(query_donors(s, other=part == "query-other")[row.query])
        new = {}

        def take(_module, _inputs, output, new=new):
            new.update((head, output[0, -1, own[head]].clone()) for head in HEADS)

        def put(_module, _inputs, output, new=new):
            for head, query in new.items():
                output[0, -1, own[head]] = query
            return output

        plain(model, s.prompts[donor].ids, hook=(module, take))

        theirs = margin(s, row.query, plain(model, s.prompts[row.query].ids, hook=(module, put)))
        assert row.margin == pytest.approx(theirs, abs=1e-4)


def test_margins_alone_are_those_of_the_answers(model):
    """Where the unembedding has a bias, too."""
    sets, choices = make_sets(model), [([], "none"), ([(LAYER, 3)], "values"), ([(0, 2), (2, 0)], "query-other")]
    table = exchanges(model, sets, choices)
    assert "accuracy" not in table
    for number, (heads, part) in enumerate(choices):
        whole, own = twotowers.exchange(model, sets, heads, part), table[table["group"] == number]
        for column in ("set", "query", "accuracy_two_way", "margin"):
            assert own[column].to_numpy() == pytest.approx(whole[column].to_numpy(), abs=1e-4)


def exchanged_cache(model, prompt, pairs, part):
    """Keys and values of all but the last token, with those of the label positions exchanged in the layer."""
    ids, which = prompt.ids[:-1], {"keys": (1,), "values": (2,), "keys-values": (1, 2)}[part]
    source = torch.arange(len(ids))
    for a, b in pairs:
        first, second = prompt.label_positions[a], prompt.label_positions[b]
        source[first], source[second] = second, first
    intact = DynamicCache()
    plain(model, ids, intact)
    for number in which:
        module, own = part_of(model, number)
        every = own.flatten()

        def turn(_module, _inputs, output, every=every):
            output[..., every] = output[:, source][..., every]
            return output

        changed = DynamicCache()
        plain(model, ids, changed, (module, turn))
        name = "keys" if number == 1 else "values"
        setattr(intact.layers[LAYER], name, getattr(changed.layers[LAYER], name))
    return intact


@pytest.mark.parametrize("part", ["keys", "values", "keys-values"])
def test_keys_and_values(model, part):
    sets, every = make_sets(model), [(LAYER, head) for head in range(model.arch.n_heads)]
    intact = twotowers.exchange(model, sets, every, "none")
    ours = twotowers.exchange(model, sets, every, part)
    for row in ours.itertuples():
        s = sets[row.set]
        cache = exchanged_cache(model, s.prompts[row.query], label_pairs(s), part)
        theirs = margin(s, row.query, plain(model, s.prompts[row.query].ids[-1:], cache))
        assert row.margin == pytest.approx(theirs, abs=1e-4)
    if part != "keys-values":
        assert abs(ours["margin"] - intact["margin"]).max() > 1e-3

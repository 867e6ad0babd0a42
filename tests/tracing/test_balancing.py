"""Count-balanced attention: nothing changes with equal counts, and it is what plain torch makes of the weights."""

import pytest
import torch

import twotowers
from conftest import DEMONSTRATIONS, QUERIES
from twotowers.tracing.balancing import balanced
from twotowers.tracing.outcomes import outcomes

LAYER = 2


def test_equal_counts_change_nothing_and_others_do(tiny):
    every = [(layer, head) for layer in range(tiny.arch.n_layers) for head in range(tiny.arch.n_heads)]
    equal = twotowers.prompt_set(tiny, DEMONSTRATIONS[:4], QUERIES)
    ours, intact = twotowers.balance_attention(tiny, equal, every), outcomes(tiny, equal, [[]])
    assert ours["margin"].to_numpy() == pytest.approx(intact["margin"].to_numpy(), abs=1e-4)
    uneven = twotowers.prompt_set(tiny, [*DEMONSTRATIONS[:2], *DEMONSTRATIONS[3:4], ("cow", "foo")], QUERIES)
    ours, intact = twotowers.balance_attention(tiny, uneven, every), outcomes(tiny, uneven, [[]])
    assert abs(ours["margin"] - intact["margin"]).max() > 1e-3
    none = twotowers.balance_attention(tiny, uneven, [])
    assert none["margin"].to_numpy() == pytest.approx(intact["margin"].to_numpy(), abs=1e-4)


def test_it_is_what_plain_torch_makes_of_the_weights(tiny):
    """One prompt, three foo and one bar, two heads of one layer, one forward of transformers with a hook."""
    pairs = [("cat", "foo"), ("seven", "bar"), ("elephant", "foo"), ("cow", "foo")]
    s, heads = twotowers.prompt_set(tiny, pairs, [("dog", "foo")]), (0, 3)
    network, prompt, arch = tiny.arch.model, s.prompts[0], tiny.arch
    ids, places = torch.tensor([prompt.ids]), list(prompt.label_positions)
    with torch.no_grad():
        out = network(ids, output_attentions=True, output_hidden_states=True)
    entering = arch.norm_in(LAYER, out.hidden_states[LAYER][0])
    weight, bias = arch.w_v(LAYER)
    added = torch.zeros(arch.d_model)
    for head in heads:
        w = out.attentions[LAYER][0, head, -1, places]
        fair = w / torch.tensor([3.0, 1.0, 3.0, 3.0])
        fair = fair * w.sum() / fair.sum()
        assert float(fair[1]) > float(w[1])
        values = entering[places] @ weight[head] + bias[head]
        added += (fair - w) @ values @ arch.w_o(LAYER)[head]

    def add(_module, _inputs, output):
        output[0][0, -1] += added
        return output

    handle = arch.attention(LAYER).register_forward_hook(add)
    with torch.no_grad():
        logits = network(ids).logits[0, -1]
    handle.remove()
    first, second = s.label_ids
    ours = twotowers.balance_attention(tiny, s, [(LAYER, head) for head in heads])
    assert ours["margin"].item() == pytest.approx(float(logits[second] - logits[first]), abs=1e-4)


def test_groups_are_independent_and_a_server_gives_the_same(tiny_folders):
    pairs = [("cat", "foo"), ("seven", "bar"), ("elephant", "foo")]
    groups = [[(1, 0), (3, 1)], [], [(3, 1)]]
    for family in ("gpt2", "llama-gqa"):
        here, there = (twotowers.load(tiny_folders[family], remote=remote) for remote in (False, "local"))
        s = twotowers.prompt_set(here, pairs, QUERIES)
        ours, theirs = (balanced(model, [s], groups) for model in (here, there))
        assert ours["margin"].to_numpy() == pytest.approx(theirs["margin"].to_numpy(), abs=1e-4)
        alone = twotowers.balance_attention(here, s, groups[0])
        assert ours[ours["group"] == 0]["margin"].to_numpy() == pytest.approx(alone["margin"].to_numpy(), abs=1e-4)

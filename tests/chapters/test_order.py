"""Order: the position term is really taken out, and effects have the sign of the truth that was planted."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import twotowers
from conftest import DEMONSTRATIONS, QUERIES, make_sets
from twotowers.chapters.order import page as figures_order
from twotowers.chapters.order.effects import by_distance
from twotowers.chapters.order.order import in_orders, order, recency, study_orders
from twotowers.errors import PromptError
from twotowers.prompts.packing import pack
from twotowers.prompts.tasks import load_task
from twotowers.prompts.variants import reorder, rotations
from twotowers.study import Study, find_scale
from twotowers.tracing.capture import answers, batches, capture
from twotowers.tracing.outcomes import outcomes
from twotowers.tracing.position_free import without_position, without_position_in


def close(a, b, tolerance=1e-4):
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= tolerance * float(b.abs().max())


def some_heads(model):
    """Heads of three layers, not in order, two of them in one layer."""
    return [(3, 1), (1, 2), (1, 0), (2, 3)]


# --- the intervention ---------------------------------------------------------------------------------------------


def test_strength_zero_changes_nothing(tiny, two_sets):
    batch = pack(two_sets)
    after, attention = without_position(tiny, batch, some_heads(tiny), 0.0)
    intact = capture(tiny, batch, pattern=True)
    close(after.labels, intact.answers.labels)
    close(after.best, intact.answers.best)
    close(attention, torch.stack([intact.pattern[layer, :, head] for layer, head in some_heads(tiny)], dim=1))


def test_no_heads_change_nothing(tiny, two_sets):
    after, attention = without_position(tiny, pack(two_sets), [])
    close(after.labels, answers(tiny, pack(two_sets)).labels)
    assert attention.shape[:2] == (6, 0)


def test_a_capture_may_be_given_and_is_left_as_it_was(tiny, two_sets):
    batch, heads = pack(two_sets), some_heads(tiny)
    intact = capture(tiny, batch, inputs=True)
    lengths = [layer.get_seq_length() for layer in intact.cache.layers]
    alone, attention = without_position(tiny, batch, heads, 0.7)
    for _ in range(2):
        given, same = without_position(tiny, batch, heads, 0.7, intact)
        close(given.labels, alone.labels)
        close(same, attention)
    assert [layer.get_seq_length() for layer in intact.cache.layers] == lengths
    assert (alone.labels - answers(tiny, batch).labels).abs().max() > 1e-3


def test_rows_with_different_numbers_of_prompts_are_refused_and_never_batched(tiny, two_sets):
    sets = [two_sets[0], replace(two_sets[1], queries=two_sets[1].queries[:2], prompts=two_sets[1].prompts[:2])]
    with pytest.raises(ValueError, match="as many prompts"):
        without_position(tiny, pack(sets), some_heads(tiny))
    assert [len(batch.input_ids) for batch in batches(tiny, sets)] == [1, 1]


@pytest.fixture
def positionless(tiny):
    """The same model with its position term switched off everywhere: no rotation, no position embedding."""
    network = tiny.arch.model
    stored = network.model.rotary_emb.inv_freq if tiny.arch.family.rotary else network.transformer.wpe.weight.data
    kept = stored.clone()
    stored.zero_()
    yield tiny
    stored.copy_(kept)


def test_a_model_without_position_is_reproduced_exactly(positionless, two_sets):
    """With no position term to remove, attention and z computed by hand must be the model's own."""
    batch = pack(two_sets)
    intact = capture(positionless, batch, pattern=True)
    for given in (None, capture(positionless, batch, inputs=True)):
        after, attention = without_position(positionless, batch, some_heads(positionless), 1.0, given)
        close(after.labels, intact.answers.labels)
        close(after.log_norm, intact.answers.log_norm)
        expected = [intact.pattern[layer, :, head] for layer, head in some_heads(positionless)]
        close(attention, torch.stack(expected, dim=1))


def flat_attention(model, batch, captured, layer, head, n):
    """Softmax of q.k by hand, one prompt and head: no rotation, or no position embedding under the norm."""
    own = captured.inputs[layer][batch.row[n], batch.index[n][batch.index[n] >= 0]]
    if model.arch.family.rotary is None:
        own = own - model.arch.model.transformer.wpe.weight[: len(own)].detach()
    own = model.arch.norm_in(layer, own)
    (w_q, b_q), (w_k, b_k) = model.arch.w_q(layer), model.arch.w_k(layer)
    q, k = own[-1] @ w_q[head] + b_q[head], own @ w_k[head] + b_k[head]
    return (k @ q / math.sqrt(model.arch.d_head)).softmax(0)


def test_removing_position_equals_the_hand_computed_query_times_key(tiny, two_sets):
    """In one head of one layer, so that nothing below has changed: attention, z, and what the model then answers."""
    batch, (layer, head), strength = pack(two_sets), (3, 1), 0.6
    captured = capture(tiny, batch, pattern=True, inputs=True)
    after, attention = without_position(tiny, batch, [(layer, head)], strength)
    w_v, b_v = (x[head] for x in tiny.arch.w_v(layer))
    entering, z = tiny.arch.norm_in(layer, captured.inputs[layer]), []
    for n in range(len(batch.row)):
        index = batch.index[n][batch.index[n] >= 0]
        flat = flat_attention(tiny, batch, captured, layer, head, n)
        own = captured.pattern[layer, n, head, : len(index)]
        assert (flat - own).abs().max() > 1e-3  # position did something
        close(attention[n, 0, : len(index)], (1 - strength) * own + strength * flat)
        assert not attention[n, 0, len(index) :].any()
        z.append(attention[n, 0, : len(index)] @ (entering[batch.row[n], index] @ w_v + b_v))
    change = (torch.stack(z) - captured.z[layer, :, head]) @ tiny.arch.w_o(layer)[head]
    middle = captured.resid_pre[layer] + captured.attn_out[layer] + change
    gpt2 = tiny.arch.family.norm == "layer"
    block = tiny.arch.model.transformer.h[layer] if gpt2 else tiny.arch.model.model.layers[layer]
    norm = block.ln_2 if gpt2 else block.post_attention_layernorm
    final_norm = tiny.arch.model.transformer.ln_f if gpt2 else tiny.arch.model.model.norm
    with torch.no_grad():
        logits = tiny.arch.model.lm_head(final_norm(middle + block.mlp(norm(middle))))
    close(after.labels, logits.gather(1, batch.label_ids))


def test_groups_in_one_forward_are_those_of_one_at_a_time(tiny, two_sets):
    """Heads of one layer: exactly; a model without heads to change is the intact one."""
    groups = [[(3, 1), (3, 2)], [], [(1, 0)]]
    for s in two_sets:
        batch = pack([s])
        intact = capture(tiny, batch, inputs=True)
        found = without_position_in(tiny, batch, intact, groups)
        for heads, ours in zip(groups, found, strict=True):
            expected, _ = without_position(tiny, batch, heads)
            close(ours.labels, expected.labels)
            close(ours.log_norm, expected.log_norm)


def test_removing_position_on_the_real_model_equals_the_hand_computation(real):
    batch, layer, head = pack(make_sets(real)[:1]), 17, 8
    captured = capture(real, batch, pattern=True, inputs=True)
    _, attention = without_position(real, batch, [(layer, head)], 1.0, captured)
    for n in range(len(batch.row)):
        flat = flat_attention(real, batch, captured, layer, head, n)
        close(attention[n, 0, : len(flat)], flat, 1e-3)


# --- orders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "number"), [(16, 8), (16, 32), (16, 4), (4, 8), (6, 6)])
def test_every_demonstration_stands_equally_often_in_each_stretch_of_places(n, number):
    orders = rotations(n, number)
    assert len(set(orders)) == len(orders) == min(number, 2 * n)
    assert orders[0] == tuple(range(n))
    assert all(sorted(way) == list(range(n)) for way in orders)
    width = max(1, n // len(orders)) if n >= len(orders) else 1
    counts = np.zeros((n, n // width))
    for way in orders:
        for place, demonstration in enumerate(way):
            counts[demonstration, place // width] += 1
    assert (counts == counts[0, 0]).all()


def test_two_demonstrations_have_two_orders():
    assert rotations(2, 8) == [(0, 1), (1, 0)]


def test_a_full_rotation_and_two_reversals_are_the_original(tiny):
    s = twotowers.prompt_set(tiny, DEMONSTRATIONS, QUERIES)
    turned = s
    for _ in range(5):
        turned = reorder(tiny, turned, (1, 2, 3, 4, 0), "lines")
        assert (turned == s) == (turned.demonstrations == s.demonstrations)
    assert turned == s
    back = (4, 3, 2, 1, 0)
    assert reorder(tiny, s, back, "lines") != s
    assert reorder(tiny, reorder(tiny, s, back, "lines"), back, "lines") == s


def test_an_order_that_is_no_permutation_is_refused(tiny_gpt2):
    s = make_sets(tiny_gpt2)[0]
    for wrong in ((0, 1, 2), (0, 0, 1, 2, 3), (1, 2, 3, 4, 5)):
        with pytest.raises(PromptError, match="names each of 0 to 4 once"):
            reorder(tiny_gpt2, s, wrong)


def test_recency_is_counted_in_demonstrations():
    labels = ("bar", "bar", "foo", "foo")
    assert recency(labels, "foo") == 2
    assert recency(labels, "bar") == recency(labels[::-1], "foo") == -2
    assert recency(("foo", "bar", "bar", "foo"), "foo") == 0
    assert recency(("foo", "foo"), "foo") == 0


def test_the_first_order_is_the_set_as_given(tiny):
    """Answers equal the knock-out room's, attention the capture's, in sets of different lengths and in batches."""
    demonstrations = [*DEMONSTRATIONS[1:], ("grandmother", "foo")]
    sets = [twotowers.prompt_set(tiny, d, QUERIES) for d in (DEMONSTRATIONS, demonstrations, DEMONSTRATIONS[::-1])]
    table = in_orders(tiny, sets, {"one": [(2, 1)]}, [tuple(range(5)), (1, 0, 2, 3, 4)], template="lines").prompts
    first, other = (table[table["order"] == i].reset_index() for i in (0, 1))
    expected = outcomes(tiny, sets, [[]])
    for column in ("set", "query", "label", "accuracy", "accuracy_two_way"):
        assert (first[column] == expected[column]).all()
    assert np.allclose(first["margin"], expected["margin"], atol=1e-3)
    assert not np.allclose(first["margin"], other["margin"], atol=1e-3)
    pattern = capture(tiny, pack(sets), pattern=True).pattern[2, :, 1]
    for n, s in enumerate(each for each in sets for _ in each.queries):
        for label in ("foo", "bar"):
            at = [
                p
                for p, (_, shown) in zip(s.prompts[0].label_positions, s.demonstrations, strict=True)
                if shown == label
            ]
            assert first[f"attention_{label}"][n] == pytest.approx(float(pattern[n, at].sum()), abs=1e-5)


def test_the_public_function_takes_one_set_and_finds_its_own_orders(tiny_gpt2):
    table = order(tiny_gpt2, make_sets(tiny_gpt2)[0], [(3, 0)])
    assert table["order"].nunique() == 8
    assert table.groupby("order")["query"].nunique().eq(3).all()
    assert table["p_foo"].between(0, 1).all()


def test_without_position_attention_in_layer_zero_depends_on_content_only(tiny):
    """Labels of layer 0 are equal tokens at different places, so a head without position attends to all alike."""
    sets = [twotowers.prompt_set(tiny, DEMONSTRATIONS, QUERIES)]
    heads = {"in-context": [(0, 0), (0, 3)]}
    ordered = in_orders(tiny, sets, heads, rotations(5, 4), strengths=(0.0, 0.5, 1.0), template="lines")
    within = ordered.attention.groupby(["strength", "order", "query", "same"])["attention"].std(ddof=0)
    within = within.groupby("strength").mean()
    assert within[1.0] < 1e-6 < 1e-4 < within[0.0]


# --- the smallest run ---------------------------------------------------------------------------------------------


def test_eight_orders_are_all_that_four_demonstrations_have(tiny_gpt2):
    assert len(study_orders(Study(tiny_gpt2, load_task("words"), find_scale("smoke"), seed=0))) == 8


def test_a_control_group_without_heads_is_left_out(tiny_gpt2):
    sets = make_sets(tiny_gpt2)[:1]
    ordered = in_orders(tiny_gpt2, sets, {"in-context": [(3, 0)], "random": []}, [tuple(range(5))], template="lines")
    assert set(ordered.prompts["heads"]) == {"in-context"}
    assert len(figures_order.attention_figure(by_distance(ordered.attention)).axes) == 1

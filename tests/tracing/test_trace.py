"""What a trace returns adds up, for every family, and agrees with a plain forward of transformers."""

import pytest
import torch

from twotowers.errors import ModelError
from twotowers.models.architecture import submodule
from twotowers.prompts.packing import pack
from twotowers.prompts.variants import prompt_set_of
from twotowers.tracing.ablation import ablate
from twotowers.tracing.capture import answers, batches, capture, require_weights
from twotowers.tracing.cutting import cut


def close(a, b, tolerance=1e-4):
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= tolerance * float(b.abs().max())


def plain_logits(model, prompt):
    """One prompt, one forward of transformers: no packing, no mask of ours, no trace."""
    with torch.no_grad():
        return model.arch.model(torch.tensor([prompt.ids])).logits[0]


def all_prompts(sets):
    return [prompt for s in sets for prompt in s.prompts]


def test_heads_and_bias_add_up_to_the_attention_output(tiny, two_sets):
    captured = capture(tiny, pack(two_sets))
    for layer, z in enumerate(captured.z):
        heads = torch.einsum("nhe,hed->nd", z, tiny.arch.w_o(layer))
        close(heads + tiny.arch.b_o(layer), captured.attn_out[layer])


def test_parts_add_up_to_the_final_residual(tiny, two_sets):
    captured = capture(tiny, pack(two_sets))
    for layer in range(tiny.arch.n_layers):
        parts = captured.resid_pre[layer] + captured.attn_out[layer] + captured.mlp_out[layer]
        close(parts, captured.resid_pre[layer + 1])


def test_logits_are_those_of_transformers_one_prompt_at_a_time(tiny, two_sets):
    captured = capture(tiny, pack(two_sets), logits=True)
    plain = torch.stack([plain_logits(tiny, prompt)[-1] for prompt in all_prompts(two_sets)])
    close(captured.logits, plain)


def test_residuals_are_the_hidden_states_of_transformers(tiny, two_sets):
    captured = capture(tiny, pack(two_sets))
    for n, prompt in enumerate(all_prompts(two_sets)):
        with torch.no_grad():
            states = tiny.arch.model(torch.tensor([prompt.ids]), output_hidden_states=True).hidden_states
        for layer in range(tiny.arch.n_layers):  # the last hidden state of transformers is after the norm
            close(captured.resid_pre[layer, n], states[layer][0, -1])


def test_patterns_are_the_attentions_of_transformers(tiny, two_sets):
    captured = capture(tiny, pack(two_sets), pattern=True)
    for n, prompt in enumerate(all_prompts(two_sets)):
        with torch.no_grad():
            attentions = tiny.arch.model(torch.tensor([prompt.ids]), output_attentions=True).attentions
        for layer, attention in enumerate(attentions):
            close(captured.pattern[layer, n, :, : len(prompt.ids)], attention[0, :, -1])
            assert not captured.pattern[layer, n, :, len(prompt.ids) :].any()


def test_attention_rows_sum_to_one(tiny, two_sets):
    captured = capture(tiny, pack(two_sets), pattern=True)
    close(captured.pattern.sum(-1), torch.ones(captured.pattern.shape[:-1]))


def test_attention_is_causal(tiny, two_sets):
    """Residuals at the demonstrations are the same whatever query follows, and change with what precedes."""
    s = two_sets[0]
    first, second = (capture(tiny, pack([prompt_set_of(s, i)]), inputs=True).inputs for i in (0, 1))
    close(first[:, 0, : s.shared], second[:, 0, : s.shared])
    other = two_sets[1]
    third = capture(tiny, pack([other]), inputs=True).inputs
    assert (first[-1, 0, 5] - third[-1, 0, 5]).abs().max() > 1e-3


def test_packed_equals_one_prompt_at_a_time(tiny, two_sets):
    packed = capture(tiny, pack(two_sets), pattern=True)
    alone = [capture(tiny, pack([prompt_set_of(s, i)]), pattern=True) for s in two_sets for i in range(3)]
    for name in ("resid_pre", "attn_out", "mlp_out", "z"):
        close(getattr(packed, name), torch.cat([getattr(one, name) for one in alone], dim=1))
    for n, one in enumerate(alone):
        length = one.pattern.shape[-1]
        close(packed.pattern[:, n, :, :length], one.pattern[:, 0])


def test_batch_order_and_padding_change_nothing(tiny, two_sets):
    together = answers(tiny, pack(two_sets)).labels
    swapped = answers(tiny, pack(two_sets[::-1], pad_id=7)).labels
    apart = torch.cat([answers(tiny, pack([s])).labels for s in two_sets])
    close(swapped[[3, 4, 5, 0, 1, 2]], together)
    close(apart, together)


def test_batches_keep_order_and_budget(tiny, two_sets):
    groups = list(batches(tiny, two_sets * 3, budget=2 * max(s.packed_length for s in two_sets)))
    assert [len(batch.input_ids) for batch in groups] == [2, 2, 2]
    assert len(list(batches(tiny, two_sets, budget=1))) == 2


def test_answers_are_read_from_the_logits(tiny, two_sets):
    captured = capture(tiny, pack(two_sets), logits=True)
    batch = pack(two_sets)
    cheap = answers(tiny, batch)
    close(cheap.labels, captured.logits.gather(1, batch.label_ids))
    close(cheap.log_norm, captured.logits.logsumexp(-1))
    assert (cheap.best == captured.logits.argmax(-1)).all()


def test_removing_heads_changes_the_answers_and_removing_none_does_not(tiny, two_sets):
    batch = pack(two_sets[:1])
    intact = answers(tiny, batch).labels
    none = torch.zeros(1, tiny.arch.n_layers, tiny.arch.n_heads, dtype=torch.bool)
    close(ablate(tiny, batch, none).labels, intact)
    for layer in range(tiny.arch.n_layers):
        one = none.clone()
        one[0, layer, 2] = True
        assert (ablate(tiny, batch, one).labels - intact).abs().max() > 1e-3


def test_a_start_above_a_removed_head_is_refused(tiny, two_sets):
    zero = torch.ones(1, tiny.arch.n_layers, tiny.arch.n_heads, dtype=torch.bool)
    with pytest.raises(ValueError, match="below the starting layer"):
        ablate(tiny, pack(two_sets[:1]), zero, torch.zeros(1, 1), start=1)


def test_attention_without_weights_is_refused():
    """As a server's may be, whose attention is not ours to choose."""
    with pytest.raises(ModelError, match="returns no weights"):
        require_weights([torch.zeros(1), None])


def test_query_and_key_give_the_attention_of_transformers(tiny, two_sets):
    """softmax of scaled, rotated q.k over a prompt's own tokens is the pattern: W_Q, W_K, bias, rotation, sharing."""
    batch = pack(two_sets)
    captured = capture(tiny, batch, pattern=True, inputs=True)
    for layer in range(tiny.arch.n_layers):
        entering = tiny.arch.norm_in(layer, captured.inputs[layer])
        (w_q, b_q), (w_k, b_k) = tiny.arch.w_q(layer), tiny.arch.w_k(layer)
        for n, prompt in enumerate(all_prompts(two_sets)):
            own = entering[batch.row[n], batch.index[n, : len(prompt.ids)]]
            positions = torch.arange(len(prompt.ids)).expand(tiny.arch.n_heads, -1)
            q = tiny.arch.rotate(layer, torch.einsum("sd,hde->hse", own, w_q) + b_q[:, None], positions)[:, -1]
            k = tiny.arch.rotate(layer, torch.einsum("sd,hde->hse", own, w_k) + b_k[:, None], positions)
            scores = torch.einsum("he,hse->hs", q, k) * tiny.arch.score_scale(layer)
            close(scores.softmax(-1), captured.pattern[layer, n, :, : len(prompt.ids)])


def test_cutting_no_edge_changes_nothing(tiny, two_sets):
    batch = pack(two_sets)
    none = torch.zeros_like(batch.allowed)
    close(cut(tiny, batch, none, range(0, 4)).labels, answers(tiny, batch).labels)


def test_cutting_all_edges_to_a_position_deletes_it_from_the_pattern(tiny, two_sets):
    """In the last layer, cutting last -> p leaves the other weights renormalised: checked against captured parts."""
    batch = pack(two_sets[:1])
    layer = tiny.arch.n_layers - 1
    captured = capture(tiny, batch, pattern=True, inputs=True)
    edges = torch.zeros_like(batch.allowed)
    edges[batch.row, batch.last, 3] = True
    entering = tiny.arch.norm_in(layer, captured.inputs[layer])
    w_v, b_v = tiny.arch.w_v(layer)
    value = torch.einsum("nsd,hde->nhse", entering[batch.row[:, None], batch.index.clamp(min=0)], w_v) + b_v[:, None]
    pattern = captured.pattern[layer].clone()
    pattern[:, :, 3] = 0
    z = torch.einsum("nhs,nhse->nhe", pattern / pattern.sum(-1, keepdim=True), value)
    written = torch.einsum("nhe,hed->nd", z, tiny.arch.w_o(layer)) + tiny.arch.b_o(layer)
    block = (
        tiny.arch.model.transformer.h[layer]
        if tiny.arch.family.norm == "layer"
        else tiny.arch.model.model.layers[layer]
    )
    norm_2 = block.ln_2 if tiny.arch.family.norm == "layer" else block.post_attention_layernorm
    with torch.no_grad():
        middle = captured.resid_pre[layer] + written
        final = middle + block.mlp(norm_2(middle))
        logits = tiny.arch.model.lm_head(submodule(tiny.arch.model, tiny.arch.family.final_norm)(final))
    close(cut(tiny, batch, edges, range(layer, layer + 1)).labels, logits.gather(1, batch.label_ids))


@pytest.mark.parametrize("only_last", [True, False])
def test_cutting_in_what_was_captured_equals_running_everything(tiny, two_sets, only_last):
    """Edges of last positions change no other position, so only these are run again; the answers are the same."""
    batch = pack(two_sets)
    edges = torch.rand(batch.allowed.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    if only_last:
        kept = torch.zeros_like(edges)
        kept[batch.row, batch.last] = edges[batch.row, batch.last]
        edges = kept
    intact = capture(tiny, batch, inputs=True)
    for layers in (range(2, 4), range(0, 1), range(1, 2)):
        everything = cut(tiny, batch, edges, layers)
        restricted = cut(tiny, batch, edges, layers, intact)
        for name in ("labels", "log_norm"):
            close(getattr(restricted, name), getattr(everything, name))
        assert torch.equal(restricted.best, everything.best)
        assert (everything.labels - intact.answers.labels).abs().max() > 1e-3


def test_the_last_positions_behind_what_is_remembered_answer_as_before(tiny, two_sets):
    batch = pack(two_sets)
    intact = capture(tiny, batch, inputs=True)
    none = torch.zeros_like(batch.allowed)
    close(cut(tiny, batch, none, range(0, 4), intact).labels, intact.answers.labels)

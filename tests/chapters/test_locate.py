"""The log-probability increase equals a plain-torch reference, written here from the formulas alone."""

import pandas as pd
import pytest
import torch

import twotowers
from conftest import DEMONSTRATIONS, QUERIES, make_sets
from twotowers.prompts.packing import pack
from twotowers.tracing.capture import capture
from twotowers.tracing.projection import increases, log_probabilities, log_probability, project


def reference(model, s):
    """Per prompt: increases of attention, MLP and heads, from hooks on the plain model, one prompt at a time."""
    network, arch = model.arch.model, model.arch
    gpt2 = arch.family.norm == "layer"
    blocks = network.transformer.h if gpt2 else network.model.layers
    norm = network.transformer.ln_f if gpt2 else network.model.norm
    rows = []
    for prompt, gold in zip(s.prompts, s.gold, strict=True):
        seen = {}

        def keep(name, seen=seen):
            return lambda module, args, kwargs, out: seen.__setitem__(name, (args, kwargs, out))

        hooks = []
        for i, block in enumerate(blocks):
            attention = block.attn if gpt2 else block.self_attn
            out_proj = attention.c_proj if gpt2 else attention.o_proj
            for name, module in (
                (("block", i), block),
                (("attn", i), attention),
                (("o", i), out_proj),
                (("mlp", i), block.mlp),
            ):
                hooks.append(module.register_forward_hook(keep(name), with_kwargs=True))
        hooks.append(norm.register_forward_hook(keep("norm"), with_kwargs=True))
        with torch.no_grad():
            network(torch.tensor([prompt.ids]))
        for hook in hooks:
            hook.remove()
        final = seen["norm"][0][0][0, -1]
        token = s.label_ids[gold]

        def logp(v, final=final, token=token):
            """Of each row, all at once: the vocabulary of a real model is large."""
            if gpt2:
                variance = ((final - final.mean()) ** 2).mean()
                shaped = (v - v.mean(-1, keepdim=True)) / torch.sqrt(variance + norm.eps) * norm.weight
            else:
                shaped = v / torch.sqrt((final**2).mean() + norm.variance_epsilon) * norm.weight
            return torch.log_softmax(shaped @ network.lm_head.weight.T, dim=-1)[:, token].tolist()

        with torch.no_grad():
            for i in range(arch.n_layers):
                entering = seen["block", i][0][0][0, -1]
                attn, mlp = seen["attn", i][2][0][0, -1], seen["mlp", i][2][0, -1]
                z = seen["o", i][0][0][0, -1]
                weight = blocks[i].attn.c_proj.weight if gpt2 else blocks[i].self_attn.o_proj.weight.T
                parts = [slice(h * arch.d_head, (h + 1) * arch.d_head) for h in range(arch.n_heads)]
                added = [entering + z[here] @ weight[here] for here in parts]
                before, between, after, *heads = logp(
                    torch.stack([entering, entering + attn, entering + attn + mlp, *added])
                )
                rows.append((between - before, after - between, [head - before for head in heads]))
    return rows


def test_increases_equal_the_reference(tiny, two_sets):
    for s in two_sets:
        located = twotowers.locate(tiny, s)
        rows = iter(reference(tiny, s))
        for n in range(len(s.prompts)):
            for layer in range(tiny.arch.n_layers):
                attention, mlp, heads = next(rows)
                ours = located.layer_increase[layer, :, n]
                torch.testing.assert_close(ours, torch.tensor([attention, mlp]), rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(
                    located.head_increase[layer, :, n], torch.tensor(heads), rtol=1e-4, atol=1e-4
                )


def test_increases_equal_the_reference_on_the_real_model(real):
    s = twotowers.prompt_set(real, DEMONSTRATIONS, QUERIES[:2])
    located, rows = twotowers.locate(real, s), reference(real, s)
    for i, (attention, mlp, heads) in enumerate(rows):
        prompt, layer = divmod(i, real.arch.n_layers)
        expected = torch.tensor([attention, mlp, *heads])
        ours = torch.cat([located.layer_increase[layer, :, prompt], located.head_increase[layer, :, prompt]])
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=2e-4)


def test_projected_parts_add_up_to_the_logits(tiny, two_sets):
    captured = capture(tiny, pack(two_sets), logits=True)
    final = captured.resid_pre[-1]
    total = project(tiny.arch, captured.resid_pre[0], final) + tiny.arch.logit_bias()
    for layer in range(tiny.arch.n_layers):
        for z, w_o in zip(captured.z[layer].unbind(1), tiny.arch.w_o(layer), strict=True):
            total = total + project(tiny.arch, z @ w_o, final)
        total = total + project(tiny.arch, tiny.arch.b_o(layer).expand_as(final), final)
        total = total + project(tiny.arch, captured.mlp_out[layer], final)
    torch.testing.assert_close(total, captured.logits, rtol=1e-4, atol=1e-4 * float(captured.logits.abs().max()))


@pytest.mark.parametrize("part", [33, 4096])
def test_the_vocabulary_in_parts_and_both_orders_of_multiplying_equal_the_whole(tiny, monkeypatch, part):
    """Few prompts take one order, many the other; the logits of each head, held whole, say what is right."""
    monkeypatch.setattr("twotowers.tracing.projection.PART", part)
    arch, n_layers = tiny.arch, tiny.arch.n_layers
    z = torch.randn(n_layers, 200, arch.n_heads, arch.d_head)
    resid, attn_out = torch.randn(n_layers + 1, 200, arch.d_model), torch.randn(n_layers, 200, arch.d_model)
    for n in (2, 200):
        token, final = torch.arange(n), resid[-1, :n]
        expected: tuple[list[torch.Tensor], ...] = ([], [], [])
        with torch.no_grad():
            ours = log_probabilities(arch, resid[:, :n], attn_out[:, :n], z[:, :n], token)
        for layer, base in enumerate(resid[:, :n]):
            expected[0].append(log_probability(project(arch, base, final), token))
            if layer < n_layers:
                expected[1].append(log_probability(project(arch, base + attn_out[layer, :n], final), token))
                parts = [base + z[layer, :n, h] @ w_o for h, w_o in enumerate(arch.w_o(layer))]
                expected[2].append(torch.stack([log_probability(project(arch, x, final), token) for x in parts]))
        for mine, plain in zip(ours, expected, strict=True):
            torch.testing.assert_close(mine, torch.stack(plain), rtol=1e-4, atol=1e-4)


def test_the_softmax_is_over_the_whole_vocabulary():
    logits = torch.tensor([[0.0, 1.0, 2.0, 5.0]])
    expected = torch.log(torch.exp(torch.tensor(1.0)) / torch.exp(logits).sum())
    torch.testing.assert_close(log_probability(logits, torch.tensor([1]))[0], expected)


def test_a_planted_head_is_located(tiny_gpt2):
    """A head whose output is the label's own unembedding direction raises it; silent heads raise nothing."""
    captured = capture(tiny_gpt2, pack(make_sets(tiny_gpt2)))
    token = torch.tensor([s.label_ids[g] for s in make_sets(tiny_gpt2) for g in s.gold])
    w_o = tiny_gpt2.arch.w_o(2)[1]
    towards = torch.linalg.lstsq(w_o.T, tiny_gpt2.arch.w_u()[token].T).solution.T
    z = torch.zeros_like(captured.z)
    z[2, :, 1] = 5 * towards
    planted = type(captured)(captured.resid_pre, captured.attn_out, captured.mlp_out, z, captured.answers)
    _, heads = increases(tiny_gpt2.arch, planted, token)
    silent = torch.ones_like(heads, dtype=torch.bool)
    silent[2, 1] = False
    assert heads[silent].abs().max() < 1e-5
    assert heads[2, 1].mean() > 0.1


def test_tables_hold_means_by_gold_label(tiny, two_sets):
    located = twotowers.locate(tiny, two_sets)
    assert list(located.layers.columns) == ["layer", "component", "label", "log_increase"]
    assert list(located.heads.columns) == ["layer", "head", "label", "log_increase"]
    assert set(located.layers["component"]) == {"attention", "mlp"}
    foo = torch.tensor([gold == "foo" for gold in located.gold])
    row = located.heads.query("layer == 1 and head == 2 and label == 'foo'")["log_increase"].item()
    assert row == pytest.approx(located.head_increase[1, 2, foo].mean().item(), rel=1e-4, abs=1e-6)
    row = located.layers.query("layer == 3 and component == 'mlp' and label == 'bar'")["log_increase"].item()
    assert row == pytest.approx(located.layer_increase[3, 1, ~foo].mean().item(), rel=1e-4, abs=1e-6)


def test_sums_are_over_all_layers(tiny, two_sets):
    located = twotowers.locate(tiny, two_sets)
    sums, table = located.sums(), located.layer_prompts
    per_layer = table[table["component"] == "attention"].groupby("layer")["log_increase"].mean()
    assert sums["attention"].mean() == pytest.approx(per_layer.sum(), rel=1e-5, abs=1e-6)
    assert isinstance(sums, pd.DataFrame)

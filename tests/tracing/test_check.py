"""The check passes on every family, and catches the mistakes that a shape does not show."""

import re
from dataclasses import replace

import pytest
import torch

import twotowers
from family_configs import CONFIGS, save
from twotowers.cli import main
from twotowers.errors import CheckError, FamilyError, ModelError
from twotowers.models import architecture
from twotowers.tracing import check
from twotowers.tracing.check import require

WRITTEN_BACK = "z computed from parts and written back changes nothing"


def failing(model):
    table = twotowers.check(model)
    return set(table[~table["holds"]]["identity"])


def test_every_identity_holds(tiny):
    table = twotowers.check(tiny)
    assert len(table) == 11
    assert table["holds"].all(), table
    assert (table["residual"].iloc[:-1] < 1e-4).all()


def test_every_identity_holds_on_the_real_model(real):
    assert twotowers.check(real)["holds"].all()


def test_a_transposed_output_matrix_is_caught(tiny, monkeypatch):
    true = architecture.Architecture.w_o

    def transposed(self, layer):
        w = true(self, layer)
        return w.flatten(0, 1)[: self.d_model].T.reshape(-1)[: w[0].numel()].reshape(1, *w.shape[1:]).expand_as(w)

    monkeypatch.setattr(architecture.Architecture, "w_o", transposed)
    assert "heads and bias add up to the attention output" in failing(tiny)


def test_a_forgotten_bias_is_caught(tiny_gpt2, monkeypatch):
    monkeypatch.setattr(architecture.Architecture, "b_o", lambda self, layer: torch.zeros(self.d_model))
    assert failing(tiny_gpt2) == {"heads and bias add up to the attention output"}


def test_a_forgotten_value_bias_is_caught(tiny_gpt2, monkeypatch):
    true = architecture.Architecture.w_v
    monkeypatch.setattr(
        architecture.Architecture,
        "w_v",
        lambda self, i: (true(self, i)[0], torch.zeros_like(true(self, i)[1])),
    )
    assert failing(tiny_gpt2) == {"attention weights times values are the heads", WRITTEN_BACK}


def test_a_wrong_key_value_map_is_caught(tiny_models, monkeypatch):
    true = architecture.Architecture.w_v

    def interleaved(self, layer):
        weight, bias = true(self, layer)
        order = [0, 2, 1, 3]  # head % groups instead of head // group size
        return weight[order], bias[order]

    monkeypatch.setattr(architecture.Architecture, "w_v", interleaved)
    assert failing(tiny_models["llama-gqa"]) == {"attention weights times values are the heads", WRITTEN_BACK}


def test_a_dropped_norm_weight_is_caught(tiny, monkeypatch):
    monkeypatch.setattr(architecture.Architecture, "norm_shape", lambda self, v: v)
    assert "projected parts add up to the logits" in failing(tiny)


def test_a_norm_scale_of_another_prompt_is_caught(tiny, monkeypatch):
    true = architecture.Architecture.norm_scale
    monkeypatch.setattr(architecture.Architecture, "norm_scale", lambda self, final: true(self, final).roll(1, 0))
    assert failing(tiny) == {"projected parts add up to the logits"}


def test_positions_off_by_one_in_a_branch_are_caught(tiny, monkeypatch):
    true = check.pack

    def shifted(sets, pad_id=0):
        batch = true(sets, pad_id)
        if len(batch.row) > 1:
            batch.position_ids[:, sets[0].shared :] += 1
        return batch

    monkeypatch.setattr(check, "pack", shifted)
    assert "packed prompts answer as separate ones" in failing(tiny)


def test_a_mask_that_lets_branches_see_each_other_is_caught(tiny, monkeypatch):
    true = check.pack

    def leaking(sets, pad_id=0):
        batch = true(sets, pad_id)
        length = batch.allowed.shape[1]
        batch.allowed[:] = torch.ones(length, length, dtype=torch.bool).tril()
        return batch

    monkeypatch.setattr(check, "pack", leaking)
    assert failing(tiny) >= {"attention rows sum to one", "packed prompts answer as separate ones"}


def test_heads_taken_behind_the_projection_are_caught(tiny_gpt2, monkeypatch):
    """Slices of the attention's output have the shape of z where the heads' widths add up to the model's."""
    true = check.capture

    def behind(*arguments, **options):
        captured = true(*arguments, **options)
        return replace(captured, z=captured.attn_out.reshape(captured.z.shape))

    monkeypatch.setattr(check, "capture", behind)
    assert {
        "heads and bias add up to the attention output",
        "attention weights times values are the heads",
    } <= failing(tiny_gpt2)


def test_a_forgotten_rotation_is_caught(tiny_models, monkeypatch):
    monkeypatch.setattr(architecture.Architecture, "rotate", lambda self, layer, x, positions: x)
    assert failing(tiny_models["llama-gqa"]) == {"queries times keys are the attention weights", WRITTEN_BACK}


def test_attention_without_weights_is_caught(tiny_gpt2):
    """SDPA gives no weights: an error that says so by name, never a table without them."""
    tiny_gpt2.arch.model.set_attn_implementation("sdpa")
    try:
        with pytest.raises(ModelError, match="switched to sdpa, of which no weights"):
            twotowers.check(tiny_gpt2)
    finally:
        tiny_gpt2.arch.model.set_attn_implementation("eager")


def test_a_model_that_fails_is_refused_by_name(tiny_gpt2, monkeypatch):
    monkeypatch.setattr(architecture.Architecture, "b_o", lambda self, layer: torch.zeros(self.d_model))
    with pytest.raises(CheckError, match=r"tiny-gpt2 fails the check: 'heads and .*, so report its family\.$"):
        require(tiny_gpt2)


@pytest.mark.parametrize(("family", "remedy"), [("mixtral", ", since a rounding may send .* experts"), ("mistral", "")])
def test_a_rounded_model_that_fails_is_told_to_use_float32_and_why_experts_need_it(
    family, remedy, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(check.TOLERANCE, torch.bfloat16, 1e-9)
    with pytest.raises(CheckError, match=rf"so use float32{remedy}\.$"):
        require(twotowers.load(save(CONFIGS[family], tmp_path / "tiny"), dtype="bfloat16"))
    assert main(["check", str(tmp_path / "tiny"), "--dtype", "bfloat16"]) == 1
    assert re.search(rf"results would be wrong, so use float32{remedy}\.$", capsys.readouterr().err.strip())


def test_a_quantised_layer_is_refused():
    class QuantisedLinear(torch.nn.Linear):
        pass

    with pytest.raises(FamilyError, match="without quantisation"):
        architecture.weight_in_out(QuantisedLinear(2, 3))

"""Soft caps on scores and logits: what is read of them."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig

from conftest import make_sets
from family_configs import CONFIGS, LLAMA_LIKE, save
from twotowers.models.model import open_model
from twotowers.prompts.packing import pack
from twotowers.tracing.capture import capture
from twotowers.tracing.direct_margin import direct_margin
from twotowers.tracing.projection import log_probabilities, project
from twotowers.tracing.rewriting import rewrite, rewritten_differences

CAPPED = ["gemma2", "vaultgemma-capped"]


@pytest.fixture(scope="module", params=CAPPED)
def folder(request, tmp_path_factory):
    return save(CONFIGS[request.param], tmp_path_factory.mktemp(request.param) / "model")


def test_logits_are_those_that_the_network_gives_and_the_caps_matter(folder):
    """Random weights of this size reach far beyond both caps, so that what ignored them would be far off."""
    model = open_model(folder)
    batch = pack([make_sets(model)[0]], model.pad_id)
    captured = capture(model, batch, logits=True)
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    cap = plain.config.final_logit_softcapping
    bare = plain.config
    with torch.no_grad():
        ids = make_sets(model)[0].prompts[0].ids
        own = plain(torch.tensor([list(ids)])).logits[0, -1]
        bare.final_logit_softcapping = None
        uncapped = plain(torch.tensor([list(ids)])).logits[0, -1]
    torch.testing.assert_close(captured.logits[0], own, rtol=1e-4, atol=1e-4)
    assert uncapped.abs().max() > 2 * cap
    summed = project(model.arch, captured.resid_pre[-1], captured.resid_pre[-1])
    torch.testing.assert_close(summed[0], uncapped, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model.arch.capped(summed), captured.logits, rtol=1e-4, atol=1e-4)


def test_log_probabilities_are_of_capped_logits_and_margins_add_up_before_the_cap(folder):
    model = open_model(folder)
    batch = pack([make_sets(model)[0]], model.pad_id)
    captured = capture(model, batch, logits=True)
    gold = batch.label_ids.gather(1, batch.gold[:, None]).squeeze(1)
    of_stream, *_ = log_probabilities(model.arch, captured.resid_pre, captured.attn_out, captured.parts(), gold)
    own = captured.logits.log_softmax(-1).gather(1, gold[:, None]).squeeze(1)
    torch.testing.assert_close(of_stream[-1], own, rtol=1e-4, atol=1e-4)
    direct = direct_margin(model.arch, captured, batch)
    total = direct.embedding + direct.attention.sum(0) + direct.mlp.sum(0)
    torch.testing.assert_close(total, direct.margin, rtol=1e-3, atol=1e-3)
    other = batch.label_ids.gather(1, 1 - batch.gold[:, None]).squeeze(1)
    apart = (captured.logits.gather(1, gold[:, None]) - captured.logits.gather(1, other[:, None])).squeeze(1)
    assert torch.equal(direct.margin > 0, apart > 0)  # a cap turns no margin round
    assert (direct.margin.abs() > apart.abs() * 1.01).any()


def test_differences_alone_are_those_of_whole_answers(folder):
    """They are computed from the labels' rows of the unembedding alone."""
    model = open_model(folder)
    batch = pack([make_sets(model)[0]], model.pad_id)
    intact = capture(model, batch, inputs=True)
    choices = [{}, {(1, 0): torch.zeros(len(batch.row), model.arch.d_head)}]
    rows = rewrite(model, batch, intact, choices).labels.unflatten(0, (2, -1))
    gold = batch.gold.expand(2, -1)[..., None]
    whole = rows.gather(-1, gold) - rows.gather(-1, 1 - gold)
    torch.testing.assert_close(rewritten_differences(model, batch, intact, choices), whole, rtol=1e-4, atol=1e-4)


def test_gemma_3_may_cap_its_logits(tmp_path):
    config = Gemma3TextConfig(**LLAMA_LIKE, final_logit_softcapping=3.0)
    model = open_model(save(config, tmp_path / "model"))
    assert model.arch.logit_cap == 3.0

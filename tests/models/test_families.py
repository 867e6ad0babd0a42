"""Every family beside GPT-2 and Llama: identities, and each intervention against a plain way, on tiny random models."""

from dataclasses import replace

import pytest
import torch
from released import RELEASED
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoConfig,
    LlamaConfig,
    MistralConfig,
    MptConfig,
    OlmoConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    StableLmConfig,
    VaultGemmaConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

import twotowers
from conftest import VOCABULARY, make_sets
from family_configs import CONFIGS, LAYER, LLAMA_LIKE, SIZES, WINDOW, partial, save
from twotowers.bench.shapes import SHAPES
from twotowers.errors import FamilyError, PromptError
from twotowers.models.families import FAMILIES
from twotowers.models.family import context_length, has_experts
from twotowers.models.model import open_model
from twotowers.models.refused import REFUSED as NAMED
from twotowers.models.registry import REGISTRY
from twotowers.prompts.packing import pack
from twotowers.tracing.ablation import attributions
from twotowers.tracing.capture import answers, capture
from twotowers.tracing.cutting import cut
from twotowers.tracing.position_free import without_position


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {
        name: twotowers.load(save(config, tmp_path_factory.mktemp("families") / name))
        for name, config in CONFIGS.items()
    }


@pytest.fixture(params=list(CONFIGS))
def model(request, models):
    return models[request.param]


def close(a, b, tolerance=1e-4):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(b.abs().max())))


def test_every_family_is_tested():
    assert {name.partition("-")[0] for name in CONFIGS} | {"gpt2", "llama"} == set(FAMILIES)


def test_every_identity_holds(model):
    table = twotowers.check(model)
    assert table["holds"].all(), table
    assert (table["residual"].iloc[:-1] < 1e-4).all(), table


def test_cutting_last_positions_alone_equals_running_everything(model):
    batch = pack(make_sets(model))
    edges = torch.zeros_like(batch.allowed)
    drawn = torch.rand(batch.allowed.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    edges[batch.row, batch.last] = drawn[batch.row, batch.last]
    intact = capture(model, batch, inputs=True)
    for layers in (range(0, 1), range(1, 3)):
        everything = cut(model, batch, edges, layers)
        close(cut(model, batch, edges, layers, intact).labels, everything.labels)
        assert (everything.labels - intact.answers.labels).abs().max() > 1e-3


def test_the_position_term_is_removed_by_its_strength(model):
    """At strength 0 nothing changes; in layer 0 without position, equal tokens get equal weight."""
    batch = pack(make_sets(model))
    intact = capture(model, batch, pattern=True, inputs=True)
    same, attention = without_position(model, batch, [(0, 1), (2, 3)], 0.0, intact)
    close(same.labels, intact.answers.labels)
    close(attention, torch.stack([intact.pattern[0, :, 1], intact.pattern[2, :, 3]], dim=1))
    _, flat = without_position(model, batch, [(0, 1)], 1.0, intact)
    for n in range(len(batch.row)):
        own = batch.index[n][batch.index[n] >= 0]
        tokens = batch.input_ids[batch.row[n], own]
        for token in tokens.unique():
            weights = flat[n, 0, : len(own)][tokens == token]
            close(weights, weights[:1].expand_as(weights))


def test_estimates_follow_the_margin(model):
    batch = pack(make_sets(model))
    estimate = attributions(model, batch)
    weight, size = model.arch.out_proj(1).weight.T, model.arch.d_head
    rows, step, margins = slice(2 * size, 3 * size), 1e-3, []
    kept = weight[rows].detach().clone()
    with torch.no_grad():
        for factor in (1 + step, 1 - step):
            weight[rows] = kept * factor
            labels = answers(model, batch).labels
            gold = batch.gold[:, None]
            margins.append(
                (labels.gather(1, gold) - labels.gather(1, 1 - gold)).reshape(len(batch.input_ids), -1).mean(1)
            )
        weight[rows] = kept
    close(estimate[1, 2], (margins[0] - margins[1]) / (2 * step), 3e-2)


def test_a_prompt_longer_than_a_sliding_window_is_refused(tmp_path):
    folder = save(MistralConfig(**LLAMA_LIKE, sliding_window=20), tmp_path / "short-window")
    model = open_model(folder)
    assert model.context_length == 20
    with pytest.raises(PromptError, match="reads at most 20"):
        make_sets(model)


@pytest.mark.parametrize("name", [name for name in CONFIGS if FAMILIES[name.partition("-")[0]].prepare])
def test_a_network_that_is_prepared_answers_as_it_did_before(name, models, tmp_path):
    ids = torch.tensor([make_sets(models[name])[0].prompts[0].ids])
    untouched = AutoModelForCausalLM.from_pretrained(save(CONFIGS[name], tmp_path), attn_implementation="eager")
    with torch.no_grad():
        close(models[name].arch.model(ids).logits, untouched(ids).logits)


def test_a_scale_of_logits_that_is_forgotten_fails_the_check(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "cohere", replace(FAMILIES["cohere"], prepare=None))
    table = twotowers.check(twotowers.load(save(CONFIGS["cohere"], tmp_path / "cohere")))
    assert list(table[~table["holds"]]["identity"]) == ["packed prompts answer as separate ones"]


@pytest.mark.parametrize("name", ["cohere", "falcon-groups"])
def test_what_no_server_gives_as_it_is_read_here_is_refused_there(name, tmp_path):
    with pytest.raises(FamilyError, match=f"family {name.partition('-')[0]} cannot be read on a server"):
        open_model(save(CONFIGS[name], tmp_path / name), remote="local")


@pytest.mark.parametrize("name", ["mistral", "gpt_neo", "cohere2", "gemma3_text"])
def test_what_slides_reads_no_more_than_its_window_but_a_packed_row_may_be_longer(name, models):
    assert models[name].context_length == WINDOW


MPT = {"vocab_size": VOCABULARY, "d_model": 32, "n_heads": 4, "n_layers": 1}
REFUSED = {
    "at what is not above 0": Gemma2Config(**LLAMA_LIKE, final_logit_softcapping=0.0),
    "scores or logits at what is not": VaultGemmaConfig(**LLAMA_LIKE, attn_logit_softcapping=-1.0),
    "which transformers does not do": Gemma3TextConfig(**LLAMA_LIKE, attn_logit_softcapping=2.0),
    "that transformers passes over": MptConfig(**MPT, logit_scale=0.5),
    "(clip_qkv)": MptConfig(**MPT, attn_config={"clip_qkv": 8.0}),
    "attends to what follows": Gemma3TextConfig(**LLAMA_LIKE, use_bidirectional_attention=True),
    "clips queries, keys and values": OlmoConfig(**LLAMA_LIKE, clip_qkv=8.0),
    "norms behind the residual sums": OPTConfig(
        **SIZES, ffn_dim=48, word_embed_proj_dim=32, do_layer_norm_before=False
    ),
    "projects the residual": OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=16),
    "has ALiBi": FalconConfig(**SIZES, alibi=True),
    "norms of queries and keys": PhiConfig(**LAYER, qk_layernorm=True),
    "a norm for each single head": StableLmConfig(**LAYER, qk_layernorm=True),
    "behind a norm": BloomConfig(**SIZES, apply_residual_connection_post_layernorm=True),
    "in slices": BloomConfig(**SIZES, slow_but_exact=True, pretraining_tp=2),
    "turns one dimension of each head": StableLmConfig(**LAYER, **partial(0.125)),
    "family llama turns one dimension": LlamaConfig(**LLAMA_LIKE | {"head_dim": 1}),
    "look back over 0 tokens": GPTNeoConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_layers=1, num_heads=4, attention_types=[[["local"], 1]],
        window_size=0,
    ),
    "look back over -5 tokens": MistralConfig(**LLAMA_LIKE, sliding_window=-5),
    "itself cannot run": FalconConfig(**SIZES, new_decoder_architecture=True, num_kv_heads=2, parallel_attn=False),
}  # fmt: skip


def test_every_decoder_of_transformers_is_a_family_or_refused():
    """A new release may bring some: each is tried, and then stands in one list or the other."""
    assert set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(FAMILIES) - set(NAMED) == set()


@pytest.mark.parametrize("name", NAMED)
def test_a_family_that_is_known_not_to_fit_is_refused_with_the_reason_before_anything_is_read(name, tmp_path):
    """Each is a family of transformers that makes decoders, and stands in one list only."""
    assert name in {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    assert name not in FAMILIES
    (tmp_path / "config.json").write_text(f'{{"model_type": "{name}"}}')
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(FamilyError, match=f"Models of the family {name} are refused: ..."):
        open_model(tmp_path)


def test_a_window_of_another_family_does_nothing():
    assert context_length(FAMILIES["llama"], LlamaConfig(**LLAMA_LIKE, sliding_window=8)) == 256


def test_a_prompt_is_no_longer_than_where_queries_begin_to_grow():
    assert context_length(FAMILIES["ministral3"], CONFIGS["ministral3"]) == 128


def test_a_prompt_is_no_longer_than_what_the_first_rotation_is_for():
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, **factors}
    config = Phi3Config(**SIZES, original_max_position_embeddings=64, rope_parameters=rope, pad_token_id=0)
    assert context_length(FAMILIES["phi3"], config) == 64


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_read_exactly_is_refused_by_name(reason, tmp_path):
    config = REFUSED[reason]
    with pytest.raises(FamilyError, match=reason) as error:
        open_model(save(config, tmp_path / "refused"))
    assert config.model_type in str(error.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_which_families_have_experts_is_seen_in_their_configurations(name):
    assert has_experts(CONFIGS[name]) == ("experts" in FAMILIES[name.partition("-")[0]].note)


@pytest.mark.parametrize("key", [key for key in REGISTRY if key in SHAPES or key in RELEASED])
def test_the_registry_counts_the_weights_of_the_shape(key):
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(RELEASED[key] if key in RELEASED else SHAPES[key]())
    assert REGISTRY[key].parameters == sum(parameter.numel() for parameter in network.parameters())
    assert REGISTRY[key].family == network.config.model_type


def test_every_row_of_the_registry_is_counted_or_lies_here():
    assert {key for key, entry in REGISTRY.items() if ":" not in entry.source} == {*SHAPES, *RELEASED}

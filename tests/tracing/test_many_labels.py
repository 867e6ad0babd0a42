"""More than two labels: margins against plain transformers, the exchange and hand-over tests, and what needs two."""

import itertools

import numpy as np
import pytest
import torch

import twotowers
from conftest import message
from planted_models import CHOICE, LAYERS, THREE, Studies
from twotowers.chapters.knockout.scores import head_scores, in_context_heads
from twotowers.chapters.towers.edges import edge_effects
from twotowers.chapters.towers.metric import towers
from twotowers.errors import LabelError, UnknownNameError
from twotowers.prompts.packing import pack
from twotowers.prompts.tasks import load_task
from twotowers.prompts.variants import swapped
from twotowers.tracing.answers import answer_table
from twotowers.tracing.capture import answers, capture
from twotowers.tracing.contrasts import margin_against, mean_of_others, one_other, targets
from twotowers.tracing.direct_margin import direct_margin
from twotowers.tracing.exchange import PARTS, exchanges, query_donors
from twotowers.tracing.label_edges import label_edges, margin_gradients
from twotowers.tracing.outcomes import outcomes
from twotowers.tracing.rewriting import rewrite, rewritten_differences

LABELS = ("foo", "bar", "fo")  # all that the tiny tokenizer has as one token behind a space


@pytest.fixture
def s(tiny):
    """Three labels of two demonstrations and two queries each, of texts of one token each."""
    words = sorted(word for halves in load_task("words").texts.values() for half in halves.values() for word in half)
    texts = list(itertools.islice((word for word in words if one_token(tiny, word)), 12))
    pairs = [(text, LABELS[i % 3]) for i, text in enumerate(texts)]
    return twotowers.prompt_set(tiny, pairs[:6], pairs[6:])


def one_token(model, word):
    return [len(model.tokenizer(text)["input_ids"]) for text in (word, f"\n{word}")] == [1, 2]


def plain(model, ids):
    """Logits of transformers itself."""
    with torch.no_grad():
        return model.arch.model(torch.tensor([list(ids)])).logits[0, -1].double()


def against_mean(s, query, logits):
    own, gold = logits[list(s.label_ids)], s.gold[query]
    return float(own[gold] - (own.sum() - own[gold]) / (len(own) - 1))


def against_next(s, query, logits):
    own, gold = logits[list(s.label_ids)], s.gold[query]
    return float(own[gold] - own[(gold + 1) % len(own)])


def test_margins_and_accuracies_are_those_of_plain_transformers(tiny, s):
    ours = outcomes(tiny, s, [[]])
    logits = [plain(tiny, prompt.ids) for prompt in s.prompts]
    assert ours["margin"].to_numpy() == pytest.approx([against_mean(s, i, x) for i, x in enumerate(logits)], abs=1e-4)
    best = [int(x[list(s.label_ids)].argmax()) for x in logits]
    assert ours["accuracy_two_way"].tolist() == [float(a == b) for a, b in zip(best, s.gold, strict=True)]
    best = [int(x.argmax()) for x in logits]
    assert ours["accuracy"].tolist() == [float(a == s.label_ids[g]) for a, g in zip(best, s.gold, strict=True)]


def test_the_margin_is_the_sum_of_its_parts(tiny, s):
    batch = pack([s])
    captured = capture(tiny, batch)
    direct = direct_margin(tiny.arch, captured, batch)
    total = direct.embedding + direct.attention.sum(0) + direct.mlp.sum(0)
    bias = getattr(tiny.arch.model.get_submodule(tiny.family.final_norm), "bias", None)
    if bias is not None:  # it belongs to no part
        rows = tiny.arch.w_u()[batch.label_ids] @ bias
        total = total + (rows * mean_of_others(batch.gold, len(s.labels))).sum(1).detach()
    assert total.numpy() == pytest.approx(direct.margin.numpy(), abs=1e-3)
    assert direct.margin.numpy() == pytest.approx(outcomes(tiny, s, [[]])["margin"].to_numpy(), abs=1e-4)


def test_what_is_read_without_the_vocabulary_is_the_same(tiny, s):
    batch = pack([s])
    intact = capture(tiny, batch, inputs=True)
    (apart,) = rewritten_differences(tiny, batch, intact, [{}])
    assert margin_against(apart, batch.gold).numpy() == pytest.approx(outcomes(tiny, s, [[]])["margin"], abs=1e-4)


def test_nothing_exchanged_is_the_intact_model_against_any_target(tiny, s):
    every = [(layer, head) for layer in range(tiny.arch.n_layers) for head in range(tiny.arch.n_heads)]
    logits = [plain(tiny, prompt.ids) for prompt in s.prompts]
    ours = twotowers.exchange(tiny, s, every, "none")
    assert ours["margin"].to_numpy() == pytest.approx([against_next(s, i, x) for i, x in enumerate(logits)], abs=1e-4)
    for number, label in enumerate(s.labels):
        chosen = twotowers.exchange(tiny, s, every, "none", towards=label)
        assert set(chosen["label"]) == {*s.labels} - {label}
        pairs = zip(logits, s.gold, strict=True)
        wanted = [x[s.label_ids[g]] - x[s.label_ids[number]] for x, g in pairs if g != number]
        assert chosen["margin"].to_numpy() == pytest.approx(np.array(wanted, dtype=float), abs=1e-4)
    both = exchanges(tiny, [s], [(every, "none"), (every, "query-other")])
    assert both[both["group"] == 0]["margin"].to_numpy() == pytest.approx(ours["margin"].to_numpy(), abs=1e-4)
    moved = abs(both[both["group"] == 1]["margin"].to_numpy() - ours["margin"].to_numpy())
    assert moved.max() > 1e-3


def test_a_query_is_that_of_the_target_of_the_same_rank(tiny, s):
    gold, towards = torch.tensor(s.gold), targets(s)
    donors = query_donors(s, other=True)
    assert torch.equal(gold[donors], towards)
    assert torch.equal(gold[query_donors(s, other=False)], gold)
    chosen = query_donors(s, other=True, target=targets(s, s.labels[0]))
    assert set(gold[chosen][gold != 0].tolist()) == {0}
    said = message(UnknownNameError, lambda: twotowers.exchange(tiny, s, [(1, 0)], "keys", towards="maybe"))
    assert "next" in said


def test_edges_and_gradients_are_derivatives_of_the_margins(tiny, s):
    """Of the margin against the next label, and of each position's own label minus the mean of all others."""
    batch, step, (layer, head) = pack([s]), 1e-2, (2, 3)
    intact = capture(tiny, batch, pattern=True, inputs=True)
    edges = label_edges(tiny, s)
    z, direction = intact.z[layer][:, head], torch.randn(tiny.arch.d_head, generator=torch.Generator().manual_seed(0))
    up, down = rewrite(
        tiny, batch, intact, [{(layer, head): z + step * direction}, {(layer, head): z - step * direction}]
    ).labels.chunk(2)
    slopes = (up - down) / (2 * step)  # of each label's logit
    k = len(s.labels)
    for counts in (one_other(batch.gold, targets(s), k), mean_of_others(torch.full_like(batch.gold, 1), k)):
        gradients = margin_gradients(tiny, batch, intact, counts)[layer][:, head]
        assert (gradients @ direction).numpy() == pytest.approx((slopes * counts).sum(1).numpy(), rel=2e-2, abs=2e-3)
    each = [mean_of_others(torch.full_like(batch.gold, n), k) for n in range(k)]
    towards = [margin_gradients(tiny, batch, intact, counts) for counts in each]
    against = margin_gradients(tiny, batch, intact, one_other(batch.gold, targets(s), k))
    weight, bias = tiny.arch.w_v(layer)
    for row, prompt, position, label in edges.frame[["prompt", "position", "label"]].iloc[::4].itertuples():
        place = batch.index[prompt, position]
        value = tiny.arch.norm_in(layer, intact.inputs[layer])[0, place] @ weight[head] + bias[head]
        share = edges.own[layer, row, head] / edges.moved[layer, row, head]
        own = towards[s.labels.index(label)][layer, prompt, head]
        assert float(share) == pytest.approx(float((value @ own) / (value @ against[layer, prompt, head])), rel=1e-2)


def test_labels_handed_over_at_the_bottom_are_the_prompt_with_the_next_labels(tiny, s):
    ours = twotowers.hand_over(tiny, s, "label", [0])
    there = [plain(tiny, prompt.ids) for prompt in swapped(s).prompts]
    assert ours["margin"].to_numpy() == pytest.approx([against_next(s, i, x) for i, x in enumerate(there)], abs=1e-4)


def test_the_last_position_at_the_top_answers_as_the_next_label_s_query(tiny, s):
    ours = twotowers.hand_over(tiny, s, "last", [tiny.arch.n_layers])
    there = [plain(tiny, s.prompts[int(donor)].ids) for donor in query_donors(s, other=True)]
    assert ours["margin"].to_numpy() == pytest.approx([against_next(s, i, x) for i, x in enumerate(there)], abs=1e-4)


def test_texts_handed_over_at_the_bottom_are_another_prompt(tiny, s):
    """Each label's texts are those of the label before, so that a query finds its class under the next label."""
    if tiny.config.model_type == "gpt2":
        pytest.skip("a position is part of what enters layer 0")
    by_label = {name: [i for i, (_, own) in enumerate(s.demonstrations) if own == name] for name in s.labels}
    source = {}
    for before, name in zip((s.labels[-1], *s.labels[:-1]), s.labels, strict=True):
        source |= dict(zip(by_label[name], by_label[before], strict=True))
    found = []
    for n, prompt in enumerate(s.prompts):
        ids = list(prompt.ids)
        for to, origin in source.items():
            ids[prompt.demonstrations[to][0]] = prompt.ids[prompt.demonstrations[origin][0]]
        found.append(against_next(s, n, plain(tiny, ids)))
    assert twotowers.hand_over(tiny, s, "text", [0])["margin"].to_numpy() == pytest.approx(found, abs=1e-4)


def test_knock_out_edges_and_metric_take_any_number_of_labels(tiny, s):
    heads = [(2, 1), (3, 0)]
    assert twotowers.knockout(tiny, s, heads)["accuracy_two_way"].between(0, 1).all()
    assert towers(tiny, s, heads)["auc"].notna().all()
    effects = edge_effects(tiny, [s])
    assert effects[["attention", "agreement"]].notna().all().all()
    assert len(head_scores(tiny, [s])) == tiny.arch.n_layers * tiny.arch.n_heads


def test_what_needs_two_labels_says_so(tiny, s):
    said = message(LabelError, lambda: answer_table(answers(tiny, pack([s])), [s], 0))
    assert "needs two labels, but a prompt set has 3" in said
    heads = [(2, 1)]
    for action in (
        lambda: twotowers.imbalance(tiny, {0.5: [s]}, {"a": heads}),
        lambda: twotowers.order(tiny, [s], heads),
    ):
        assert "two labels" in message(LabelError, action)


# A model in which one head chooses among three labels


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return Studies(tmp_path_factory.mktemp)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_planted_head_is_found_and_exchanging_its_query_moves_the_answer_to_the_target(studies, family):
    study = studies("three", family)
    model, sets = study.model, study.evaluation[:6]
    assert outcomes(model, sets, [[]])["accuracy"].min() == 1
    assert in_context_heads(head_scores(model, study.selection[:2]), LAYERS) == [CHOICE]
    table = exchanges(model, sets, [([CHOICE], part) for part in PARTS])
    means = table.groupby("group")["margin"].mean()
    shares = {part: means[i] / means[0] for i, part in enumerate(PARTS)}
    wanted = {"none": 1, "query-other": -1, "query-same": 1, "keys": -1, "values": -1, "keys-values": 1}
    assert shares == pytest.approx(wanted, abs=0.15)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("label", THREE)
def test_all_deep_heads_asked_with_a_label_s_query_answer_that_label(studies, family, label):
    study = studies("three", family)
    model, s = study.model, study.evaluation[0]
    deep = [(layer, head) for layer in range(LAYERS // 2, LAYERS) for head in range(model.arch.n_heads)]
    for part in ("query-other", "keys", "values"):
        table = twotowers.exchange(model, s, deep, part, towards=label)
        assert set(table["label"]) == {*THREE} - {label}
        # it has lost against the target, and would win again if the target were right
        assert (table["margin"] < -1).all()
        assert (table["accuracy_two_way"] == 0).all()

"""What a label's share changes, and what undoes it: by identity on real forwards, and with the truth planted."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

import twotowers
from conftest import DEMONSTRATIONS, QUERIES, make_sets
from twotowers.chapters.imbalance.balance import balanced_answers, slopes
from twotowers.chapters.imbalance.balance import evidence as balance_evidence
from twotowers.chapters.imbalance.designs import (
    BALANCED,
    content_free,
    content_free_sets,
    dropped_sets,
    number_of_demonstrations,
    numbers,
    renumbered,
    share_sets,
    uneven_sets,
)
from twotowers.chapters.imbalance.mitigation import (
    BALANCING,
    CALIBRATION,
    CONTROL,
    OWN,
    PAPER,
    answers_from,
    calibrate,
    compare,
    evidence,
    majority_shift,
    minority_values,
    mitigate,
    remedied,
)
from twotowers.chapters.imbalance.response import accuracy as response_accuracy
from twotowers.chapters.imbalance.response import imbalance
from twotowers.prompts.packing import pack
from twotowers.prompts.sets import CONTENT_FREE
from twotowers.prompts.tasks import load_task
from twotowers.study import SCALES, Study
from twotowers.tracing.capture import answers, capture
from twotowers.tracing.controls import control_groups
from twotowers.tracing.labels import position_kinds
from twotowers.tracing.projection import project, written

HEADS = [(1, 3), (2, 0), (3, 2)]
SHARES = np.arange(1, 8) / 8


def close(a, b, tolerance=1e-4):
    assert a.shape == b.shape
    assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


def captured(model, sets):
    batch = pack(sets)
    return batch, capture(model, batch, pattern=True, inputs=True)


def study_of(model, **changes):
    return Study(model, load_task("words"), dataclasses.replace(SCALES["smoke"], **changes), seed=0)


# Prompt sets


def counts(s):
    return tuple(sum(label == own for _, label in s.demonstrations) for own in s.labels)


def test_shares_run_from_one_to_all_but_one_with_the_same_queries(tiny_gpt2):
    study = study_of(tiny_gpt2, shots=8)
    by_share = share_sets(study)
    assert list(by_share) == [1 / 8, 3 / 8, 5 / 8, 7 / 8]
    assert uneven_sets(study) == {share: by_share[share] for share in (1 / 8, 7 / 8)}
    for share, sets in by_share.items():
        assert [counts(s) for s in sets] == [(8 - round(8 * share), round(8 * share))] * 2
        assert [s.queries for s in sets] == [s.queries for s in study.evaluation]
        for s, whole in zip(sets, study.evaluation, strict=True):
            assert set(s.demonstrations) < set(whole.demonstrations)


def test_a_study_with_few_demonstrations_still_has_every_share(tiny_gpt2):
    study = study_of(tiny_gpt2, shots=2)
    assert number_of_demonstrations(study) == 4
    assert list(share_sets(study)) == [0.25, 0.75]


def test_the_order_is_random_and_repeats_with_the_seed(tiny_gpt2):
    study = study_of(tiny_gpt2, shots=8, evaluation_sets=4)
    orders = [tuple(label for _, label in s.demonstrations) for s in share_sets(study)[3 / 8]]
    assert len(set(orders)) > 1
    assert not any(list(order) == sorted(order) for order in orders)
    assert orders == [tuple(label for _, label in s.demonstrations) for s in share_sets(study)[3 / 8]]


def test_shares_of_the_two_halves_have_no_word_in_common(tiny_gpt2):
    study = study_of(tiny_gpt2)
    selection, evaluation = (
        {text for sets in share_sets(study, half).values() for s in sets for text, _ in s.demonstrations}
        for half in ("selection", "evaluation")
    )
    assert not selection & evaluation


def test_an_even_part_of_many_sets_keeps_its_numbers(tiny_gpt2):
    few, many = (study_of(tiny_gpt2, evaluation_sets=n) for n in (3, 70))
    assert numbers(few) == [0, 1, 2]
    assert numbers(many) == list(range(0, 70, 2))
    found = {"effects": pd.DataFrame({"set": [0, 1, 34], "effect": 0.5}), "random": [1.0]}
    assert list(renumbered(found, many)["effects"]["set"]) == [0, 2, 68]
    assert renumbered(found, many)["random"] == [1.0]
    part, whole = uneven_sets(many)[0.25], study_of(tiny_gpt2, evaluation_sets=70).evaluation
    assert [s.queries for s in part] == [s.queries for s in whole[::2]]


def test_a_dropped_demonstration_is_the_only_difference(tiny_gpt2):
    variants = dropped_sets(study_of(tiny_gpt2, shots=4), drops=2)
    balanced = variants.pop(BALANCED)
    assert list(variants) == ["bar dropped 1", "bar dropped 2", "foo dropped 1", "foo dropped 2"]
    gone = set()
    for name, sets in variants.items():
        for i, (s, whole) in enumerate(zip(sets, balanced, strict=True)):
            assert counts(whole) == (4, 4)
            (missing,) = set(whole.demonstrations) - set(s.demonstrations)
            assert missing[1] == name.split()[0]
            assert [pair for pair in whole.demonstrations if pair != missing] == list(s.demonstrations)
            gone.add((i, missing))
    assert len(gone) == 8


# Identities, in every family


def test_the_table_sums_heads_and_positions_of_one_label(tiny, two_sets):
    """Against pattern and vo of one position at a time, projected onto the whole vocabulary."""
    table = imbalance(tiny, {0.4: two_sets}, {"all": HEADS, "one": HEADS[:1], "none": []})
    batch, seen = captured(tiny, two_sets)
    prompts = [(row, s, prompt) for row, s in enumerate(two_sets) for prompt in s.prompts]
    for name, heads in {"all": HEADS, "one": HEADS[:1], "none": []}.items():
        rows = table[table["heads"] == name].to_dict("records")
        for n, (found, (row, s, prompt)) in enumerate(zip(rows, prompts, strict=True)):
            attention, values = (dict.fromkeys(s.labels, 0.0) for _ in range(2))
            for layer, head in heads:
                w_v, b_v = tiny.arch.w_v(layer)
                for position, (_, label) in zip(prompt.label_positions, s.demonstrations, strict=True):
                    weight = seen.pattern[layer, n, head, position]
                    entering = tiny.arch.norm_in(layer, seen.inputs[layer, row, batch.index[n, position]])
                    vo = (entering @ w_v[head] + b_v[head]) @ tiny.arch.w_o(layer)[head]
                    logits = project(tiny.arch, weight * vo[None], seen.resid_pre[-1][n : n + 1])[0]
                    attention[label] += weight.item()
                    values[label] += (logits[s.label_ids[1]] - logits[s.label_ids[0]]).item()
            for label in s.labels:
                assert found[f"attention_{label}"] == pytest.approx(attention[label], rel=1e-4, abs=1e-6)
                assert found[f"values_{label}"] == pytest.approx(values[label], rel=1e-3, abs=1e-4)


def test_answers_of_the_table_are_those_of_the_model(tiny, two_sets):
    table = imbalance(tiny, {0.4: two_sets}, HEADS)
    assert list(table["set"]) == [0, 0, 0, 1, 1, 1]
    prompts = [(s, prompt, gold) for s in two_sets for prompt, gold in zip(s.prompts, s.gold, strict=True)]
    for row, (s, prompt, gold) in zip(table.itertuples(), prompts, strict=True):
        with torch.no_grad():
            logits = tiny.arch.model(torch.tensor([prompt.ids])).logits[0, -1]
        bar, foo = logits[list(s.label_ids)]
        assert row.logit_difference == pytest.approx((foo - bar).item(), rel=1e-4, abs=1e-4)
        assert row.p_foo == pytest.approx(logits.softmax(0)[s.label_ids[1]].item(), rel=1e-3, abs=1e-7)
        two_way = torch.stack([bar, foo]).softmax(0)
        assert row.p_foo_two_way == pytest.approx(two_way[1].item(), rel=1e-3, abs=1e-6)
        assert row.p_gold == pytest.approx(two_way[gold].item(), rel=1e-3, abs=1e-6)
        assert row.accuracy == (logits.argmax() == s.label_ids[gold])
        assert row.accuracy_two_way == (two_way[gold] > 0.5)


def test_strength_zero_changes_nothing(tiny, two_sets):
    batch, seen = captured(tiny, two_sets)
    added = minority_values(tiny.arch, batch, seen, HEADS, two_sets)
    plain = answers(tiny, batch)
    same = answers_from(tiny, seen.resid_pre[-1] + 0.0 * added, batch)
    close(same.labels, plain.labels)
    close(same.log_norm, plain.log_norm)
    assert (same.best == plain.best).all()
    table = mitigate(tiny, {"one": two_sets}, HEADS, [1e-9, 1.0])
    by_strength = {s: part["logit_difference"].to_numpy() for s, part in table.groupby("strength")}
    np.testing.assert_allclose(by_strength[1e-9], by_strength[0.0], rtol=1e-4, atol=1e-4)
    assert np.abs(by_strength[1.0] - by_strength[0.0]).max() > 1e-3


def test_strength_zero_changes_nothing_in_the_real_model(real):
    sets = make_sets(real)
    batch, seen = captured(real, sets)
    close(answers_from(real, seen.resid_pre[-1], batch).labels, answers(real, batch).labels)
    heads = [(23, 1), (29, 7)]
    ratio, rare = torch.tensor([1.5] * 3 + [2.0] * 3), position_kinds(sets, batch) == 1  # foo is rarer in both sets
    expected = torch.zeros(6, real.arch.d_model)
    for layer, head in heads:
        weights = seen.pattern[layer, :, head] * rare
        assert (weights[rare] > 0).all()
        expected += ratio[:, None] * written(real.arch, seen, batch, layer, [head], weights[:, None])
    close(minority_values(real.arch, batch, seen, heads, sets), expected)


def test_the_added_vector_is_a_scaled_sum_over_minority_positions(tiny, two_sets):
    """Two foo and three bar: 3 / 2 times what heads write from foo positions; one foo and two bar: twice."""
    batch, seen = captured(tiny, two_sets)
    added = minority_values(tiny.arch, batch, seen, HEADS, two_sets)
    prompts = [(row, s, prompt) for row, s in enumerate(two_sets) for prompt in s.prompts]
    for n, (row, s, prompt) in enumerate(prompts):
        bar, foo = counts(s)
        rare = "foo" if foo < bar else "bar"
        expected = torch.zeros(tiny.arch.d_model)
        for layer, head in HEADS:
            w_v, b_v = tiny.arch.w_v(layer)
            for position, (_, label) in zip(prompt.label_positions, s.demonstrations, strict=True):
                entering = tiny.arch.norm_in(layer, seen.inputs[layer, row, batch.index[n, position]])
                vo = (entering @ w_v[head] + b_v[head]) @ tiny.arch.w_o(layer)[head]
                expected += (label == rare) * seen.pattern[layer, n, head, position] * vo
        close(added[n], max(bar, foo) / min(bar, foo) * expected)


def test_the_mitigated_answer_is_the_models_own_norm_and_head_on_the_changed_residual(tiny, two_sets):
    batch, seen = captured(tiny, two_sets)
    final = seen.resid_pre[-1] + 0.7 * minority_values(tiny.arch, batch, seen, HEADS, two_sets)
    logits = project(tiny.arch, final, final) + tiny.arch.logit_bias()  # scale of the *changed* residual
    table = mitigate(tiny, {"one": two_sets}, HEADS, [0.7]).query("strength == 0.7")
    labels = logits.gather(1, batch.label_ids)
    np.testing.assert_allclose(table["logit_difference"], labels[:, 1] - labels[:, 0], rtol=1e-3, atol=1e-3)


def test_a_balanced_prompt_is_left_as_it_is(tiny):
    balanced = [twotowers.prompt_set(tiny, DEMONSTRATIONS[:4], QUERIES)]
    batch, seen = captured(tiny, balanced)
    assert not minority_values(tiny.arch, batch, seen, HEADS, balanced).any()


def test_calibration_divides_by_the_content_free_answer(tiny):
    study = study_of(tiny, evaluation_sets=1)
    variants = dropped_sets(study)
    intact = mitigate(tiny, variants, HEADS, []).query("strength == 0")
    free = {name: content_free(study, sets) for name, sets in variants.items()}
    table = calibrate(tiny, intact, free).set_index(["variant", "set", "query"])
    for variant, sets in variants.items():
        for i, s in enumerate(sets):
            assert free[variant][i].demonstrations == s.demonstrations
            assert free[variant][i].queries[0][0] == CONTENT_FREE
            p = []
            for prompt in (*s.prompts, *free[variant][i].prompts):
                with torch.no_grad():
                    logits = tiny.arch.model(torch.tensor([prompt.ids])).logits[0, -1]
                p.append(logits[list(s.label_ids)].softmax(0))
            for query, own in enumerate(p[:-1]):
                ratio = own / p[-1]
                row = table.loc[(variant, i, query)]
                assert row["p_foo_two_way"] == pytest.approx((ratio / ratio.sum())[1].item(), rel=1e-3, abs=1e-5)


def test_the_right_vector_steadies_and_its_opposite_does_not(tiny_gpt2):
    """A planted residual: foo dropped loses foo's direction; adding it back undoes the loss, taking more worsens it."""
    batch, seen = captured(tiny_gpt2, make_sets(tiny_gpt2))
    foo = tiny_gpt2.arch.w_u()[batch.label_ids[:, 1]] - tiny_gpt2.arch.w_u()[batch.label_ids[:, 0]]
    whole = seen.resid_pre[-1]

    def difference(final):
        labels = answers_from(tiny_gpt2, final, batch).labels
        return labels[:, 1] - labels[:, 0]

    lost = (difference(whole) - difference(whole - foo)).abs()
    close(difference(whole - foo + foo), difference(whole))
    assert ((difference(whole) - difference(whole - 2 * foo)).abs() > lost).all()


# From a study to the evidence


def test_balancing_is_told_from_the_intact_model(tiny):
    """Nothing changes at equal counts or in no heads; the intact answers are those of the table."""
    study, groups = study_of(tiny), {"in-context": [(2, 1), (3, 0)], "random 1": [(3, 2)]}
    by_share = share_sets(study)
    answers = balanced_answers(tiny, by_share, groups)
    table = imbalance(tiny, by_share, HEADS)
    intact = answers[answers["heads"] == "intact"]
    for column in ("p_foo_two_way", "accuracy_two_way"):
        np.testing.assert_allclose(intact[column], table[column], atol=1e-4)
    found = slopes(answers).pivot(index="set", columns="heads", values="effect")
    assert (found["in-context"] - found["intact"]).abs().max() > 1e-5
    even = {0.5: [twotowers.prompt_set(tiny, DEMONSTRATIONS[:4], QUERIES)]}
    same = balanced_answers(tiny, even, groups).pivot(index="query", columns="heads", values="p_foo_two_way")
    np.testing.assert_allclose(same["in-context"], same["intact"], atol=1e-5)


def test_a_study_gives_all_that_both_claims_need(tiny_models):
    model = tiny_models["llama-gqa"]
    study, heads = study_of(model), [(2, 1)]
    groups, uneven = control_groups(model, heads), uneven_sets(study)
    answers = balanced_answers(model, uneven, groups)
    accuracy = response_accuracy(imbalance(model, uneven, heads))
    tried = remedied(model, uneven, content_free_sets(study, uneven), groups, 1.0, answers)
    for found in (balance_evidence(answers, accuracy), evidence(tried, accuracy)):
        assert len(found["random"]) == 7  # of the 8 deep heads, all but the one
        assert all(list(found[name]["set"]) == [0, 1] for name in ("effects", "control", "accuracy"))
        assert np.isfinite([*found["random"], *found["effects"]["effect"]]).all()
    assert list(tried.remedies) == [PAPER, OWN, CONTROL, CALIBRATION, BALANCING]
    # the slope over two shares, half as far apart, is the shift; so both claims' measures agree
    shift = majority_shift(tried.intact)["effect"].to_numpy()
    intact = slopes(answers).query("heads == 'intact'")["effect"].to_numpy()
    np.testing.assert_allclose(shift, intact * 0.5 / 2, atol=1e-5)
    assert compare(tried).query("quantity == 'removed' and remedy == 'none'")["mean"].item() == 0

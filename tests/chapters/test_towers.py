"""Queries and keys as a metric: identities on every family, and heads planted so that each claim is true or false."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from conftest import make_sets
from planted import ignores_class, only_same, prefers_other, synthetic
from twotowers.chapters.towers import page as figures_towers
from twotowers.chapters.towers.metric import auc, by_head, metric, metric_effects, sharpest_heads, towers
from twotowers.chapters.towers.plane import biplot, plane
from twotowers.chapters.towers.reading import attention_by_class, attention_effects, read_heads
from twotowers.chapters.towers.swap import by_label, swap
from twotowers.chapters.towers.transfer import transfer, transfer_effects
from twotowers.paper import CLAIMS
from twotowers.prompts.packing import pack
from twotowers.prompts.variants import prompt_set_of, swapped
from twotowers.statistics import judge
from twotowers.tracing import sweep
from twotowers.tracing.capture import capture
from twotowers.tracing.heads import control_heads, is_in
from twotowers.tracing.labels import label_positions
from twotowers.tracing.projection import project

HEADS = [(1, 0), (3, 2)]
KEY = ["layer", "head", "set", "query"]


# identities


def test_score_and_attention_differ_by_a_constant_of_the_prompt(tiny, two_sets):
    """softmax of the score over the whole prompt is the captured pattern, so log weight - score is one number."""
    table = read_heads(tiny, two_sets, HEADS)
    rest = (np.log(table["weight"]) - table["score"]).groupby([table[name] for name in KEY])
    assert (rest.max() - rest.min()).max() < 1e-3
    assert table.groupby(KEY)["score"].std().max() > 1e-2


def test_the_score_without_rotation_is_the_plain_product_of_the_towers(tiny, two_sets):
    """By hand from the hidden states of transformers and the stored weights, one prompt at a time."""
    table, network, layer, head = read_heads(tiny, two_sets, HEADS), tiny.arch.model, 3, 2
    size = tiny.arch.d_head
    for number, s in enumerate(two_sets):
        for query, prompt in enumerate(s.prompts):
            with torch.no_grad():
                states = network(torch.tensor([prompt.ids]), output_hidden_states=True).hidden_states[layer][0]
                if tiny.arch.family.rotary is None:
                    block = network.transformer.h[layer]
                    q, k, _ = block.attn.c_attn(block.ln_1(states)).split(tiny.arch.n_heads * size, dim=1)
                else:
                    block = network.model.layers[layer]
                    normed = block.input_layernorm(states)
                    q, k = block.self_attn.q_proj(normed), block.self_attn.k_proj(normed)
                    shared = tiny.arch.n_heads // tiny.arch.n_kv_heads
                    k = k.reshape(len(k), -1, size).repeat_interleave(shared, 1).flatten(1)
            own = slice(head * size, (head + 1) * size)
            at = list(prompt.label_positions)
            part = table.query(f"layer == 3 and head == 2 and set == {number} and query == {query}")
            by_hand = (k[at][:, own] @ q[-1, own] / size**0.5).numpy()
            np.testing.assert_allclose(part["score_unrotated"], by_hand, rtol=1e-3, atol=1e-4)
            cosine = torch.cosine_similarity(states[at], states[-1:], dim=-1).numpy()
            np.testing.assert_allclose(part["cosine"], cosine, rtol=1e-3, atol=1e-4)


def test_rotation_changes_the_score_only_where_the_family_rotates(tiny, two_sets):
    table = read_heads(tiny, two_sets, HEADS)
    changed = (table["score"] - table["score_unrotated"]).abs().max()
    assert changed == 0 if tiny.arch.family.rotary is None else changed > 1e-2


def test_reading_is_the_same_one_prompt_at_a_time(tiny, two_sets):
    packed = read_heads(tiny, two_sets, HEADS)
    alone = [
        read_heads(tiny, prompt_set_of(s, i), HEADS).assign(set=n, query=i)
        for n, s in enumerate(two_sets)
        for i in range(3)
    ]
    both = packed.merge(pd.concat(alone), on=[*KEY, "demonstration"], suffixes=("", "_alone"))
    assert len(both) == len(packed)
    for name in ("weight", "score", "score_unrotated", "cosine", "value"):
        np.testing.assert_allclose(both[name], both[f"{name}_alone"], rtol=1e-3, atol=1e-4)
    assert (both["label"] == both["label_alone"]).all()


def test_label_positions_hold_the_labels(tiny, two_sets):
    frame = label_positions(two_sets, first=5)
    prompts = [prompt for s in two_sets for prompt in s.prompts]
    assert [prompts[row.prompt].ids[row.position] for row in frame.itertuples()] == frame["token"].tolist()
    assert (frame["same"] == (frame["label"] == frame["gold"])).all()
    assert set(frame["set"]) == {5, 6}


def test_values_of_all_label_positions_are_their_projected_logit_differences(tiny, two_sets):
    """Logit minus of vo by the general projection, in place of the two rows of W_U that `read_heads` uses."""
    table = read_heads(tiny, two_sets, [(2, 1)])
    batch, frame = pack(two_sets), label_positions(two_sets)
    captured = capture(tiny, batch, inputs=True)
    w_v, b_v = tiny.arch.w_v(2)
    prompt, position = torch.tensor(frame["prompt"].to_numpy()), torch.tensor(frame["position"].to_numpy())
    entering = tiny.arch.norm_in(2, captured.inputs[2][batch.row[prompt], batch.index[prompt, position]])
    vo = (entering @ w_v[1] + b_v[1]) @ tiny.arch.w_o(2)[1]
    logits = project(tiny.arch, vo, captured.resid_pre[-1][prompt])
    token = torch.tensor(frame["token"].to_numpy())
    own, other = (logits.gather(1, t[:, None])[:, 0] for t in (token, batch.label_ids[prompt].sum(1) - token))
    np.testing.assert_allclose(table["value"], (own - other).numpy(), rtol=1e-3, atol=1e-4)


def test_a_biplot_of_rank_two_gives_the_scores_back():
    torch.manual_seed(0)
    scores = torch.randn(5, 2) @ torch.randn(2, 9)
    rows, columns, share = biplot(scores + 100 * torch.randn(5, 1))  # a row's constant is what the softmax ignores
    torch.testing.assert_close(rows @ columns.T, scores - scores.mean(1, keepdim=True), rtol=1e-3, atol=1e-3)
    assert share == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(rows.square().mean(), columns.square().mean(), rtol=1e-3, atol=1e-3)
    noisy = biplot(torch.randn(6, 9))
    assert noisy[2] < 0.95


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 4), (3, 2)])
def test_a_biplot_of_few_points_is_drawn_too(shape):
    rows, columns, share = biplot(torch.arange(float(shape[0] * shape[1])).reshape(shape).square())
    assert rows.shape == (shape[0], 2)
    assert columns.shape == (shape[1], 2)
    assert 0 <= share <= 1 + 1e-6


def test_the_plane_shows_every_query_and_demonstration_and_its_strongest_weight(tiny, two_sets):
    points, arrows = plane(tiny, two_sets[0], (3, 2))
    assert points["kind"].tolist() == ["query"] * 3 + ["key"] * 5
    table = read_heads(tiny, two_sets[0], [(3, 2)])
    best = table.loc[table.groupby("query")["weight"].idxmax()]
    assert arrows["demonstration"].tolist() == best["demonstration"].tolist()
    np.testing.assert_allclose(arrows["weight"], best["weight"], rtol=1e-5)
    tip = points.iloc[3 + arrows["demonstration"].iloc[0]]
    assert (arrows["to_x"].iloc[0], arrows["to_y"].iloc[0]) == (tip["x"], tip["y"])


# planted truth: the metric test and attention by class


def test_auc_equals_that_of_scikit_learn_with_ties():
    rng = np.random.default_rng(3)
    table = synthetic(lambda same, noise: np.round(noise + same * rng.normal()))
    expected = table.groupby(["layer", "head", "set", "query", "gold"])[["same", "score"]].apply(
        lambda part: roc_auc_score(part["same"], part["score"])
    )
    pd.testing.assert_series_equal(auc(table, "score"), expected, check_names=False)


@pytest.mark.parametrize(("head", "area"), [(only_same, 1.0), (ignores_class, 0.5), (lambda s, n: -100.0 * s, 0.0)])
def test_a_planted_head_has_its_area(head, area):
    assert (metric(synthetic(head))["auc"] == area).all()


@pytest.mark.parametrize("labels", [["foo"] * 3, ["bar"] * 3])
def test_a_prompt_that_shows_one_class_has_no_area(labels):
    table = synthetic(only_same, sets=1).query("query == 0").head(3).assign(label=labels)
    assert auc(table.assign(same=table["label"] == table["gold"]), "score").isna().all()


def test_a_head_that_attends_to_its_class_supports_and_one_that_avoids_it_contradicts():
    for head, c7, c9 in (
        (only_same, "supported", "supported"),
        (ignores_class, "inconclusive", "absent"),
        (prefers_other, "contradicted", "contradicted"),
    ):
        table = synthetic(head, sets=30, seed=1)
        assert judge(attention_effects(attention_by_class(table)), CLAIMS["C7"].smallest).verdict == c7
        assert judge(metric_effects(metric(table)), CLAIMS["C9"].smallest).verdict == c9


def test_c9_is_contradicted_where_the_cosine_already_tells_the_class():
    table = synthetic(lambda same, noise: noise + 0.3 * same, sets=12)
    table["cosine"] = table["same"].astype(float)
    effects = metric_effects(metric(table))
    assert judge(effects, CLAIMS["C9"].smallest).verdict == "contradicted"
    assert effects["above_chance"].mean() > 0


def test_attention_is_summed_by_class_and_over_heads():
    table = synthetic(only_same)
    classes = attention_by_class(pd.concat([table, table.assign(head=2)]))
    assert classes["same"].to_numpy() == pytest.approx(1)
    assert classes["other"].to_numpy() == pytest.approx(0, abs=1e-9)
    assert attention_effects(classes)["effect"].to_numpy() == pytest.approx(2)


@pytest.fixture
def planted(tiny, monkeypatch):
    """Every head computes q.k as the plain product of residuals, and the residuals are planted by class."""
    arch, size = tiny.arch, tiny.arch.d_head
    eye = torch.eye(arch.d_model)[:, :size].expand(arch.n_heads, -1, -1)
    for name in ("w_q", "w_k"):
        monkeypatch.setattr(arch, name, lambda layer: (eye, torch.zeros(arch.n_heads, size)))
    monkeypatch.setattr(arch, "norm_in", lambda layer, x: x)

    def run(sign, hidden=0.0):
        def planting(model, batch, **options):
            captured = capture(model, batch, **options)
            foo = torch.zeros(arch.d_model)
            foo[0] = 1.0
            noise = torch.zeros(arch.d_model)
            noise[size + 1 :] = hidden  # directions that no tower reads
            inputs, last = torch.randn_like(captured.inputs), torch.randn_like(captured.resid_pre)
            inputs[..., :size], last[..., :size] = 0, 0
            inputs, last = inputs * noise, last * noise
            for s, row in zip(make_sets(tiny), range(2), strict=True):
                for position, (_, label) in zip(s.prompts[0].label_positions, s.demonstrations, strict=True):
                    inputs[:, row, position] += foo if label == "foo" else -foo
            gold = torch.tensor([1.0 if g == "foo" else -1.0 for s in make_sets(tiny) for _, g in s.queries])
            last += sign * gold[:, None] * foo
            return dataclasses.replace(captured, inputs=inputs, resid_pre=last)

        monkeypatch.setattr(sweep, "capture", planting)
        return towers(tiny, make_sets(tiny), HEADS)

    return run


def test_a_metric_planted_in_the_residuals_is_found_through_the_whole_reading(planted):
    found = planted(+1)
    assert (found["auc_unrotated"] == 1).all()
    assert (found["auc_cosine"] == 1).all()
    assert (planted(-1)["auc_unrotated"] == 0).all()
    assert (planted(0)["auc_unrotated"] == 0.5).all()


def test_towers_that_read_one_direction_beat_the_cosine_of_whole_residuals(planted):
    torch.manual_seed(0)
    found = planted(+1, hidden=30.0)
    assert (found["auc_unrotated"] == 1).all()
    assert found["auc_cosine"].mean() < 0.9


# heads and groups


def test_control_heads_are_deep_and_others(tiny):
    control = control_heads(tiny, [(3, 2), (0, 1)], draws=2)
    assert len(set(control)) == 4
    assert all(layer >= 2 for layer, _ in control)
    assert (3, 2) not in control
    assert len(control_heads(tiny, HEADS, draws=99)) == 7  # all of the deep half but one


def test_the_sharpest_head_is_the_one_with_the_largest_area(tiny, two_sets):
    deep = [(layer, head) for layer in (2, 3) for head in range(4)]
    areas = towers(tiny, two_sets, deep).groupby(["layer", "head"])["auc"].mean()
    first, second = sharpest_heads(tiny, two_sets, 2)
    assert areas[first] == areas.max()
    assert areas[second] <= areas[first]


def test_groups_are_averaged_beside_their_heads():
    table = pd.concat([synthetic(only_same), synthetic(prefers_other).assign(head=2)])
    summary = by_head(metric(table), {"auc": "q·k"}, {"all": [(3, 1), (3, 2)], "one": [(3, 1)], "none": []})
    means = summary.set_index("name")["mean"]
    assert list(means.index) == ["3.1", "3.2", "all", "one"]
    assert means["3.1"] == means["one"] == 1
    assert means["all"] == pytest.approx((means["3.1"] + means["3.2"]) / 2)
    assert is_in(table, []).sum() == 0


# figures


def test_figures_draw_what_they_are_given(tiny, two_sets):
    table = read_heads(tiny, two_sets, HEADS)
    groups = {"in-context heads": HEADS[:1], "random deep heads": HEADS[1:]}
    summary = by_head(attention_by_class(table), {"same": "same class", "other": "other class"}, groups)
    (ax,) = figures_towers.rows_figure(summary, xlabel="attention", reference=0.5).axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["1.0", *groups]
    drawn = next(c for c in ax.containers if c.get_label() == "same class").lines[0].get_xdata()
    np.testing.assert_allclose(np.asarray(drawn, dtype=float), summary[summary["measure"] == "same class"]["mean"])

    moves = transfer(tiny, two_sets, HEADS)
    correlations = by_head(transfer_effects(moves), {"effect": "correlation"}, groups)
    left, right = figures_towers.transfer_figure(moves.query("layer == 1"), correlations).axes
    assert sum(len(points.get_offsets()) for points in left.collections) == len(moves.query("layer == 1"))
    assert len(right.get_yticklabels()) == 3

    after = read_heads(tiny, [swapped(s) for s in two_sets], HEADS)
    changed = by_label(swap(table, after), {"foo": HEADS[:1], "bar": HEADS[1:]})
    (ax,) = figures_towers.swap_figure(changed).axes
    assert changed["name"].unique().tolist()[:2] == ["foo-heads, answer foo", "foo-heads, answer bar"]
    bars = next(c for c in ax.containers if c.get_label() == "attention")
    np.testing.assert_allclose(
        [bar.get_height() for bar in bars], changed[changed["measure"] == "attention"]["mean"], rtol=1e-6
    )

    points, arrows = (pd.concat(parts) for parts in zip(*(plane(tiny, two_sets[0], h) for h in HEADS), strict=True))
    panels = figures_towers.plane_figure(points, arrows).axes
    assert len(panels) == 2
    assert {"cat", "dog"} <= {text.get_text() for text in panels[1].texts}

"""Effects of order: models planted so that each claim about places is true or false."""

import math

import numpy as np
import pandas as pd
import pytest

from twotowers.chapters.order.effects import (
    before_after,
    by_distance,
    choose_strength,
    near_minus_far,
    relative_change,
    response,
    slopes,
    spread,
    steadied,
)
from twotowers.chapters.order.order import Ordered, recency
from twotowers.paper import CLAIMS
from twotowers.prompts.variants import rotations
from twotowers.statistics import judge

# --- planted truth ------------------------------------------------------------------------------------------------

LABELS = ("foo", "foo", "bar", "foo", "bar", "bar", "foo", "bar")


def planted(p_foo, accuracy=None, attention=None, strength=0.0, n_sets=6, seed=0, noise=0.0):
    """A model by construction: P(foo), accuracy and attention as functions of (recency, order number), of
    (order number, set) and of (demonstration, distance, same)."""
    rng = np.random.default_rng(seed)
    prompts, positions = [], []
    keys = {"heads": "in-context", "strength": strength}
    for s in range(n_sets):
        labels = tuple(rng.permutation(LABELS))
        for number, way in enumerate(rotations(8, 8)):
            near = recency([labels[i] for i in way], "foo")
            for query, gold in enumerate(("foo", "bar")):
                p = p_foo(near, number) + noise * rng.normal()
                logit = math.log(p / (1 - p))
                row = keys | {"set": s, "order": number, "query": query, "label": gold}
                right = accuracy(number, s) if accuracy else float((logit > 0) == (gold == "foo"))
                prompts.append(row | {"accuracy": right, "margin": logit if gold == "foo" else -logit, "p_foo": p,
                                      "logit_minus": logit, "recency": near})  # fmt: skip
                for place, i in enumerate(way):
                    same, distance = labels[i] == gold, len(way) - place
                    weight = attention(i, distance, same) if attention else 0.1
                    positions.append(row | {"demonstration": i, "distance": distance, "same": same, "foo":
                                            labels[i] == "foo", "attention": weight})  # fmt: skip
    positions = pd.DataFrame(positions)
    table = pd.DataFrame(prompts)
    for label, part in (("foo", positions[positions["foo"]]), ("bar", positions[~positions["foo"]])):
        table[f"attention_{label}"] = part.groupby(["set", "order", "query"])["attention"].sum().to_numpy()
    return Ordered(table, positions)


@pytest.mark.parametrize(("slope", "verdict"), [(0.03, "supported"), (-0.03, "contradicted")])
def test_a_model_that_follows_or_flees_the_last_label_is_called_so(slope, verdict):
    table = planted(lambda near, _: 0.5 + slope * near, n_sets=24).prompts
    effects = slopes(table)
    moved = table.groupby("set")["recency"].nunique().to_numpy() > 1  # rotations leave some alternations in balance
    assert effects["effect"].mean() == pytest.approx(slope)
    for column in ("effect", "logits"):
        assert (np.sign(effects[column].round(9)) == np.sign(slope) * moved).all()
    assert effects["shuffled"].abs().mean() < abs(slope)
    assert judge(effects, 0.01).verdict == verdict


def test_a_model_that_ignores_places_decides_nothing():
    effects = slopes(planted(lambda *_: 0.5, noise=0.05, n_sets=24).prompts)
    assert abs(effects["effect"].mean()) < 0.005
    assert judge(effects, CLAIMS["C12"].smallest).verdict == "absent"


def test_a_bias_to_one_order_or_one_set_is_no_effect_of_place():
    """P(foo) that depends on the set only has slope 0; orders that never move the labels have none."""
    table = planted(lambda *_: 0.5).prompts
    assert slopes(table.assign(p_foo=0.2 + 0.1 * table["set"]))["effect"].to_numpy() == pytest.approx(0)
    still = slopes(table.assign(recency=1.5))
    assert still["effect"].isna().all()
    assert judge(still, CLAIMS["C12"].smallest).verdict == "not testable"


def test_the_response_curve_rises_only_where_the_truth_does():
    table = planted(
        lambda near, _: 0.5 + 0.03 * near, attention=lambda i, distance, same: 0.01 * (9 - distance)
    ).prompts
    curve = response(table)
    for _, part in curve.groupby("measure"):
        assert part.sort_values("recency")["mean"].is_monotonic_increasing
    flat = response(planted(lambda *_: 0.5).prompts)
    assert flat["mean"].to_numpy() == pytest.approx(0)
    assert set(flat["measure"]) == {"p_foo", "attention"}


def test_attention_to_content_is_flat_over_distance():
    """Whatever a head likes about a demonstration, its place changes nothing: the orders balance content."""
    likes = np.random.default_rng(0).random(8)
    attention = planted(lambda *_: 0.5, attention=lambda i, distance, same: likes[i] + same).attention
    for same, part in by_distance(attention).groupby("same"):
        means = part["mean"]
        assert np.ptp(means) == pytest.approx(0)
        assert (means > 1).all() == same
    assert near_minus_far(attention)["effect"].to_numpy() == pytest.approx(0)


@pytest.mark.parametrize("sign", [1, -1])
def test_attention_to_places_is_called_so_whichever_way_it_leans(sign):
    attention = planted(lambda *_: 0.5, attention=lambda i, distance, same: 0.5 - sign * 0.05 * distance).attention
    for _, part in by_distance(attention).groupby("same"):
        assert (np.diff(part.sort_values("distance")["mean"]) * sign < 0).all()
    assert (near_minus_far(attention)["effect"] * sign > 0).all()


def mixed(before, after):
    """Two planted models as one before and one after the mitigation."""
    parts = (before, after)
    return Ordered(*(pd.concat([getattr(p, name) for p in parts]) for name in ("prompts", "attention")))


def swinging(amplitude, strength=0.0):
    """Accuracy that swings between orders, attention that swings between places, both by an amplitude."""
    return planted(
        lambda near, number: 0.5 + amplitude * (-1) ** number,
        accuracy=lambda number, s: 0.5 + amplitude * (1 if number % 2 else -1) * (1 + 0.01 * s),
        attention=lambda i, distance, same: 0.5 + amplitude * (-1) ** distance,
        strength=strength,
        n_sets=12,
    )


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(0.3, 0.1, "supported"), (0.1, 0.3, "contradicted"), (0.2, 0.2, "inconclusive"), (0.0, 0.0, "inconclusive")],
)
def test_a_mitigation_that_steadies_or_unsettles_is_called_so(before, after, verdict):
    spreads = spread(mixed(swinging(before), swinging(after, 0.5)))
    effects = steadied(spreads, "in-context")
    assert effects["before"].to_numpy() == pytest.approx(before * (1 + 0.01 * effects["set"]))
    assert judge(effects, CLAIMS["C14"].smallest).verdict == verdict
    change = relative_change(effects)
    assert math.isnan(change) if before == 0 else change == pytest.approx(after / before - 1)
    for measure in ("margin", "attention"):
        assert (np.sign(steadied(spreads, "in-context", measure)["effect"].round(9)) == np.sign(before - after)).all()
    rows = before_after(spreads).set_index(["measure", "when"])["mean"]
    assert rows["accuracy", "after"] - rows["accuracy", "before"] == pytest.approx(-effects["effect"].mean())


def test_the_strength_with_the_steadiest_accuracy_is_chosen_and_the_weakest_of_equals():
    tables = {a: spread(swinging(a)) for a in (0.1, 0.2, 0.3)}
    tried = [(0.0, 0.1), (0.25, 0.3), (0.5, 0.2), (0.75, 0.2), (1.0, 0.3)]
    table = pd.concat([tables[a].assign(strength=strength) for strength, a in tried])
    assert choose_strength(table) == 0.5

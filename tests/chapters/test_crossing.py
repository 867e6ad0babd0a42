"""Crossings are found where they were planted, and nowhere else; the control sees an exchange that only disturbs."""

import numpy as np
import pandas as pd
import pytest

from conftest import make_sets
from twotowers.chapters.shallow.crossing import (
    crossing,
    crossings,
    curve,
    exchanged,
    hand_over_effect,
    kept_within,
    layers_to_read,
    shares,
    summary,
)
from twotowers.publishing.evidence import Evidence
from twotowers.tracing.hand_over import PLACES, hand_over

NAN = float("nan")
LAYERS = list(range(0, 13, 2))  # of twelve
PLANTED = {"text": 3.0, "text+separator": 5.0, "label": 9.0, "query": 4.5, "last": 4.5}


def planted(where=None, sets=16, intact=2.0, within=0.9, jitter=0.1):
    """A table of `exchanged`: margins go from minus to plus the intact one, zero at the planted layer of each place.

    Two queries a set lie half above and below; sets are `jitter` of a layer apart, in all places alike.
    """
    rows = []
    for place, at in {**PLANTED, **(where or {})}.items():
        for i in range(sets):
            for layer in LAYERS:
                share = 1.0 if layer == 12 or at is None else np.clip((layer - at - jitter * (i % 3)) / 2, -1, 1)
                share = -share if place == "last" else share
                for query, part in enumerate((0.5, 1.5)):
                    rows.append((place, False, layer, 10 + i, query, part * share * intact))
                    rows.append((place, True, layer, 10 + i, query, part * (1 if layer == 12 else within) * intact))
    return pd.DataFrame(rows, columns=["place", "within", "layer", "set", "query", "margin"])


def judged(claim, table):
    shared = shares(table)
    effects, control = hand_over_effect(crossings(shared), claim), kept_within(shared, claim)
    return effects, Evidence(claim, 0, effects, control=control).verdict


# Where a share passes zero


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ([-1, -1, 1, 1], 3.0),
        ([-1, -0.5, 1.5, 1], 2.5),
        ([-1, 0, 1, 1], 2.0),
        ([-1, 0.5, -0.5, 0.5], 5.0),  # the last time
        ([0.5, -1, 1, 1], 3.0),
        ([0, 0, 1, 1], NAN),  # never below
        ([1, 0.5, 0.2, 1], NAN),
        ([-1, -1, -1, -1], NAN),
        ([-1, 1, 1, 0], NAN),
        ([-1, NAN, 1, 1], NAN),
        ([NAN] * 4, NAN),
    ],
)
def test_a_share_passes_zero_from_below_for_the_last_time(share, expected):
    assert crossing([0, 2, 4, 6], share) == pytest.approx(expected, nan_ok=True)


def test_layers_may_be_unevenly_apart():
    assert crossing([0, 2, 3], [-1, -1, 1]) == 2.5


def test_a_share_is_of_the_mean_intact_margin_of_all_sets():
    table = planted(sets=2)
    table.loc[table["set"] == 11, "margin"] *= 3  # intact margins 2 and 6
    shared = shares(table)
    top = shared[(shared["layer"] == 12) & (shared["place"] == "text") & ~shared["within"]]
    assert top["share"].tolist() == pytest.approx([0.5, 1.5])
    drawn = curve(shared)
    assert drawn[(drawn["layer"] == 12) & (drawn["place"] == "text")]["mean"].tolist() == pytest.approx([1, 1])


def test_planted_crossings_are_found_at_their_places():
    table = planted(jitter=0.0)
    found = summary(crossings(shares(table))).set_index("place")
    assert found["mean"].to_dict() == pytest.approx(PLANTED)
    assert list(found.index) == list(PLACES)
    assert (found["known"] == 16).all()
    assert (found["sets"] == 16).all()


def test_a_set_that_the_model_gets_wrong_has_no_crossing():
    table = planted(sets=3)
    table.loc[table["set"] == 11, "margin"] *= -1
    crossed = crossings(shares(table))
    assert crossed.loc[crossed["crossing"].isna(), "set"].tolist() == [11] * 5
    assert summary(crossed)["known"].tolist() == [2] * 5


def test_a_model_without_margin_has_neither_shares_nor_crossings():
    shared = shares(planted(intact=-1.0))
    assert shared["share"].isna().all()
    assert crossings(shared)["crossing"].isna().all()
    assert summary(crossings(shared))["known"].tolist() == [0] * 5
    assert kept_within(shared, "C1")["effect"].isna().all()


# Claims C1 and C2


@pytest.mark.parametrize(("claim", "expected"), [("C1", 4.0), ("C2", 4.5)])
def test_merging_before_transfer_is_supported(claim, expected):
    effects, verdict = judged(claim, planted({"label": 9.0}))
    assert effects["set"].tolist() == list(range(10, 26))
    assert effects["effect"].mean() == pytest.approx(expected, abs=0.05)
    assert verdict.verdict == "supported"
    assert verdict.control.mean == pytest.approx(0.9)


@pytest.mark.parametrize(("claim", "place"), [("C1", "text+separator"), ("C2", "query")])
def test_merging_after_transfer_is_contradicted(claim, place):
    effects, verdict = judged(claim, planted({place: 9.0, "label": 4.5}))
    assert effects["effect"].mean() == pytest.approx(-4.5, abs=0.05)
    assert verdict.verdict == "contradicted"


@pytest.mark.parametrize(("claim", "place"), [("C1", "text+separator"), ("C2", "query"), ("C1", "label")])
def test_a_place_that_never_crosses_has_no_effect_and_is_counted(claim, place):
    effects, verdict = judged(claim, planted({place: None}))
    assert effects["effect"].isna().all()
    assert verdict.verdict == "not testable"
    assert verdict.left_out == 16


def test_an_exchange_that_turns_the_answer_within_a_class_supports_nothing():
    _, verdict = judged("C1", planted(within=-0.2))
    assert verdict.control.mean == pytest.approx(-0.2)
    assert verdict.verdict == "inconclusive"


def test_the_control_is_the_lowest_share_of_the_two_places_of_the_claim():
    table = planted(within=0.9)
    table.loc[table["within"] & (table["place"] == "query") & (table["layer"] == 4), "margin"] *= -1
    shared = shares(table)
    assert kept_within(shared, "C1")["effect"].tolist() == pytest.approx([0.9] * 16)
    assert kept_within(shared, "C2")["effect"].tolist() == pytest.approx([-0.9] * 16)


# What is read


@pytest.mark.parametrize(
    ("n_layers", "few", "expected"),
    [
        (1, False, [0, 1]),
        (4, False, [0, 1, 2, 3, 4]),
        (16, False, list(range(17))),
        (17, False, [0, 2, 4, 6, 8, 10, 12, 14, 16, 17]),
        (30, True, [0, 7, 14, 21, 28, 30]),
        (1, True, [0, 1]),
    ],
)
def test_layers_reach_from_the_first_to_the_final_residual(n_layers, few, expected):
    assert layers_to_read(n_layers, few=few) == expected


def test_all_places_are_exchanged_in_one_pass_as_each_by_itself(tiny_gpt2):
    sets = make_sets(tiny_gpt2)
    table = exchanged(tiny_gpt2, sets, [0, 1, 2, 4])
    assert set(table["set"]) == {0, 1}
    wanted = [("text", False, [0, 2, 4])]
    wanted += [row for place in PLACES[1:] for row in ((place, False, [0, 1, 2, 4]), (place, True, [0, 4]))]
    for place, within, layers in wanted:
        part = table[(table["place"] == place) & (table["within"] == within)].sort_values(["set", "query", "layer"])
        alone = hand_over(tiny_gpt2, sets, place, layers, within=within)
        alone = alone.sort_values(["set", "query", "layer"])
        assert part["layer"].tolist() == alone["layer"].tolist()
        assert part["margin"].tolist() == pytest.approx(alone["margin"].tolist(), abs=1e-4)
    assert len(table) == sum(6 * len(layers) for _, _, layers in wanted)

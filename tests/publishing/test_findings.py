"""What was found is said from verdicts alone, whatever they are: zeros, nan, one set, a model at chance or at 100 %."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from twotowers import statistics
from twotowers.chapters.registry import CHAPTERS
from twotowers.paper import CLAIMS
from twotowers.publishing.evidence import Evidence
from twotowers.publishing.findings import (
    CENTRAL,
    CORE,
    FIGURES,
    FOLLOWS,
    HOLDS,
    answer,
    beyond,
    claims_of,
    closing,
    found,
    in_words,
    opening,
)
from twotowers.publishing.forest import forest, forest_alt, forest_table
from twotowers.publishing.ledger import NOT_RUN, random_groups
from twotowers.publishing.style import NARROW, styled
from twotowers.statistics import Estimate, Verdict, judge

NAN = float("nan")
WORDS = [getattr(statistics, name) for name in (
    "SUPPORTED", "NEGLIGIBLE", "ABSENT", "INCONCLUSIVE", "CONTRADICTED", "UNSTABLE", "NOTHING_TO_CURE", "UNTESTABLE",
)]  # fmt: skip


def made(verdict="supported", mean=0.3, low=0.2, high=0.4, **more):
    return Verdict(verdict, mean, low, high, 0.001, sets=16, smallest=0.1, **more)


def effects(mean, sets=16):
    return pd.DataFrame({"set": range(sets), "effect": [mean] * sets})


def test_every_verdict_can_be_said_of_every_claim():
    assert set(HOLDS) == {*WORDS, NOT_RUN}
    for word in WORDS:
        for name in CLAIMS:
            said = found(name, "m", made(word))
            assert said.startswith(f"[{word}]{{.verdict .verdict-")
            assert CLAIMS[name].sentence in said
            assert said.endswith(".")
            assert CLAIMS[name].unit in said


def test_a_supported_claim_names_effect_interval_unit_what_would_matter_and_its_control():
    said = found("C9", "m", made(control=Estimate(0.25, 0.2, 0.3), random_p=1 / 21))
    assert "This holds in m: **+30.0% (+20.0% to +40.0%) of the intact margin**, where 10% would matter" in said
    assert said.endswith(
        "; its control, which has to be above zero, is +25.0% (+20.0% to +30.0%); 4.8% of random groups, these heads "
        "counted, do as well."
    )


@pytest.mark.parametrize(
    ("random", "said"),
    [
        ([0.0] * 20, "none of 20 random groups does as well"),
        ([0.9] * 3 + [0.0] * 17, "3 of 20 random groups do as well"),
        ([0.9] + [0.0] * 19, "one of 20 random groups does as well"),
        ([0.9] * 20, "all 20 random groups do as well"),
        ([NAN] + [0.0] * 19, "one of 20 random groups does as well"),
        ([0.0], "the one random group does not do as well"),
        ([0.9], "the one random group does as well"),
        ([0.0] * 10_000, "none of 10,000 random groups does as well"),
    ],
)
def test_random_groups_are_counted_in_plain_words(random, said):
    verdict = Evidence("C9", 0, effects(0.3), random=random).verdict
    assert random_groups(verdict, verdict.random_p) == said
    among_all = statistics.holm({"C9": verdict})["C9"]
    assert random_groups(among_all, verdict.random_p) == said


@pytest.mark.parametrize(
    ("effect", "accuracy", "expected"),
    [
        (effects(0.3, sets=1), None, "cannot be tested on m: fewer than 8 demonstration sets have an effect."),
        (effects(NAN), None, "cannot be tested on m: fewer than 8"),
        (effects(0.3), effects(0.5), "of two-way accuracy includes one half."),  # a model at chance
        (effects(0.0, 66), effects(1.0, 66), "This does not show in m: **+0.0% (-"),  # a model that nothing hurts
        (pd.DataFrame({"set": range(16), "effect": np.linspace(-1e-9, 1e-9, 16)}), None,
         "This does not show in m: **less than 0.05% of accuracy either way**, where 5% would matter"),
    ],
)  # fmt: skip
def test_edge_cases_are_said_as_they_are(effect, accuracy, expected):
    verdict = judge(effect, CLAIMS["C4"].smallest, accuracy=accuracy, random=[0.0] * 20)
    said = found("C4", "m", verdict)
    assert expected in said
    assert "nan" not in said
    assert "-0.0%" not in said


def test_a_share_of_random_groups_is_never_none():
    assert "less than 0.1% of random groups" in found("C9", "m", made(random_p=1 / 10_001))


def test_a_chapter_opens_with_the_claim_that_it_is_about_and_has_a_line_for_each_other():
    lines = opening("towers", "m", {"C9": made(), "C7": made("absent")}).splitlines()
    assert "*C9. " in lines[0]
    assert [line[2:].split("*")[1][:3] for line in lines[2:]] == ["C7.", "C8.", "C10"]
    assert "This was not measured on m." in lines[3]
    assert opening("task", "m", {}) == closing("task", {}) == ""


def test_what_follows_goes_by_the_chapters_claims():
    for chapter in CHAPTERS:
        names = claims_of(chapter)
        assert bool(names) == (chapter in FOLLOWS)
        if names:
            assert closing(chapter, {name: made() for name in names}).endswith(FOLLOWS[chapter][0])
            assert closing(chapter, {}).endswith(FOLLOWS[chapter][1])
    assert closing("knockout", {"C4": made()}).startswith("Of the chapter's two claims, one holds (C4). ")
    assert closing("knockout", {"C4": made(), "C5": made()}).startswith(
        "Of the chapter's two claims, both hold (C4, C5"
    )
    untestable = {name: made("not testable") for name in ("C11", "C13")}
    assert closing("imbalance", untestable).startswith("Of the chapter's two claims, none can be tested. ")
    assert closing("imbalance", untestable | {"C13": made("absent")}).startswith(
        "Of the chapter's two claims, none holds. "
    )
    assert closing("values", {"C6": made("absent")}).startswith("The chapter's claim, C6, is absent. ")
    assert closing("values", {}).startswith("The chapter's claim, C6, is not run. ")


@pytest.mark.parametrize(
    ("words", "short", "number"),
    [
        (["supported"] * 3, "Yes.", "all three hold"),
        (["supported", "absent", "inconclusive"], "In part.", "one holds"),
        (["absent", "inconclusive", "contradicted"], "No.", "none holds"),
        (["supported, negligible"] * 3, "No.", "none holds"),
        (["inconclusive", "unstable", "inconclusive"], "It is open.", "none holds"),
        (["not testable"] * 3, "It cannot be tested.", "none holds"),
        ([], "Not measured yet.", "none holds"),
    ],
)
def test_the_answer_rests_on_the_core_alone(words, short, number):
    verdicts = {name: made(word) for name, word in zip(CORE, words, strict=False)}
    said = answer("m", verdicts | {"C1": made(), "C14": made("contradicted")})
    assert said.startswith(f"**{short}** Of the three steps that make the two towers, {number} in m:\n\n- ")
    assert all(f"({name})" in said for name in CORE)


def test_a_step_is_told_with_its_effect_and_what_that_is():
    said = answer("m", {"C9": made(random_p=0.01), "C6": made("not testable", NAN, NAN, NAN, reason="at chance")})
    assert "Query and key measure similarity (C9): **+30.0% (+20.0% to +40.0%) of the intact margin**, where " in said
    assert f"The effect is {CLAIMS['C9'].effect}." in said
    assert "Values carry the labels (C6): at chance. The effect is " in said
    assert "A few heads carry the task (C4)." in said
    assert "nan" not in said


def test_of_the_ledger_the_fewer_are_named_and_what_is_contradicted():
    every = {name: made() for name in CLAIMS}
    assert beyond({}) == beyond({"C1": made("absent")}) == "Of the paper's 14 claims, none is supported."
    assert beyond(every) == "Of the paper's 14 claims, 14 are supported."
    assert beyond(every | {"C5": made("absent")}) == (
        "Of the paper's 14 claims, 13 are supported. Not supported: a label's heads serve that label and not the other "
        "(C5, absent)."
    )
    assert beyond({"C3": made(), "C2": made("contradicted")}) == (
        "Of the paper's 14 claims, one is supported: deep attention raises the answer most (C3). The opposite was "
        "found of: the query merges into the last position in shallow layers (C2)."
    )


def test_figures_belong_to_the_chapters_of_their_claims():
    for name, figure in FIGURES.items():
        assert figure.startswith(f"{CLAIMS[name].chapter}-")
    assert list(CENTRAL) == [*CHAPTERS]
    assert all(figure.startswith(f"{chapter}-") for chapter, figure in CENTRAL.items())


def test_numbers_as_words():
    assert [in_words(number) for number in (0, 1, 12, 13)] == ["no", "one", "twelve", "13"]


def test_a_forest_can_be_drawn_of_anything():
    huge = made("contradicted", -5e9, -6e9, -4e9, control=Estimate(NAN, NAN, NAN))
    verdicts = {
        "C1": made(),
        "C2": huge,
        "C3": made("not testable", NAN, NAN, NAN),
        "C4": made("absent", 0.0, 0.0, 0.0),
    }
    verdicts["C5"] = dataclasses.replace(made(), control=Estimate(0.1, 0.0, 0.2))
    table = forest_table(verdicts)
    assert list(table["claim"]) == list(CLAIMS)
    assert table.set_index("claim").loc["C5", "control_mean"] == 0.1
    for each in (table, forest_table({})):
        with styled(NARROW):
            narrow = forest(each)
        assert [label.get_text() for label in narrow.axes[0].get_yticklabels()] == [*CLAIMS]
        drawing = forest(each)
        low, high = drawing.axes[0].get_xlim()
        assert math.isfinite(high)
        assert low == -high
        drawing.canvas.draw()
    assert "C2 contradicted, -5000000000.000 (" in forest_alt(verdicts)
    assert "C3 not testable;" in forest_alt(verdicts)
    assert "C14 not run." in forest_alt(verdicts)

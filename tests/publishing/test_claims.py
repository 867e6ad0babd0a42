"""A verdict is computed from the evidence of a claim, which is kept in one file, and can come out either way."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest

from conftest import ENTRY
from twotowers.chapters.chapter import Page
from twotowers.errors import DamagedRunError, UnknownNameError
from twotowers.paper import CLAIMS
from twotowers.prompts.sets import categories_of
from twotowers.prompts.tasks import load_task
from twotowers.publishing import specification
from twotowers.publishing.evidence import Evidence, by_set
from twotowers.publishing.ledger import (
    atlas,
    by_seed,
    claim_text,
    ledger,
    markdown,
    measured,
    number,
    read_ledger,
    sentence,
)
from twotowers.publishing.run_folder import RunFolder, digest_of
from twotowers.publishing.shown import Shown
from twotowers.statistics import Estimate, Verdict, judge
from twotowers.study import SCALES, Study

SETS = 16


def effects(mean, spread=0.02, sets=SETS):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"set": np.arange(sets).repeat(4), "effect": (mean + spread * rng.normal(size=sets)).repeat(4)})


def given(mean=0.3):
    """Evidence that passes every control."""
    return {"random": [0.0] * 20, "control": effects(mean), "before": effects(5.0)}


def test_an_unknown_claim_is_named():
    with pytest.raises(UnknownNameError, match="no claim 'C0'"):
        Evidence("C0", 0, effects(1))


@pytest.mark.parametrize("claim", CLAIMS)
def test_without_what_its_specification_names_no_claim_is_supported(claim):
    """Each control by itself is needed; with all of them there is support."""
    mean = 2 * CLAIMS[claim].smallest
    assert Evidence(claim, 0, effects(mean), **given()).verdict.verdict == "supported"
    for name in CLAIMS[claim].needs:
        kept = {other: value for other, value in given().items() if other != name}
        made = Evidence(claim, 0, effects(mean), **kept).verdict
        assert made.verdict == "inconclusive"
        assert made.reason.startswith("its control was not measured")
        assert Evidence(claim, 0, effects(-mean), **kept).verdict.verdict == "contradicted"
    assert Evidence(claim, 0, effects(mean)).verdict.verdict == ("inconclusive" if CLAIMS[claim].needs else "supported")


def test_all_claims_say_what_they_measure_and_what_controls_it():
    assert list(CLAIMS) == [f"C{i}" for i in range(1, len(CLAIMS) + 1)]
    for name, claim in CLAIMS.items():
        assert claim.smallest > 0
        assert claim.unit
        assert bool(claim.control) == bool(claim.needs), name
        assert set(claim.needs) <= {"random", "control", "before"}


def test_a_sentence_says_the_verdict_and_what_it_rests_on():
    said = sentence(Evidence("C4", 0, effects(0.3), random=[0.0] * 20).record())
    assert said.startswith("**C4: supported** by itself; the ledger corrects")
    assert " of accuracy, over 16 sets; smallest effect of interest 5%." in said
    assert ": none of 20 random groups does as well." in said
    assert "87.6% to 24.4%" in said
    assert said.endswith(f"Specification `{specification.specification_digest()[:12]}`.")
    said = sentence(Evidence("C1", 0, effects(0.0, 3.0)).record())
    assert said.startswith("**C1: inconclusive**. Demonstrations")
    assert "Its interval includes zero." in said
    assert "layers, over 16 sets; smallest effect of interest 1." in said


@pytest.mark.parametrize(
    ("claim", "estimate", "expected"),
    [
        ("C8", (0.3, 0.2, 0.4), "+0.300 (+0.200 to +0.400)"),
        ("C8", (-0.0021, -0.004, -0.00022), "-0.0021 (-0.0040 to -0.0002)"),
        ("C8", (-0.00021, -0.0003, -0.00012), "less than 0.001 either way"),
        ("C8", (0.0, 0.0, 0.0), "less than 0.001 either way"),
        ("C8", (0.2, 1e-9, 0.4), "+0.200 (+0.000 to +0.400)"),
        ("C8", (math.nan,) * 3, "not known"),
        ("C7", (0.05, 0.0002, 0.1), "+5.00% (+0.02% to +10.00%)"),
        ("C7", (-3e-8, -0.02, 0.02), "+0.0% (-2.0% to +2.0%)"),
        ("C7", (1.0, 0.955, 1.045), "+100.0% (+95.5% to +104.5%)"),
        ("C9", (-3e-8, -5e-8, 1e-8), "less than 0.1% either way"),
    ],
)
def test_an_effect_has_the_digits_that_its_interval_supports(claim, estimate, expected):
    said = number(Estimate(*estimate), CLAIMS[claim])
    assert said == expected
    assert "-0.0%" not in said


def test_an_effect_that_is_nothing_is_told_with_its_unit():
    assert measured(Estimate(0.0, -1e-9, 1e-9), CLAIMS["C9"]) == "less than 0.1% of the intact margin either way"
    assert measured(Estimate(0.3, 0.2, 0.4), CLAIMS["C9"]).endswith("(+20.0% to +40.0%) of the intact margin")


# Kept in a file


def test_evidence_is_read_back_as_it_was_to_the_last_digit(study):
    table = effects(1 / 3)
    table.loc[table["set"] == 2, "effect"] = np.nan
    kept = Evidence("C13", 5, by_set(table), categories_of(study.evaluation), **given(), folds=[0.1 + 0.2, np.nan])
    read = Evidence.of(json.loads(json.dumps(kept.record(), allow_nan=False)))
    assert read.record() == kept.record()
    assert read.verdict == kept.verdict
    assert read.verdict.left_out == 1
    assert (read.seed, read.verdict.verdict) == (5, "unstable")
    means = kept.record()["effects"]["effect"]
    assert means[2] is None
    assert means[3] == table.loc[table["set"] == 3, "effect"].mean()


DAMAGES = {
    "another claim": lambda record: record | {"claim": "C0"},
    "no effects": lambda record: record | {"effects": None},
    "another column": lambda record: record | {"effects": {"set": [1], "Effect": [1.0]}},
    "unequal columns": lambda record: record | {"effects": {"set": [1, 2], "effect": [1.0]}},
    "no number": lambda record: record | {"effects": {"set": [1], "effect": ["x"]}},
    "something more": lambda record: record | {"more": 1},
    "something less": lambda record: {name: value for name, value in record.items() if name != "folds"},
    "a list": lambda record: [record],
    "effects of another claim": lambda record: record | {"claim": "C9"},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_file_that_holds_something_else_is_refused(tmp_path, damage):
    run = RunFolder(tmp_path)
    file = tmp_path / "claims" / "C4.json"
    file.parent.mkdir()
    file.write_text(json.dumps(damage(Evidence("C4", 0, effects(0.3)).record())))
    with pytest.raises(DamagedRunError, match=r"claims/C4\.json holds"):
        read_ledger(run, {"claims/C4.json": digest_of(file)})


@pytest.fixture
def study(tiny_gpt2):
    scale = dataclasses.replace(SCALES["smoke"], evaluation_sets=SETS)
    return Study(tiny_gpt2, load_task("words"), scale, seed=0)


@pytest.fixture
def run(study, tmp_path, capsys):
    """A function that records effects and accuracies, and gives the run's folder."""

    def recorded(accuracy=0.8, own=None, **claims):
        folder, work = RunFolder(tmp_path / "run"), tmp_path / "work"
        page = Page("towers", study, work, {})
        page.hand_on("accuracy", {"set": [*range(SETS)], "effect": [accuracy] * SETS})
        for name, mean in claims.items():
            page.judge(name, effects(mean), **given(), accuracy=own)
        folder.require_writable()
        folder.commit("towers", work, ENTRY)
        return folder.path

    return recorded


def test_a_claim_is_recorded_and_read_back(run, study):
    table = ledger(run(C9=0.3)).set_index("claim")
    measured = judge(effects(0.3), 0.1, categories=categories_of(study.evaluation))
    assert table.loc["C9", "verdict"] == "supported"
    assert table.loc["C9", ["mean", "low", "high"]].tolist() == [measured.mean, measured.low, measured.high]
    assert table.loc["C9", "seed"] == "0"
    assert table.loc["C1", "verdict"] == "not run"
    assert len(table) == len(CLAIMS)


def test_a_page_shows_what_the_file_says(run):
    folder = run(C9=0.3)
    record = json.loads((folder / "claims" / "C9.json").read_text())
    assert Shown.read(folder, "towers").render(claim_text("C9")) == sentence(record)
    assert record["categories"]["set"] == [*range(SETS)]
    assert record["accuracy"]["effect"] == [0.8] * SETS


def test_effects_of_sets_that_were_not_drawn_are_refused(study, tmp_path):
    page = Page("towers", study, tmp_path, {})
    page.hand_on("accuracy", {"set": [0], "effect": [1.0]})
    with pytest.raises(ValueError, match="The categories of 1 sets are missing, set 16"):
        page.judge("C9", effects(0.3, sets=SETS + 1))


def test_a_model_at_chance_makes_every_claim_untestable(run):
    assert set(ledger(run(0.55, C9=0.3, C8=-0.3))["verdict"]) == {"not testable", "not run"}


def test_accuracy_at_a_chapters_own_shots_goes_before_that_of_the_task(run):
    folder = run(0.55, own=effects(0.9), C9=0.3)
    assert set(ledger(folder)["verdict"]) == {"supported", "not run"}


def test_a_ledger_is_made_by_holm_over_the_claims_that_it_holds(run, monkeypatch):
    """Alone a p of 0.03 supports; among two claims it does not, and the table says why."""

    def weak(self):
        return Verdict("supported", 0.3, 0.1, 0.5, 0.03, smallest=0.05)

    monkeypatch.setattr(Evidence, "verdict", property(weak))
    assert ledger(run(C9=0.3)).set_index("claim").loc["C9", "verdict"] == "supported"
    table = ledger(run(C9=0.3, C8=0.3)).set_index("claim")
    assert table.loc["C9", ["verdict", "reason"]].tolist() == ["inconclusive", "not among 2 claims: p = 0.060 by Holm"]


def test_tables_show_every_claim_of_every_model(run, tmp_path):
    folder, nothing = run(C4=0.3, C8=-0.3, C7=0.0), tmp_path / "nothing"
    nothing.mkdir()
    lines = markdown(ledger(folder)).splitlines()
    assert len(lines) == 1 + 2 + len(CLAIMS) + 1 + 2
    assert "[supported]{.verdict .verdict-supported}" in lines[6]
    assert "%) of accuracy |" in lines[6]
    assert "[contradicted]{" in lines[10]
    assert "| [absent]{.verdict .verdict-absent} | C7: " in lines[9]
    assert "of attention; its interval lies within the smallest effect of interest |" in lines[9]
    assert "| [C4: A few heads carry the task.](#fig-a) |" in markdown(ledger(folder), {"C4": "fig-a"})
    digest = specification.specification_digest()[:12]
    assert lines[-1] == f"Made with seed 0. Specification `{digest}`."
    both = atlas({"a": ledger(folder), "b": ledger(nothing)}).splitlines()
    assert both[6].count("|") == 4
    assert "[supported]{" in both[6]
    assert "[not run]{" in both[6]
    assert "a: Made with seed 0." in both
    assert "b: No claim has been measured." in both
    assert both[-1] == f"Specification `{digest}`."
    led = atlas({"a": ledger(folder)}, {"a": {"C4": "fig-a"}})
    assert "[see C4 in a](#fig-a)" in led  # links of one page do not all have the same words


def test_effects_of_other_seeds_are_as_short_as_those_of_the_page():
    rows = [(seed, claim, "absent", mean) for seed, mean in ((0, 0.1234), (1, -3e-8)) for claim in ("C8", "C9")]
    told = by_seed(pd.DataFrame(rows, columns=["seed", "claim", "verdict", "mean"]))
    assert "absent (+0.12) | [seed 1:]{.on-phone} absent (+0.00) |" in told
    assert "absent (+12.3%) | [seed 1:]{.on-phone} absent (+0.0%) |" in told


# The specification


@pytest.mark.parametrize("change", [{"smallest": 0.06}, {"effect": "another"}, {"control": "none"}, {"needs": ()}])
def test_another_specification_has_another_digest(monkeypatch, change):
    specification.specification_digest.cache_clear()
    before = specification.specification_digest()
    monkeypatch.setitem(CLAIMS, "C9", dataclasses.replace(CLAIMS["C9"], **change))
    specification.specification_digest.cache_clear()
    assert specification.specification_digest() != before
    monkeypatch.undo()
    specification.specification_digest.cache_clear()
    assert specification.specification_digest() == before


def test_the_specification_is_data_and_part_of_the_provenance(study, tmp_path):
    made = specification.specification()
    assert json.loads(json.dumps(made))["claims"]["C4"]["smallest"] == 0.05
    facts = Page("towers", study, tmp_path, {}).shown.facts
    assert facts.provenance["specification_sha256"] == specification.specification_digest()

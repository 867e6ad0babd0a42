"""A verdict is computed, and can come out either way."""

import numpy as np
import pandas as pd
import pytest

from twotowers.chapters.chapter import Page
from twotowers.errors import UnknownNameError
from twotowers.paper import CLAIMS
from twotowers.prompts.tasks import load_task
from twotowers.publishing.ledger import Verdict, atlas, judge, ledger, markdown
from twotowers.publishing.run_folder import RunFolder
from twotowers.statistics import Estimate
from twotowers.study import SCALES, Study


def effects(mean, spread=0.1, sets=32):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"set": np.arange(sets).repeat(4), "effect": (mean + spread * rng.normal(size=sets)).repeat(4)})


@pytest.mark.parametrize(("mean", "verdict"), [(0.3, "supported"), (-0.3, "contradicted"), (0.0, "inconclusive")])
def test_the_interval_decides(mean, verdict):
    assert judge("C7", effects(mean)).verdict == verdict


def test_one_set_decides_nothing():
    assert judge("C7", effects(0.3, sets=1)).verdict == "not testable"


def test_prompts_without_an_effect_are_left_out():
    table = effects(0.3)
    table.loc[::2, "effect"] = np.nan
    assert judge("C7", table).verdict == "supported"
    assert judge("C7", table.assign(effect=np.nan)).verdict == "not testable"


def test_many_prompts_do_not_replace_sets():
    """Forty thousand prompts of three sets that disagree are still three sets."""
    table = pd.DataFrame({"set": [0, 1, 2], "effect": [1.0, 1.0, -1.5]})
    many = pd.concat([table] * 10_000)
    assert judge("C7", many).verdict == "inconclusive"


def test_an_unknown_claim_is_named():
    with pytest.raises(UnknownNameError, match="no claim 'C15'"):
        judge("C15", effects(1))


def test_all_fourteen_claims_are_there_with_a_sentence():
    assert list(CLAIMS) == [f"C{i}" for i in range(1, 15)]
    sentence = judge("C4", effects(0.3)).sentence
    assert sentence.startswith("**C4: supported.**")
    assert "87.6 % to 24.4 %" in sentence


@pytest.mark.parametrize(
    ("claim", "estimate", "number"),
    [
        ("C6", (0.3, 0.2, 0.4), "+0.300 (+0.200 to +0.400)"),
        ("C6", (-0.00021, -0.0003, -0.00012), "-0.0002 (-0.0003 to -0.0001)"),
        ("C6", (0.0, 0.0, 0.0), "+0.000 (+0.000 to +0.000)"),
        ("C6", (0.2, 1e-9, 0.4), "+0.200000 (+0.000000 to +0.400000)"),
        ("C7", (0.05, 0.0002, 0.1), "+5.00% (+0.02% to +10.00%)"),
    ],
)
def test_what_is_not_zero_does_not_look_like_zero(claim, estimate, number):
    assert f" {number}." in Verdict(claim, Estimate(*estimate), "supported").sentence


@pytest.fixture
def study(tiny_gpt2):
    return Study(tiny_gpt2, load_task("words"), SCALES["smoke"], seed=0)


@pytest.fixture
def run(study, tmp_path, capsys):
    """A function that records effects and an accuracy, and gives the run's folder."""

    def recorded(accuracy=(0.8, 0.7, 0.9), **claims):
        folder, work = RunFolder(tmp_path / "run"), tmp_path / "work"
        page = Page("towers", study, work, {})
        page.hand_on("accuracy", dict(zip(("mean", "low", "high"), accuracy, strict=True)))
        for name, mean in claims.items():
            page.judge(name, effects(mean))
        folder.require_writable()
        folder.commit("towers", work, {})
        return folder.path

    return recorded


def test_a_claim_is_recorded_and_read_back(run):
    table, measured = ledger(run(C9=0.3)).set_index("claim"), judge("C9", effects(0.3)).estimate
    assert table.loc["C9", "verdict"] == "supported"
    assert table.loc["C9", ["mean", "low", "high"]].tolist() == [measured.mean, measured.low, measured.high]
    assert table.loc["C1", "verdict"] == "not run"
    assert len(table) == 14


def test_a_model_at_chance_makes_every_claim_untestable_when_it_is_read(run):
    assert set(ledger(run((0.55, 0.48, 0.62), C9=0.3, C8=-0.3))["verdict"]) == {"not testable", "not run"}


def test_tables_show_every_claim_of_every_model(run, tmp_path):
    folder = run(C4=0.3, C8=-0.3)
    lines = markdown(ledger(folder)).splitlines()
    assert len(lines) == 2 + 14
    assert "**supported**" in lines[5]
    assert "%" in lines[5]
    assert "**contradicted**" in lines[9]
    both = atlas({"a": ledger(folder), "b": ledger(tmp_path / "nothing")}).splitlines()
    assert len(both) == 2 + 14
    assert both[5].count("|") == 4
    assert "**supported**" in both[5]
    assert "**not run**" in both[5]

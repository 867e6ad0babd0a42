"""Where nothing holds, verdicts seldom say that something does; where something does, they often say so."""

import pytest

from twotowers.bench import verdicts
from twotowers.publishing.results import read_table, write_table

REPETITIONS, SEED = 300, 1
MARGIN = 4 * (0.05 * 0.95 / REPETITIONS) ** 0.5  # four standard errors of a share of 5 %


def within(share, truth=0.05, repetitions=REPETITIONS):
    return abs(share - truth) <= 4 * (truth * (1 - truth) / repetitions) ** 0.5


@pytest.mark.parametrize("name", ["normal", "steps of an eighth", "zero in half of the sets"])
@pytest.mark.parametrize("sets", [8, 66])
def test_false_verdicts_and_coverage_of_one_claim(name, sets):
    row = verdicts.null_case(name, sets, REPETITIONS, SEED)
    assert row["false"] <= 0.05 + MARGIN
    assert 0.93 - MARGIN / 2 <= row["coverage"] <= 0.97 + MARGIN / 2


def test_sets_that_share_categories_do_not_make_a_verdict_out_of_nothing():
    """A share of a fifth is about the worst; without the clustered error it would be a false verdict in four."""
    row = verdicts.category_case(66, 150, SEED)
    assert row["false"] <= 0.07 + 4 * (0.07 * 0.93 / 150) ** 0.5


def test_a_ledger_of_which_nothing_holds_seldom_says_otherwise():
    alone, corrected = verdicts.ledger_cases(60, SEED)
    assert corrected["false"] <= 0.05 + 4 * (0.05 * 0.95 / 60) ** 0.5
    assert within(alone["false"], 1 - 0.95**14, 60)  # so the correction is needed


def test_an_effect_that_random_groups_have_as_well_is_seldom_supported():
    assert verdicts.control_case(REPETITIONS, SEED)["false"] <= 0.05 + MARGIN


def test_an_effect_that_is_there_is_found():
    found = [verdicts.power_case(0.5, sets, 100, SEED, corrected=False)["supported"] for sets in verdicts.SIZES]
    assert found == sorted(found)
    assert found[-1] > 0.9
    assert verdicts.power_case(0.5, 66, 30, SEED, corrected=True)["supported"] > 0.7


def test_the_table_on_the_page_is_the_file(tmp_path):
    table = verdicts.simulate(2, seed=7)
    assert write_table(table, tmp_path / "made.csv") == verdicts.KINDS
    text = verdicts.page(tmp_path / "made.csv")
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 2 + len(table)
    assert "2 repetitions each, seed 7" in text
    first = read_table(tmp_path / "made.csv", verdicts.KINDS).iloc[0]
    assert f"| normal | 8 | {first['coverage']:.1%} | {first['false']:.1%} |  |" in text
    assert "not been run" in verdicts.page(tmp_path / "nothing.csv")

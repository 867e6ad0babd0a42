"""The same run with other seeds: beside it, resumed, never mixed in, and shown only if the same code made it."""

import json

import pandas as pd
import pytest

from clones import record, run_of
from twotowers.chapters.registry import with_needed
from twotowers.cli import main
from twotowers.paper import CLAIMS
from twotowers.pipeline import run as pipeline
from twotowers.pipeline import site
from twotowers.pipeline.expected import write_expected
from twotowers.pipeline.pages import Published, chosen_over_seeds
from twotowers.pipeline.seeds import JUDGING, given, measured, run_seeds, times_chosen
from twotowers.pipeline.status import status
from twotowers.publishing.run_folder import RunFolder, runs_of


def seeds(model, number, **options):
    return run_seeds(str(model), number, scale="smoke", chapters=pipeline.CHAPTERS, **options)


AGAIN = len(with_needed(JUDGING))


def beside(run, seed):
    return RunFolder(run.path.parent / pipeline.SEEDS / str(seed) / run.name)


@pytest.fixture
def run(root, model, executed):
    done, made = seeds(model, 3), RunFolder(run_of(root))
    assert {o.run for o in done[:9]} == {made.name}
    assert {o.run for o in done[9:]} == {f"{made.name}, seed {seed}" for seed in (1, 2)}
    return made


def test_every_chapter_that_judges_is_run_with_each_seed_and_the_run_itself_stays_the_only_one(root, run, executed):
    assert [one.path for one in runs_of(root)] == [run.path]
    assert {line.run for line in status(root)} == {run.name}
    assert record(run.path)["run"]["seed"] == 0
    assert [call["seed"] for call in executed] == [0] * 9 + [1] * AGAIN + [2] * AGAIN
    assert {CLAIMS[name].chapter for name in CLAIMS} == set(JUDGING)
    for seed in (1, 2):
        assert record(beside(run, seed).path)["run"] == record(run.path)["run"] | {"seed": seed}


def test_they_are_resumed_and_the_first_is_the_one_that_was_asked_for(run, model, executed):
    executed.clear()
    assert {o.state for o in seeds(model, 3)} == {"up to date"}
    assert {o.state for o in seeds(model, 4)[9 + 2 * AGAIN :]} == {"run"}
    assert [call["seed"] for call in executed] == [3] * AGAIN
    executed.clear()
    done = seeds(model, 2, seed=5, replace=True)
    assert [o.state for o in done] == ["run"] * 9 + ["run"] * AGAIN  # beside seed 5 stands seed 0
    assert set(measured(run)) == {0, 1, 2, 3, 5}


def test_each_gives_its_own_ledger_and_heads(run):
    found = measured(run)
    assert list(found) == [0, 1, 2]
    means = [seed.ledger.set_index("claim").loc["C9", "mean"] for seed in found.values()]
    assert means[1] - means[0] == pytest.approx(1)
    assert means[2] - means[0] == pytest.approx(2)
    assert given(beside(run, 2)).ledger.equals(found[2].ledger)


def test_what_other_code_or_another_run_made_is_not_shown(run, model):
    file = beside(run, 1).path / "run.json"
    plain = json.loads(file.read_text())
    for change in (
        lambda r: r["chapters"]["towers"]["made_of"]["results"].update({"the code of chapters/towers": "other"}),
        lambda r: r["chapters"]["towers"]["made_of"]["results"].update({"torch": "1.0"}),
        lambda r: r["chapters"].pop("order"),
        lambda r: r["run"].update(scale="paper"),
    ):
        changed = json.loads(json.dumps(plain))
        change(changed)
        file.write_text(json.dumps(changed))
        assert list(measured(run)) == [0, 2]
    file.write_text("not a record")
    assert list(measured(run)) == [0, 2]


def test_the_pages_say_how_verdicts_fell_and_how_often_a_head_was_chosen(root, run):
    own = Published(run, pipeline.CHAPTERS, run.title)
    assert sorted(set(own.by_seed["seed"])) == [0, 1, 2]
    assert chosen_over_seeds(own) == "Times a head is chosen, of 3 seeds (0, 1, 2): 0.1 3."
    built = site.build().parent / "runs" / run.name
    for page in ("claims", "knockout"):
        assert "Times a head is chosen, of 3 seeds" in (built / f"{page}.html").read_text()
    assert "seed 2" in (built / "claims.html").read_text()


def test_heads_are_counted_over_seeds():
    heads = {0: {"all": [[1, 2], [3, 4]]}, 4: {"all": [[3, 4]]}, 7: {"all": [[3, 4], [1, 2]]}}
    assert times_chosen(heads) == "Times a head is chosen, of 3 seeds (0, 4, 7): 3.4 3, 1.2 2."
    assert times_chosen({0: heads[0]}) == ""


def test_all_seeds_become_expected_values_and_those_of_another_run_are_not_shown(root, run, monkeypatch):
    folder = write_expected(run.name)
    assert sorted(set(pd.read_csv(folder / "ledger.csv")["seed"])) == [0, 1, 2]
    for seed in (1, 2):
        beside(run, seed).path.joinpath("run.json").unlink()
    assert sorted(Published(run, (), "").seeds) == [0, 1, 2]
    facts = json.loads((folder / "run.json").read_text())
    facts["run"]["scale"] = "paper"
    (folder / "run.json").write_text(json.dumps(facts))
    assert sorted(Published(run, (), "").seeds) == [0]


def test_a_scheduler_is_given_one_seed(root, model, capsys):
    assert main(["run", "--model", str(model), "--seeds", "2", "--submit", "slurm"]) == 2
    assert "leave out --submit" in capsys.readouterr().err


def test_the_command_takes_the_number(root, model, executed):
    assert main(["run", "--model", str(model), "--scale", "smoke", "--seeds", "2"]) == 0
    assert {call["seed"] for call in executed} == {0, 1}
    assert main(["run", "--model", str(model), "--scale", "smoke", "--labels", "bar,foo", "--seeds", "2"]) == 0
    assert len(runs_of(root)) == 1

"""What a run takes: read from records, never typed, and estimated only from what was measured near enough."""

import dataclasses
import json
import os
import shutil

import psutil
import pytest

from clones import PROJECT, go, record, run_of, write_chapter
from twotowers.chapters.registry import CHAPTERS
from twotowers.models.registry import REGISTRY
from twotowers.paper import PAPER_MODELS
from twotowers.pipeline import costs, schema
from twotowers.pipeline.costs import Cost, basis_of, cost_of, duration, estimate, size
from twotowers.pipeline.machine import machine, peak_memory
from twotowers.pipeline.pages import Published
from twotowers.publishing.run_folder import RunFolder

TOY = "toy-gpt2"
HERE = {"processor": "Abacus", "cores": 3, "memory": 4 * 2**30, "gpu": None}


@pytest.fixture
def own(tmp_path):
    """A copy of the committed run, whose chapters say what they took."""
    folder = shutil.copytree(PROJECT / "book" / "runs" / TOY, tmp_path / TOY)
    run = RunFolder(folder)

    def say(made):
        for number, entry in enumerate(made["chapters"].values(), 1):
            entry |= {"seconds": 60.0, "cost": {"peak_memory": number * 2**20, "jobs": 1, "machine": HERE}}

    run.update(say)
    return Published(run, CHAPTERS, TOY)


def called(own, name, **run):
    """The same run, as one of another model or kind."""
    folder = shutil.copytree(own.run.path, own.run.path.with_name(name))
    RunFolder(folder).update(lambda made: made["run"].update(model=name, **run))
    return Published(RunFolder(folder), CHAPTERS, name)


def test_what_a_run_took_is_what_its_record_and_files_say(own):
    cost = cost_of(own)
    assert cost.seconds == 60.0 * len(CHAPTERS)
    assert cost.memory == len(CHAPTERS) * 2**20
    assert cost.machines == ("Abacus, 3 cores, 4.0 GiB",)
    assert cost.parameters == REGISTRY[TOY].parameters
    listed = {file for entry in own.run.record()["chapters"].values() for file in entry["files"]}
    assert cost.disk == sum((own.run.path / file).stat().st_size for file in listed)
    text = costs.measured([own])
    assert "[time:]{.on-phone} 9 minutes |" in text
    assert "9.0 MiB" in text


def test_what_nobody_measured_is_said_to_be_unknown(own):
    own.run.update(lambda made: made["chapters"]["order"].pop("cost"))
    assert cost_of(own).memory is None
    for name in CHAPTERS:
        own.run.update(lambda made, name=name: made["chapters"][name].pop("cost", None))
    assert cost_of(own).machines == ()
    assert costs.measured([own]).count(costs.UNKNOWN) == 2


def test_every_model_of_the_paper_has_a_row_that_says_what_a_run_of_it_takes(own, monkeypatch):
    text = costs.of_the_paper([own])
    for key, name in PAPER_MODELS.items():
        (row,) = (line for line in text.splitlines() if f"`{key}`" in line)
        assert name in row
        assert f"twotowers run --model {key}" in row
        assert f"twotowers export {key}" in row
        assert size(3 * REGISTRY[key].memory + 2**30) in row
        assert "not estimated" in row  # the toy is far from any of them
    monkeypatch.setattr(costs, "FURTHEST", 10**6)
    (row,) = (line for line in costs.of_the_paper([own]).splitlines() if "`llama-7b`" in line)
    assert duration(540 * REGISTRY["llama-7b"].parameters / REGISTRY[TOY].parameters) in row


def test_a_model_of_the_paper_that_was_run_shows_its_ledger_and_what_it_took(own):
    text = costs.of_the_paper([own, called(own, "gpt2-large")])
    (row,) = (line for line in text.splitlines() if "`gpt2-large`" in line)
    assert "runs/gpt2-large/claims.ipynb" in row
    assert "[time:]{.on-phone} 9 minutes |" in row
    assert "export" not in row


def test_estimates_stand_on_the_largest_whole_run_of_our_own():
    small = Cost("a", "book", len(CHAPTERS), 100.0, None, 1, (), 10, False)
    large = dataclasses.replace(small, title="b", parameters=1000, seconds=300.0)
    others = [
        dataclasses.replace(large, parameters=2000, contributed=True),
        dataclasses.replace(large, parameters=3000, scale="smoke"),
        dataclasses.replace(large, parameters=4000, chapters=1),
        dataclasses.replace(large, parameters=None),
    ]
    assert basis_of([small, large, *others]) == large
    assert basis_of(others) is None
    assert estimate(5000, large) == 1500.0
    assert estimate(1000 * costs.FURTHEST + 1, large) is None
    assert estimate(1, None) is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 seconds"), (59, "59 seconds"), (150, "2.5 minutes"), (7300, "2 hours"), (1e6, "12 days")],
)
def test_durations_have_two_digits_and_a_unit_that_fits(seconds, said):
    assert duration(seconds) == said


def test_the_registry_is_shown_whole():
    rows = {line.split("`")[1]: line for line in costs.registry().splitlines() if line.startswith("| `")}
    assert list(rows) == list(REGISTRY)
    assert all(f" {costs.in_words(entry.parameters)} |" in rows[key] for key, entry in REGISTRY.items())


@pytest.mark.parametrize(
    ("number", "said"),
    [(7, "7"), (338_816, "339 thousand"), (134_515_008, "135 million"), (32_528_943_616, "32.5 billion")],
)
def test_large_numbers_have_three_digits_and_a_word(number, said):
    assert costs.in_words(number) == said


@pytest.mark.usefixtures("one_thread")
def test_a_chapter_keeps_how_much_memory_its_kernel_took_and_on_which_machine(root, model):
    write_chapter(root, "task", "held = bytearray(300 * 2**20)\nheld[::4096] = b'x' * len(held[::4096])\nprint(model)")
    go(model)
    cost = record(run_of(root))["chapters"]["task"]["cost"]
    assert cost["machine"] == json.loads(json.dumps(machine()))
    assert cost["jobs"] == 1
    schema.require_shape("cost", cost, schema.COST)  # so the run can be handed in
    if peak_memory(os.getpid()) is not None:
        assert 300 * 2**20 < cost["peak_memory"] < psutil.virtual_memory().total


def test_of_a_process_that_is_not_there_no_memory_is_known():
    assert peak_memory(2**30) is None

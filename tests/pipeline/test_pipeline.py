"""The pipeline, without kernels: what runs a chapter again, in which order, and what a run that stops leaves behind."""

import json
import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill
import pytest
import torch
from nbclient.exceptions import DeadKernelError

from clones import go, read, tree
from twotowers.chapters.registry import CHAPTERS
from twotowers.errors import ChapterError, RunFolderError, UnknownNameError
from twotowers.pipeline import freshness
from twotowers.pipeline import run as pipeline
from twotowers.pipeline.run import Outcome

pytestmark = pytest.mark.usefixtures("one_thread")


def touch(model):
    os.utime(model / "model.safetensors")


def change_weights(model):
    file = model / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def edit_chapter(runs):
    file = runs.parents[1] / "chapters" / "task.md"
    file.write_text(file.read_text() + "\nOne more sentence.\n")


def edit_module(name):
    with (freshness.PACKAGE / f"{name}.py").open("a") as module:
        module.write("# one more remark\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda runs, model: change_weights(model),
        lambda runs, model: edit_chapter(runs),
        lambda runs, model: edit_module("tracing/capture"),
        lambda runs, model: (runs / "task.ipynb").unlink(),
        lambda runs, model: next(runs.glob("figures/*.csv")).unlink(),
        lambda runs, model: (runs / "run.json").unlink(),
        lambda runs, model: (runs / "run.json").write_text('{"chapters": '),
    ],
    ids=["weights", "chapter", "module", "notebook gone", "figure gone", "record gone", "record broken"],
)
def test_a_change_runs_the_chapter_again(runs, model, executed, change):
    change(runs, model)
    assert [o.state for o in go(model)] == ["run"]
    assert [o.state for o in go(model)] == ["up to date"]
    assert len(executed) == 1


@pytest.mark.parametrize("options", [{"seed": 1}, {"scale": "book"}, {"task": "mine.csv"}, {"force": True}])
def test_another_parameter_runs_the_chapter_again(runs, model, executed, options):
    rows = [f"{word}{n},{word}" for word in ("apple", "saw") for n in range(8)]
    Path("mine.csv").write_text("\n".join(["text,label", *rows]))
    (outcome,) = pipeline.run(str(model), **{"chapters": ["task"], "scale": "smoke"} | options)
    assert outcome.state == "run"
    options.pop("force", None)
    options = options | ({"task": str(Path("mine.csv").resolve())} if "task" in options else {})
    assert {name: executed[0][name] for name in options} == options


@pytest.mark.parametrize(
    "change",
    [
        lambda runs, model: touch(model),
        lambda runs, model: edit_module("cli"),
        lambda runs, model: edit_module("bench/page"),
        lambda runs, model: (runs / "notes.txt").write_text("mine"),
    ],
    ids=["file times", "the command", "the benchmark", "other files"],
)
def test_what_changes_no_result_runs_nothing_again(runs, model, executed, change):
    change(runs, model)
    assert [o.state for o in go(model)] == ["up to date"]
    assert not executed


def test_chapters_run_in_the_order_of_the_book_and_once(root, model, executed):
    assert [o.chapter for o in go(model, "knockout", "task", "knockout")] == ["task", "knockout"]
    assert len(executed) == 2


def test_side_by_side_a_chapter_waits_for_those_that_it_reads(root, model, monkeypatch):
    order, shallow = [], threading.Event()

    def execute(notebook, output, parameters, **options):
        folder = Path(options["resources"]["metadata"]["path"])
        name = folder.name.split("-")[-2]
        if name == "knockout":  # goes on while a later chapter, which does not read it, begins and ends
            assert shallow.wait(600)
            (folder / "heads.json").write_text('{"all": []}')
        order.append(name)
        if name == "shallow":
            shallow.set()
        return notebook

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    outcomes = go(model, *CHAPTERS, jobs=4)
    assert [o.chapter for o in outcomes] == list(CHAPTERS)
    assert sorted(order) == sorted(CHAPTERS)
    assert order[-1] == "claims"
    assert all(order.index(name) > order.index("knockout") for name in ("values", "towers", "imbalance", "order"))
    assert order.index("knockout") > order.index("shallow")  # they did run side by side
    assert {o.state for o in go(model, *CHAPTERS, jobs=4)} == {"up to date"}


def test_how_many_fit(model, monkeypatch):
    small = pipeline.prepare(str(model), "words", "smoke", 0)[2].model
    memory = SimpleNamespace(available=2**40)
    monkeypatch.setattr(pipeline.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for cores, fit in ((1, 1), (3, 3), (64, pipeline.MOST_JOBS)):
        monkeypatch.setattr(pipeline, "_cores", lambda cores=cores: cores)
        assert pipeline.jobs_that_fit(small) == fit
    memory.available = 2**31
    assert pipeline.jobs_that_fit(small) == 1
    memory.available = 0
    assert pipeline.jobs_that_fit(small) == 1
    memory.available = 2**40
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pipeline.jobs_that_fit(small) == 1


def test_the_identities_are_measured_once_for_all_chapters_of_a_model(root, model, executed, monkeypatch):
    measured = []
    plain = pipeline.require
    monkeypatch.setattr(pipeline, "require", lambda model: measured.append(model) or plain(model))
    go(model)
    go(model, "locate")
    assert len(measured) == 1
    change_weights(model)
    go(model, "locate")
    assert len(measured) == 2


def test_a_run_folder_belongs_to_a_model_whatever_path_leads_to_it(root, model, executed, monkeypatch):
    go(model)
    monkeypatch.chdir(model)
    monkeypatch.setattr(pipeline, "project_root", lambda: root)
    (again,) = go(".")
    assert again == Outcome("mine", "task", "up to date", again.seconds, 1)


def test_a_registry_key_is_no_folder_in_the_way(root, executed, monkeypatch):
    """Beside the run folders, a key names the model and not its run."""
    asked = []
    monkeypatch.setattr(pipeline, "open_study", lambda model, *a: asked.append(model) or pytest.skip("opened"))
    (root / "smollm2-135m").mkdir()
    with pytest.raises(pytest.skip.Exception):
        go("smollm2-135m")
    assert asked == ["smollm2-135m"]


@pytest.mark.parametrize("names", [["tasks"], ["task", "nope"], [""]])
def test_an_unknown_chapter_is_refused_before_anything_is_written(root, model, names):
    before = tree(root)
    with pytest.raises(UnknownNameError, match="There is no chapter"):
        go(model, *names)
    assert tree(root) == before


# What stops a run


def test_leftovers_of_a_killed_run_are_removed(runs, model):
    (runs / ".tmp-task-abc" / "figures").mkdir(parents=True)
    (runs / ".tmp-task-abc" / "figures" / "half.svg").write_text("<svg")
    (runs / ".tmp-run.json").write_text("{")
    (runs / f".tmp-{socket.gethostname()}-{2**30}-run.json").write_text("{")  # no process has such a number
    go(model)
    assert not list(runs.glob(".tmp-*"))


def test_what_other_runs_are_writing_is_left_alone(runs, model):
    ours, theirs = runs / f".tmp-{socket.gethostname()}-{os.getppid()}-task-abc", runs / ".tmp-elsewhere-7-task-abc"
    for folder in (ours, theirs):
        folder.mkdir()
    go(model)
    assert set(runs.glob(".tmp-*")) == {ours, theirs}
    week = time.time() - 8 * 24 * 3600
    os.utime(theirs, (week, week))
    go(model)
    assert set(runs.glob(".tmp-*")) == {ours}


@pytest.mark.parametrize(
    ("error", "kind", "part"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (OSError(28, "No space left on device"), RunFolderError, r"mine cannot be written \(No space left"),
        (DeadKernelError("Kernel died"), ChapterError, "kernel of chapter 'task' died, .* lack of memory"),
    ],
    ids=["interrupted", "disk full", "kernel killed"],
)
def test_a_chapter_that_is_stopped_leaves_everything_as_it_was(root, runs, model, monkeypatch, error, kind, part):
    before = tree(root)

    def stop(*arguments, **options):
        (Path(options["resources"]["metadata"]["path"]) / "half.txt").write_text("half")
        raise error

    monkeypatch.setattr(papermill, "execute_notebook", stop)
    with pytest.raises(kind, match=part):
        go(model, force=True)
    assert tree(root) == before


@pytest.mark.parametrize("ending", [".svg", ".ipynb", ".json"])
def test_a_disk_that_is_full_while_files_are_moved_is_one_sentence(runs, model, monkeypatch, ending):
    plain = Path.replace

    def replace(self, target):
        if Path(target).suffix == ending:
            raise OSError(28, "No space left on device")
        return plain(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(RunFolderError, match=r"\(No space left on device\); free space there"):
            go(model, force=True)
    assert not list(runs.glob(".tmp-*"))
    assert json.loads((runs / "run.json").read_text())["chapters"]["task"]["figures"] == ["figure-1"]
    nbformat.validate(read(runs, "task"))

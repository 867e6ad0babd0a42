"""The pipeline, without kernels: in which order chapters run, and what a run that stops leaves behind."""

import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import papermill
import pytest
import torch
from nbclient.exceptions import DeadKernelError

from clones import chapters, go, kept, made_up, record, run_of, tree
from twotowers.chapters.registry import CHAPTERS
from twotowers.errors import ChapterError, RunFolderError
from twotowers.models.loading import Loading
from twotowers.pipeline import run as pipeline
from twotowers.pipeline.status import run_status
from twotowers.publishing.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")


def test_chapters_run_in_the_order_of_the_book_and_once(root, model, executed):
    assert [o.chapter for o in go(model, "knockout", "task", "knockout")] == ["task", "knockout"]
    assert chapters(executed) == ["task", "knockout"]


def test_side_by_side_a_chapter_waits_for_those_that_it_reads(root, model, monkeypatch):
    order, shallow = [], threading.Event()

    def execute(text, parameters, folder, *others, **options):
        if text.stem == "knockout":  # goes on while a later chapter, which does not read it, begins and ends
            assert shallow.wait(600)
        made_up(text, parameters, folder)
        order.append(text.stem)
        if text.stem == "shallow":
            shallow.set()

    monkeypatch.setattr(pipeline, "execute", execute)
    outcomes = go(model, *CHAPTERS, jobs=4)
    assert [o.chapter for o in outcomes] == list(CHAPTERS)
    assert sorted(order) == sorted(CHAPTERS)
    assert (order[0], order[-1]) == ("task", "claims")
    assert all(order.index(name) > order.index("knockout") for name in ("values", "towers", "imbalance", "order"))
    assert order.index("knockout") > order.index("shallow")  # they did run side by side
    assert {o.state for o in go(model, *CHAPTERS, jobs=4)} == {"up to date"}


def test_how_many_fit(model, monkeypatch):
    small = pipeline.prepare(str(model), "words", "smoke", 0, Loading()).study.model
    memory = SimpleNamespace(available=2**40)
    monkeypatch.setattr(pipeline, "machine_memory", lambda: memory.available)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for cores, fit in ((1, 1), (3, 3), (64, pipeline.MOST_JOBS)):
        monkeypatch.setattr(pipeline, "cores", lambda cores=cores: cores)
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
    monkeypatch.setattr(pipeline, "require", lambda model, labels: measured.append(model) or plain(model, labels))
    go(model)
    go(model, "locate")
    assert len(measured) == 1
    (model / "special_tokens_map.json").write_text("{}")
    go(model, "locate")
    assert len(measured) == 2


def test_a_registry_key_is_no_folder_in_the_way(root, executed, monkeypatch):
    """Beside the run folders, a key names the model and not its run."""
    asked = []
    monkeypatch.setattr(pipeline, "open_study", lambda model, *a: asked.append(model) or pytest.skip("opened"))
    (root / "smollm2-135m").mkdir()
    with pytest.raises(pytest.skip.Exception):
        go("smollm2-135m")
    assert asked == ["smollm2-135m"]


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
        (OSError(28, "No space left on device"), RunFolderError, r"cannot be written \(No space left"),
        (DeadKernelError("Kernel died"), ChapterError, "kernel of chapter 'task' died, .* lack of memory"),
    ],
    ids=["interrupted", "disk full", "kernel killed"],
)
def test_a_chapter_that_is_stopped_leaves_everything_as_it_was(root, runs, model, monkeypatch, error, kind, part):
    monkeypatch.undo()
    before = {path: content for path, content in tree(runs).items() if path.name != "run.json"}

    def stop(*arguments, **options):
        (Path(options["resources"]["metadata"]["path"]) / "half.txt").write_text("half")
        raise error

    with monkeypatch.context() as patch:
        patch.chdir(root)
        patch.setenv("TWOTOWERS_CACHE", str(root.parent / "cache"))
        patch.setattr(pipeline, "require", lambda model, labels: pd.DataFrame({"identity": [], "holds": []}))
        patch.setattr(papermill, "execute_notebook", stop)
        with pytest.raises(kind, match=part):
            go(model, force=True)
    assert {path: content for path, content in tree(runs).items() if path.name != "run.json"} == before
    assert record(runs)["chapters"]["task"]["redo"]


@pytest.mark.parametrize("ending", [".svg", ".ipynb", ".json", ".csv"])
def test_a_disk_that_is_full_while_files_are_moved_is_one_sentence(runs, model, executed, monkeypatch, ending):
    plain, moved = Path.replace, kept(runs)

    def replace(self, target):
        if Path(target).suffix == ending and Path(target).name != "run.json" and ".sources" not in target.parts:
            raise OSError(28, "No space left on device")
        return plain(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(RunFolderError, match=r"\(No space left on device.*\); free space there"):
            go(model, force=True)
    assert not list(runs.glob(".tmp-*"))
    assert record(runs)["chapters"] == {}
    assert [o.state for o in go(model)] == ["run"]
    assert kept(runs) == moved


def test_wherever_a_move_stops_no_entry_speaks_of_files_that_it_did_not_make(root, model, executed, monkeypatch):
    """Stop at every single change of the file system in turn: the next run of the same seed mends the run, whole."""
    go(model)
    folder = run_of(root)
    expected, plain = kept(folder), Path.replace
    for stop_at in range(60):
        count = []

        def replace(self, target, count=count, stop_at=stop_at):
            count.append(target)
            if len(count) > stop_at:
                raise KeyboardInterrupt
            return plain(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            try:
                go(model, seed=1, replace=True)
            except KeyboardInterrupt:
                pass
            else:
                break
        for line in run_status(root, RunFolder(folder)):
            assert line.state.name in ("done", "missing"), (stop_at, line)
        go(model, replace=True)
        assert kept(folder) == expected
        assert not list(folder.glob(".tmp-*"))
    assert stop_at > 8

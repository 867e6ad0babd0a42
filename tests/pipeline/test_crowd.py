"""Interrupted and crowded: what several commands at one run do, and what of a chapter outlives an interruption."""

import os
import socket
import subprocess
import sys
import threading

import pandas as pd
import pytest
from filelock import Timeout

from clones import go, made_up, record, run_of
from twotowers.chapters.chapter import Page
from twotowers.errors import CheckError, OtherRunError
from twotowers.models import parts as keeping
from twotowers.models.loading import Loading
from twotowers.pipeline import run as pipeline
from twotowers.publishing.crowd import in_use, own_folder, write_whole
from twotowers.publishing.run_folder import RunFolder
from twotowers.study import open_study

pytestmark = pytest.mark.usefixtures("one_thread", "light_figures")
PART = (pd.DataFrame({"x": [0.1 + 0.2]}),)


def parts_of(text, parameters, folder):
    """The parts that a chapter would find in its kernel."""
    study = open_study(*(parameters[x] for x in ("model", "task", "scale", "seed")), Loading(**parameters["loading"]))
    return Page(text.stem, study, folder, dict(parameters["reads"])).study.model.parts


@pytest.fixture
def stopped(monkeypatch):
    """Chapters keep a part and are interrupted; gives what they had found before."""
    found = []

    def execute(text, parameters, folder, *others, **options):
        parts = parts_of(text, parameters, folder)
        found.append(parts.find("a") is not None)
        parts.keep("a", PART)
        raise KeyboardInterrupt

    monkeypatch.setattr(keeping, "EVERY", 0.0)
    monkeypatch.setattr(pipeline, "execute", execute)
    return found


def test_parts_outlive_an_interruption_and_go_when_the_chapter_is_done(runs, model, stopped, monkeypatch):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            go(model, "locate", jobs=1)
    assert stopped == [False, True]
    assert list(runs.glob(".parts-*/*"))
    assert not list(runs.glob(".tmp-*"))
    monkeypatch.setattr(
        pipeline, "execute", lambda text, parameters, folder, *_, **__: made_up(text, parameters, folder)
    )
    go(model, "locate", jobs=1)
    assert not list(runs.glob(".parts-*"))
    assert not [file for file in record(runs)["chapters"]["locate"]["files"] if "parts" in file]


def test_parts_that_something_else_has_made_are_not_found(root, runs, model, stopped, monkeypatch):
    def stop(**options):
        with pytest.raises(KeyboardInterrupt):
            go(model, "locate", jobs=1, **options)

    stop()
    stop(force=True)
    code = root.parent / "package" / "tracing" / "sweep.py"
    code.write_text(code.read_text() + "\nMORE = 1\n")
    stop()
    stop(seed=1, replace=True)
    stop(seed=1)
    assert stopped == [False, False, False, False, True]


def test_a_chapter_without_the_pipeline_or_run_again_to_compare_keeps_no_parts(tmp_path, model):
    page = Page("task", open_study(str(model), "words", "smoke", 0), tmp_path / "work", None)
    assert type(page.study.model.parts) is keeping.Parts


def test_a_run_that_fails_leaves_alone_what_another_command_has_begun(root, model, executed, monkeypatch):
    """Its folder was removed, and what the other had measured was lost with the record of what the run is of."""

    def fail(model, labels):
        folder = root / "book" / "runs" / next((root / "book" / "runs").glob("[!.]*")).name
        (folder / f".tmp-{socket.gethostname()}-{os.getppid()}-here").touch()  # a process that lives
        raise CheckError("It does not hold.")

    monkeypatch.setattr(pipeline, "require", fail)
    with pytest.raises(CheckError):
        go(model)
    assert record(run_of(root))["run"]["scale"] == "smoke"


def test_a_run_that_was_replaced_meanwhile_keeps_nothing_and_says_so(runs, model, monkeypatch):
    def execute(text, parameters, folder, *others, **options):
        made_up(text, parameters, folder)
        (runs / f".tmp-{socket.gethostname()}-{os.getppid()}-here").touch()
        RunFolder(runs).begin(record(runs)["run"] | {"seed": 7})

    monkeypatch.setattr(pipeline, "execute", execute)
    with pytest.raises(OtherRunError, match="was replaced by another command while this one made its chapter locate"):
        go(model, "locate", jobs=1)
    assert record(runs)["run"]["seed"] == 7
    assert not record(runs)["chapters"]


def test_a_chapter_that_another_command_makes_is_waited_for_and_said_so(runs, model, executed, capsys):
    waiting = threading.Event()
    said = RunFolder(runs)

    def hold():
        with said.lock("locate"):
            waiting.set()
            while "is being made by another command" not in "".join(heard):
                heard.append(capsys.readouterr().err)

    heard = []
    holder = threading.Thread(target=hold)
    holder.start()
    waiting.wait()
    go(model, "locate", jobs=1)
    holder.join()
    assert "locate is being made by another command, which is waited for" in "".join(heard)


def test_who_waits_for_a_chapter_can_be_interrupted(runs):
    """The thread waited on, and with it the command that was told to stop."""
    ends = []

    def wait():
        with pytest.raises(Timeout), RunFolder(runs).lock("locate", given_up=lambda: True):
            pass
        ends.append(True)

    waiting = threading.Thread(target=wait)
    with RunFolder(runs).lock("locate"):
        waiting.start()
        waiting.join()
    assert ends


def test_what_a_killed_process_has_left_beside_is_removed_by_the_next(tmp_path):
    code = (
        "import sys, os, pathlib; from twotowers.publishing.crowd import own_folder\n"
        "with own_folder(pathlib.Path(sys.argv[1]), 'x') as folder: print(folder, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    left = tmp_path / killed.stdout.strip()
    assert left.is_dir()
    assert not in_use(left)
    with own_folder(tmp_path, "x") as own:
        assert list(tmp_path.iterdir()) == [own]
        assert in_use(own)
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_whole_or_stays_as_it_was_and_is_named(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    file.write_text("before")

    def full(number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: .*a\.json"):
            write_whole(file, "after")
    assert {f.name: f.read_text() for f in tmp_path.iterdir()} == {"a.json": "before"}
    write_whole(file, "after")
    assert file.read_text() == "after"

"""Chapters in real kernels: one that stops leaves the others, and nothing of the machine is published."""

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import papermill
import pytest
from nbclient.exceptions import CellTimeoutError
from papermill.clientwrap import PapermillNotebookClient

from clones import go, read, run_of, write_chapter
from twotowers.errors import ChapterError, UserError
from twotowers.pipeline import run as pipeline
from twotowers.pipeline import schedule

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_chapter_that_stops_leaves_the_finished_ones_and_the_next_run_goes_on_there(root, model):
    write_chapter(root, "task", "print(model)")
    write_chapter(root, "locate", "open('half.txt', 'w').write('half')\n1 / 0")
    with pytest.raises(ChapterError) as caught:
        go(model, "task", "locate")
    assert str(caught.value) == "Chapter 'locate' stopped with ZeroDivisionError: division by zero"
    folder = run_of(root)
    assert {path.name for path in folder.iterdir()} == {"task.ipynb", "run.json"}  # nothing of the kernel's
    write_chapter(root, "locate", "print(seed)")
    assert [(o.chapter, o.state) for o in go(model, "locate", "task")] == [("task", "up to date"), ("locate", "run")]


def test_chapters_run_side_by_side_and_a_failure_keeps_what_was_running(root, model, monkeypatch):
    """Two kernels wait for each other, then one for the failure to be noticed; the third chapter never begins."""
    failed, plain = root / "failed", schedule.wait

    def notice(running, **options):
        found = plain(running, **options)
        if any(job.exception() for job in found.done):
            failed.touch()
        return found

    monkeypatch.setattr(schedule, "wait", notice)
    wait = (
        "import pathlib, time\nplace = pathlib.Path('..', f'{NAME}.tmp')\nplace.touch()\nend = time.time() + 600\n"
        "while not pathlib.Path('..', f'{OTHER}.tmp').exists() and time.time() < end:\n    time.sleep(0.05)\n"
        "assert time.time() < end\n"
    )
    outlive = f"while not pathlib.Path({str(failed)!r}).exists() and time.time() < end:\n    time.sleep(0.05)\n"
    outlive += "assert time.time() < end\n"
    write_chapter(root, "task", "print('which all others need')")
    write_chapter(root, "knockout", "NAME, OTHER = 'knockout', 'locate'\n" + wait + outlive + "print('done')")
    write_chapter(root, "locate", "NAME, OTHER = 'locate', 'knockout'\n" + wait + "1 / 0")
    write_chapter(root, "shallow", "print('begun')")
    with pytest.raises(ChapterError, match="'locate' stopped with ZeroDivisionError"):
        go(model, "knockout", "locate", "shallow", jobs=2)
    folder = run_of(root)
    assert (folder / "knockout.ipynb").is_file()
    assert not (folder / "shallow.ipynb").exists()
    assert list(json.loads((folder / "run.json").read_text())["chapters"]) == ["task", "knockout"]


def test_chapters_side_by_side_have_their_own_folder_and_share_the_cores(root, model, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    code = "import os\nhere = pathlib.Path(folder)\n"
    code += "print(os.environ['OMP_NUM_THREADS'], pathlib.Path.cwd() == here)"
    for name in ("task", "locate"):
        write_chapter(root, name, "import pathlib\n" + code)
    go(model, "task", "locate", jobs=2)
    for name in ("task", "locate"):
        (output,) = [o for cell in read(run_of(root), name).cells for o in cell.get("outputs", ())]
        assert output.text.split() == [str(pipeline.cores()), "True"]


def test_output_that_comes_late_is_waited_for_and_a_cell_that_never_ends_is_told(root, model, monkeypatch):
    write_chapter(root, "task", "print(model)")
    waits = []

    def execute(client):
        waits.append(client.iopub_timeout)
        raise CellTimeoutError("A cell timed out")

    monkeypatch.setattr(PapermillNotebookClient, "execute", execute)
    with pytest.raises(ChapterError, match="'task' was given up because a cell of it took too long"):
        go(model)
    assert min(waits) >= 600  # seconds
    assert not list(run_of(root).glob(".tmp-*"))


def test_a_users_mistake_that_shows_in_the_kernel_is_told_as_such(root, model):
    write_chapter(
        root, "task", "from twotowers.errors import LabelError\nraise LabelError('The label is bad; choose another.')"
    )
    with pytest.raises(UserError, match=r"^The label is bad; choose another\.$"):
        go(model)
    assert not (run_of(root) / "task.ipynb").exists()


def test_an_interrupted_command_ends_with_130_and_leaves_no_temporary_folder(root, model):
    """A real Ctrl-C, in a process of its own."""
    write_chapter(root, "task", "import pathlib, time\npathlib.Path('started').touch()\ntime.sleep(600)")
    code = (
        "import sys; from twotowers import cli; from twotowers.pipeline import run; "
        "run.Prepared.check = lambda *a: None; "
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "run", "--model", str(model), "--chapter", "task", "--scale", "smoke"]
    process = subprocess.Popen(
        command,
        cwd=root,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    runs, deadline = root / "book" / "runs", time.monotonic() + 600
    while not list(runs.glob("*/.tmp-*/started")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # a terminal signals the whole group, kernel included
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].endswith("what is finished is kept, run the same command to go on (without --force).")
    assert "Traceback" not in err
    assert "Kernel" not in err
    assert not list(runs.glob("*/.tmp-*"))


def test_progress_bars_counts_timings_and_paths_are_not_published(root, model, monkeypatch):
    task = root / "mine.csv"
    rows = [f"{word}{n},{word}" for word in ("apple", "saw") for n in range(8)]
    task.write_text("\n".join(["text,label", *rows]))

    def execute(notebook, output, parameters, **options):
        result = nbformat.v4.new_output("execute_result", {"text/plain": "7"}, execution_count=3)
        noise, said = (nbformat.v4.new_output("stream", name=n, text=n) for n in ("stderr", "stdout"))
        cell = nbformat.v4.new_code_cell(f"model = '{model}'", execution_count=3, outputs=[noise, said, result])
        cell.metadata.update(tags=["injected-parameters"], papermill={"duration": 1.5}, execution={"t": "now"})
        notebook.cells.insert(2, cell)
        notebook.metadata["papermill"] = {"input_path": str(root)}
        return notebook

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    go(model, task=str(task))
    notebook = read(run_of(root), "task")
    nbformat.validate(notebook)
    cell = notebook.cells[2]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert dict(cell.metadata) == {"tags": ["remove-cell"]}
    assert cell.source.splitlines() == [
        "model = 'mine'", "task = 'mine.csv'", "scale = 'smoke'", "seed = 0", "loading = {}", "folder = ''",
        "reads = {}",
    ]  # fmt: skip
    assert [o.get("text", o.get("data")) for o in cell.outputs] == ["stdout", {"text/plain": "7"}]
    assert cell.execution_count is cell.outputs[1].execution_count is None

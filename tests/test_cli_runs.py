"""The command when it has something to do: check, run, jobs, models; and how it ends if that fails."""

import json
from types import SimpleNamespace

import pytest
import submitit
import torch

from clones import run_of, tree, write_chapter
from twotowers.chapters.registry import CHAPTERS, needs
from twotowers.cli import main
from twotowers.errors import ChapterError, SiteError
from twotowers.models.loading import Loading
from twotowers.models.registry import REGISTRY
from twotowers.pipeline import run as pipeline
from twotowers.publishing.provenance import provenance
from twotowers.study import open_study
from twotowers.tracing import check

pytestmark = pytest.mark.usefixtures("one_thread")

IDENTITIES = (
    "heads and bias add up to the attention output",
    "parts add up to the final residual",
    "projected parts add up to the logits",
    "attention rows sum to one",
    "packed prompts answer as separate ones",
    "knock-out equals edited weights",
)


# What goes right, and what is our fault


def test_check_prints_every_identity_and_exits_with_0(tiny_folders, bare_clone, capsys):
    before = tree(bare_clone)
    assert main(["check", str(tiny_folders["llama-gqa"])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.endswith(" holds") for line in lines)
    for identity in IDENTITIES:
        assert sum(line.startswith(identity) for line in lines) == 1
    assert tree(bare_clone) == before


def test_check_of_a_model_that_fails_exits_with_1_and_says_what_fails(tiny_folders, bare_clone, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")  # as a job of something else has it: the model is not split
    monkeypatch.setattr(check, "TOLERANCE", dict.fromkeys(check.TOLERANCE, 0.0))
    assert main(["check", str(tiny_folders["gpt2"])]) == 1
    out, err = capsys.readouterr()
    assert any(line.endswith(" FAILS") for line in out.splitlines())
    assert err.splitlines()[-1].endswith("); its results would be wrong, so report its family.")


def test_a_model_that_fails_the_check_is_not_run(tiny_folders, bare_clone, capsys, monkeypatch):
    monkeypatch.setattr(check, "TOLERANCE", dict.fromkeys(check.TOLERANCE, 0.0))
    monkeypatch.setattr(pipeline, "execute", lambda *a: pytest.fail("it ran"))
    before = tree(bare_clone)
    assert main(["run", "--model", str(tiny_folders["gpt2"]), "--scale", "smoke"]) == 2
    assert "tiny-gpt2 fails the check: '" in capsys.readouterr().err.splitlines()[-1]
    assert tree(bare_clone) == before


def test_several_models_run_in_order_and_a_later_mistake_is_told_first(tiny_folders, bare_clone, capsys, monkeypatch):
    ran = []
    monkeypatch.setattr(pipeline, "run", lambda model, **options: ran.append(model) or [])
    good = [str(tiny_folders["gpt2"]), str(tiny_folders["llama-gqa"])]
    before = tree(bare_clone)
    assert main(["run", "--scale", "smoke", "--model", *good, "smollm2-135n"]) == 2
    assert "did you mean 'smollm2-135m'?" in capsys.readouterr().err
    assert not ran
    assert tree(bare_clone) == before
    done = [pipeline.Outcome("tiny", "task", "run", 1.0, 2)]
    monkeypatch.setattr(pipeline, "run", lambda model, **options: ran.append(model) or done)
    assert main(["run", "--scale", "smoke", "--model", *good]) == 0
    assert ran == good


def test_a_job_a_chapter_runs_as_without_a_scheduler(tiny_folders, bare_clone, capsys):
    """The local executor: the same run folder, two jobs at a time, and the second time nothing is left to do."""
    for name in ("task", "locate"):
        write_chapter(bare_clone, name, "print(model)")
    asked = ["run", "--model", str(tiny_folders["gpt2"]), "--scale", "smoke", "--submit", "local", "--jobs", "2"]
    for state, chapters in (("run", ["task", "locate"]), ("up to date", ["task"])):
        assert main([*asked, "--chapter", *chapters]) == 0
        out = capsys.readouterr().out
        assert all(f"{chapter:<10} {state} " in out for chapter in chapters)
    folder = run_of(bare_clone)
    assert (folder / "task.ipynb").is_file()
    assert not list(folder.glob(".tmp-*"))
    assert set(json.loads((folder / "run.json").read_text())["chapters"]) == {"task", "locate"}


def test_jobs_of_slurm_wait_for_those_that_they_read(tiny_folders, bare_clone, capsys, monkeypatch):
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
    number_of_jobs = 2 * len(CHAPTERS)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[1:-1]] == [str(i + 1) for i in range(number_of_jobs)]
    assert shown[-1] == f"{number_of_jobs} jobs; their logs are in book/runs/.jobs"
    pieces = [(model, chapter) for model in models for chapter in CHAPTERS]
    for number, (piece, found) in enumerate(zip(pieces, submitted, strict=True)):
        first = 1 + len(CHAPTERS) * (number // len(CHAPTERS))
        ids = sorted(first + CHAPTERS.index(other) for other in needs(piece[1]))
        given = found[2].pop("dependency", "afterok:").removeprefix("afterok:").split(":")
        assert found[2].pop("kill_on_invalid_dep", None) == ("yes" if ids else None)
        assert found == (*piece, {"partition": "gpu"})
        assert sorted(int(other) for other in given if other) == ids
    assert main([*asked, models[0], "--chapter", "nope"]) == 2
    assert len(submitted) == number_of_jobs


def test_a_job_that_fails_is_named(tiny_folders, bare_clone, capsys):
    (bare_clone / "book" / "chapters" / "task.md").unlink()
    asked = ["run", "--model", str(tiny_folders["gpt2"]), "--scale", "smoke", "--submit", "local", "--chapter", "task"]
    assert main(asked) == 2
    assert "task failed (" in capsys.readouterr().err


def test_schedulers_that_are_not_there_are_named(tiny_folders, bare_clone, capsys):
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
        "replace": False, "loading": Loading(),
    }  # fmt: skip
    header, row = capsys.readouterr().out.strip().splitlines()
    assert header.split() == ["run", "chapter", "state", "seconds", "figures"]
    assert row.split() == ["tiny", "task", "up", "to", "date", "1.2", "2"]


def test_how_a_model_is_loaded_reaches_the_study_and_the_command_that_repeats_it(tiny_folders, monkeypatch):
    seen = []

    def run(model, **options):
        study = open_study(model, scale="smoke", loading=options["loading"])
        loaded = study.model
        seen.append((loaded.dtype, loaded.device_map, loaded.quantise, provenance(study)["command"]))
        return [pipeline.Outcome("tiny", "task", "run", 1.0, 0)]

    monkeypatch.setattr(pipeline, "run", run)
    asked = ["run", "--model", str(tiny_folders["gpt2"])]
    assert main([*asked, "--dtype", "bfloat16", "--device-map", "cpu", "--quantise", "nf4"]) == 0
    assert main(asked) == 0
    command = "twotowers run --model tiny-gpt2 --task words --scale smoke"
    assert seen == [
        (torch.bfloat16, "cpu", "nf4", f"{command} --dtype bfloat16 --device-map cpu --quantise nf4"),
        (torch.float32, None, None, command),
    ]


def test_a_dtype_that_does_not_exist_is_refused(tiny_folders, bare_clone, capsys):
    before = tree(bare_clone)
    assert main(["run", "--model", str(tiny_folders["gpt2"]), "--dtype", "bfloat61"]) == 2
    assert "There is no dtype 'bfloat61': did you mean 'bfloat16'?" in capsys.readouterr().err
    assert tree(bare_clone) == before


@pytest.mark.parametrize(
    ("error", "status", "part"),
    [
        (ChapterError("Chapter 'task' stopped with KeyError: 'x'"), 1, "Chapter 'task' stopped"),
        (SiteError("The site lacks page index"), 1, "The site lacks"),
        (KeyboardInterrupt(), 130, "what is finished is kept"),
        (OSError(28, "No space left on device", "/x/y"), 2, "No space left on device: /x/y"),
        (ZeroDivisionError("first\nsecond"), 1, "Stopped by ZeroDivisionError: first (TWOTOWERS_DEBUG=1"),
        (
            ValueError("could not convert string to float: 'ab'"),
            2,
            "TQDM_MININTERVAL in the environment cannot be read",
        ),
        (ValueError("invalid literal for int() with base 10: 'ab'"), 2, "TQDM_MININTERVAL in the environment cannot"),
        (ValueError("could not convert string to float: 'abc'"), 1, "Stopped by ValueError"),
    ],
)
def test_any_other_end_is_one_sentence_too(monkeypatch, capsys, error, status, part):
    def run(*arguments, **options):
        raise error

    monkeypatch.setattr(pipeline, "run", run)
    monkeypatch.delenv("TWOTOWERS_DEBUG", raising=False)
    monkeypatch.setenv("TQDM_MININTERVAL", "ab")  # which libraries read as a number when they are loaded
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

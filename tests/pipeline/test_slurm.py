"""Jobs of a real Slurm, a cluster of this machine alone; left out where it is not installed (slurm-wlm, munge)."""

import json
import re
import tempfile
from pathlib import Path

import pytest

import slurm
from clones import run_of, write_chapter
from slurm import ask, wait_until
from twotowers.cli import main

pytestmark = [
    pytest.mark.skipif(bool(slurm.missing()), reason=f"Slurm is not installed: {', '.join(slurm.missing())}"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture(scope="module")
def running():
    with tempfile.TemporaryDirectory(prefix="slurm-") as short, slurm.cluster(Path(short) / "one") as config:
        yield config


@pytest.fixture
def config(running, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(running))
    return running


def submit(capsys, folder, *options):
    """The ids of the jobs of two chapters, the second of which reads what the first writes, by chapter."""
    asked = ["run", "--model", str(folder), "--scale", "smoke", "--chapter", "locate", "--submit", "slurm", *options]
    assert main(asked) == 0
    out = capsys.readouterr().out
    return {chapter: job for job, chapter in re.findall(r"^ *(\d+) +\S+ +(\w+)", out, re.MULTILINE)}, out


def state(config, job):
    return ask(config, "scontrol", "show", "job", job).partition("JobState=")[2].split()[0]


def ended(config):
    wait_until(lambda: not ask(config, "squeue", "-h").strip(), "no job in the queue")


def done(root):
    """The chapters that are done; a run of which nothing was made has no folder."""
    records = [*(root / "book" / "runs").glob("[!.]*/run.json")]
    return {chapter for record in records for chapter in json.loads(record.read_text())["chapters"]}


def test_jobs_wait_for_what_they_read_and_run(config, tiny_folders, bare_clone, capsys):
    for name in ("task", "locate"):
        write_chapter(bare_clone, name, "print(model)")
    jobs, out = submit(capsys, tiny_folders["gpt2"])
    limit = ask(config, "scontrol", "show", "job", jobs["task"]).partition("TimeLimit=")[2].split()[0]
    assert limit == "1-00:00:00"
    assert re.search(rf"{jobs['locate']} .*locate +task \({jobs['task']}\)", out)
    ended(config)
    assert done(bare_clone) == {"task", "locate"}


def test_what_waits_for_a_cancelled_job_goes_with_it_and_both_are_resumed(config, tiny_folders, bare_clone, capsys):
    write_chapter(bare_clone, "task", "import time; time.sleep(10_000)")
    write_chapter(bare_clone, "locate", "print(model)")
    jobs, _ = submit(capsys, tiny_folders["gpt2"], "--slurm", "time=600")
    assert "TimeLimit=10:00:00" in ask(config, "scontrol", "show", "job", jobs["task"])
    wait_until(lambda: state(config, jobs["task"]) == "RUNNING", "a job that runs")
    assert state(config, jobs["locate"]) == "PENDING"
    ask(config, "scancel", jobs["task"])
    ended(config)
    assert state(config, jobs["locate"]) == "CANCELLED"
    assert done(bare_clone) == set()
    write_chapter(bare_clone, "task", "print(model)")
    submit(capsys, tiny_folders["gpt2"])
    ended(config)
    assert done(bare_clone) == {"task", "locate"}


def test_what_waits_for_a_failed_job_goes_with_it(config, tiny_folders, bare_clone, capsys):
    write_chapter(bare_clone, "task", "raise ValueError('on purpose')")
    write_chapter(bare_clone, "locate", "print(model)")
    jobs, _ = submit(capsys, tiny_folders["gpt2"])
    ended(config)
    assert [state(config, jobs[chapter]) for chapter in ("task", "locate")] == ["FAILED", "CANCELLED"]
    logs = "".join(p.read_text() for p in (bare_clone / "book" / "runs" / ".jobs").glob(f"{jobs['task']}_*.err"))
    assert "on purpose" in logs


def test_nothing_is_lost_where_a_job_takes_no_environment_along(config, tiny_folders, bare_clone, capsys, tmp_path):
    """Options of ours travel as parameters, the folders of caches in the job's script."""
    write_chapter(bare_clone, "task", "import os; print(loading, os.environ.get('TWOTOWERS_CACHE'))")
    write_chapter(bare_clone, "locate", "print(model)")
    submit(capsys, tiny_folders["gpt2"], "--slurm", "export=NONE", "--dtype", "bfloat16")
    ended(config)
    assert done(bare_clone) == {"task", "locate"}
    text = (run_of(bare_clone) / "task.ipynb").read_text()
    assert "bfloat16" in text
    assert str(tmp_path / "cache") in text

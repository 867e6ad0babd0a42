"""The command as a process: a signal at any moment is one line and its status, and so are closed or full streams."""

import os
import signal
import subprocess
import sys

import pytest

from twotowers.cli import main
from twotowers.process import settle_environment

# The command, which stops itself where a module is imported or at its very end, so that no clock plays a part.
COMMAND = """
import os, signal, sys
number, where = int(sys.argv.pop(1)), sys.argv.pop(1)
from twotowers import cli, process

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == where:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), number)
            if "twice" in os.environ.get("TRIED", ""):
                os.kill(os.getpid(), number)

sys.meta_path.insert(0, Finder())
if where == "end":
    plain = sys.exit
    def exit(status):
        os.kill(os.getpid(), number)
        plain(status)
    process.sys.exit = exit
cli.main()
"""
DEFAULT = signal.default_int_handler


def stopped(number, where, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", COMMAND, str(int(number)), where, *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, DEFAULT),
    )  # fmt: skip


@pytest.mark.parametrize("where", ["torch", "pandas", "transformers", "nnsight", "twotowers.models.model"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_libraries_load_is_one_line(where, number, status):
    done = stopped(number, where, "check", "toy-gpt2")
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith("twotowers: Stopped")
    assert len(done.stderr.splitlines()) == 1


def test_a_signal_that_is_sent_twice_is_told_once():
    done = stopped(signal.SIGTERM, "pandas", "check", "toy-gpt2", TRIED="twice")
    assert (done.returncode, len(done.stderr.splitlines())) == (143, 1)


DROPPING = """
import os, signal, sys, time, weakref
from twotowers.process import as_process

class Thing:
    pass

def command():
    thing = Thing()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del thing
    time.sleep(600)

as_process(command, lambda error: print(type(error).__name__, file=sys.stderr) or error.status)
"""


def test_a_signal_where_python_drops_what_is_raised_still_ends_the_command():
    """The command went on to its end, below an "Exception ignored in"."""
    done = subprocess.run([sys.executable, "-c", DROPPING], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (143, "Stopped\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_when_all_is_said_changes_nothing(number):
    done = stopped(number, "end", "tasks")
    assert (done.returncode, done.stderr) == (0, "")
    assert "words" in done.stdout


SWALLOWED = """
import os, signal
from twotowers.process import as_process

def command():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        raise ImportError("a library could not load") from None

def told(error):
    print(type(error).__name__)
    return error.status

as_process(command, told)
"""


def test_a_library_that_makes_another_error_of_a_signal_is_not_believed():
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED], capture_output=True, text=True, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, DEFAULT),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "Stopped\n", "")


def shell(command):
    """A command line of a shell, with `T` for the command."""
    command = command.replace("T", f"{sys.executable} -m twotowers")
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False, env=usual
    )


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("T tasks | true", 141), ("T --help | true", 141), ("T nonsense 2>&1 | true", 141), ("T tasks >&-", 0),
        ("T tasks >&- 2>&-", 0), ("T cite x 2>&-", 2),
    ],
)  # fmt: skip
def test_a_reader_that_is_gone_ends_the_command_without_a_word(command, status):
    done = shell(command)
    assert (done.returncode, done.stderr) in [(status, ""), (0, "")] or command.startswith("T nonsense")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
@pytest.mark.parametrize("asked", ["tasks", "--help", "run --help"])
def test_a_full_disk_behind_standard_output_is_named(asked):
    done = shell(f"T {asked} >/dev/full")
    assert done.returncode == 2
    assert done.stderr == "twotowers: No space left on device: standard output\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
def test_a_full_disk_behind_standard_error_leaves_the_status():
    assert shell("T cite x 2>/dev/full").returncode == 2


@pytest.mark.skipif(os.name == "nt", reason="a folder that is in use cannot be removed there")
@pytest.mark.parametrize("cache", ["", "relative"])
def test_a_working_folder_that_is_gone_is_named(cache, tmp_path, monkeypatch):
    """A library that was loaded there ended the process with a word of its own."""
    (tmp_path / "gone").mkdir()
    monkeypatch.setenv("TWOTOWERS_CACHE", cache)
    monkeypatch.chdir(tmp_path / "gone")
    done = shell("rmdir ../gone && T status")
    assert done.stderr == "twotowers: The working folder is gone; repeat this in another one.\n"
    assert done.returncode == 2


def test_a_backend_of_matplotlib_that_is_none_stops_nothing():
    """No window is opened, and matplotlib, which reads the name while it is imported, would refuse it."""
    done = shell("MPLBACKEND=nonsense T cite towers-exchange --model nothing")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "MPLBACKEND" not in done.stderr
    assert "backend" not in done.stderr


def test_folders_of_caches_hold_wherever_a_process_works(monkeypatch, tmp_path):
    """A chapter's kernel works in another folder, so a cache given from here was another one there, and missing."""
    monkeypatch.chdir(tmp_path)
    for name in ("TWOTOWERS_CACHE", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("HF_HUB_CACHE", "")
    settle_environment()
    assert [os.environ[name] for name in ("TWOTOWERS_CACHE", "XDG_CACHE_HOME", "HF_HOME")] == [
        str(tmp_path / "mine")
    ] * 3
    assert os.environ["HF_HUB_CACHE"] == ""


@pytest.mark.parametrize("day", ["abc", "-1", "99999999999999"])
def test_a_day_of_building_stops_nothing(day, monkeypatch):
    """One that is no number stopped numpy, and a kernel waited for ever for one in a year of seven figures."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", day)
    assert shell("T tasks").returncode == 0
    settle_environment()
    assert "SOURCE_DATE_EPOCH" not in os.environ


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
     OSError(12, "Cannot allocate memory"), RuntimeError("can't start new thread"),
     ImportError("IMPORTANT: PLEASE READ THIS\nx.so: failed to map segment from shared object"),
     ImportError("libtorch.so: failed to map segment from shared object: Cannot allocate memory")],
)  # fmt: skip
def test_too_little_memory_is_told_as_such(monkeypatch, capsys, error):
    def refuse():
        raise error

    monkeypatch.setattr("twotowers.prompts.sampling.kept_at", lambda data: refuse())
    assert main(["tasks"]) == 2
    assert capsys.readouterr().err.startswith("twotowers: There is too little memory for this; use a smaller scale")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of addresses are those of Linux")
@pytest.mark.parametrize("mebibytes", [300, 600, 900, 1050, 1152])
def test_where_not_even_the_libraries_have_room_it_is_told_at_once(mebibytes):
    limited = f"ulimit -v {mebibytes * 1024}; exec {sys.executable} -m twotowers status"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("twotowers: There is too little memory for this;")

"""Stop every command at many moments, by Ctrl-C, SIGTERM and SIGKILL, and look at what it says and leaves behind.

By hand, for it takes long:

    python tests/moments.py [--moments 12] [--command NAME ...] [--signal INT TERM KILL] [--run book/runs/toy-gpt2]

A checkout is made beside, with a finished run in it. Of each command the processor time is taken once, its processes
together, then it is stopped when it has used even shares of that (so a busy machine stops it at the same places), in a
temporary folder and a home of its own. After a Ctrl-C its exit status must be 130, after SIGTERM 143, and what it says
must be one line of ours and no traceback; after any of them no process may be left, and nothing in the temporary folder
or at home. Behind the stops of each kind the command is let run to its end, and must end as it did undisturbed, with
nothing temporary left in the checkout. A line is printed for every fault; exit status 1 if there was any. What a
process says that is stopped before it listens is Python's, and only counted.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from transformers import PersimmonConfig

from family_configs import save

PROJECT = Path(__file__).resolve().parents[1]
PATIENCE = 120.0  # seconds in which what a stopped command has started must end
GIVEN, UNKNOWN = "given.zip", "unknown"
STATUS = {"INT": 130, "TERM": 143, "KILL": -9}
COMMANDS = {
    "status": ["status"],
    "models": ["models"],
    "tasks": ["tasks"],
    "check": ["check", "toy-gpt2"],
    "guess": ["check", "--guess", UNKNOWN],
    "cite": ["cite", "towers-exchange", "--model", "toy-gpt2"],
    "export": ["export", "toy-gpt2", "--by", "Somebody", "--output", "out.zip"],
    "import": ["import", GIVEN],
    "run": ["run", "--model", "toy-gpt2", "--chapter", "task", "--force", "--jobs", "1"],
    "seeds": [
        "run",
        "--model",
        "toy-gpt2",
        "--chapter",
        "task",
        "--seeds",
        "2",
        "--force",
        "--scale",
        "smoke",
        "--replace",
    ],
    "submit": ["run", "--model", "toy-gpt2", "--chapter", "task", "--force", "--submit", "local"],
    "verify": ["verify", "task-shots", "--model", "toy-gpt2"],
    "expected": ["verify", "--expected", "--model", "toy-gpt2"],
    "write-expected": ["verify", "--write-expected", "--model", "toy-gpt2"],
    "build": ["build", "--stale"],
    "bench": ["bench", "--model", "toy-gpt2", "--repeats", "1"],
}


class Place:
    """A checkout to be disturbed, and what was found."""

    def __init__(self, folder, run):
        self.folder, self.root, self.kept = folder, folder / "clone", folder / "kept"
        self.faults, self.early, self.process = [], 0, None
        self.kept.mkdir()
        shutil.copytree(PROJECT / "book", self.kept / "book", ignore=shutil.ignore_patterns("runs", "_build"))
        for name in ("_config.yml", "CITATION.cff"):
            shutil.copy(PROJECT / name, self.kept)
        shutil.copytree(run, self.kept / "book" / "runs" / run.name)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        save(PersimmonConfig(vocab_size=1000, **sizes), self.kept / UNKNOWN)
        self.renew("export")
        self.start(["export", run.name, "--by", "Somebody", "--output", str(self.kept / GIVEN)]).communicate()
        self.start(["verify", "--write-expected", "--model", run.name]).communicate()
        shutil.copytree(self.root / "book" / "expected", self.kept / "book" / "expected", dirs_exist_ok=True)

    def renew(self, name):
        """A fresh checkout for a command; that which takes in a run has none of its name."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.kept, self.root)
        if name == "import":
            shutil.rmtree(self.root / "book" / "runs")

    def start(self, arguments, within=()):
        """Begin a command with a temporary folder and a home of its own, as a shell's foreground job.

        within: the beginning of another command, which is given this one.
        """
        self.own = Path(tempfile.mkdtemp(prefix="own-", dir=self.folder))
        for name in ("tmp", "home"):
            (self.own / name).mkdir()
        own = {"TMPDIR": str(self.own / "tmp"), "HOME": str(self.own / "home"), "HF_HUB_OFFLINE": "1"}
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "TWOTOWERS"))}
        self.process = subprocess.Popen(
            [*within, sys.executable, "-m", "twotowers", *arguments],
            cwd=self.root, env=environment | own, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        return self.process

    def close(self):
        """What was started last ends, if we are stopped before it."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()

    def fault(self, what, text):
        self.faults.append(f"{what}: {text}")
        print(self.faults[-1], flush=True)

    def look_around(self, what):
        end = time.monotonic() + PATIENCE
        while (alive := self.processes()) and time.monotonic() < end:
            time.sleep(0.1)
        if alive:
            self.fault(what, f"still there: {alive}")
            for number in alive:
                psutil.Process(number).kill()
        for name in ("tmp", "home"):
            left = [str(f.relative_to(self.own)) for f in (self.own / name).rglob("*") if f.is_file()]
            if left := [file for file in left if not file.startswith("home/.cache/")]:
                self.fault(what, f"left behind: {left[:5]}")
        shutil.rmtree(self.own, ignore_errors=True)

    def processes(self):
        found = {}
        for process in psutil.process_iter():
            try:
                own = process.environ().get("TMPDIR") == str(self.own / "tmp")
                if own and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = " ".join(process.cmdline())[-60:]
            except psutil.Error:
                continue
        return found


def listens(process):
    """Whether a process takes SIGTERM itself: Python alone does not."""
    caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def processor_time(process):
    """Seconds that a process and all that it has started have used so far; those of it that have ended, too."""
    seconds = 0.0
    try:
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                seconds += sum(one.cpu_times()[:4])  # user, system, and those of children that were waited for
    except psutil.NoSuchProcess:
        pass
    return seconds


def wait_until(process, seconds):
    """Wait until a command has used so much processor time, or has ended; say what it had used when last seen."""
    own, used = psutil.Process(process.pid), 0.0
    while process.poll() is None and used < seconds:
        time.sleep(0.05)
        used = max(used, processor_time(own))
    return used


def stop(place, name, kind, wait):
    """Stop a command when it has used so much processor time, and look at how it ended."""
    what = f"{name}, {kind} after {wait:.2f} s"
    if name == "import":
        place.renew(name)
    process = place.start(COMMANDS[name])
    wait_until(process, wait)
    if process.poll() is not None:
        _, err = process.communicate()
    else:
        number, ours = getattr(signal, f"SIG{kind}"), listens(process)
        os.killpg(process.pid, number) if kind == "INT" else process.send_signal(number)
        try:
            _, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            place.fault(what, "does not end")
            process.kill()
            _, err = process.communicate()
        if not ours:
            place.early += 1
        elif process.returncode not in (STATUS[kind], 0):
            place.fault(what, f"exit status {process.returncode}: {err[-300:]!r}")
        if ours and ("Traceback" in err or "Exception ignored" in err):
            place.fault(what, f"a traceback: {err[-1500:]}")
        said = [line for line in err.splitlines() if line.startswith("twotowers: ")]
        if ours and kind != "KILL" and process.returncode and len(said) != 1:
            place.fault(what, f"says {err!r}")
    place.look_around(what)
    return process.returncode != 0


def go_on(place, name, kind, expected):
    """Let a command run to its end behind all stops: it mends what they have left."""
    what = f"{name}, undisturbed behind {kind}"
    if name == "import":
        shutil.rmtree(place.root / "book" / "runs", ignore_errors=True)
    process = place.start(COMMANDS[name])
    _, err = process.communicate()
    if process.returncode != expected:
        place.fault(what, f"exit status {process.returncode}: {err[-300:]!r}")
    place.look_around(what)
    if left := [str(path.relative_to(place.root)) for path in place.root.rglob(".tmp-*")]:
        place.fault(what, f"left behind in the checkout: {left[:5]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=12)
    parser.add_argument("--command", nargs="+", default=list(COMMANDS), choices=COMMANDS)
    parser.add_argument("--signal", nargs="+", default=list(STATUS), choices=STATUS)
    parser.add_argument("--run", type=Path, default=PROJECT / "book" / "runs" / "toy-gpt2")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with (
        tempfile.TemporaryDirectory(prefix="moments-") as folder,
        contextlib.closing(Place(Path(folder), options.run)) as place,
    ):
        stopped = 0
        for name in options.command:
            place.renew(name)
            process = place.start(COMMANDS[name])
            seconds = wait_until(process, float("inf"))
            out, err = process.communicate()
            place.look_around(f"{name}, undisturbed")
            expected = process.returncode
            print(f"{name}: status {expected}, {seconds:.1f} s; {(out + err)[-200:]!r}", flush=True)
            for kind in options.signal:
                place.renew(name)
                for number in range(options.moments):
                    stopped += stop(place, name, kind, 0.06 + (seconds - 0.06) * number / options.moments)
                go_on(place, name, kind, expected)
        told = f"{stopped} stops of {len(options.command)} commands, {place.early} of them before they listened"
        print(f"{told}; {len(place.faults)} faults")
        return int(bool(place.faults))


if __name__ == "__main__":
    sys.exit(main())

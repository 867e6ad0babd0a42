"""Kill runs, at random moments and at every move of a file, and look whether anything of it is ever seen.

By hand, for it takes long:

    python tests/soak.py [--kills 50] [--moves all] [--chapter NAME ...] [--seed 0] [--keep FOLDER]

A tiny model is made, and the chapters, by default all, are run on it once undisturbed, at scale smoke. Then
`twotowers run` is killed (SIGKILL) again and again: before each move of a file into a run's folder, its record
included, where the process kills itself; and at random moments, a few times in a row. After every kill it must be so
that every file that the record speaks of is as it says, that no process is left, and that the temporary folder, a fresh
one, is empty. When the run was allowed to end, everything in its folder must be as in the undisturbed run, byte for
byte but for dates and ids, and nothing else may be there. A line is printed for every fault, a line of counts at
the end; exit status 1 if there was any fault.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from transformers import GPT2LMHeadModel

from conftest import tiny_config, tiny_tokenizer
from twotowers.chapters.registry import CHAPTERS

PROJECT = Path(__file__).resolve().parents[1]
IN_A_ROW = 5  # random kills from a run's beginning to its end
PATIENCE = 600.0  # seconds in which what a killed process has started must end; a kernel looks every second

# The command in a process that kills itself before its n-th move of a file of a run; n = 0: never.
COMMAND = """
import os, signal, sys
left = int(sys.argv.pop(1))

def counted(plain):
    def move(source, target, **options):
        global left
        if f"{os.sep}runs{os.sep}" in os.path.abspath(target):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return plain(source, target, **options)
    return move

os.replace, os.rename = counted(os.replace), counted(os.rename)  # pathlib and shutil call these
from twotowers.cli import main
sys.exit(main(sys.argv[1:]))
"""
# What is of no run's doing: dates, the commit of the checkout, the random ids of a notebook's cells.
OTHER = re.compile(
    rb'\d{4}-\d\d-\d\d(T[\d:.+]*)?|"git_commit": "[^"]*"|commit [0-9a-f]{40}(-dirty)?|"id": "[0-9a-f-]*"'
)


class Soak:
    """A checkout with a tiny model beside it, its run when nothing disturbs it, and what was found so far."""

    def __init__(self, place, chapters):
        self.chapters = chapters
        self.place, self.root, self.model = place, place / "clone", place / "tiny"
        self.log, self.faults = place / "log.txt", []
        self.temporary = self.process = None
        shutil.copytree(PROJECT / "book", self.root / "book", ignore=shutil.ignore_patterns("runs", "_*"))
        for name in ("_config.yml", "CITATION.cff"):
            shutil.copy(PROJECT / name, self.root)
        make_model(self.model)

    @property
    def run(self):
        """The folder of the run; None before there is one."""
        return next((record.parent for record in (self.root / "book" / "runs").glob("[!.]*/run.json")), None)

    def start(self, *chapters, at_move=0):
        """Begin the command in a temporary folder of its own."""
        self.temporary = Path(tempfile.mkdtemp(prefix="temporary-", dir=self.place))
        command = [sys.executable, "-c", COMMAND, str(at_move), "run", "--model", self.model, "--scale", "smoke"]
        command += ["--jobs", "1", "--chapter", *(chapters or self.chapters)]
        own = {"TMPDIR": str(self.temporary), "TWOTOWERS_CACHE": str(self.place / "cache"), "HF_HUB_OFFLINE": "1"}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.root, env={**os.environ, **own}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self.process

    def finish(self, what, *chapters):
        """Run to the end."""
        status = self.start(*chapters).wait()
        if status:
            self.fault(what, f"the command ended with {status} when it was allowed to end")
        self.look_around(what)

    def begin_anew(self):
        shutil.rmtree(self.root / "book" / "runs", ignore_errors=True)

    def fault(self, what, text):
        self.faults.append(f"{what}: {text}")
        print(self.faults[-1], flush=True)

    def look_around(self, what):
        """Whether something is left behind of a command that has ended, and whether the record is true."""
        end = time.monotonic() + PATIENCE
        while (alive := processes_in(self.temporary)) and time.monotonic() < end:
            time.sleep(0.1)
        if alive:
            self.fault(what, f"still there: {alive}")
        if left := [str(file.relative_to(self.temporary)) for file in self.temporary.rglob("*")]:
            self.fault(what, f"left in the temporary folder: {left}")
        shutil.rmtree(self.temporary)
        for file, digest in named(self.run).items():
            if not (self.run / file).is_file() or sha256(self.run / file) != digest:
                self.fault(what, f"{file} is not what the record says")

    def compare(self, what, undisturbed):
        """Whether the run that has ended is as the undisturbed one."""
        found = contents(self.run)
        for file in sorted({*found, *undisturbed}):
            if file not in found or file not in undisturbed:
                self.fault(what, f"{file} is {'missing' if file in undisturbed else 'too much'}")
            elif found[file] != undisturbed[file]:
                self.fault(what, f"{file} is another")
        if set(found) - {"run.json"} != set(named(self.run)):
            self.fault(what, "there are files that the record does not name")


def make_model(folder):
    """A GPT-2 of two layers in which every parameter is random."""
    torch.manual_seed(0)
    config = tiny_config("gpt2")
    config.n_layer = 2
    network = GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            centre = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.3 * torch.randn_like(parameter))
    network.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def processes_in(temporary):
    """The processes that were started with this temporary folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("TMPDIR") == str(temporary):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def named(run):
    """The files that a run's record names, with their digests."""
    if run is None:
        return {}
    record = json.loads((run / "run.json").read_text())
    return {file: digest for entry in record["chapters"].values() for file, digest in entry["files"].items()}


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def contents(run):
    """What is in a run's folder, texts without what is of no run's doing; of the record only which files it names."""
    found = {}
    for file in sorted(run.rglob("*")):
        if file.is_file():
            drawn = file.suffix in (".png", ".pdf")  # as their svg, but say in binary when the numbers were made
            found[str(file.relative_to(run))] = b"" if drawn else OTHER.sub(b"", file.read_bytes())
    found["run.json"] = sorted(named(run))
    return found


def at_random_moments(soak, kills, seconds, undisturbed, rng):
    """Kill a run a few times in a row, let it end, compare; again until there were enough kills."""
    done = 0
    while done < kills:
        soak.begin_anew()
        for _ in range(min(IN_A_ROW, kills - done)):
            process, wait = soak.start(), rng.uniform(0, seconds / 2)
            try:
                process.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                done += 1
            soak.look_around(f"random kill {done}, after {wait:.2f} s")
        soak.finish(f"after random kill {done}")
        soak.compare(f"after random kill {done}", undisturbed)
        print(f"{done} of {kills} random kills, {len(soak.faults)} faults", flush=True)
    return done


def at_moves(soak, moves, undisturbed):
    """Kill a run before its moves of files, chapter by chapter, and compare in the end.

    Args:
        moves: of each chapter, which of its moves.
    """
    soak.begin_anew()
    done = 0
    for chapter, numbers in moves.items():
        for number in numbers:
            what = f"{chapter}, move {number}"
            status = soak.start(chapter, at_move=number).wait()
            if status != -signal.SIGKILL:
                soak.fault(what, f"was never reached (status {status})")
            done += 1
            soak.look_around(what)
        soak.finish(chapter, chapter)
        print(f"{done} kills at moves, {len(soak.faults)} faults", flush=True)
    soak.compare("after all moves", undisturbed)
    return done


def chosen(run, number):
    """Which moves: of each chapter every move of its commit, or as many in all as are asked for, at even distances."""
    made = json.loads((run / "run.json").read_text())["chapters"]
    every = [(name, n) for name in made for n in range(1, len(made[name]["files"]) + 3)]
    if number is not None:
        every = [every[place * len(every) // number] for place in range(min(number, len(every)))]
    return {name: [n for other, n in every if other == name] for name in made}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--moves", default="all")
    parser.add_argument("--chapter", nargs="+", default=CHAPTERS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for everything, which is kept")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and what has been started ends, too
    place = options.keep or Path(tempfile.mkdtemp(prefix="soak-"))
    place.mkdir(parents=True, exist_ok=True)
    soak = Soak(place, options.chapter)
    try:
        return disturb(soak, options)
    finally:
        soak.process.kill()
        if options.keep is None:
            shutil.rmtree(place, ignore_errors=True)


def disturb(soak, options):
    begun = time.monotonic()
    soak.finish("undisturbed")
    seconds = time.monotonic() - begun
    undisturbed = contents(soak.run)
    moves = chosen(soak.run, None if options.moves == "all" else int(options.moves))
    print(f"undisturbed: {len(undisturbed)} files in {seconds:.0f} s", flush=True)
    kills = at_moves(soak, moves, undisturbed)
    random_kills = at_random_moments(soak, options.kills, seconds, undisturbed, random.Random(options.seed))
    print(f"{random_kills} random kills, {kills} kills at moves, {len(soak.faults)} faults")
    return int(bool(soak.faults))


if __name__ == "__main__":
    sys.exit(main())

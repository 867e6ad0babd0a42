"""Give every command that writes a disk that is full, and one that can only be read, and look at what it says.

By hand, on Linux as root, for it takes long and mounts (in a namespace of its own, which goes with the command):

    python tests/disks.py [--command NAME ...] [--way full read-only] [--run book/runs/toy-gpt2]

A checkout is made beside, as for `tests/moments.py`. Over one folder that the command writes to, a file system in
memory is laid with what the folder holds, and with no space left, or not writeable. The command must end with status 2
and one line, or need nothing there and end as ever; no JSON file of ours may be cut off; and when there is space again,
the same command must end as it does undisturbed, with nothing temporary left. A line is printed for each try; exit
status 1 for faults.
"""

import argparse
import contextlib
import shlex
import signal
import sys
import tempfile
from pathlib import Path

from moments import COMMANDS, PROJECT, Place

ROOM = 8  # KiB that are left on a full disk: enough to begin to write
WRITES = {  # which folders a command may want to write to
    "run": ["book/runs", "book/runs/toy-gpt2", "cache", "home", "tmp"],
    "submit": ["book/runs", "book/runs/toy-gpt2"],
    "verify": ["_build", "book/runs", "tmp"],
    "build": ["_build", "book/runs", "home", "tmp"],
    "export": ["."],
    "import": ["book/runs"],
    "expected": ["book/expected", "book/runs"],
    "write-expected": ["book/expected", "book/runs"],
    "cite": ["_build", "book/runs", "home", "cache"],
    "bench": ["book/bench", "cache"],
    "check": ["home", "cache", "tmp"],
    "guess": ["home", "cache", "tmp"],
    "status": ["book/runs", "home", "cache"],
}
SCRIPT = """
set -e
mkdir -p "$PLACE" "$SIDE"
mount -t tmpfs -o size=200m tmpfs "$SIDE"
cp -a "$PLACE/." "$SIDE/"
mount --bind "$SIDE" "$PLACE"
cd "$CHECKOUT"
if [ "$WAY" = full ]; then
    used=$(df --output=used -k "$SIDE" | tail -1)
    mount -o remount,size=$((used + ROOM))k "$SIDE"
    free="mount -o remount,size=400m $SIDE"
else
    mount -o remount,bind,ro "$PLACE"
    free="mount -o remount,bind,rw $PLACE"
fi
set +e
"$@" >"$SAID.out" 2>"$SAID.err" </dev/null; echo $? >"$SAID.status"
find "$PLACE" -name '*.json' -not -path '*matplotlib*' -type f -print0 | xargs -0 -r "$PYTHON" -c '
import json, sys
for file in sys.argv[1:]:
    try: json.load(open(file))
    except ValueError: print(file)
' >"$SAID.cut"
$free
"$@" >"$SAID.out2" 2>"$SAID.err2" </dev/null; echo $? >"$SAID.status2"
find "$CHECKOUT" -name '.tmp-*' >"$SAID.left"
"""


def attempt(place, name, folder, way, expected):
    """A command with one folder on such a disk, then with space again."""
    place.renew(name)
    said = place.folder / "said"
    where = {"home": "$OWN/home", "tmp": "$OWN/tmp", "cache": "$OWN/cache"}.get(folder, str(place.root / folder))
    names = {"CHECKOUT": place.root, "SIDE": place.folder / "side", "WAY": way, "SAID": said, "ROOM": ROOM,
             "PYTHON": sys.executable}  # fmt: skip
    setting = "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in names.items())
    begin = f'{setting}OWN="$(dirname "$HOME")"\nPLACE="{where}"\nexport TWOTOWERS_CACHE="$OWN/cache"\n'
    process = place.start(COMMANDS[name], ["unshare", "--mount", "bash", "-c", begin + SCRIPT, "disks"])
    process.communicate()
    read = {end: said.with_suffix(f".{end}").read_text() for end in ("status", "err", "cut", "status2", "err2", "left")}
    what, status = f"{name}, {folder} {way}", int(read["status"])
    lines = read["err"].splitlines()
    ours = [line for line in lines if line.startswith("twotowers: ")]
    print(f"{what}: {status} {' | '.join(ours or lines[-1:])}", flush=True)
    if status not in (2, expected):
        place.fault(what, f"exit status {status}: {read['err'][-800:]!r}")
    elif status == 2 and (len(ours) != 1 or "Traceback" in read["err"]):
        place.fault(what, f"says {read['err'][-1500:]!r}")
    if read["cut"]:
        place.fault(what, f"cut off: {read['cut']}")
    if int(read["status2"]) != expected:
        place.fault(what, f"then exit status {read['status2'].strip()}: {read['err2'][-800:]!r}")
    if read["left"]:
        place.fault(what, f"left behind: {read['left'].split()}")
    place.look_around(what)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--command", nargs="+", default=list(WRITES), choices=WRITES)
    parser.add_argument("--way", nargs="+", default=["full", "read-only"], choices=["full", "read-only"])
    parser.add_argument("--run", type=Path, default=PROJECT / "book" / "runs" / "toy-gpt2")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with (
        tempfile.TemporaryDirectory(prefix="disks-") as folder,
        contextlib.closing(Place(Path(folder), options.run)) as place,
    ):
        tried = 0
        for name in options.command:
            place.renew(name)
            process = place.start(COMMANDS[name])
            process.communicate()
            place.look_around(f"{name}, undisturbed")
            for kept in WRITES[name]:
                for way in options.way:
                    attempt(place, name, kept, way, process.returncode)
                    tried += 1
        print(f"{tried} disks of {len(options.command)} commands; {len(place.faults)} faults")
        return int(bool(place.faults))


if __name__ == "__main__":
    sys.exit(main())

"""The most memory that a command and all that it starts hold together; pages that they share are counted once.

By hand, on Linux:

    python tests/peaks.py twotowers run --model smollm2-135m --force

Printed is the highest sum yet, in GiB, whenever it grows, with the processes it is made of; at the end the most that
each held.
"""

import subprocess
import sys
import time

import psutil

GIB = 2**30


def held(process):
    """Bytes, of shared pages this process's part; none of one that has ended."""
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0


def main():
    command = subprocess.Popen(sys.argv[1:])
    whole, begun, highest, each = psutil.Process(command.pid), time.monotonic(), 0, {}
    while command.poll() is None:
        now = {process.pid: held(process) for process in (whole, *whole.children(recursive=True))}
        each |= {pid: max(each.get(pid, 0), size) for pid, size in now.items()}
        if sum(now.values()) > 1.01 * highest:
            highest = sum(now.values())
            print(f"{time.monotonic() - begun:6.0f} s {_gib([highest])} of {_gib(now.values())}", flush=True)
        time.sleep(0.5)
    print(f"each at most {_gib(each.values())}")
    return command.returncode


def _gib(sizes):
    return ", ".join(f"{size / GIB:.2f}" for size in sorted(sizes, reverse=True) if size > GIB / 20)


if __name__ == "__main__":
    sys.exit(main())

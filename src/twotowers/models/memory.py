"""How much memory is free for this process, within every limit that its system and its surroundings set."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # of Linux: containers and jobs of a cluster
# A group's limit and use, and the part of its use that is only kept files: of its first version, and of its second.
FILES = (
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ("memory.max", "memory.current", "inactive_file"),
)


def free_memory() -> int:
    """Bytes that are free where a model loads by default: on the GPU if there is one, else for this process."""
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else own_memory()


def own_memory() -> int:
    """Bytes of the machine's memory that this process may still take, also by its limit of addresses (`ulimit -v`)."""
    free = machine_memory()
    process = psutil.Process()
    if hasattr(process, "rlimit"):  # which not every system has
        limit, _ = process.rlimit(psutil.RLIMIT_AS)
        if limit >= 0:  # below zero there is none
            free = min(free, max(0, limit - process.memory_info().vms))
    return free


def machine_memory() -> int:
    """Bytes of the machine's memory that are free for processes like this one, in its container or job."""
    return min(psutil.virtual_memory().available, *_left_of_groups())


def give_back_memory() -> None:
    """Return to the system what was freed and the allocator keeps, where its library can: only glibc has to be told."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _left_of_groups() -> Iterator[int]:
    """Bytes that are left of each group's limit; a group without one has as many as there can be."""
    yield 2**63
    for limit, used, kept in FILES:
        for group in _groups(limit):
            try:
                most, taken = (int((group / name).read_text()) for name in (limit, used))
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                yield max(0, most - taken + int(stat.get(kept, 0)))
            except (OSError, ValueError):  # "max" where there is no limit
                continue


def _groups(file: str) -> Iterator[Path]:
    """The folders of this process's groups and of those around them that have a file of this name."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        for root in (GROUPS / "memory", GROUPS / "unified", GROUPS):
            own = root / path.lstrip("/")
            for group in (own, *own.parents):
                if group.is_relative_to(root) and (group / file).is_file():
                    yield group

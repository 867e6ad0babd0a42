"""The machine that a chapter is run on, and the memory that it took there, kept for those who plan a run.

None of it decides a result.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import psutil
import torch

from ..bench.measure import processor


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, bytes of memory, and the GPU, if there is one."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    memory = psutil.virtual_memory().total
    return {"processor": processor(), "cores": cores(), "memory": memory, "gpu": gpu}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory(pid: int) -> int | None:
    """The most memory that a process has held so far, in bytes, as Linux counts it; None elsewhere."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None

"""Seconds and memory of one way to compute something."""

from __future__ import annotations

import contextlib
import platform
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from ..models.memory import give_back_memory
from ..processes import processes


@dataclass(frozen=True)
class Timed:
    """Seconds of one way, and the highest memory during it beyond what was there before, in bytes."""

    seconds: float
    peak: int


def timed(job: Callable[[], Any], device: torch.device) -> Timed:
    """Do a job once; what earlier ones left with the allocator is given back before."""
    with peak_memory(device) as peak:
        begun = time.perf_counter()
        job()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
    return Timed(seconds, peak[0])


def peak_alone(prepare: Callable[..., Callable[[], Any]], *inputs: Any) -> int:
    """Peak on the processor of the job that `prepare(*inputs)` gives, as `Timed.peak`, in a process of its own.

    In one process, what other work leaves with the allocator changes the peak, up or down. The job is done once
    before it is measured; `prepare` and its inputs are pickled.
    """
    with processes(2) as beside:  # with less than two it would be this very process; only one begins
        return int(beside.call(_second_peak, prepare, inputs))


def _second_peak(prepare: Callable[..., Callable[[], Any]], inputs: tuple[Any, ...]) -> int:
    job = prepare(*inputs)
    job()
    return timed(job, torch.device("cpu")).peak


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """The highest memory beyond what was there before: the device's own count, else the process looked at often."""
    highest_yet = [0]
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield highest_yet
        highest_yet[0] = torch.cuda.max_memory_allocated() - before
        return
    give_back_memory()
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss

    def look() -> None:
        while not done.wait(0.01):
            highest_yet[0] = max(highest_yet[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield highest_yet
    finally:
        done.set()
        watcher.join()


def processor() -> str:
    """The processor's name, as the system gives it."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return name

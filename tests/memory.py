"""The most memory that each sweep holds, with 1, 2 and 4 times as many demonstration sets.

By hand:

    [MALLOC_MMAP_THRESHOLD_=65536] python tests/memory.py [--model toy-gpt2] [--sets 12] [--sweep NAME ...]

The model is loaded once; each sweep of each number of sets is measured in a process forked from there, for what a
process has held it does not give back. Printed is, in MiB, what it held at most beyond the model; what 4 times as many
sets need beyond 1 time; and how large the table is that these sets give, of which there may be two or three while it is
put together. What grows without that setting and not with it, glibc has kept for itself: as blocks are freed it takes
ever larger ones from its heap, in which smaller ones that are still used leave holes.
"""

import argparse
import gc
import os
import sys

import torch

from sweeps import SWEEPS
from twotowers.pipeline.machine import peak_memory
from twotowers.study import open_study

TIMES = (1, 2, 4)


def peak(measure, model, sets):
    """In MiB, beyond what was there before, and the size of the table; of a process that does this only."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            before = peak_memory(os.getpid())
            table = measure(model, sets)
            most = peak_memory(os.getpid()) - before
            os.write(writes, f"{most / 2**20} {table.memory_usage(deep=True).sum() / 2**20}".encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as told:
        found = told.read()
    os.waitpid(child, 0)
    return [float(number) for number in (found or "nan nan").split()]  # what went wrong, the child has said


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="toy-gpt2")
    parser.add_argument("--sets", type=int, default=12)
    parser.add_argument("--sweep", nargs="+", default=list(SWEEPS), choices=SWEEPS)
    options = parser.parse_args()
    torch.set_num_threads(1)  # others would not be there behind a fork
    study = open_study(options.model)
    few, *more = (study.sets("evaluation", n_sets=times * options.sets) for times in TIMES)
    SWEEPS["answers"](study.model, few[:1])  # what the first forward of all needs
    gc.collect()
    for name in options.sweep:
        peaks, tables = zip(*(peak(SWEEPS[name], study.model, sets) for sets in (few, *more)), strict=True)
        numbers = (*peaks, peaks[-1] - peaks[0], tables[-1])
        print(f"{name:14}", *(f"{mib:8.1f}" for mib in numbers), flush=True)


if __name__ == "__main__":
    sys.exit(main())

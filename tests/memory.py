"""The most memory that each long sweep holds, with 1, 2 and 4 times as many demonstration sets.

By hand:

    python tests/memory.py [--model toy-gpt2] [--sets 6]

Each is measured in a process of its own, for what a process has held it does not give back. The last column is what
4 times as many sets need beyond 1 time, in MiB; it should be about what their tables take, some kilobytes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

SWEEPS = {
    "knock-out": "outcomes(m, s, [[h] for h in heads])",
    "exchange": "exchanges(m, s, [([h], 'query-other') for h in heads])",
    "hand over": "hand_overs(m, s, {('query', False): range(m.arch.n_layers)})",
    "balance": "balanced(m, s, [heads])",
    "block": "block(m, s, ['text_to_label'], [range(n) for n in range(1, m.arch.n_layers + 1)])",
    "orders": "order(m, s, heads)",
    "label edges": "[edges.frame for edges in label_edges(m, s)]",
    "locate": "locate(m, s)",
}
MEASURE = """
import sys
from pathlib import Path
from twotowers.chapters.locate.locate import locate
from twotowers.chapters.order.order import order
from twotowers.chapters.shallow.blocking import block
from twotowers.study import open_study
from twotowers.tracing.balancing import balanced
from twotowers.tracing.exchange import exchanges
from twotowers.tracing.hand_over import hand_overs
from twotowers.tracing.heads import every_head
from twotowers.tracing.label_edges import label_edges
from twotowers.tracing.outcomes import outcomes
from twotowers.pipeline.machine import peak_memory
import os
study = open_study(sys.argv[1])
m, s = study.model, study.sets("evaluation", n_sets=int(sys.argv[2]))
heads = every_head(m)
SWEEP
print(peak_memory(os.getpid()) / 2**20)
"""


def peak(sweep, model, sets):
    """In MiB."""
    command = [sys.executable, "-c", MEASURE.replace("SWEEP", sweep), model, str(sets)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path.cwd()).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="toy-gpt2")
    parser.add_argument("--sets", type=int, default=6)
    parser.add_argument("--sweep", nargs="+", default=list(SWEEPS), choices=SWEEPS)
    options = parser.parse_args()
    for name in options.sweep:
        peaks = [peak(SWEEPS[name], options.model, times * options.sets) for times in (1, 2, 4)]
        print(f"{name:12}", *(f"{mib:8.0f}" for mib in peaks), f"{peaks[-1] - peaks[0]:8.0f}", flush=True)


if __name__ == "__main__":
    main()

"""What it costs that sweeps keep parts: the same sweep with and without, in turn, in one process.

By hand:

    python tests/part_costs.py [--model smollm2-135m] [--sets 2] [--rounds 3] [--sweep NAME ...]

Printed are seconds of the processor, the least of all rounds: without parts, with parts as a run keeps them, and with
each part written at once, which a run does every ten seconds only; then what the latter two are of the first.
"""

import argparse
import tempfile
import time
from pathlib import Path

from sweeps import SWEEPS
from twotowers.models import parts as keeping
from twotowers.models.parts import Parts, PartsIn
from twotowers.study import open_study

EVERY = {"none": None, "kept": keeping.EVERY, "written at once": 0.0}


def seconds(measure, model, sets, every):
    with tempfile.TemporaryDirectory() as folder:
        model.parts, keeping.EVERY = (Parts(), 0.0) if every is None else (PartsIn(Path(folder), "maker"), every)
        begun = time.process_time()
        measure(model, sets)
        return time.process_time() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--sets", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sweep", nargs="+", default=["knock-out", "exchange", "read heads", "locate"], choices=SWEEPS)
    options = parser.parse_args()
    study = open_study(options.model)
    sets = study.sets("evaluation", n_sets=options.sets)
    SWEEPS["answers"](study.model, sets[:1])  # what the first forward of all needs
    for name in options.sweep:
        found = {way: [] for way in EVERY}
        for _ in range(options.rounds):
            for way, every in EVERY.items():
                found[way].append(seconds(SWEEPS[name], study.model, sets, every))
        plain, *others = (min(of_way) for of_way in found.values())
        print(f"{name:14} {plain:8.2f}", *(f"{other:8.2f} {other / plain:6.3f}" for other in others), flush=True)


if __name__ == "__main__":
    main()

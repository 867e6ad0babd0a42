"""How often verdicts are wrong, on effects whose truth is known: `python -m twotowers.bench.verdicts` writes the table.

Every case draws effects of demonstration sets around a true mean, and gives them to the rule itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ..paper import CLAIMS
from ..publishing.markdown import table_text
from ..publishing.results import read_table, write_table
from ..publishing.run_folder import project_root
from ..statistics import DECIDED, SUPPORTED, Verdict, holm, judge

REPETITIONS, SEED = 10_000, 0
LEDGER = len(CLAIMS)
CATEGORIES = 12
GROUPS = 20  # random groups of a control
SHARED = 0.2  # of an effect's variance, by category
SIZES = (8, 33, 66)
TINY = 0.01  # smallest effect of interest, so small that it decides no case

Draw = Callable[[np.random.Generator, int], np.ndarray]  # effects of n sets whose true mean is 0
FILE = Path("bench") / "verdicts.csv"  # in the book's folder
KINDS = {"case": "text", "sets": "int", "coverage": "float", "false": "float", "supported": "float"}
KINDS |= {"repetitions": "int", "seed": "int"}
NAN = float("nan")


def _steps(rng: np.random.Generator, n: int) -> np.ndarray:
    """Accuracy of 8 queries lost, where nothing is lost on average."""
    return (rng.binomial(8, 0.8, n) - rng.binomial(8, 0.8, n)) / 8


def _zeros(share: float) -> Draw:
    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return np.where(rng.random(n) < share, 0.0, rng.normal(size=n))

    return draw


def _rare(rng: np.random.Generator, n: int) -> np.ndarray:
    """An eighth is lost in one set of twenty, else nothing; the true mean is taken off."""
    return (rng.random(n) < 0.05) / 8 - 0.05 / 8


DRAWS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "skewed (exponential)": lambda rng, n: rng.exponential(size=n) - 1,
    "steps of an eighth": _steps,
    "zero in half of the sets": _zeros(0.5),
    "zero in nine sets of ten": _zeros(0.9),
    "an eighth in one set of twenty": _rare,
}


def design(sets: int, number: int = CATEGORIES) -> pd.DataFrame:
    """The two categories of each set, every pair of them in turn. `set, first, second`."""
    pairs = list(itertools.combinations(map(str, range(number)), 2))
    rows = [(i, *pairs[i * len(pairs) // max(sets, len(pairs)) % len(pairs)]) for i in range(sets)]
    return pd.DataFrame(rows, columns=["set", "first", "second"])


def by_category(rng: np.random.Generator, categories: pd.DataFrame, share: float = SHARED) -> np.ndarray:
    """Normal effects, a share of whose variance is that of the two categories of their set."""
    of = rng.normal(size=CATEGORIES)
    both = of[categories[["first", "second"]].to_numpy(int)].sum(axis=1)
    return np.sqrt(share / 2) * both + np.sqrt(1 - share) * rng.normal(size=len(categories))


def effects(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"set": np.arange(len(values)), "effect": values})


def covers(verdict: Verdict, truth: float = 0.0) -> bool:
    return verdict.low <= truth <= verdict.high


def null_case(name: str, sets: int, repetitions: int, seed: int) -> dict[str, object]:
    """No effect: how often the interval covers 0, and how often a sign is claimed."""
    rng, draw = np.random.default_rng([seed, sets, *name.encode()]), DRAWS[name]
    made = [judge(effects(draw(rng, sets)), TINY) for _ in range(repetitions)]
    return _row(name, sets, made)


def category_case(sets: int, repetitions: int, seed: int) -> dict[str, object]:
    """No effect on average, but effects of categories, which sets share."""
    rng, categories = np.random.default_rng([seed, sets, 1]), design(sets)
    draws = (effects(by_category(rng, categories)) for _ in range(repetitions))
    made = [judge(drawn, TINY, categories=categories) for drawn in draws]
    return _row(f"categories have {SHARED:.0%} of the variance", sets, made)


def ledger_cases(repetitions: int, seed: int) -> list[dict[str, object]]:
    """A ledger of claims none of which holds: how often it has one false verdict or more, without Holm and with it."""
    rng, sets = np.random.default_rng([seed, LEDGER, 2]), SIZES[-1]
    wrong = {"each by itself": 0, "by Holm": 0}
    for _ in range(repetitions):
        made = {str(i): judge(effects(rng.normal(size=sets)), TINY) for i in range(LEDGER)}
        for name, verdicts in zip(wrong, (made, holm(made)), strict=True):
            wrong[name] += any(v.verdict in DECIDED for v in verdicts.values())
    return [
        {"case": f"any of {LEDGER} claims, {name}", "sets": sets, "coverage": NAN, "false": number / repetitions,
         "supported": NAN}
        for name, number in wrong.items()
    ]  # fmt: skip


def control_case(repetitions: int, seed: int) -> dict[str, object]:
    """An effect that every group of heads has: it is there, and says nothing of these heads."""
    rng, sets = np.random.default_rng([seed, GROUPS, 3]), SIZES[-1]
    made = [
        judge(effects(1 + rng.normal(size=sets)), TINY, random=1 + rng.normal(size=GROUPS) / np.sqrt(sets))
        for _ in range(repetitions)
    ]
    wrong = np.mean([v.verdict in DECIDED for v in made])
    name = f"an effect that {GROUPS} random groups have as well"
    return {"case": name, "sets": sets, "coverage": NAN, "false": float(wrong), "supported": NAN}


def power_case(size: float, sets: int, repetitions: int, seed: int, *, corrected: bool) -> dict[str, object]:
    """A normal effect of `size` standard deviations: how often it is supported, by itself or first of a ledger."""
    rng = np.random.default_rng([seed, sets, 4, round(100 * size)])
    found = 0
    for _ in range(repetitions):
        made = {"0": judge(effects(size + rng.normal(size=sets)), TINY)}
        if corrected:  # among claims that do not hold
            made |= {str(i): judge(effects(rng.normal(size=sets)), TINY) for i in range(1, LEDGER)}
        found += holm(made)["0"].verdict == SUPPORTED
    name = f"true effect of {size:g} sd" + (f", among {LEDGER} claims by Holm" if corrected else "")
    return {"case": name, "sets": sets, "coverage": NAN, "false": NAN, "supported": found / repetitions}


def _row(name: str, sets: int, made: list[Verdict]) -> dict[str, object]:
    coverage = float(np.mean([covers(v) for v in made]))
    false = float(np.mean([v.verdict in DECIDED for v in made]))
    return {"case": name, "sets": sets, "coverage": coverage, "false": false, "supported": NAN}


def simulate(repetitions: int = REPETITIONS, seed: int = SEED) -> pd.DataFrame:
    """All cases: `case, sets, coverage, false, supported, repetitions, seed`; a share that a case lacks is nan."""
    rows = [null_case(name, sets, repetitions, seed) for name in DRAWS for sets in SIZES]
    rows.append(category_case(SIZES[-1], repetitions, seed))
    rows += ledger_cases(repetitions, seed)
    rows.append(control_case(repetitions, seed))
    for size in (0.25, 0.5):
        rows += [power_case(size, sets, repetitions, seed, corrected=False) for sets in SIZES]
    rows.append(power_case(0.5, SIZES[-1], repetitions, seed, corrected=True))
    return pd.DataFrame(rows).assign(repetitions=repetitions, seed=seed)[list(KINDS)]


def page(file: Path) -> str:
    """MyST text of a stored table; a sentence if there is none."""
    if not file.is_file():
        return "The simulation has not been run yet; run it with `python -m twotowers.bench.verdicts`."
    table = read_table(file, KINDS)
    rows = [
        (row["case"], row["sets"], *(_percent(row[name]) for name in ("coverage", "false", "supported")))
        for row in table.to_dict("records")
    ]
    head = ["effects", "sets", "interval covers the truth", "false verdict", "supported"]
    first = table.iloc[0]
    return (
        f"{table_text(head, rows, ['left', *['right'] * 4])}\n\n{first['repetitions']:,} repetitions each, seed "
        f"{first['seed']}. Repeat it with `python -m twotowers.bench.verdicts`."
    )


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{share:.1%}"


if __name__ == "__main__":
    write_table(simulate(), project_root() / "book" / FILE)

"""What a run is expected to give, small enough to be kept with the project: effects, their intervals, and the heads.

    book/expected/<run>/run.json      what the run is of, as its record says it, and the versions it was made with
    book/expected/<run>/ledger.csv    for each seed each claim with its verdict, effect and interval
    book/expected/<run>/heads.json    for each seed the heads that the knock-out chapter selects
    book/expected/<run>/towers-exchange.svg   the central figure, of the first seed

So anyone whose machine has made the run can tell whether it gave what it gave elsewhere, and a reader, how verdicts
fall with other seeds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError, writing
from ..paper import CLAIMS
from ..publishing.crowd import own_folder
from ..publishing.results import read_table, write_table
from ..publishing.run_folder import RunFolder, figure_stem, project_root
from .compare import Tolerance, first_difference
from .contributed import NotOursError, contribution
from .figures import find_run
from .freshness import LIBRARIES
from .seeds import COLUMNS, HEADS, KINDS, Seed, given, measured
from .verify import DIFFERS, SAME, STALE, Verified, with_whose

CENTRAL = "towers-exchange"  # the figure that the README shows
SHARE = 0.1  # of the smallest effect of interest: a difference that no reader would call one
RELATIVE = 0.01


class NothingExpectedError(UserError):
    """A run of which no values are expected."""


def write_expected(model: str | None = None) -> Path:
    """Take what a run, and the same beside it with other seeds, gives for what is expected of it; returns the folder.

    What is expected of the same run with still other seeds is kept.

    Raises:
        UserError: no such run, it was contributed, or it is damaged or not complete.
    """
    root = project_root()
    run = find_run(root, model)
    if (made := contribution(run)) is not None:
        raise NotOursError(
            f"The run {run.name} was contributed {made.by_whom}; expected values are of runs of one's own."
        )
    given(run)  # which says so if it is damaged or not complete
    folder, facts = _folder(root, run), _facts(run)
    seeds = dict(sorted((kept(root, run) | measured(run)).items()))
    table = pd.concat([seed.ledger.assign(seed=number) for number, seed in seeds.items()])[list(KINDS)]
    heads = {str(number): seed.heads for number, seed in seeds.items()}
    picture = run.path / f"{figure_stem(run.name, CENTRAL)}.svg"
    with writing("The expected values in", folder), own_folder(folder.parent, run.name) as new:
        if folder.is_dir():
            shutil.copytree(folder, new, dirs_exist_ok=True)
        write_table(table, new / "ledger.csv")
        (new / "heads.json").write_text(json.dumps(heads) + "\n", encoding="utf-8")
        (new / "run.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        if _seed(run) == min(seeds) and picture.is_file():
            shutil.copyfile(picture, new / f"{CENTRAL}.svg")
        _put(new, folder)
    return folder


def _put(new: Path, folder: Path) -> None:
    """Let a whole folder take the place of another."""
    new.chmod(0o755)
    if folder.is_dir():
        folder.rename(new / ".before")
    new.rename(folder)
    shutil.rmtree(folder / ".before", ignore_errors=True)


def kept(root: Path, run: RunFolder) -> dict[int, Seed]:
    """What is expected of a run, by seed; nothing if that is expected of another run of its name."""
    folder = _folder(root, run)
    if not (folder / "run.json").is_file() or _read(folder, "run")["run"] != _facts(run)["run"]:
        return {}
    table = read_table(folder / "ledger.csv", KINDS)
    heads = {int(seed): own for seed, own in _read(folder, "heads").items()}
    return {seed: Seed(table.loc[table["seed"] == seed, list(COLUMNS)], own) for seed, own in heads.items()}


def compare_expected(model: str | None = None) -> Iterator[Verified]:
    """Say of each claim, and of the heads, whether a run gives what is expected of it; runs nothing.

    Raises:
        UserError: no such run, no expected values of it, or it is damaged.
    """
    root = project_root()
    run = find_run(root, model)
    folder = _folder(root, run)
    if not (folder / "run.json").is_file():
        raise NothingExpectedError(
            f"No values are expected of the run {run.name}; keep those that it gave with: twotowers verify --model "
            f"{run.name} --write-expected"
        )
    return with_whose(run, _compared(run, folder))


def _compared(run: RunFolder, folder: Path) -> Iterator[Verified]:
    if said := first_difference(_read(folder, "run")["run"], _facts(run)["run"]):
        yield Verified(run.name, STALE, f"expected of another run: {said}")
        return
    seed, seeds = _seed(run), kept(folder.parents[2], run)
    if seed not in seeds:
        yield Verified(run.name, STALE, f"nothing is expected of seed {seed}, only of {', '.join(map(str, seeds))}")
        return
    now = given(run)
    yield from _claims(seeds[seed].ledger, now.ledger)
    yield _verified(HEADS, first_difference(dict(seeds[seed].heads), dict(now.heads)))


def _claims(expected: pd.DataFrame, found: pd.DataFrame) -> Iterator[Verified]:
    """Each claim by itself: what counts as the same depends on its smallest effect of interest."""
    for name in dict.fromkeys([*expected["claim"], *found["claim"]]):
        tolerance = Tolerance(SHARE * CLAIMS[name].smallest if name in CLAIMS else 0.0, RELATIVE)
        rows = [table[table["claim"] == name].to_dict("records") for table in (expected, found)]
        kept, now = (dict(enumerate(row)) for row in rows)
        said = first_difference(kept.get(0, {}), now.get(0, {}), tolerance)
        yield _verified(str(name), said)


def _verified(name: str, said: str | None) -> Verified:
    return Verified(name, DIFFERS, said) if said else Verified(name, SAME)


def _folder(root: Path, run: RunFolder) -> Path:
    return root / "book" / "expected" / run.name


def _read(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))


def _seed(run: RunFolder) -> int:
    return int(run.record()["run"]["seed"])


def _facts(run: RunFolder) -> dict[str, Any]:
    """What a run is of but for its seed, and the versions of libraries with which its chapters were made."""
    record = run.record()
    made = [entry["made_of"]["results"] for entry in record["chapters"].values()]
    versions = {name: sorted({str(one[name]) for one in made if name in one}) for name in LIBRARIES}
    facts = {name: value for name, value in record["run"].items() if name != "seed"}
    return {"run": facts, "made with": {name: ", ".join(found) for name, found in versions.items()}}

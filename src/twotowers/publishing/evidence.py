"""The evidence of a claim, in one file of a run, from which anyone can make its verdict again.

The file is JSON: the claim, the seed, and by the names of `statistics.judge` either null or what was measured, tables
as lists of columns, one effect a demonstration set. Numbers have all their digits; what is missing is null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ..clustering import OF_SET
from ..errors import DamagedRunError, UnknownNameError
from ..paper import CLAIMS
from ..statistics import CHANCE, NEGLIGIBLE, SUPPORTED, UNTESTABLE, Values, Verdict, judge
from .run_folder import RunFolder, effects_file

TABLES = ("effects", "control", "before", "accuracy")  # of `set, effect`
LISTS = ("random", "folds")
WORDS = {"random": "random groups", "control": "the second contrast", "before": "what there was to cure"}


@dataclass(frozen=True)
class Judged(Verdict):
    """A verdict from evidence, which knows with how many random groups the heads were compared."""

    groups: int = 0

    @property
    def as_good(self) -> int:
        """Of these groups, those that do as well."""
        return round((self.random_p or 0) * (1 + self.groups)) - 1 if self.groups else 0


@dataclass(frozen=True)
class Evidence:
    """What was measured for a claim, as `statistics.judge` takes it, over one seed."""

    claim: str
    seed: int
    effects: pd.DataFrame
    categories: pd.DataFrame | None = None
    control: pd.DataFrame | None = None
    before: pd.DataFrame | None = None
    accuracy: pd.DataFrame | None = None
    random: Values | None = None
    folds: Values | None = None

    def __post_init__(self) -> None:
        if self.claim not in CLAIMS:
            raise UnknownNameError("claim", self.claim, CLAIMS)

    @property
    def verdict(self) -> Verdict:
        """By today's specification, before `holm`; without a control that it names there is no support."""
        claim = CLAIMS[self.claim]
        given = {name: getattr(self, name) for name in (*TABLES[1:], *LISTS, "categories")}
        judged = judge(self.effects, claim.smallest, chance=self.chance, **given)
        made = Judged(**vars(judged), groups=0 if self.random is None else len(self.random))
        if claim.two_labels and self.labels > 2:
            return replace(
                made, verdict=UNTESTABLE, reason=f"its question needs two labels, and here are {self.labels}"
            )
        lacking = [WORDS[name] for name in claim.needs if given[name] is None]
        if lacking and made.verdict in (SUPPORTED, NEGLIGIBLE):
            return made.withdrawn(f"its control was not measured: {', '.join(lacking)}")
        return made

    @property
    def labels(self) -> int:
        """How many there are in a prompt: as many as a set shows categories."""
        return 2 if self.categories is None else len(self.categories.columns) - 1

    @property
    def chance(self) -> float:
        """Of accuracy between the labels."""
        return CHANCE if self.labels == 2 else 1 / self.labels

    def record(self) -> dict[str, Any]:
        """As JSON."""
        tables = {name: _columns(getattr(self, name)) for name in TABLES}
        lists = {name: _numbers(getattr(self, name)) for name in LISTS}
        categories = None if self.categories is None else {k: list(v) for k, v in self.categories.items()}
        return {"claim": self.claim, "seed": self.seed, **tables, **lists, "categories": categories}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Evidence:
        """From what `record` gave, and nothing else.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        names = {"claim", "seed", "categories", *TABLES, *LISTS}
        if set(record) != names or record["claim"] not in CLAIMS or record["effects"] is None:
            raise ValueError("these are no claim's effects")
        tables = {name: _frame(record[name], {"set": int, "effect": _number}) for name in TABLES}
        lists = {name: None if record[name] is None else [_number(x) for x in record[name]] for name in LISTS}
        shown = max(2, len(record["categories"] or ()) - 1)
        categories = _frame(record["categories"], {"set": int, **dict.fromkeys(OF_SET[:shown], str)})
        given: dict[str, Any] = {**tables, **lists, "categories": categories}
        return cls(record["claim"], int(record["seed"]), **given)


def read_evidence(run: RunFolder, claim: str, digest: str) -> Evidence:
    """The evidence of a claim from a run's folder.

    Raises:
        DamagedRunError: the file is gone, another, or holds something else.
    """
    file = effects_file(claim)
    text = run.read(file, digest)
    try:
        evidence = Evidence.of(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedRunError(f"{run.name}/{file} holds no effects; run the model again to make it.") from error
    if evidence.claim != claim:
        raise DamagedRunError(f"{run.name}/{file} holds effects of {evidence.claim}; run the model again to mend it.")
    return evidence


def by_set(effects: pd.DataFrame) -> pd.DataFrame:
    """Effects of sets, `set, effect`, from rows of sets or of prompts; a set without any keeps its row, as nan."""
    return effects.groupby("set", as_index=False)[["effect"]].mean()


def _columns(table: pd.DataFrame | None) -> dict[str, list[Any]] | None:
    if table is None:
        return None
    means = by_set(table)
    return {"set": [int(number) for number in means["set"]], "effect": _numbers(means["effect"]) or []}


def _numbers(values: Values | None) -> list[float | None] | None:
    return None if values is None else [float(x) if np.isfinite(x) else None for x in values]


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _frame(columns: Any, kinds: Mapping[str, Callable[[Any], Any]]) -> Any:
    """A data frame of exactly these columns; None where there is none."""
    if columns is None:
        return None
    if list(columns) != list(kinds) or len({len(column) for column in columns.values()}) != 1:
        raise ValueError("other columns than were written")
    return pd.DataFrame({name: [kind(cell) for cell in columns[name]] for name, kind in kinds.items()})

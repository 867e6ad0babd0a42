"""Where two results of the same computation first differ: tables row by row, all else part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

Inputs = Mapping[str, Any]  # of a figure or text: data frames and JSON, by name


@dataclass(frozen=True)
class Tolerance:
    """By how much two numbers may differ and still be the same: absolutely, or relative to the kept one."""

    absolute: float
    relative: float

    def same(self, kept: Any, now: Any) -> bool:
        """Whether two numbers are; what is missing is the same as what is missing."""
        return bool(np.isclose(now, kept, rtol=self.relative, atol=self.absolute, equal_nan=True))


# Numbers that another number of threads, or another machine of the same kind, gives in another order of summing.
REPEATED = Tolerance(absolute=1e-4, relative=1e-3)


def first_difference(kept: Inputs, now: Inputs, tolerance: Tolerance = REPEATED) -> str | None:
    """Where what a figure is made of first differs, in words; None if it is the same."""
    for name, value in kept.items():
        if name not in now:
            return f"{name} is not made any more"
        if isinstance(value, pd.DataFrame):
            said = _of_table(value, now[name], tolerance)
        else:
            said = _of_value(value, now[name], tolerance)
        if said:
            return f"{name}{said}"
    return next((f"{name} was not made before" for name in now if name not in kept), None)


def _of_table(kept: pd.DataFrame, now: Any, tolerance: Tolerance) -> str | None:
    """The first row, from above, and in it the first column that differs."""
    if not isinstance(now, pd.DataFrame) or list(kept.columns) != list(now.columns):
        return f": the columns were {_listed(kept)}, now they are {_listed(now)}"
    if len(kept) != len(now):
        return f": there were {len(kept)} rows, now there are {len(now)}"
    for number, (before, after) in enumerate(
        zip(kept.itertuples(index=False, name=None), now.itertuples(index=False, name=None), strict=True), 1
    ):
        for column, old, new in zip(kept.columns, before, after, strict=True):
            if not _same(old, new, tolerance):
                return f", row {number}, column {column}: {_shown(old)} was kept, now it is {_shown(new)}"
    return None


def _of_value(kept: Any, now: Any, tolerance: Tolerance) -> str | None:
    if isinstance(kept, Mapping) and isinstance(now, Mapping) and set(kept) == set(now):
        parts: list[tuple[object, Any, Any]] = [(name, kept[name], now[name]) for name in kept]
    elif _listing(kept) and _listing(now) and len(kept) == len(now):
        parts = [(number, *pair) for number, pair in enumerate(zip(kept, now, strict=True), 1)]
    else:
        return None if _same(kept, now, tolerance) else f": {_shown(kept)} was kept, now it is {_shown(now)}"
    found = ((name, _of_value(old, new, tolerance)) for name, old, new in parts)
    return next((f", {name}{said}" for name, said in found if said), None)


def _same(kept: Any, now: Any, tolerance: Tolerance) -> bool:
    if all(isinstance(value, float | np.floating) for value in (kept, now)):
        return tolerance.same(kept, now)
    missing = [value is None or (isinstance(value, float) and value != value) for value in (kept, now)]
    return all(missing) or bool(kept == now)


def _listing(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _listed(table: Any) -> str:
    return ", ".join(map(str, table.columns)) if isinstance(table, pd.DataFrame) else "none"


def _shown(value: Any) -> str:
    text = f"{value:.9g}" if isinstance(value, float | np.floating) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

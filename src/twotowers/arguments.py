"""What functions accept from Python: arguments that are checked where they are given, each refused in one sentence."""

from __future__ import annotations

import numbers
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .errors import ArgumentError, SeedError


def require_seed(seed: object) -> None:
    """Raise `SeedError` unless a seed is a whole number from 0."""
    if not _is_whole(seed, 0):
        raise SeedError(f"{brief(seed)} is no seed; give a whole number from 0.")


def require_whole(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Raise `ArgumentError` unless an argument is a whole number, large enough, and not too large."""
    if not _is_whole(value, least) or (most is not None and value > most):
        to = "" if most is None else f" to {most:,}"
        raise ArgumentError(f"{name} is {brief(value)}; give a whole number from {least}{to}.")


def require_flag(name: str, value: Any) -> None:
    """Raise `ArgumentError` unless an argument is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ArgumentError(f"{name} is {brief(value)}; give True or False.")


def require_kind(name: str, value: Any, kinds: type | tuple[type, ...], such_as: str) -> None:
    """Raise `ArgumentError` unless an argument is of one of these kinds; None is, too."""
    if value is not None and not isinstance(value, kinds):
        raise ArgumentError(f"{name} is {brief(value)}; give {such_as}, or leave it out.")


def listed(name: str, given: Any, of: str) -> list[Any]:
    """What is given as a list.

    Raises:
        ArgumentError: it is none, or an empty one.
    """
    found = []
    if not isinstance(given, str | bytes | Mapping):
        try:
            found = list(given)
        except TypeError:
            found = []
    if not found:
        raise ArgumentError(f"{name} is {brief(given)}; give a list of {of}.")
    return found


def require_between(name: str, value: Any, low: int, high: float | int, *, open_below: bool = False) -> None:
    """Raise `ArgumentError` unless an argument is a number from `low`, or above it, to `high`."""
    number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else float("nan")
    if not (low < number if open_below else low <= number) or not number <= high:
        raise ArgumentError(
            f"{name} is {brief(value)}; give a number {'above' if open_below else 'from'} {low:g}"
            + (f", up to {high:g}." if high < float("inf") else ".")
        )


def require_columns(name: str, table: Any, columns: Iterable[str]) -> None:
    """Raise `ArgumentError` unless an argument is a data frame with these columns, each once."""
    wanted, there = list(columns), list(getattr(table, "columns", ()))
    if not set(wanted) <= set(there):
        raise ArgumentError(f"{name} is no data frame with the columns {', '.join(wanted)}; give one that has them.")
    if twice := [column for column in wanted if there.count(column) > 1]:
        raise ArgumentError(f"{name} has the column {twice[0]} more than once; leave one.")


def as_numbers(name: str, values: Any) -> list[float]:
    """A list or column of numbers, nan among them, as floats.

    Raises:
        ArgumentError: it is none.
    """
    try:
        if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__") or hasattr(values, "columns"):
            raise TypeError
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of a masked one, or a complex one, something would get lost
            return [float(value) for value in values]
    except (TypeError, ValueError, OverflowError, Warning):
        raise ArgumentError(f"{name} is no list of numbers; give one for each, nan where there is none.") from None


def require_places(name: str, table: Any, columns: Iterable[str]) -> None:
    """Raise `ArgumentError` unless some columns hold whole numbers from 0, which may be written as floats."""
    for column in columns:
        for value in table[column].unique():
            if not isinstance(value, numbers.Real) or not float(value) >= 0 or float(value) % 1:
                raise ArgumentError(f"The column {column} of {name} has {brief(value)}; give whole numbers from 0.")


def require_sets(name: str, values: Any) -> None:
    """Raise `ArgumentError` unless a column names a set in each row, all of them in one way."""
    if values.isna().any():
        raise ArgumentError(f"The column set of {name} has a row without a set; fill it in, or leave that row out.")
    try:
        np.unique(values.to_numpy())
    except TypeError:
        raise ArgumentError(f"The column set of {name} has names of several kinds; give numbers, or texts.") from None


def require_judged(smallest: Any, alpha: Any, chance: Any, frames: tuple[Any, ...], categories: Any = None) -> None:
    """Raise `ArgumentError` unless a verdict can be made of these: frames with effects, or None."""
    require_between("The smallest effect of interest", smallest, 0, sys.float_info.max, open_below=True)
    require_between("alpha", alpha, 0, 1, open_below=True)
    require_between("chance", chance, 0, 1)
    for name, frame in zip(("effects", "control", "before", "accuracy"), frames, strict=True):
        if frame is not None or name == "effects":
            require_columns(name, frame, ("set", "effect"))
            found = as_numbers(f"The column effect of {name}", frame["effect"])
            require_sets(name, frame["set"])
            if name == "accuracy" and any(not 0 <= share <= 1 for share in found if share == share):
                raise ArgumentError("An accuracy is a share, from 0 to 1; give it as that, not in percent.")
    if categories is not None:
        require_columns("categories", categories, ("set", "first", "second"))
        require_sets("categories", categories["set"])


def require_ledger(verdicts: Any, kind: type, alpha: Any) -> None:
    """Raise `ArgumentError` unless these are verdicts by claim."""
    require_between("alpha", alpha, 0, 1, open_below=True)
    if not isinstance(verdicts, Mapping) or not all(isinstance(verdict, kind) for verdict in verdicts.values()):
        raise ArgumentError("Verdicts are given by claim, such as {'C1': judge(...)}, each of them made by judge.")


def unseen(name: str) -> str:
    """The first character of a name that ends a line or is none, as U+000A; empty if there is none.

    Those that turn the direction of writing are shown by their number (`publishing.markdown.plain`).
    """
    found = (f"U+{ord(c):04X}" for c in name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp"))
    return next(found, "")


def brief(value: object) -> str:
    """A value in a message: on one line, and no longer than one can read."""
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 60 else f"{shown[:60]}…"


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least

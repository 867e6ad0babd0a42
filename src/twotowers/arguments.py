"""What functions accept from Python: arguments that are checked where they are given, each refused in one sentence."""

from __future__ import annotations

import numbers
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

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
    if not isinstance(value, bool):
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
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not (low < value if open_below else low <= value) or not value <= high:
        raise ArgumentError(
            f"{name} is {brief(value)}; give a number {'above' if open_below else 'from'} {low:g}"
            + (f", up to {high:g}." if high < float("inf") else ".")
        )


def require_columns(name: str, table: Any, columns: Iterable[str]) -> None:
    """Raise `ArgumentError` unless an argument is a data frame with these columns."""
    wanted = list(columns)
    if not hasattr(table, "columns") or not set(wanted) <= set(table.columns):
        raise ArgumentError(f"{name} is no data frame with the columns {', '.join(wanted)}; give one that has them.")


def require_numbers(name: str, values: Any) -> None:
    """Raise `ArgumentError` unless an argument is a list or column of numbers; nan is one."""
    try:
        if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__"):
            raise TypeError
        list(map(float, values))
    except (TypeError, ValueError):
        raise ArgumentError(f"{name} is no list of numbers; give one for each, nan where there is none.") from None


def require_judged(
    smallest: Any, alpha: Any, chance: Any, frames: tuple[Any, ...], lists: tuple[Any, ...], categories: Any = None
) -> None:
    """Raise `ArgumentError` unless a verdict can be made of these: frames with effects, lists of numbers, or None."""
    require_between("The smallest effect of interest", smallest, 0, sys.float_info.max, open_below=True)
    require_between("alpha", alpha, 0, 1, open_below=True)
    require_between("chance", chance, 0, 1)
    for name, frame in zip(("effects", "control", "before", "accuracy"), frames, strict=True):
        if frame is not None or name == "effects":
            require_columns(name, frame, ("set", "effect"))
            require_numbers(f"The column effect of {name}", frame["effect"])
    for name, values in zip(("random", "folds"), lists, strict=True):
        require_numbers(name, () if values is None else values)
    if categories is not None:
        require_columns("categories", categories, ("set", "first", "second"))


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

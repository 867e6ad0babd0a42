"""Trying guessed entries of an unknown family: the identities say which one is right, or what fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd

from ..errors import FamilyError
from ..hub import first_line
from ..models.families import FAMILIES, LLAMA, require_family, without_code
from ..models.family import Family
from ..models.files import find_source
from ..models.folder import model_type_in
from ..models.guess import candidates, entry
from ..models.model import load
from .check import check, lines


@dataclass(frozen=True)
class Guess:
    """The best entry that was tried: its text, the result of `check`, and what stopped it where there is no result."""

    model_type: str
    entry: str
    table: pd.DataFrame
    stopped: str = ""

    def __str__(self) -> str:
        """The entry as it is pasted into the table of families, and the identities."""
        pasted = f'"{self.model_type}": {self.entry},'
        return pasted if self.table.empty else f"{pasted}\n{lines(self.table)}"

    @property
    def failure(self) -> str:
        """What is wrong with the entry, in a sentence."""
        if self.stopped:
            return f"With the best entry that could be guessed the check stops: {self.stopped}."
        return "The best entry that could be guessed is not right, since an identity fails; mend it by hand."

    @property
    def holds(self) -> bool:
        """Whether every identity holds."""
        return not self.table.empty and bool(self.table["holds"].all())

    @property
    def holding(self) -> int:
        """How many identities hold."""
        return 0 if self.table.empty else int(self.table["holds"].sum())


def guess(name: str, dtype: str | None = None) -> Guess:
    """Guess the entry of a model's family, and try the identities with it.

    Args:
        name: as of `load`.

    Raises:
        FamilyError: the family is known, there is no code for it, or its modules are none that an entry could name.
    """
    model_type = model_type_in(find_source(name).folder)
    if model_type in FAMILIES:
        raise FamilyError(f"The family {model_type} is known, so there is nothing to guess; leave out --guess.")
    if without_code(model_type):
        require_family(model_type)
    best: Guess | None = None
    with _as_if_known(model_type) as take:
        model = load(name, dtype=dtype)
        for family in candidates(model.nn._module, model.config):
            take(family)
            model.__dict__.pop("arch", None)
            try:
                found = Guess(model_type, entry(family), check(model))
            except Exception as error:  # a wrong entry may raise anything
                found = Guess(model_type, entry(family), pd.DataFrame(), f"{type(error).__name__}: {first_line(error)}")
            if best is None or found.holding > best.holding:
                best = found
            if best.holds:
                break
    assert best is not None
    return best


@contextmanager
def _as_if_known(model_type: str) -> Iterator[Callable[[Family], None]]:
    """Let a family count as known, by whatever entry is taken for it, and forget it again."""

    def take(family: Family) -> None:
        FAMILIES[model_type] = family

    take(LLAMA)
    try:
        yield take
    finally:
        del FAMILIES[model_type]

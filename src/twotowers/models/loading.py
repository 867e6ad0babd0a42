"""How a model is loaded, as a value: it travels to kernels and to jobs as any parameter does."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Loading:
    """A way of loading a model, as `load` takes it; None leaves a choice to the registry and the machine."""

    dtype: str | None = None
    device_map: str | None = None
    quantise: str | None = None
    remote: bool = False

    def given(self) -> dict[str, Any]:
        """The choices that were made."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}

    def words(self) -> str:
        """In a few words, for a run's name and title; empty for the usual way."""
        return " ".join(str(value) if value is not True else "ndif" for value in self.given().values())

    def options(self) -> str:
        """As options of the command, each behind a space."""
        given = {f"--{name.replace('_', '-')}": value for name, value in self.given().items()}
        return "".join(
            f" {name}" if value is True else f" {name} {shlex.quote(value)}" for name, value in given.items()
        )

"""Parts of a long sweep, kept as they are made, so that one that was interrupted goes on where it stopped.

A part is a table or an array, or several: what one demonstration set gives, or a batch of them. It is kept under a name
that says everything that was asked, and beside what made it, code, weights, texts, scale and seed; one that was made by
anything else is never found.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Tables = tuple[Any, ...]  # data frames and arrays, as many of each as a measure gives
EVERY = 10.0  # seconds of work that may be lost, beside the part that is being made


def part_name(*asked: Any) -> str:
    """A name for what was asked: JSON, dataclasses' fields and sequences of them, and arrays by their content."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=_plain).encode()).hexdigest()


class Parts:
    """Keeps nothing: sweeps of a model that no chapter is made of."""

    def find(self, name: str) -> Tables | None:
        """The part of this name, exactly as it was made; None if there is none."""
        return None

    def keep(self, name: str, tables: Tables) -> None:
        """Keep a part, now or with the next ones."""


class PartsIn(Parts):
    """Keeps parts in a folder, which nobody else writes to at the same time.

    Args:
        maker: digest of all that decides what parts are; files of another one are removed.
    """

    def __init__(self, folder: Path, maker: str) -> None:
        self.folder, self.maker = folder, maker
        self._found: dict[str, Any] = {}
        self._new: dict[str, Tables] = {}
        self._written = time.monotonic()
        for file in sorted(folder.glob("*")):
            parts = _read(file, maker)
            self._found |= parts
            if not parts:
                file.unlink()

    def find(self, name: str) -> Tables | None:
        return tuple(map(_table, self._found[name])) if name in self._found else None

    def keep(self, name: str, tables: Tables) -> None:
        self._new[name] = tables
        if time.monotonic() - self._written >= EVERY:
            self._write()

    def _write(self) -> None:
        new, self._new = self._new, {}
        exact = {name: [_exact(table) for table in tables] for name, tables in new.items()}
        self._write_file({name: found for name, found in exact.items() if None not in found})
        self._written = time.monotonic()

    def _write_file(self, parts: dict[str, Any]) -> None:
        self.folder.mkdir(exist_ok=True)
        text = json.dumps(parts)
        file = self.folder / f"{_digest(self.maker, text)}.json"
        temporary = file.with_suffix(".new")
        with temporary.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)


def _read(file: Path, maker: str) -> dict[str, Any]:
    """The parts of a file that this maker has written, whole; else none."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    return dict(json.loads(text)) if file.name == f"{_digest(maker, text)}.json" else {}


def _digest(maker: str, text: str) -> str:
    return hashlib.sha256(f"{maker}\n{text}".encode()).hexdigest()


def _exact(table: pd.DataFrame | np.ndarray) -> dict[str, Any] | None:
    """A table as JSON, if that gives it back as it is, bit by bit; None if not, and it is made again then."""
    if isinstance(table, np.ndarray):
        return {"array": base64.b64encode(table.tobytes()).decode(), "dtype": str(table.dtype), "shape": table.shape}
    try:
        columns = [(str(name), str(kind), _column(table[name])) for name, kind in table.dtypes.items()]
        found = {"columns": columns}
        back: Any = _table(json.loads(json.dumps(found)))
    except (TypeError, ValueError):
        return None
    return found if back.equals(table) and list(back.dtypes) == list(table.dtypes) else None


def _column(values: pd.Series) -> Any:
    """Numbers by their bytes, which is shorter and quicker than by their digits; else a list."""
    plain = isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf"
    return _exact(values.to_numpy()) if plain else values.tolist()


def _table(found: dict[str, Any]) -> pd.DataFrame | np.ndarray:
    if "array" in found:
        flat = np.frombuffer(base64.b64decode(found["array"]), dtype=found["dtype"])
        return flat.reshape(found["shape"]).copy()  # writeable, as one that was just made
    columns = {
        name: pd.Series(_table(values) if isinstance(values, dict) else values, dtype=kind)
        for name, kind, values in found["columns"]
    }
    return pd.DataFrame(columns)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    if isinstance(value, range | Sequence):
        return list(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no part of a name")

"""What a page shows, kept so that it can be drawn again: the items in their order, and the results they are made of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Drawing

from .publish import Facts, Figure, Text, call, figure_of, figure_text, write_figure
from .results import read_table, write_table
from .run_folder import shown_file, table_files

Item = Figure | Text


class Shown:
    """The shown items of one chapter, in a workplace or in a run's folder.

    Args:
        items: what `add` has kept of each item, by its id.
    """

    def __init__(
        self, folder: Path, chapter: str, facts: Facts, items: dict[str, dict[str, Any]] | None = None
    ) -> None:
        self.folder, self.chapter, self.facts = folder, chapter, facts
        self.items: dict[str, dict[str, Any]] = items or {}

    @classmethod
    def read(cls, folder: Path, chapter: str) -> Shown:
        record = json.loads((folder / shown_file(chapter)).read_text(encoding="utf-8"))
        return cls(folder, chapter, Facts.read(record["facts"]), record["items"])

    def write(self) -> None:
        place = self.folder / shown_file(self.chapter)
        place.parent.mkdir(parents=True, exist_ok=True)
        record = {"facts": dataclasses.asdict(self.facts), "items": self.items}
        place.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def add(self, item: Item, inputs: Mapping[str, Any], places: Mapping[str, str] | None = None) -> None:
        """Keep what an item is made of: data frames at full precision, all else as JSON.

        Args:
            places: files of their own for inputs, by name: for data frames where the item's do not go where they
                usually do, for all else as JSON.

        Raises:
            ValueError: the page shows an item of this id already.
            TypeError: an input is neither a data frame nor JSON.
        """
        if item.id in self.items:
            raise ValueError(f"chapter '{self.chapter}' shows '{item.id}' twice")
        frames = {name: value for name, value in inputs.items() if isinstance(value, pd.DataFrame)}
        files = places or table_files(item.id, list(frames), figure=isinstance(item, Figure))
        tables = {
            name: {"file": files[name], "kinds": write_table(frame, self.folder / files[name])}
            for name, frame in frames.items()
        }
        values = {name: _plain(value) for name, value in inputs.items() if name not in frames}
        apart = {name: file for name, file in (places or {}).items() if name in values}
        for name, file in apart.items():
            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / file).write_text(json.dumps(values.pop(name)) + "\n", encoding="utf-8")
        self.items[item.id] = {"tables": tables, "values": values, "files": apart}
        self.write()

    def inputs(self, item_id: str) -> dict[str, Any]:
        """What an item is made of, as it was kept."""
        kept = self.items[item_id]
        tables = {name: read_table(self.folder / t["file"], t["kinds"]) for name, t in kept["tables"].items()}
        apart = {name: json.loads((self.folder / file).read_text("utf-8")) for name, file in kept["files"].items()}
        return {**kept["values"], **tables, **apart}

    def render(self, item: Item, target: Path | None = None) -> str:
        """The MyST text of an item that was added; a figure's files are written, into `target` if that is given."""
        inputs = self.inputs(item.id)
        if isinstance(item, Text):
            return str(call(item.write, self.facts, inputs))
        drawing, caption, alt = figure_of(item, self.facts, inputs)
        stem = (target or self.folder) / "figures" / item.id
        write_figure(stem, drawing, caption=caption, alt=alt, provenance=self.facts.provenance)
        tables = [kept["file"] for kept in self.items[item.id]["tables"].values()]
        return figure_text(f"{self.facts.run}-{item.id}", f"figures/{item.id}", tables, caption, alt)


def write_alone(
    folder: Path,
    figure_id: str,
    drawing: Drawing,
    table: pd.DataFrame,
    *,
    caption: str,
    alt: str,
    facts: Mapping[str, Any],
) -> tuple[str, str]:
    """Write a figure that belongs to no chapter, and its numbers, into a folder; returns its texts on a line each."""
    caption, alt = (" ".join(words.split()) for words in (caption, alt))
    write_table(table, folder / f"{figure_id}.csv")
    write_figure(folder / figure_id, drawing, caption=caption, alt=alt, provenance=facts)
    return caption, alt


def _plain(value: Any) -> Any:
    """A value as JSON gives it back: tuples become lists, numpy's numbers Python's."""

    def convert(other: Any) -> Any:
        if hasattr(other, "item"):
            return other.item()
        raise TypeError(f"{type(other).__name__} is neither a data frame nor JSON")

    if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
        raise TypeError("the keys of a value that is kept must be texts")
    return json.loads(json.dumps(value, default=convert))

"""What a page shows, kept so that it can be drawn again: the items in their order, and the results they are made of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Drawing

from .plots import folded
from .publish import Facts, Figure, Text, call, figure_of, figure_text, write_figure, write_narrow
from .record import Place, figure_record
from .results import read_table, write_table
from .run_folder import figure_stem, shown_file, table_files
from .style import NARROW, styled

Item = Figure | Text
# What reading and drawing of stored results raise where no chapter has made them, as in a folder of somebody else.
UNDRAWABLE = (OSError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)


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
        files = places or table_files(self.facts.run, item.id, list(frames), figure=isinstance(item, Figure))
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

    def rename_tables(self, items: Mapping[str, Item]) -> None:
        """Give the tables of figures the names that they would be given today."""
        for item_id, kept in self.items.items():
            if isinstance(items[item_id], Figure):
                files = table_files(self.facts.run, item_id, list(kept["tables"]), figure=True)
                for name, table in kept["tables"].items():
                    (self.folder / table["file"]).rename(self.folder / files[name])
                    table["file"] = files[name]
        self.write()

    def inputs(self, item_id: str) -> dict[str, Any]:
        """What an item is made of, as it was kept."""
        kept = self.items[item_id]
        tables = {name: read_table(self.folder / t["file"], t["kinds"]) for name, t in kept["tables"].items()}
        apart = {name: json.loads((self.folder / file).read_text("utf-8")) for name, file in kept["files"].items()}
        return {**kept["values"], **tables, **apart}

    def render(self, item: Item) -> str:
        """The MyST text of an item that was added; a figure's files are written."""
        inputs = self.inputs(item.id)
        if isinstance(item, Text):
            return str(call(item.write, self.facts, inputs))
        drawing, caption, alt = figure_of(item, self.facts, inputs)
        stem, record = figure_stem(self.facts.run, item.id), self._record(item)
        write_figure(self.folder / stem, drawing, caption=caption, alt=alt, record=record)
        return figure_text(stem, caption, alt, record)

    def _record(self, figure: Figure) -> dict[str, Any]:
        kept, run = self.items[figure.id], self.facts.run
        tables = {Path(table["file"]).name: self.folder / table["file"] for table in kept["tables"].values()}
        place = Place(f"runs/{run}/{self.chapter}.html", f"{run}-{figure.id}", run)
        return figure_record(figure.id, place, self.facts.provenance, tables, kept["values"])


def write_alone(
    folder: Path,
    figure_id: str,
    draw: Callable[[pd.DataFrame], Drawing],
    table: pd.DataFrame,
    *,
    caption: str,
    alt: str,
    facts: Mapping[str, Any],
    place: Place,
) -> None:
    """Write a figure that belongs to no chapter, and its numbers, into a folder; also as narrow as a phone."""
    caption, alt = (" ".join(words.split()) for words in (caption, alt))
    numbers = folder / f"{figure_id}.csv"
    write_table(table, numbers)
    record = figure_record(figure_id, place, facts, {numbers.name: numbers}, {})
    with styled():
        drawing = draw(table)
    write_figure(folder / figure_id, drawing, caption=caption, alt=alt, record=record)
    with styled(NARROW):
        drawing = draw(table)
        folded(drawing)
    write_narrow(folder / figure_id, drawing)


def text_alone(folder: Path, stem: str) -> str:
    """MyST text of a figure that `write_alone` has written, its files at `stem` from the folder of the pages."""
    whole = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
    return figure_text(stem, whole["caption"], whole["alt"], whole["provenance"])


def _plain(value: Any) -> Any:
    """A value as JSON gives it back: tuples become lists, numpy's numbers Python's."""

    def convert(other: Any) -> Any:
        if hasattr(other, "item"):
            return other.item()
        raise TypeError(f"{type(other).__name__} is neither a data frame nor JSON")

    if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
        raise TypeError("the keys of a value that is kept must be texts")
    return json.loads(json.dumps(value, default=convert))

"""A run's pages as the site shows them: what was found, the way to other models, and code that folds away.

Runs stay as they were made: all of this is put into copies.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from ..chapters.claims.page import COUNTS
from ..chapters.task.page import CAN
from ..paper import CLAIMS
from ..publishing.findings import FIGURES, answer, closing, opening, verdict_anchor
from ..publishing.forest import forest, forest_alt, forest_caption, forest_table
from ..publishing.ledger import by_seed, claim_text, ledger, markdown, verdicts_of
from ..publishing.markdown import escape
from ..publishing.record import Place
from ..publishing.results import read_table
from ..publishing.run_folder import RunFolder, figure_stem
from ..publishing.shown import Shown, text_alone, write_alone
from ..statistics import Verdict
from . import expected
from .contributed import Contribution, contribution, notice
from .freshness import State

FOLDED = "hide-input"  # a tag of cells; on the site one button shows and hides the code of a page
TABLE = "claims-table"


@dataclass(frozen=True)
class Published:
    """A run with the chapters that have a page, and what a reader is told of it."""

    run: RunFolder
    chapters: Sequence[str]
    title: str

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def model(self) -> str:
        """The title as Markdown."""
        return f"*{escape(self.title)}*" if self.title.isalnum() else escape(self.title)

    @cached_property
    def contributed(self) -> Contribution | None:
        """Where the run comes from, if it is not our own."""
        return contribution(self.run)

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        return verdicts_of(self.run)

    @cached_property
    def ledger(self) -> pd.DataFrame:
        return ledger(self.run.path)

    def pictures(self, chapter: str) -> dict[str, str]:
        """The figures of a chapter's page that are there, by id: their files from the run's folder, without ending."""
        files = [Path(file) for file in self.run.entry(chapter).get("files", ())]
        drawn = sorted(file for file in files if file.parent.name == "figures" and file.suffix == ".svg")
        whole = [f for f in drawn if all((self.run.path / f).with_suffix(x).is_file() for x in (".svg", ".json"))]
        return {file.stem.removeprefix(f"{self.name}_"): file.with_suffix("").as_posix() for file in whole}

    @cached_property
    def links(self) -> dict[str, str]:
        """For each claim the anchor of what shows it: its figure, else its verdict, if one of them is there."""
        found = {}
        for name, claim in CLAIMS.items():
            if claim.chapter in self.chapters:
                if FIGURES.get(name) in self.pictures(claim.chapter):
                    found[name] = f"fig-{self.name}-{FIGURES[name]}"
                elif claim_text(name).id in _items(self.notebook(claim.chapter)):
                    found[name] = verdict_anchor(name, self.name)
        return found

    def notebook(self, chapter: str) -> Any:
        return nbformat.read(self.run.notebook(chapter), as_version=4)

    def can(self) -> str:
        """Whether the model does the task, as its chapter says; nothing where that is not kept."""
        try:
            return Shown.read(self.run.path, "task").render(CAN)
        except (OSError, KeyError, TypeError, ValueError):
            return ""

    def title_of(self, chapter: str) -> str:
        """The chapter's question, without the model."""
        return str(self.notebook(chapter).cells[0].source).partition("\n")[0].removeprefix("# ").strip()


def stage(book: Path, own: Published, chapter: str, others: Sequence[Published], state: State | None) -> None:
    """Write a chapter's page into the staged book.

    Args:
        others: all runs of the site, in the order of its sidebar; the own among them.
        state: why it is not up to date, where it is published nevertheless.
    """
    notebook = own.notebook(chapter)
    title, _, rest = notebook.cells[0].source.partition("\n")
    head = [f"{title} [{escape(own.title)}]{{.page-model}}", _switch(own, chapter, others)]
    if own.contributed is not None:
        head.append(notice(own.contributed))
    if state is not None:
        head.append(f"```{{warning}}\nThis page is {str(state).replace('`', '')}.\n```")
    head += [_found(own, chapter), rest.strip()]
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata["tags"] = [tag for tag in tags if tag != FOLDED]
        _anchored(own, cell)
    if chapter == "claims":
        _forest(book, own, notebook)
    cells = [nbformat.v4.new_markdown_cell("\n\n".join(filter(None, head))), *notebook.cells[1:]]
    notebook.cells = [*cells, nbformat.v4.new_markdown_cell(_end(own, chapter))]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # new cells are named by chance, and a site of the same is not built again
    nbformat.write(notebook, book / "runs" / own.name / f"{chapter}.ipynb")


def _found(own: Published, chapter: str) -> str:
    if chapter == "task":
        return f":::{{div}} finding\n{said}\n:::" if (said := own.can()) else ""
    if chapter == "claims":
        return f":::{{div}} finding\n{answer(own.model, own.verdicts)}\n:::"
    return opening(chapter, own.model, own.verdicts)


def _end(own: Published, chapter: str) -> str:
    """What follows, and the way on."""
    said = closing(chapter, own.verdicts) if chapter not in ("task", "claims") else ""
    if chapter == "task":
        said = own.can()
    if chapter == "claims":
        said = COUNTS.write(own.ledger)
    place = own.chapters.index(chapter)
    if place + 1 < len(own.chapters):
        following = own.chapters[place + 1]
        way = f"Next: [{own.title_of(following)}]({following}.ipynb)"
    else:
        way = "Next: {doc}`all models side by side </atlas>`"
    return "\n\n".join(filter(None, ["## What follows", said, way]))


def _switch(own: Published, chapter: str, others: Sequence[Published]) -> str:
    """Links to this chapter of every model; a script adds the place on the page, and a button for the code."""
    links = []
    for other in others:
        if chapter in other.chapters:
            here = ' aria-current="page"' if other.name == own.name else ""
            address = f"../{other.name}/{chapter}.html"
            links.append(f'<li><a href="{address}" data-run="{other.name}"{here}>{html.escape(other.title)}</a></li>')
    place = f"compare.html#compare-{chapter}" if chapter != "claims" else "atlas.html"
    compare = f'<a href="../../{place}">compare</a>' if own.pictures(chapter) or chapter == "claims" else ""
    return (
        f'```{{raw}} html\n<nav class="page-bar" aria-label="This chapter for each model" data-run="{own.name}">'
        f"<span>Model</span><ul>{''.join(links)}</ul>{compare}</nav>\n```"
    )


def _anchored(own: Published, cell: Any) -> None:
    """Give the sentences of verdicts an anchor, and the ledger links to what shows each claim."""
    texts = {claim_text(name).id: f"({verdict_anchor(name, own.name)})=\n" for name in CLAIMS}
    for output in cell.get("outputs", ()):
        item = output.get("metadata", {}).get("item")
        if item in texts:
            output.data["text/markdown"] = texts[item] + output.data["text/markdown"]
        elif item == TABLE:
            output.data["text/markdown"] = markdown(own.ledger, own.links)


def _items(notebook: Any) -> set[str]:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return {output.get("metadata", {}).get("item", "") for output in outputs}


def _forest(book: Path, own: Published, notebook: Any) -> None:
    """All claims in one picture, before the table."""
    figure, folder = "claims-forest", book / "runs" / own.name
    stem, place = figure_stem(own.name, figure), Place(f"runs/{own.name}/claims.html", f"{own.name}-{figure}", own.name)
    write_alone(
        (folder / stem).parent, Path(stem).name, forest(forest_table(own.verdicts)), forest_table(own.verdicts),
        caption=forest_caption(own.model), alt=forest_alt(own.verdicts), facts=_provenance(own), place=place,
    )  # fmt: skip
    text = text_alone(folder, stem)
    places = [n for n, cell in enumerate(notebook.cells) if TABLE in _items(nbformat.v4.new_notebook(cells=[cell]))]
    place_of_table = places[0] if places else len(notebook.cells)
    notebook.cells.insert(place_of_table, nbformat.v4.new_markdown_cell(text))
    if said := _seeds(book, own):
        notebook.cells.insert(place_of_table + 2, nbformat.v4.new_markdown_cell(said))


def kept_by_seed(book: Path, own: Published) -> pd.DataFrame:
    """The ledgers of an own run that the project keeps, by seed; without rows if it keeps none."""
    file = book / "expected" / own.name / "ledger.csv"
    known = own.contributed is None and file.is_file()
    return read_table(file, expected.KINDS) if known else pd.DataFrame(columns=list(expected.KINDS))


def _seeds(book: Path, own: Published) -> str:
    """How the verdicts fell with other seeds, where the project keeps them; nothing else."""
    table = by_seed(kept_by_seed(book, own))
    return (
        f"With other seeds, that is other words, pairs and orders, verdicts and mean effects:\n\n{table}"
        if table
        else ""
    )


def _provenance(own: Published) -> Mapping[str, Any]:
    """What the run's ledger was made of."""
    try:
        return Shown.read(own.run.path, "claims").facts.provenance
    except (OSError, KeyError, TypeError, ValueError):
        return dict(own.run.record()["run"])

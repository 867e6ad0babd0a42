"""A run's pages as the site shows them: what was found, the way to other models, and code that folds away.

Runs stay as they were made: all of this is put into copies.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from ..chapters.claims.page import COUNTS
from ..chapters.registry import CHAPTERS
from ..chapters.task.page import CAN
from ..chapters.towers.exchange_page import EXCHANGE
from ..chapters.towers.explore_page import EXPLORE
from ..chapters.towers.look_page import data, widget
from ..errors import UserError
from ..paper import CLAIMS
from ..publishing.citing import project
from ..publishing.findings import CENTRAL, FIGURES, answer, closing, opening, verdict_anchor
from ..publishing.forest import forest, forest_alt, forest_caption, forest_table
from ..publishing.ledger import by_seed, claim_text, ledger, markdown, verdicts_of
from ..publishing.markdown import escape, option
from ..publishing.publish import Text, call
from ..publishing.record import Place, told_of_figure
from ..publishing.run_folder import RunFolder, figure_stem
from ..publishing.shown import UNDRAWABLE, Shown, text_alone, write_alone
from ..statistics import Verdict
from .contributed import Contribution, contribution, notice
from .expected import kept
from .freshness import State
from .harmless import odd_in_caption, odd_in_page
from .seeds import Seed, measured, times_chosen

FOLDED = "hide-input"  # a tag of cells; on the site one button shows and hides the code of a page
TABLE = "claims-table"
LOOK = "explore"  # the page of a run on which a reader looks into its heads
LOOK_IN = "[Exchange these parts yourself, head by head, and see where each head looks]({})."  # with the page's place


class StrangePageError(UserError):
    """A page of a run that our chapters cannot have made."""


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

    def words(self, chapter: str, figure: str) -> tuple[str, str]:
        """Caption (Markdown) and alt text of a figure that is there, as its record has them.

        Raises:
            StrangePageError: the caption holds what none of ours does.
            DamagedRunError: there is no such record.
        """
        file = f"{self.pictures(chapter)[figure]}.json"
        said = told_of_figure((self.run.path / file).read_bytes(), f"{self.name}/{file}")
        caption = " ".join(said["caption"].split())
        if odd := odd_in_caption(caption):
            raise StrangePageError(
                f"The caption of {figure} in {self.name}/{chapter} holds {odd}, which no chapter makes; run the "
                f"chapter again with --force, or take the run away."
            )
        return caption, said["alt"]

    @cached_property
    def seeds(self) -> dict[int, Seed]:
        """What this run gives, and the same with other seeds: those that were run here, and those that are expected of
        a run that was not contributed."""
        expected = kept(self.run.path.parents[2], self.run) if self.contributed is None else {}
        return dict(sorted((expected | measured(self.run)).items()))

    @cached_property
    def by_seed(self) -> pd.DataFrame:
        """`seed, claim, verdict, mean, low, high` of all seeds."""
        return pd.concat([seed.ledger.assign(seed=number) for number, seed in self.seeds.items()] or [pd.DataFrame()])

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

    def said(self, chapter: str, text: Text) -> str:
        """A computed text of a chapter; nothing where it, or what it is made of, is not kept."""
        try:
            return Shown.read(self.run.path, chapter).render(text)
        except UNDRAWABLE:
            return ""

    @cached_property
    def explored(self) -> str:
        """HTML in which a reader looks into the heads; empty where the run has not all its numbers."""
        if "towers" not in self.chapters or EXPLORE.id not in self.pictures("towers"):
            return ""
        try:
            kept = Shown.read(self.run.path, "towers")
            return widget(call(data, kept.facts, kept.inputs(EXPLORE.id)))
        except UNDRAWABLE:
            return ""

    def has(self, page: str) -> bool:
        """Whether the run has a page: of a chapter, or to look into its heads."""
        return bool(self.explored) if page == LOOK else page in self.chapters

    def title_of(self, chapter: str) -> str:
        """The chapter's question, without the model."""
        return str(self.notebook(chapter).cells[0].source).partition("\n")[0].removeprefix("# ").strip()


def stage(book: Path, own: Published, chapter: str, others: Sequence[Published], state: State | None) -> None:
    """Write a chapter's page into the staged book.

    Args:
        others: all runs of the site, in the order of its sidebar; the own among them.
        state: why it is not up to date, where it is published nevertheless.

    Raises:
        StrangePageError: it holds what no page of ours does.
    """
    notebook = own.notebook(chapter)
    if odd := odd_in_page(notebook):
        raise StrangePageError(
            f"The page {own.name}/{chapter} holds {odd}, which no chapter makes; run the chapter again with --force, "
            f"or take the run away."
        )
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _without_ways(own, cell.source)
    title, _, rest = notebook.cells[0].source.partition("\n")
    head = [f"{title} [{escape(own.title)}]{{.page-model}}", page_bar(own, chapter, others)]
    if own.contributed is not None:
        head.append(notice(own.contributed))
    if state is not None:
        head.append(f"```{{warning}}\nThis page is {escape(state)}.\n```")
    head += [_found(own, chapter), rest.strip()]
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata["tags"] = [tag for tag in tags if tag != FOLDED]
        _only_markdown(cell)
        _anchored(own, cell)
    if chapter == "claims":
        _forest(book, own, notebook)
    cells = [nbformat.v4.new_markdown_cell("\n\n".join(filter(None, head))), *notebook.cells[1:]]
    notebook.cells = [*cells, nbformat.v4.new_markdown_cell(_end(own, chapter))]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # new cells are named by chance, and a site of the same is not built again
    nbformat.write(notebook, book / "runs" / own.name / f"{chapter}.ipynb")


def _without_ways(own: Published, text: str) -> str:
    """Prose that leads to no chapter that the run's part of the book does not have; it is named all the same."""
    return re.sub(
        r"\[([^\[\]]*)\]\((\w+)\)",
        lambda link: link[1] if link[2] in CHAPTERS and link[2] not in own.chapters else link[0],
        text,
    )


def _found(own: Published, chapter: str) -> str:
    """What was found, beside a small picture of what shows it."""
    if chapter == "task":
        said = own.said("task", CAN)
    elif chapter == "claims":
        said = answer(own.model, own.verdicts)
    else:
        said = opening(chapter, own.model, own.verdicts)
    return f"::::{{div}} finding\n{_small(own, chapter)}{said}\n::::" if said else ""


def _small(own: Published, chapter: str) -> str:
    """The chapter's central figure, small, as a link to where it stands; the forest is drawn for every ledger."""
    figure = CENTRAL[chapter]
    if chapter != "claims" and figure not in own.pictures(chapter):
        return ""
    return (
        f"```{{image}} {figure_stem(own.name, figure)}.svg\n:class: small-figure\n:alt: {option(f'Figure {figure}')}\n"
        f":target: '#fig-{own.name}-{figure}'\n```\n\n"
    )


def _end(own: Published, chapter: str) -> str:
    """What follows, and the way on."""
    said = closing(chapter, own.verdicts) if chapter not in ("task", "claims") else ""
    if chapter == "task":
        said = own.said("task", CAN)
    if chapter == "claims":
        said = COUNTS.write(own.ledger)
    if chapter == "knockout":
        said = "\n\n".join(filter(None, [said, chosen_over_seeds(own)]))
    place = own.chapters.index(chapter)
    if place + 1 < len(own.chapters):
        following = own.chapters[place + 1]
        way = f"Next: [{own.title_of(following)}]({following}.ipynb)"
    else:
        way = "Next: {doc}`all models side by side </atlas>`"
    return "\n\n".join(filter(None, ["## What follows", said, way]))


def page_bar(own: Published, page: str, others: Sequence[Published]) -> str:
    """Links to this page of every model; a script adds the place on the page, and a button for the code."""
    links = []
    for other in others:
        if other.has(page):
            here = ' aria-current="page"' if other.name == own.name else ""
            address = f"../{other.name}/{page}.html"
            links.append(f'<li><a href="{address}" data-run="{other.name}"{here}>{html.escape(other.title)}</a></li>')
    place = f"compare.html#compare-{page}" if page != "claims" else "atlas.html"
    compared = page == "claims" or (page in own.chapters and own.pictures(page))
    ways = [f'<a href="../../{place}">compare</a>'] if compared else []
    ways += [f'<a href="{LOOK}.html">{LOOK}</a>'] if own.has(LOOK) and page != LOOK else []
    return (
        f'```{{raw}} html\n<nav class="page-bar" aria-label="This page for each model" data-run="{own.name}">'
        f"<span>Model</span><ul>{''.join(links)}</ul>{''.join(ways)}{_launch(project().repository)}</nav>\n```"
    )


def _launch(repository: str) -> str:
    """A link that opens the repository where its chapters can be run; nothing unless it is on GitHub."""
    host, _, path = repository.partition("//github.com/")
    if host != "https:" or not path:
        return ""
    address = html.escape(f"https://codespaces.new/{path}?quickstart=1")
    return f'<a href="{address}" title="Opens the repository in a browser, with all that it needs">run it</a>'


def _only_markdown(cell: Any) -> None:
    """Leave of a cell's outputs what a page of ours shows: HTML and scripts are of somebody else."""
    kept = [output for output in cell.get("outputs", ()) if "text/markdown" in output.get("data", {})]
    for output in kept:
        output.data = {"text/markdown": output.data["text/markdown"]}
    if "outputs" in cell:
        cell.outputs = kept


def _anchored(own: Published, cell: Any) -> None:
    """Give the sentences of verdicts an anchor, and the ledger links to what shows each claim."""
    texts = {claim_text(name).id: f"({verdict_anchor(name, own.name)})=\n" for name in CLAIMS}
    for output in cell.get("outputs", ()):
        item = output.get("metadata", {}).get("item")
        if item in texts:
            output.data["text/markdown"] = texts[item] + output.data["text/markdown"]
        elif item == TABLE:
            output.data["text/markdown"] = markdown(own.ledger, own.links)
        elif item in (EXCHANGE.id, EXPLORE.id) and own.has(LOOK):
            output.data["text/markdown"] += f"\n\n{LOOK_IN.format(f'{LOOK}.md')}"


def _items(notebook: Any) -> set[str]:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return {output.get("metadata", {}).get("item", "") for output in outputs}


def _forest(book: Path, own: Published, notebook: Any) -> None:
    """All claims in one picture, before the table."""
    figure, folder = "claims-forest", book / "runs" / own.name
    stem, place = figure_stem(own.name, figure), Place(f"runs/{own.name}/claims.html", f"{own.name}-{figure}", own.name)
    write_alone(
        (folder / stem).parent, Path(stem).name, forest, forest_table(own.verdicts),
        caption=forest_caption(own.model), alt=forest_alt(own.verdicts), facts=_provenance(own), place=place,
    )  # fmt: skip
    text = text_alone(folder, stem)
    places = [n for n, cell in enumerate(notebook.cells) if TABLE in _items(nbformat.v4.new_notebook(cells=[cell]))]
    place_of_table = places[0] if places else len(notebook.cells)
    notebook.cells.insert(place_of_table, nbformat.v4.new_markdown_cell(text))
    if said := _seeds(own):
        notebook.cells.insert(place_of_table + 2, nbformat.v4.new_markdown_cell(said))


def chosen_over_seeds(own: Published) -> str:
    """How often each in-context head was chosen; nothing of a single seed."""
    return times_chosen({number: seed.heads for number, seed in own.seeds.items()})


def _seeds(own: Published) -> str:
    """How the verdicts fell with other seeds, and which heads were chosen; nothing of a single seed."""
    table = by_seed(own.by_seed) if own.seeds else ""
    said = "With other seeds, that is other words, pairs and orders, verdicts and mean effects:"
    return "\n\n".join([said, table, chosen_over_seeds(own)]) if table else ""


def _provenance(own: Published) -> Mapping[str, Any]:
    """What the run's ledger was made of."""
    try:
        return Shown.read(own.run.path, "claims").facts.provenance
    except UNDRAWABLE:
        return dict(own.run.record()["run"])

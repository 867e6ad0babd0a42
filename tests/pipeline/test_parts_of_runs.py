"""Runs of which not all is there, or not as a chapter makes it: a page shows the rest, and leads nowhere else."""

import re
import shutil

import nbformat
import pytest

from clones import PROJECT
from conftest import message
from twotowers.chapters.registry import CHAPTERS
from twotowers.pipeline import narrow
from twotowers.pipeline.crate import require_finished
from twotowers.pipeline.figures import RunNameError, require_own_name
from twotowers.pipeline.pages import Published, stage
from twotowers.pipeline.redraw import items_of
from twotowers.publishing.publish import Text
from twotowers.publishing.run_folder import RunFolder
from twotowers.publishing.shown import Shown


@pytest.fixture(scope="module")
def own():
    return Published(RunFolder(PROJECT / "book" / "runs" / "toy-gpt2"), CHAPTERS, "toy-gpt2")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_page_leads_to_no_chapter_that_is_not_in_the_book(own, tmp_path, chapter):
    """With `run --chapter towers` the page of towers led to that of values, and the site was not built."""
    alone = Published(own.run, [chapter], own.title)
    (tmp_path / "runs" / own.name).mkdir(parents=True)
    stage(tmp_path, alone, chapter, [alone], None)
    found = nbformat.read(tmp_path / "runs" / own.name / f"{chapter}.ipynb", as_version=4)
    prose = "\n".join(cell.source for cell in found.cells if cell.cell_type == "markdown")
    assert not [name for name in CHAPTERS if name != chapter and re.search(rf"\({name}(\.ipynb)?\)", prose)]
    if chapter == "towers":
        assert "The last chapter asked whether" in prose


@pytest.mark.parametrize(
    ("chapter", "item", "table", "changed"),
    [
        ("task", "task-templates", "templates", lambda table: table[:0]),  # a division by zero
        ("shallow", "shallow-text-crossing", "crossings", lambda table: table[:0]),
        ("towers", "towers-plane", "arrows", lambda table: table.assign(x=float("inf"))),  # no whole number
        ("task", "task-shots", None, lambda table: table.drop(columns=table.columns[0])),
    ],
)
def test_results_that_no_chapter_makes_stop_no_site(own, monkeypatch, chapter, item, table, changed):
    """In a folder of somebody's; what cannot be drawn or written of them is left out."""
    as_kept = Shown.inputs

    def inputs(self, name):
        return {n: changed(value) if n == (table or n) else value for n, value in as_kept(self, name).items()}

    monkeypatch.setattr(Shown, "inputs", inputs)
    found = items_of(chapter)[item]
    if isinstance(found, Text):
        assert own.said(chapter, found) == ""
    else:
        assert narrow.narrow_drawings(item, chapter, [own]) == []


def test_a_run_under_another_name_is_refused_and_told_its_own(own, tmp_path):
    """Copied beside its run, it ended a build with labels that are there twice; its archive could not be taken in."""
    other = RunFolder(tmp_path / "my-toy")
    other.path.mkdir()
    shutil.copy(own.run.path / "run.json", other.path)
    for asked in (lambda: require_own_name(other), lambda: require_finished(PROJECT, other)):
        assert "The folder my-toy holds the run toy-gpt2" in message(RunNameError, asked)
    require_own_name(own.run)

"""The pages of the committed run as they are staged: what was found, links to what shows it, the way on."""

import nbformat
import pytest

from clones import PROJECT
from twotowers.chapters.registry import CHAPTERS
from twotowers.paper import CLAIMS
from twotowers.pipeline.overview import atlas_page, compare, home
from twotowers.pipeline.pages import Published, stage
from twotowers.pipeline.site import contents
from twotowers.publishing.findings import claims_of
from twotowers.publishing.run_folder import RunFolder


@pytest.fixture(scope="module")
def own():
    return Published(RunFolder(PROJECT / "book" / "runs" / "toy-gpt2"), CHAPTERS, "toy-gpt2")


@pytest.fixture(scope="module")
def staged(own, tmp_path_factory):
    """The texts of all pages, by chapter, and the staged book."""
    book = tmp_path_factory.mktemp("book")
    for chapter in CHAPTERS:
        (book / "runs" / own.name).mkdir(parents=True, exist_ok=True)
        stage(book, own, chapter, [own], None)
    return book


def notebook(staged, own, chapter):
    return nbformat.read(staged / "runs" / own.name / f"{chapter}.ipynb", as_version=4)


def outputs(found):
    return "\n".join(o.data["text/markdown"] for c in found.cells for o in c.get("outputs", ()) if "data" in o)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_page_opens_with_what_was_found_and_ends_with_the_way_on(staged, own, chapter):
    cells = notebook(staged, own, chapter).cells
    first, last = cells[0].source, cells[-1].source
    assert first.splitlines()[0] == f"# {own.title_of(chapter)} [toy&#45;gpt2]{{.page-model}}"
    assert first.index("page-bar") < first.index(":::{div} finding")
    assert all(f"*{name}. {CLAIMS[name].sentence}*" in first for name in claims_of(chapter))
    assert last.startswith("## What follows")
    following = CHAPTERS[CHAPTERS.index(chapter) + 1 :]
    assert (f"({following[0]}.ipynb)" if following else "</atlas>") in last
    assert not any("hide-input" in cell.metadata.get("tags", []) for cell in cells)


def test_the_ledger_leads_to_what_shows_each_claim(staged, own):
    text = outputs(notebook(staged, own, "claims"))
    assert set(own.links) == set(CLAIMS)
    anchors = {
        chapter: "\n".join([outputs(found), *(cell.source for cell in found.cells)])
        for chapter in CHAPTERS
        if (found := notebook(staged, own, chapter))
    }
    for name, link in own.links.items():
        assert f"(#{link})" in text
        assert f":name: {link}\n" in anchors[CLAIMS[name].chapter] or f"({link})=\n" in anchors[CLAIMS[name].chapter]


def test_the_ledger_has_a_forest_with_its_files(staged, own):
    assert f":name: fig-{own.name}-claims-forest" in "\n".join(c.source for c in notebook(staged, own, "claims").cells)
    drawn = {path.suffix for path in (staged / "runs" / own.name / "figures").glob("*claims-forest*")}
    assert {".svg", ".png", ".csv", ".json"} <= drawn


def test_staging_twice_gives_the_same(staged, own, tmp_path):
    (tmp_path / "runs" / own.name).mkdir(parents=True)
    stage(tmp_path, own, "claims", [own], None)
    again = (tmp_path / "runs" / own.name / "claims.ipynb").read_bytes()
    assert again == (staged / "runs" / own.name / "claims.ipynb").read_bytes()


def test_pages_of_all_runs_name_every_figure_and_claim(own):
    book = PROJECT / "book"
    assert home([own], book).startswith("### toy&#45;gpt2\n\n:::{div} finding\n**")
    side_by_side = compare([own], book)
    for chapter in CHAPTERS:
        assert all(f"### `{figure}`" in side_by_side for figure in own.pictures(chapter))
    assert all(f"{name}: " in atlas_page([own]) for name in CLAIMS)


def test_the_first_run_comes_before_what_is_about_all(own):
    parts = contents([own, own])["parts"]
    assert [part["caption"] for part in parts] == ["toy-gpt2", "All models", "toy-gpt2", "Use it"]
    assert [page["file"] for page in parts[1]["chapters"]] == ["atlas", "compare", "toy"]
    assert parts[0]["chapters"][0] == {"file": "runs/toy-gpt2/task", "title": own.title_of("task")}

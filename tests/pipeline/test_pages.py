"""The pages of the committed run as they are staged: what was found, links to what shows it, the way on."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure

from clones import PROJECT
from twotowers.chapters.registry import CHAPTERS
from twotowers.chapters.towers.exchange_page import EXCHANGE, FOUND
from twotowers.chapters.towers.explore_page import EXPLORE
from twotowers.paper import CLAIMS
from twotowers.pipeline import narrow, pages, pictures, same_axes
from twotowers.pipeline.contributed import Contribution, notice
from twotowers.pipeline.explore import look_page
from twotowers.pipeline.harmless import odd_in_page
from twotowers.pipeline.narrow import stage_narrow
from twotowers.pipeline.overview import atlas_page, chapters_of, compare, home, over_seeds
from twotowers.pipeline.pages import Published, StrangePageError, page_bar, stage
from twotowers.pipeline.same_axes import same_limits
from twotowers.pipeline.site import contents
from twotowers.processes import Processes, processes
from twotowers.publishing.citing import project
from twotowers.publishing.findings import CENTRAL, CORE, claims_of
from twotowers.publishing.markdown import escape
from twotowers.publishing.publish import narrow_file
from twotowers.publishing.run_folder import RunFolder, figure_stem


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
    assert first.splitlines()[0] == f"# {own.title_of(chapter)} [toy-gpt2]{{.page-model}}"
    assert first.index("page-bar") < first.index("::::{div} finding")
    assert all(f"*{name}. {CLAIMS[name].sentence}*" in first for name in claims_of(chapter))
    assert last.startswith("## What follows")
    following = CHAPTERS[CHAPTERS.index(chapter) + 1 :]
    assert (f"({following[0]}.ipynb)" if following else "</atlas>") in last
    assert not any("hide-input" in cell.metadata.get("tags", []) for cell in cells)


@pytest.mark.parametrize(
    ("repository", "leads"),
    [
        ("https://github.com/someone/two-towers", "https://codespaces.new/someone/two-towers?quickstart=1"),
        ("https://elsewhere.org/someone/two-towers", ""),
        ("https://elsewhere.org/?//github.com/a/b", ""),
        ("", ""),
    ],
)
def test_a_page_leads_to_where_it_can_be_run_if_the_repository_has_such_an_address(
    own, tmp_path, monkeypatch, repository, leads
):
    monkeypatch.setattr(pages, "project", lambda: dataclasses.replace(project(), repository=repository))
    (tmp_path / "runs" / own.name).mkdir(parents=True)
    stage(tmp_path, own, "task", [own], None)
    bar = notebook(tmp_path, own, "task").cells[0].source
    assert ("codespaces.new" in bar) == bool(leads)
    assert leads in bar


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
    small = narrow_file(figure_stem(own.name, "claims-forest"))
    assert (staged / "runs" / own.name / small).is_file()  # on a phone, and on the page with all models
    assert f"runs/{own.name}/{small}\n" in atlas_page([own])


def test_figures_are_drawn_for_narrow_places_too_once_and_anew_with_other_results(staged, own, tmp_path, monkeypatch):
    def placed(kept):
        return {path.name: path.read_bytes() for path in (staged / "runs" / own.name / "figures").glob(kept)}

    stage_narrow(staged, own, "task", tmp_path)
    first = placed("*task*-narrow.svg")
    assert set(first) == {f"{own.name}_{figure}-narrow.svg" for figure in own.pictures("task")}
    assert all(b'width="288pt"' in picture and b'id="dark"' in picture for picture in first.values())
    monkeypatch.setattr(narrow, "drawn", lambda *_, **__: pytest.fail("drawn again"))
    stage_narrow(staged, own, "task", tmp_path)
    assert placed("*task*-narrow.svg") == first
    monkeypatch.setattr(narrow, "digest_of", lambda _: "of other results")
    with pytest.raises(pytest.fail.Exception, match="drawn again"):
        stage_narrow(staged, own, "task", tmp_path)


def test_staging_twice_gives_the_same(staged, own, tmp_path):
    (tmp_path / "runs" / own.name).mkdir(parents=True)
    stage(tmp_path, own, "claims", [own], None)
    again = (tmp_path / "runs" / own.name / "claims.ipynb").read_bytes()
    assert again == (staged / "runs" / own.name / "claims.ipynb").read_bytes()


def test_pages_of_all_runs_name_every_figure_and_claim(own, tmp_path):
    book = PROJECT / "book"
    what = "A model with 339 thousand weights, of the family `gpt2`."
    assert home([own]).startswith(f"### toy-gpt2\n\n:::{{div}} finding\n{what}\n\n**")
    side_by_side = compare([own], book, tmp_path)
    for chapter in CHAPTERS:
        assert all(f"### `{figure}`" in side_by_side for figure in own.pictures(chapter))
    assert all(f"{name}: " in atlas_page([own]) for name in CLAIMS)


def test_a_page_opens_with_a_small_picture_that_leads_to_the_figure(staged, own):
    for chapter in CHAPTERS:
        cells = notebook(staged, own, chapter).cells
        figure = f"fig-{own.name}-{CENTRAL[chapter]}"
        assert f":target: '#{figure}'" in cells[0].source
        shown = [cell.source for cell in cells] + [outputs(notebook(staged, own, chapter))]
        assert any(f":name: {figure}\n" in text for text in shown)


def test_the_first_page_says_the_effect_of_each_step_what_holds_and_what_the_central_test_gave(own):
    text = home([own])
    for name in CORE:
        assert f"({name}): " in text
        assert CLAIMS[name].effect in text
    assert "Of the paper's 14 claims, " in text
    assert own.said("towers", FOUND) in text.partition("### The central test")[2]
    assert own.said("task", FOUND) == own.said("nothing", FOUND) == ""


def test_the_chapters_are_listed_with_their_verdicts_and_links(own):
    listed = chapters_of(own)
    for chapter in CHAPTERS:
        (line,) = (line for line in listed.splitlines() if f"](runs/{own.name}/{chapter}.ipynb)" in line)
        assert own.title_of(chapter) in line
        assert all(f"[{own.verdicts[name].verdict}]" in line for name in claims_of(chapter))


def test_the_first_run_comes_before_what_is_about_all(own):
    parts = contents([own, own])["parts"]
    assert [part["caption"] for part in parts] == ["toy-gpt2", "All models", "toy-gpt2", "Use it"]
    assert [page["file"] for page in parts[1]["chapters"]] == ["atlas", "compare", "toy"]
    assert parts[0]["chapters"][0] == {"file": "runs/toy-gpt2/task", "title": own.title_of("task")}


def test_a_run_with_heads_to_look_into_leads_there_from_everywhere(own, monkeypatch):
    own = dataclasses.replace(own)  # nothing of it is remembered
    for html, there in (("<div></div>", True), ("", False)):
        monkeypatch.setattr(Published, "explored", html)
        last = contents([own])["parts"][0]["chapters"][-1]["file"]
        assert (last == f"runs/{own.name}/explore") == there
        assert (f"](runs/{own.name}/explore.md)" in home([own])) == there
        assert ('href="explore.html"' in page_bar(own, "locate", [own])) == there


def drawing(values, names=()):
    made = Figure()
    ax = made.subplots()
    if names:
        ax.plot(values, range(len(values)))
        ax.set_yticks(range(len(names)), names)
    else:
        ax.plot(range(len(values)), values)
    return made


def test_the_axis_of_the_measure_has_the_same_limits_in_every_run():
    both = [drawing([0, 1]), drawing([-5, 0.5, 0.7])]
    assert same_limits(both)
    assert len({made.axes[0].get_ylim() for made in both}) == 1
    assert both[0].axes[0].get_ylim()[0] < -5
    assert len({made.axes[0].get_xlim() for made in both}) == 2
    named = [drawing([0, 1], "ab"), drawing([5, 9, 7], "abc")]
    assert same_limits(named)
    assert len({made.axes[0].get_xlim() for made in named}) == 1
    assert len({made.axes[0].get_ylim() for made in named}) == 2


def test_maps_and_panels_that_do_not_correspond_keep_their_axes():
    two = Figure()
    two.subplots(1, 2)
    coloured, plane = Figure(), Figure()
    coloured.subplots().pcolormesh([[1, 2], [3, 4]])
    plane.subplots().set_aspect("equal", adjustable="box")
    for pair in ([drawing([0, 1]), two], [coloured, drawing([1, 2])], [plane, plane], [drawing([0, 1])], []):
        assert not same_limits(pair)


def test_a_panel_of_words_keeps_its_rows():
    both = [drawing([0, rows]) for rows in (3, 9)]
    for made in both:
        made.axes[0].axis("off")
    limits = [made.axes[0].get_ylim() for made in both]
    assert same_limits(both)
    assert [made.axes[0].get_ylim() for made in both] == limits


def test_pictures_with_common_axes_are_drawn_once(own, tmp_path, monkeypatch):
    twin = dataclasses.replace(own, title="twin")
    first = same_axes.drawn_alike("task-shots", "task", [own, twin], tmp_path)
    assert all(path.is_file() for path in first)
    monkeypatch.setattr(same_axes, "narrow_drawings", lambda *_: pytest.fail("it was drawn again"))
    assert same_axes.drawn_alike("task-shots", "task", [own, twin], tmp_path) == first


def test_pictures_are_drawn_ahead_side_by_side_once_and_old_ones_go(own, tmp_path, monkeypatch):
    kept = tmp_path / "narrow", tmp_path / "alike"
    twin = dataclasses.replace(own, title="twin")
    with processes(2) as drawing:
        pictures.draw_ahead([own, twin], *kept, drawing)
        assert len(drawing.workers) == 2
    drawn = [{path.name: path.stat().st_size for path in folder.iterdir()} for folder in kept]
    figures = [figure for chapter in CHAPTERS for figure in own.pictures(chapter)]
    assert [len(found) for found in drawn] == [len(figures)] * 2  # the two share theirs
    assert [name for name, size in drawn[0].items() if not size] == []
    for step in ("draw_narrow", "draw_alike"):
        monkeypatch.setattr(pictures, step, lambda *given: pytest.fail("drawn again"))
    (kept[0] / "old-narrow.svg").touch()
    pictures.draw_ahead([own, twin], *kept, Processes(2))
    assert [{path.name: path.stat().st_size for path in folder.iterdir()} for folder in kept] == drawn


def test_the_first_page_says_with_how_many_seeds_a_step_holds():
    rows = [(seed, name, "supported" if seed != 1 or name == "C9" else "absent") for seed in (0, 1, 2) for name in CORE]
    table = pd.DataFrame(rows, columns=["seed", "claim", "verdict"])
    assert over_seeds(table) == "Of 3 seeds (0, 1, 2), steps are supported: C4 with 2, C6 with 2, C9 with 3."
    assert "C4 with 0, C6 with 0, C9 with 0." in over_seeds(table.assign(verdict="absent"))
    assert over_seeds(table[table["seed"] == 0]) == ""
    assert over_seeds(table.head(0)) == ""


@pytest.mark.parametrize("text", ["````text\n```{raw} html\n```\n````", "the word `` a{raw}` ``", "` {raw}`"])
def test_what_is_shown_as_it_is_may_say_anything(own, text):
    shown = own.notebook("task")
    next(o for cell in shown.cells for o in cell.get("outputs", ())).data["text/markdown"] += f"\n\n{text}\n"
    assert odd_in_page(shown) == ""


@pytest.mark.parametrize(
    "text",
    [
        "```{raw} html\n<script>alert(1)</script>\n```",
        "before\n:::{include} /etc/hostname\n:::",
        "~~~{literalinclude} ../../../secret\n~~~",
        "```{eval-rst}\n.. raw:: html\n```",
        "see {raw-html}`<b>`",
    ],
)
@pytest.mark.parametrize("where", ["prose", "output"])
def test_a_page_that_no_chapter_makes_is_refused_by_name(own, tmp_path, monkeypatch, where, text):
    refused(own, tmp_path, monkeypatch, where, text)


def test_prose_offers_no_file(own, tmp_path, monkeypatch):
    refused(own, tmp_path, monkeypatch, "prose", "see {download}`this </etc/hostname>`")  # outputs offer figures' files


def refused(own, tmp_path, monkeypatch, where, text):
    strange = own.notebook("task")
    if where == "prose":
        strange.cells[2 if strange.cells[2].cell_type == "markdown" else 0].source += f"\n\n{text}"
    else:
        shown = next(o for cell in strange.cells for o in cell.get("outputs", ()))
        shown.data["text/markdown"] += f"\n\n{text}"
    monkeypatch.setattr(Published, "notebook", lambda self, chapter: strange)
    with pytest.raises(StrangePageError, match=r"toy-gpt2/task holds the (directive|role)"):
        stage(tmp_path, own, "task", [own], None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["```{raw} html\n<script>alert(1)</script>\n", "see {raw-html}`<b>`"])
def test_a_caption_that_no_chapter_makes_is_refused_wherever_it_would_be_shown(own, tmp_path, text):
    run = RunFolder(Path(shutil.copytree(own.run.path, tmp_path / own.name)))
    for figure in (EXCHANGE.id, EXPLORE.id):
        file = run.path / f"{figure_stem(own.name, figure)}.json"
        said = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(said | {"caption": f"{said['caption']}\n\n{text}"}), encoding="utf-8")
    foreign = Published(run, CHAPTERS, own.title)
    assert own.words("towers", EXPLORE.id)[0].startswith("One prompt")
    for shown in (lambda: home([foreign]), lambda: look_page(foreign, [foreign])):
        with pytest.raises(StrangePageError, match=r"^The caption of towers-ex\w+ in toy-gpt2/towers holds the"):
            shown()


def test_nothing_that_is_said_of_whoever_contributed_a_run_is_more_than_text():
    live = "`x`{raw}`y` <b> [a](b) *c*"
    made = Contribution(*[live] * 6)
    assert made.said.count(escape(live)) == 4
    assert not re.search(r"[`<*\[]", notice(made).partition("contributed\n")[2].replace(escape(live), "").strip("\n:"))

"""The page on which a reader looks into heads, as a browser shows it: what is chosen is drawn and said."""

from pathlib import Path
from shutil import copytree

import nbformat
import pytest

from browsing import PATIENCE, WIDTHS, needs_browser, problems_of
from clones import built_pages, for_sites, go, made_up, twin
from explore_tables import HOSTILE, explore_tables, many_tables
from facts import make_facts
from twotowers.chapters.towers.explore_page import EXPLORE
from twotowers.chapters.towers.look_page import data, widget
from twotowers.pipeline.pages import Published
from twotowers.publishing.run_folder import RunFolder, figure_stem, project_root, runs_of
from twotowers.publishing.shown import Shown

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=PATIENCE)
pytestmark = [pytest.mark.usefixtures("one_thread"), needs_browser]


def made_up_towers(text, parameters, folder):
    """What a chapter leaves; the one on towers shows single prompts, too, in one of which a hostile text stands."""
    made_up(text, parameters, folder)
    if text.stem != "towers":
        return
    shown = Shown.read(Path(folder), "towers")
    shown.add(EXPLORE, explore_tables(text=HOSTILE))
    notebook = nbformat.read(Path(folder) / "towers.ipynb", as_version=4)
    output = nbformat.v4.new_output(
        "display_data", {"text/markdown": shown.render(EXPLORE)}, metadata={"item": EXPLORE.id}
    )
    notebook.cells.append(nbformat.v4.new_code_cell("page.show()", outputs=[output]))
    nbformat.write(notebook, Path(folder) / "towers.ipynb")


@pytest.fixture(scope="module")
def built(tiny_folders, tmp_path_factory, one_thread):
    """A site of two runs, of which only the first has what can be looked into."""
    with pytest.MonkeyPatch.context() as patch:
        here = tmp_path_factory.mktemp("explore")
        models = {"one": made_up_towers, "two": made_up}
        for_sites(here, patch, lambda text, parameters, folder: models[Path(parameters["model"]).name](
            text, parameters, folder))  # fmt: skip
        for number, name in enumerate(models):
            go(twin(tiny_folders["gpt2"], here / name, number), "towers")
        yield built_pages()["intro.html"].parent


@pytest.fixture(scope="module")
def runs(built):
    return [run.name for run in runs_of(built.parents[1])]


@pytest.fixture(scope="module")
def address(built, runs):
    return (built / "runs" / runs[0] / "explore.html").as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_whole_in_itself_fits_and_can_be_used_by_all(address, open_tab, axe, scheme):
    for width in WIDTHS:
        tab = open_tab(address, color_scheme=scheme)
        tab.set_viewport_size({"width": width, "height": 1000})
        tab.get_by_label("query of another class").check()
        tab.locator(".explore-token").nth(2).focus()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.evaluate(axe)
        assert [*tab.wrong, *problems_of(tab)] == []


def test_it_answers_to_keys(address, open_tab):
    tab = open_tab(address)
    said, focused = tab.locator(".explore-said"), tab.locator(".explore-token:focus")
    expect(said).to_contain_text("Of its attention, head 3.1 gives 25.0% to bar labels and 60.0% to foo labels.")
    tab.locator(".explore-token").first.focus()
    expect(said).to_contain_text("“six” in line 1: 12.5% of the attention of head 3.1.")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    expect(focused).to_have_text("bar")
    expect(said).to_contain_text("in line 1: 25.0% of the attention of head 3.1. Its q·k is 1.50, number 2 of 2")
    expect(said).to_contain_text("its value speaks for bar by 0.75 logits")
    expect(said).to_contain_text(r"moves the margin by -0.1")
    tab.keyboard.press("ArrowDown")
    expect(focused).to_have_text("foo")
    expect(said).to_contain_text("in line 2: 60.0%")
    expect(said).to_contain_text("speaks for bar by 0.50")
    tab.keyboard.press("End")
    expect(said).to_contain_text("in the last line")
    tab.keyboard.press("Home")
    expect(focused).to_have_text("six")
    expect(tab.locator(".explore-token[tabindex='0']")).to_have_count(1)


def test_a_token_is_told_of_by_pointing_at_it(address, open_tab):
    tab = open_tab(address)
    tab.locator(".explore-label").nth(1).hover()
    expect(tab.locator(".explore-said")).to_contain_text("60.0% of the attention")
    expect(tab.locator(".explore-lines tr.explore-chosen")).to_have_count(1)
    expect(tab.locator(".explore-lines path.explore-chosen")).to_have_count(1)


def test_an_exchange_moves_arcs_bars_and_what_the_model_answers(address, open_tab):
    tab = open_tab(address)
    answer, arcs = tab.locator(".explore-answer"), tab.locator(".explore-lines path")
    expect(answer).to_contain_text("the margin is 2.00 logits, and the model answers foo (P 88.1% between the two).")
    expect(arcs).to_have_count(2)
    expect(arcs.nth(1)).to_have_attribute("stroke-width", "7.20")
    tab.get_by_label("query of another class").check()
    expect(answer).to_contain_text("With the query of “ten”, whose label is bar, in head 3.1 alone")
    expect(answer).to_contain_text("goes from 2.00 to 1.00: foo")
    expect(answer).to_contain_text("In all in-context heads it goes to -1.50: bar (P 81.8% between the two).")
    expect(arcs.nth(0)).to_have_attribute("stroke-width", "6.00")
    expect(tab.locator(".explore-weight").first).to_contain_text("50.0%")
    expect(tab.locator(".explore-margins tr.explore-chosen")).to_have_text(
        "query of another class1.00 (73.1%)-1.50 (18.2%)"
    )
    tab.get_by_label("values of the labels").check()
    expect(tab.locator(".explore-weight").first).to_contain_text("25.0%")
    tab.locator("#explore-prompt").select_option(index=1)
    expect(answer).to_contain_text("“ten” is bar.")
    tab.get_by_label("query of the same class").check()
    expect(answer).to_contain_text("With its own query: no other has its label, in head 3.1 alone")
    tab.locator("#explore-head").select_option(index=1)
    expect(answer).to_contain_text("in head 2.0 alone")
    expect(tab.locator(".explore-margins thead")).to_contain_text("head 2.0")
    assert tab.wrong == []


def test_of_three_labels_the_one_to_move_to_is_chosen_with_the_query(open_tab, tmp_path):
    part = widget(data(make_facts(labels=("bar", "baz", "foo")), **many_tables()))
    script = (project_root() / "book" / "_static" / "explore.js").read_text()
    (tmp_path / "three.html").write_text(f"<!DOCTYPE html><meta charset='utf-8'>{part}<script>{script}</script>")
    tab = open_tab((tmp_path / "three.html").as_uri())
    answer = tab.locator(".explore-answer")
    expect(answer).to_contain_text("the margin is 2.00 logits, and of foo and bar the model answers foo")
    expect(tab.locator(".explore-said")).to_contain_text("25.0% to bar labels, 0.0% to baz labels and 60.0% to foo")
    expect(tab.locator(".explore-lines tbody td", has_text="the others 0.50")).to_have_count(1)
    tab.locator("#explore-prompt").select_option(label="cat (foo, towards baz)")
    tab.get_by_label("query of another class").check()
    expect(answer).to_contain_text(
        "Between foo and baz: with the query of “oak”, whose label is baz, in head 3.1 alone"
    )
    expect(answer).to_contain_text("goes from 1.00 to 0.50: foo")
    expect(answer).to_contain_text("it goes to -0.75: baz")
    assert tab.wrong == []


def test_a_text_of_a_user_is_shown_as_text(address, open_tab):
    tab = open_tab(address)
    expect(tab.locator("#explore-prompt option").first).to_contain_text("</script><script>alert(1)</script>")
    expect(tab.locator(".explore-lines tbody tr").nth(1)).to_contain_text("</script>")
    assert tab.wrong == []


def test_without_scripts_there_are_a_figure_and_the_tables(address, open_tab):
    tab = open_tab(address, java_script_enabled=False)
    expect(tab.locator(".explore-still img")).to_be_visible()
    expect(tab.locator(".explore-controls")).to_be_hidden()
    expect(tab.locator(".explore-lines tbody tr")).to_have_count(2)
    expect(tab.locator(".explore-margins tbody tr")).to_have_count(6)
    expect(open_tab(address).locator(".explore-still")).to_be_hidden()


def test_a_run_without_these_numbers_has_no_such_page_and_no_way_to_it(built, runs, open_tab):
    first, second = runs
    assert not (built / "runs" / second / "explore.html").exists()
    tab = open_tab((built / "runs" / first / "towers.html").as_uri())
    expect(tab.locator(f".bd-sidebar-primary ul[data-run='{second}'] a[href*='explore']")).to_have_count(0)
    expect(tab.locator(".bd-sidebar-primary a", has_text="Look into the heads")).to_have_count(1)
    tab.locator(".page-bar a", has_text="explore").click()
    expect(tab.locator(".page-bar a[data-run]")).to_have_count(1)
    home = open_tab((built / "intro.html").as_uri())
    expect(home.locator("article a[href$='explore.html']")).to_have_count(1)


@pytest.mark.parametrize("lost", ["prompts", "roles", "labels", "exchanged"])
def test_a_run_of_which_numbers_were_lost_has_no_such_page(built, runs, tmp_path, lost):
    run = RunFolder(Path(copytree(built.parents[1] / "book" / "runs" / runs[0], tmp_path / runs[0])))
    assert Published(run, ["towers"], "one").has("explore")
    table = run.path / f"{figure_stem(runs[0], EXPLORE.id)}-{lost}.csv"
    table.write_text(table.read_text().partition("\n")[0] + "\n")
    assert not Published(run, ["towers"], "one").has("explore")

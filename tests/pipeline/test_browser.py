"""The site as a browser shows it, with whatever is in the folder and nothing else: no server, no other host."""

import io
import re

import pytest
from PIL import Image

from browsing import PATIENCE, WIDTHS, needs_browser, problems_of, smallest_texts
from clones import built_pages, for_sites, go, twin
from twotowers.pipeline.notes import notes, with_notes
from twotowers.pipeline.readable import LEAST
from twotowers.publishing.dark import dark
from twotowers.publishing.run_folder import runs_of
from twotowers.publishing.style import PAPER

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
expect = playwright.expect  # it looks again until it is so: what a click leads to is there a little later
pytestmark = [pytest.mark.usefixtures("one_thread"), needs_browser]
MODELS, CHAPTERS = ("one", "two"), ("task", "locate")
# Equations and tables that don't fit into their line.
CUT = """[...document.querySelectorAll("mjx-container[display=true], .pst-scrollable-table-container")]
    .filter((part) => part.scrollWidth > part.clientWidth + 1).map((part) => part.textContent.trim().slice(0, 80))"""
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def pages(tiny_folders, tmp_path_factory, one_thread):
    """The pages of a small site of two models, by name."""
    with pytest.MonkeyPatch.context() as patch:
        here = tmp_path_factory.mktemp("browser")
        for_sites(here, patch)
        for number, name in enumerate(MODELS):
            go(twin(tiny_folders["gpt2"], here / name, number), *CHAPTERS)
        yield built_pages()


@pytest.fixture(scope="module")
def runs(pages):
    return [run.name for run in runs_of(next(iter(pages.values())).parents[2])]


def test_every_page_is_whole_in_itself_fits_and_can_be_used_by_all(pages, runs, tab, axe):
    found = {}
    for name, path in pages.items():
        if name == "index.html" or runs[1] in name:
            continue  # it only leads on; the other model's pages are made alike
        for width in WIDTHS:
            tab.goto("about:blank")  # else this page once more is a reload, which gives up what is still asked for
            tab.set_viewport_size({"width": width, "height": 900})
            tab.wrong.clear()
            tab.goto(path.as_uri())
            if tab.evaluate("document.documentElement.scrollWidth") > width:
                tab.wrong.append(f"wider than {width}")
            if width == WIDTHS[0]:  # on a phone they scroll
                tab.wrong.extend(f"cut off: {text}" for text in tab.evaluate(CUT))
            tab.evaluate(axe)
            found[f"{name} at {width}"] = [*tab.wrong, *problems_of(tab)]
            tab.wrong.clear()
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_the_switch_keeps_chapter_and_anchor_and_is_remembered(pages, runs, tab):
    first, second = runs
    tab.goto(f"{pages[f'runs/{first}/locate.html'].as_uri()}#fig-{first}-locate-made-up")
    shown = tab.locator(".bd-sidebar-primary ul[data-run]:visible")
    expect(shown).to_have_count(1)
    expect(shown).to_have_attribute("data-run", first)
    tab.locator(f".page-bar a[data-run='{second}']").click()
    expect(tab).to_have_url(re.compile(rf"runs/{second}/locate\.html#fig-{second}-locate-made-up$"))
    expect(tab.locator(f"#fig-{second}-locate-made-up")).to_be_visible()
    expect(tab).to_have_title(re.compile("two"))
    expect(tab.locator("h1").first).to_contain_text("two")
    tab.goto(pages["method.html"].as_uri())
    expect(shown).to_have_count(1)
    expect(shown).to_have_attribute("data-run", second)


def test_code_is_shown_by_one_button_and_stays_shown(pages, runs, tab):
    tab.goto(pages[f"runs/{runs[0]}/locate.html"].as_uri())
    code = tab.locator(".cell_input").first
    expect(tab.get_by_role("button", name="Show code")).to_be_visible()
    expect(code).to_be_hidden()
    tab.get_by_role("button", name="Show code").click()
    expect(code).to_be_visible()
    tab.goto(pages[f"runs/{runs[0]}/task.html"].as_uri())
    expect(tab.locator(".cell_input").first).to_be_visible()


def test_a_page_that_the_browser_has_kept_is_as_the_reader_left_the_others(pages, runs, tab):
    shown = tab.locator(".bd-sidebar-primary ul[data-run]:visible")
    kept = "dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))"
    tab.goto(pages["method.html"].as_uri())
    expect(shown).to_have_attribute("data-run", runs[0])
    tab.evaluate(f"localStorage.setItem('twotowers-run', '{runs[1]}'); {kept}")
    expect(shown).to_have_attribute("data-run", runs[1])
    tab.goto(pages[f"runs/{runs[0]}/locate.html"].as_uri())
    tab.evaluate(f"localStorage.setItem('twotowers-run', '{runs[1]}')")
    tab.evaluate(f"localStorage.setItem('twotowers-code', 'shown'); {kept}")
    assert tab.evaluate("localStorage.getItem('twotowers-run')") == runs[0]
    expect(tab.get_by_role("button", name="Hide code")).to_be_visible()
    expect(tab.locator(".cell_input").first).to_be_visible()
    tab.goto(pages[f"runs/{runs[1]}/locate.html"].as_uri())
    tab.go_back()
    expect(shown).to_have_attribute("data-run", runs[0])


def test_search_finds_a_term_and_names_the_model(pages, tab):
    tab.goto(f"{pages['search.html'].as_uri()}?q=demonstration")
    tab.locator("#search-results li").first.wait_for()
    tab.goto(f"{pages['search.html'].as_uri()}?q=chapter")
    tab.locator("#search-results li a", has_text="two").first.wait_for()
    # Excerpts of results are read from their pages, which a browser refuses for a site in a folder.
    assert [
        wrong for wrong in tab.wrong if not any(said in wrong for said in ("file:", "ERR_FAILED", "to fetch"))
    ] == []


def test_a_figure_can_be_enlarged_on_a_phone(pages, runs, tab):
    tab.set_viewport_size({"width": WIDTHS[1], "height": 800})
    tab.goto(pages[f"runs/{runs[0]}/locate.html"].as_uri())
    tab.get_by_role("button", name="Enlarge").first.click()
    large = tab.locator("dialog.enlarged img")
    expect(large).to_be_visible()
    assert large.bounding_box()["width"] > 2 * WIDTHS[1]
    tab.keyboard.press("Escape")
    expect(tab.locator("dialog.enlarged")).to_be_hidden()


def test_no_text_of_any_picture_is_too_small_to_read_as_it_is_shown(pages, runs, tab):
    found, seen = {}, 0
    for name, path in pages.items():
        if name == "index.html":
            continue
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            tab.goto(path.as_uri())
            sizes = smallest_texts(tab)
            seen += len(sizes)
            found |= {f"{picture} of {name} at {width}": size for picture, size in sizes.items() if size < LEAST - 0.05}
    assert found == {}
    assert seen > 20


def test_a_text_that_is_too_small_would_be_found(pages, runs, tab):
    tab.goto(pages[f"runs/{runs[0]}/locate.html"].as_uri())
    tab.add_style_tag(content="article figure img { width: 200px }")
    assert min(smallest_texts(tab).values()) < 5


def test_on_a_phone_the_panels_of_a_figure_stand_below_each_other_and_its_words_say_so(pages, runs, tab):
    tab.set_viewport_size({"width": WIDTHS[1], "height": 800})
    tab.goto(pages["toy.html"].as_uri())
    figure = tab.locator("article figure").first
    assert figure.locator("img").evaluate("image => image.currentSrc").endswith("-narrow.svg")
    expect(figure.locator("figcaption")).to_contain_text("Above: accuracy", use_inner_text=True)
    assert figure.locator(".figure-scroll").evaluate("box => box.scrollWidth <= box.clientWidth")
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    tab.wait_for_function("document.querySelector('article figure img').currentSrc.endsWith('-narrow.svg#dark')")
    tab.set_viewport_size({"width": WIDTHS[0], "height": 800})
    expect(figure.locator("figcaption")).to_contain_text("Left: accuracy", use_inner_text=True)
    tab.wait_for_function("!/narrow/.test(document.querySelector('article figure img').currentSrc)")


def test_a_box_that_scrolls_can_be_reached_by_keys(pages, runs, tab):
    tab.set_viewport_size({"width": 240, "height": 800})  # no figure of ours is as narrow
    tab.goto(pages["performance.html"].as_uri())
    box = tab.locator(".figure-scroll").first
    expect(box).to_have_attribute("tabindex", "0")
    expect(box).to_have_class(re.compile("goes-on"))
    box.evaluate("box => box.scrollTo(box.scrollWidth, 0)")
    expect(box).not_to_have_class(re.compile("goes-on"))
    tab.set_viewport_size({"width": WIDTHS[0], "height": 800})
    expect(box).not_to_have_attribute("tabindex", "0")


def test_a_page_says_the_way_to_it(pages, runs, tab):
    tab.goto(pages[f"runs/{runs[1]}/locate.html"].as_uri())
    steps = tab.get_by_role("navigation", name="Breadcrumb").get_by_role("listitem")
    expect(steps).to_have_text(["Two Towers", "two", "A chapter"])
    steps.nth(1).get_by_role("link").click()
    expect(tab).to_have_url(re.compile(rf"runs/{runs[1]}/task\.html$"))
    steps.nth(0).get_by_role("link").click()
    expect(tab).to_have_url(re.compile(r"intro\.html$"))
    expect(tab.get_by_role("navigation", name="Breadcrumb")).to_have_count(0)


def test_a_link_to_an_equation_says_which_and_one_to_a_symbol_what_it_is(pages, tab):
    tab.goto(pages["method.html"].as_uri())
    link = tab.locator("article a[href$='#equation-eq-exchange']").first
    expect(link).to_have_attribute("title", re.compile(r"^Equation \d+: Exchange$"))
    unnamed = tab.locator("article a[href*='#equation-eq']:not([title]), article a[href*='#sym-']:not([title])")
    expect(unnamed).to_have_count(0)
    said = notes(pages["method.html"].read_text(encoding="utf-8"))
    symbols = {one.get_attribute("id") for one in tab.locator("span[id^='sym-']").all()}
    assert symbols == {anchor for anchor in said if anchor.startswith("sym-")}
    assert said["sym-key"] == "key of a head at p, likewise"
    assert said["sym-head-output"].endswith("at the last position")  # without the number of its equation
    assert with_notes(
        '<a class="reference internal" href="../method.html#sym-key">key</a>', {"sym-key": 'a "key"'}
    ) == ('<a class="reference internal" href="../method.html#sym-key" title="a &quot;key&quot;">key</a>')


def test_figures_are_dark_on_dark_pages_only(pages, runs, tab):
    tab.goto(pages[f"runs/{runs[0]}/locate.html"].as_uri())
    figure = tab.locator("article figure img").first
    expect(figure).to_have_attribute("src", re.compile(r"\.svg$"))
    light = corner_of(figure)
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    expect(figure).to_have_attribute("src", re.compile(r"\.svg#dark$"))
    tab.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=figure.element_handle())
    assert min(light) > 250
    assert corner_of(figure) == tuple(int(dark(PAPER)[i : i + 2], 16) for i in (1, 3, 5))
    tab.evaluate("document.documentElement.dataset.theme = 'light'")
    expect(figure).to_have_attribute("src", re.compile(r"\.svg$"))


def test_a_dark_page_is_printed_in_the_colours_of_light_ones_and_says_of_what_version_it_is(pages, runs, tab):
    tab.goto(pages[f"runs/{runs[0]}/locate.html"].as_uri())
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    figure = tab.locator("article figure img").first
    expect(figure).to_have_attribute("src", re.compile(r"\.svg#dark$"))
    tab.evaluate("""() => addEventListener("beforeprint", () => setTimeout(() => {
        const paper = getComputedStyle(document.body), footer = document.querySelector(".bd-footer-content");
        window.printed = [paper.backgroundColor, footer.checkVisibility(), document.querySelector("article img").src];
    }))""")
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    paper, dated, picture = tab.wait_for_function("window.printed").json_value()
    assert (paper, dated) == ("rgb(255, 255, 255)", True)
    assert picture.endswith(".svg")
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(figure).to_have_attribute("src", re.compile(r"\.svg#dark$"))


def corner_of(picture):
    """Red, green and blue within the upper left corner of what is seen of a picture."""
    return Image.open(io.BytesIO(picture.screenshot())).convert("RGB").getpixel((4, 4))

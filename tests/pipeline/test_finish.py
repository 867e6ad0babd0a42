"""What is done to a built site: it gets small, and its pages say what they are."""

import re

import pytest

from twotowers.pipeline.finish import description, finish, site_address
from twotowers.pipeline.pages import Published
from twotowers.publishing.run_folder import RunFolder

SIDEBAR = (
    '<p aria-level="2" class="caption" role="heading"><span class="caption-text">{title}</span></p>\n'
    '<ul class="nav bd-sidenav"><li>{title}</li></ul>'
)
PAGE = """<html><head><title>{title}</title><script src="_static/mathjax/tex-chtml.js"></script></head><body>
<div id="pst-primary-sidebar" class="bd-sidebar-primary">{sidebar}</div>
<nav class="page-bar" aria-label="x" data-run="{run}"></nav><i class="fa-solid fa-bars"></i>
<article><h1>{title}</h1>{text}<a class="reference download" download="" href="_downloads/1/a.svg">svg</a></article>
<div class="bd-footer-content__inner container"></div></body></html>"""
BARS, CAR = '"bars":[448,512,["navicon"],"f0c9","M0 96"],', 'car:[1,1,[],"f1","M3"]'
BUS = '"bus":[576,512,[128652],"f207",["M1","M2"]],'


@pytest.fixture
def root(tmp_path):
    """A checkout with a built site of two runs."""
    site = tmp_path / "site"
    sidebar = "".join(SIDEBAR.format(title=title) for title in ("One &amp; 1", "Two"))
    short, long = "<p>A <b>short</b> one &amp; more.</p>", f'<p class="math">{"long " * 99}</p>'
    texts = {
        "one.html": PAGE.format(title="First", run="one", sidebar=sidebar, text=short),
        "two.html": PAGE.format(title="Second", run="two", sidebar=sidebar, text=long),
        "_static/mathjax/tex-chtml.js": "all", "_static/mathjax/tex-svg.js": "other",
        "_static/mathjax/output/chtml/font.woff": "font", "_static/mathjax/output/svg/font.js": "other",
        "_static/scripts/fontawesome.js": f"var a={{{BARS}{BUS}{CAR}}};",
        "_static/scripts/own.js": "'fa-car'", "_static/scripts/own.js.map": "{}",
        "_downloads/1/a.svg": "<svg/>", "_downloads/2/b.svg": "<svg>b</svg>", "_images/a1.svg": "<svg/>",
    }  # fmt: skip
    for name, text in texts.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    return tmp_path


def finished(root, url=""):
    (root / "CITATION.cff").write_text(f"title: x\n{url}")
    runs = [Published(RunFolder(root / name), [], title) for name, title in (("one", "One & 1"), ("two", "Two"))]
    finish(root, root / "site", runs)
    return root / "site"


def test_what_no_page_reads_is_removed(root):
    site = finished(root)
    kept = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {"_static/mathjax/tex-chtml.js", "_static/mathjax/output/chtml/font.woff", "_downloads/2/b.svg"} <= kept
    gone = {"_static/mathjax/tex-svg.js", "_static/mathjax/output/svg/font.js", "_static/scripts/own.js.map"}
    assert not {*gone, "_downloads/1/a.svg"} & kept
    icons = (site / "_static/scripts/fontawesome.js").read_text()
    assert icons == f"var a={{{BARS}{CAR}}};"
    assert 'download="a.svg" href="_images/a1.svg"' in (site / "one.html").read_text()


def test_fonts_that_no_formula_asks_for_are_removed(root):
    fonts, vendor = root / "site/_static/mathjax/output/chtml/fonts", root / "site/_static/vendor/fonts"
    for folder in (fonts / "woff-v2", vendor):
        folder.mkdir(parents=True)
    names = ("Main-Regular", "SansSerif-Bold", "SansSerif-Regular", "Fraktur-Bold", "Math-Italic")
    for file in [*(fonts / "woff-v2" / f"MathJax_{name}.woff" for name in names), fonts / "tex.js"]:
        file.touch()
    for name in ("fa-brands-400.woff2", "fa-solid-900.woff2"):
        (vendor / name).touch()
    page = root / "site" / "two.html"
    page.write_text(page.read_text().replace("</article>", r"<p class='math'>x^{\mathsf{T}}</p></article>"))
    site = finished(root)
    kept = {
        path.stem for path in (site / "_static").rglob("*") if path.suffix.startswith(".woff") or path.stem == "tex"
    }
    assert kept == {"font", "fa-solid-900", *(f"MathJax_{name}" for name in names if "Fraktur" not in name)}


def test_formulas_are_set_only_where_there_are_any(root):
    site = finished(root)
    assert "mathjax" not in (site / "one.html").read_text()
    assert "mathjax" in (site / "two.html").read_text()


def test_the_sidebar_shows_the_pages_own_run(root):
    site = finished(root)
    for page, shown in (("one", "one"), ("two", "two")):
        found = re.findall(r'<ul data-run="(\w+)"( hidden)?', (site / f"{page}.html").read_text())
        assert found == [(run, "" if run == shown else " hidden") for run in ("one", "two")]


def test_a_page_describes_itself_and_says_what_made_it(root):
    page = (finished(root) / "one.html").read_text()
    assert '<meta name="description" content="A short one &amp; more."/>' in page
    assert '<meta property="og:title" content="First"/>' in page
    assert re.search(r"<p>Two Towers \d+\.\d+\.\d+(, commit \w+)?, built on \d{4}-\d\d-\d\d</p>", page)
    assert "canonical" not in page
    assert len(description("<article><h1>x</h1><p>" + "long " * 99 + "</p>")) <= 200
    assert description("<article><h1>x</h1>") == ""


def test_an_address_is_said_only_if_there_is_one(root):
    site = finished(root)
    assert site_address(root) == ""
    assert not (site / "sitemap.xml").exists()
    assert "- [First](one.html): A short one & more." in (site / "llms.txt").read_text()
    site = finished(root, "url: https://example.org/towers/\n")
    assert '<link rel="canonical" href="https://example.org/towers/one.html"/>' in (site / "one.html").read_text()
    assert "<loc>https://example.org/towers/two.html</loc>" in (site / "sitemap.xml").read_text()

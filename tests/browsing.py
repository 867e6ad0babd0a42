"""A browser for tests that look at a site: no server, no other host."""

import math
import re
import shutil
from importlib import resources
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest
from PIL import Image

from twotowers.publishing.style import SMALLEST

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
WIDTHS = (1280, 390)
PATIENCE = 600_000  # milliseconds, for a busy machine
RULES = "{'label-content-name-mismatch': {enabled: true}}"
SERIOUS = ("serious", "critical", "moderate")


@pytest.fixture(scope="module")
def browser():
    driven = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with driven.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def open_tab(browser):
    """Opens a page, if one is named, in a new profile; what goes wrong on its pages is collected in its `wrong`."""
    contexts = []

    def opened(address=None, **options):
        contexts.append(browser.new_context(**{"viewport": {"width": WIDTHS[0], "height": 1000}, **options}))
        contexts[-1].set_default_timeout(PATIENCE)
        tab = contexts[-1].new_page()
        tab.wrong = wrong = []
        tab.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("requestfailed", lambda asked: wrong.append(f"{asked.url} {asked.failure}"))
        tab.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else wrong.append(asked.url))
        if address:
            tab.goto(address)
        return tab

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def tab(open_tab):
    """A new profile without a page."""
    return open_tab()


@pytest.fixture(scope="session")
def axe():
    """The checker of accessibility, to be evaluated on a page."""
    return resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def problems_of(tab):
    """What axe finds on a page that has evaluated it, in words."""
    found = tab.evaluate(f"axe.run(document, {{preload: false, rules: {RULES}}})")["violations"]
    return [
        f"{rule['id']}: {node['html'][:200]}" for rule in found if rule["impact"] in SERIOUS for node in rule["nodes"]
    ]


def smallest_texts(tab):
    """CSS pixels of the smallest text of each picture of a page that has one, as it is shown, by the picture's file."""
    shown = tab.locator("article img:visible").evaluate_all(
        "images => images.map(image => [image.currentSrc.replace(/#.*/, ''), image.getBoundingClientRect().width])"
    )
    found = {}
    for address, width in shown:
        picture = Path(unquote(urlsplit(address).path))
        units, smallest = _of_drawing(picture) if picture.suffix == ".svg" else _of_bitmap(picture)
        if smallest:
            found[picture.name] = min(found.get(picture.name, math.inf), smallest * width / units)
    return found


def _of_drawing(picture):
    """Width and smallest text of a drawing, in units of its own."""
    root = ElementTree.parse(picture).getroot()
    texts = [part for part in root.iter() if part.tag.endswith("}text")]
    usual = root.get("font-size", "0")
    said = [f"{part.get('style', '')};{part.get('font-size', usual)}px" for part in texts]
    sizes = [float(re.search(r"([0-9.]+)px", one)[1]) for one in said]
    return float(root.get("viewBox").split()[2]), min(sizes, default=0)


def _of_bitmap(picture):
    """Width and smallest text of a bitmap of ours, in typographic points; no text of another."""
    with Image.open(picture) as opened:
        dots = opened.info.get("dpi", (0,))[0]
        return (opened.width / dots * 72, SMALLEST) if dots else (opened.width, 0)

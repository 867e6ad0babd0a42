"""A browser for tests that look at a site: no server, no other host."""

import shutil
from importlib import resources

import pytest

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
        tab.on("requestfailed", lambda asked: wrong.append(asked.url))
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

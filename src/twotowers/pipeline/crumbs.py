"""The way from the first page to a page, in its header: the book, the model, the page."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from .pages import Published

HOME, FIRST = "Two Towers", "intro.html"
_WITHOUT = ("index.html", FIRST)
_HEADER = re.compile(r'(<div class="header-article-items__start">.*?</button></div>)', re.DOTALL)


def with_crumbs(page: str, name: str, runs: Sequence[Published]) -> str:
    """A built page with its way; the first page has none.

    Args:
        name: the page's place in the site.
    """
    if name in _WITHOUT:
        return page
    steps = [f'<a href="{"../" * name.count("/")}{FIRST}">{HOME}</a>']
    own = next((run for run in runs if name.startswith(f"runs/{run.name}/")), None)
    if own is not None:
        first = "claims" if "claims" in own.chapters else own.chapters[0]
        steps.append(f'<a href="{first}.html">{html.escape(own.title)}</a>')
    steps.append(f'<span aria-current="page">{_title(page)}</span>')
    ways = "".join(f"<li>{step}</li>" for step in steps)
    crumbs = f'<div class="header-article-item"><nav class="crumbs" aria-label="Breadcrumb"><ol>{ways}</ol></nav></div>'
    return _HEADER.sub(lambda header: header[1] + crumbs, page, count=1)


def _title(page: str) -> str:
    """What the page's heading says, without the model; HTML."""
    heading = re.search(r"<h1[^>]*>(.*?)(?:<a class=\"headerlink\"|</h1>)", page.partition("<article")[2], re.DOTALL)
    said = re.sub(r'<span class="page-model">.*?</span>', "", heading[1]) if heading else ""
    return html.escape(" ".join(html.unescape(re.sub(r"<[^>]+>", "", said)).split()), quote=False)

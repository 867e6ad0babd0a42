"""Look at the site without the help of the package that built it: print a line for every problem, exit with 1 if any.

What should be there is read from the book: a page for every text of `book/`, and for every chapter that the record of
a run names; on it every figure of that record, with its own picture and links to its files. On every page, pictures
have a file and an alt text, relative links lead somewhere, and no traceback is shown.

    python .ci/look.py [RUN ...]      runs that must be there, with every chapter of the book
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"})
FIRST = "intro.html"
EXPLORED = "towers-explore"  # a run with this figure has a page on which its numbers can be looked into
UNSEEN = frozenset({"script", "style", "template"})


@dataclass(frozen=True)
class Image:
    """A picture on a page; `around` are the ids of the elements that it is in."""

    source: str
    alt: str
    around: frozenset[str]


class Page(HTMLParser):
    """The ids, pictures, links and visible text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.ids, self.images, self.links, self.text = set[str](), list[Image](), list[str](), list[str]()
        self._open = list[tuple[str, str]]()
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        own = given.get("id", "")
        self.ids |= {own, given.get("name", "")} if tag == "a" else {own}
        self.links += [given[name] for name in ("href", "src") if name in given]
        if tag == "img":
            around = frozenset(element for _, element in self._open if element)
            self.images.append(Image(given.get("src", ""), given.get("alt", "").strip(), around))
        if tag not in VOID:
            self._open.append((tag, own))

    def handle_endtag(self, tag: str) -> None:
        if tag in [name for name, _ in self._open]:
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not UNSEEN & {name for name, _ in self._open}:
            self.text.append(data)


def problems(root: Path, required: list[str]) -> Iterator[str]:
    """What is wrong with the site of the checkout `root`, in the order of its pages; nothing if all is well.

    Args:
        required: names of runs that must be there with every chapter.
    """
    site = root / "_build" / "html"
    files = (file for file in sorted(site.rglob("*.html")) if file.relative_to(site).parts[0] != "_static")
    pages = {file.relative_to(site).as_posix(): Page(file) for file in files}
    for name in ("index.html", *(f"{text.stem}.html" for text in sorted((root / "book").glob("[!_]*.md")))):
        yield from _page_missing(pages, name)
    for run in required:
        yield from _run_missing(root, run)
    records = sorted((root / "book" / "runs").glob("[!.]*/run.json"))
    if not records:
        yield "book/runs: no run"
    for record in records:
        yield from _of_run(pages, record)
    for stem in sorted((root / "book" / "bench" / "figures").glob("*.json")):
        yield from _figure(pages, "performance.html", f"fig-performance-{stem.stem}", stem.with_suffix(".svg"))
    if (root / "book" / "toy.md").is_file():
        yield from _figure(pages, "toy.html", "fig-toy-training", None)
    for name, page in pages.items():
        yield from (f"{name}: {problem}" for problem in _of_page(site, pages, page))


def _page_missing(pages: dict[str, Page], name: str) -> Iterator[str]:
    """Whether a page is there, and in the table of contents, which every page shows: also the introduction."""
    if name not in pages:
        yield f"{name}: no such page"
    elif name not in ("index.html", FIRST) and FIRST in pages and name not in map(unquote, pages[FIRST].links):
        yield f"{name}: not in the table of contents"


def _run_missing(root: Path, run: str) -> Iterator[str]:
    """Chapters of the book that a run lacks."""
    chapters = _chapters(root / "book" / "runs" / run / "run.json") or {}
    for text in sorted((root / "book" / "chapters").glob("*.md")):
        if text.stem not in chapters:
            yield f"book/runs/{run}/run.json: no chapter {text.stem}"


def _chapters(record: Path) -> dict[str, Any] | None:
    """The chapters of a run's record; None if it cannot be read."""
    try:
        return {str(name): entry["files"] for name, entry in json.loads(record.read_text("utf-8"))["chapters"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _of_run(pages: dict[str, Page], record: Path) -> Iterator[str]:
    """What the site lacks of a run: pages of its chapters, and their figures."""
    run, chapters = record.parent.name, _chapters(record)
    if chapters is None:
        yield f"book/runs/{run}/run.json: not a record"
        return
    for chapter, files in chapters.items():
        name = f"runs/{run}/{chapter}.html"
        yield from _page_missing(pages, name)
        for file in files:
            if Path(file).parent.name == "figures" and file.endswith(".json"):
                stem = record.parent / file
                figure = stem.stem.removeprefix(f"{run}_")
                yield from _figure(pages, name, f"fig-{run}-{figure}", stem.with_suffix(".svg"))
        yield from _not_offered(pages, name, files)
        if f"figures/{run}_{EXPLORED}.json" in files:
            yield from _page_missing(pages, f"runs/{run}/explore.html")


def _not_offered(pages: dict[str, Page], name: str, files: Iterable[str]) -> Iterator[str]:
    """Files of figures that a page does not lead to: pictures, numbers and records."""
    if name in pages:
        offered = {Path(unquote(urlsplit(link).path)).name for link in pages[name].links}
        missing = (file for file in files if Path(file).parent.name == "figures" and Path(file).name not in offered)
        yield from (f"{name}: no link to {file}" for file in missing)


def _figure(pages: dict[str, Page], name: str, anchor: str, drawn: Path | None) -> Iterator[str]:
    """What is wrong with a figure of a page: its anchor, its picture, which is the file `drawn`."""
    page = pages.get(name)
    if page is None:
        return  # said already
    images = [image for image in page.images if anchor in image.around]
    if anchor not in page.ids:
        yield f"{name}: no figure {anchor}"
    elif not images:
        yield f"{name}: no picture in {anchor}"
    elif drawn is not None:
        shown = page.path.parent / unquote(urlsplit(images[0].source).path)
        if not drawn.is_file():
            yield f"{name}: {drawn.name}, shown in {anchor}, is not in the book"
        elif shown.is_file() and shown.read_bytes() != drawn.read_bytes():
            yield f"{name}: the picture in {anchor} is not the run's {drawn.name}"


def _of_page(site: Path, pages: dict[str, Page], page: Page) -> Iterator[str]:
    """What is wrong with a page whatever it is about."""
    if "Traceback" in "".join(page.text):
        yield "a traceback"
    for image in page.images:
        where = page.path.parent / unquote(urlsplit(image.source).path)
        if not image.alt:
            yield f"no alt text for {image.source}"
        if where.is_file() and not where.stat().st_size:
            yield f"{image.source} is empty"
    for link in dict.fromkeys(page.links):
        if not _leads_somewhere(site, pages, page, link):
            yield f"dead link {link!r}"


def _leads_somewhere(site: Path, pages: dict[str, Page], page: Page, link: str) -> bool:
    """Whether a link's file is on the site and has the anchor that it names; links to elsewhere are taken for good."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path.resolve()
    if not target.is_relative_to(site.resolve()) or not target.is_file():
        return False
    there = pages.get(target.relative_to(site.resolve()).as_posix())
    return there is None or not parts.fragment or unquote(parts.fragment) in there.ids


def main(required: list[str]) -> int:
    """Look at the site of the checkout that this file lies in."""
    root = Path(__file__).resolve().parents[1]
    found = list(problems(root, required))
    print("\n".join(found) or f"{root / '_build' / 'html'}: every page, figure and link is there")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

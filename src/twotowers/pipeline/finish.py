"""What Sphinx leaves to be done: the site made small, and what a page says of itself to readers and machines.

Works on the built pages as text, so that whatever made them may change.
"""

from __future__ import annotations

import datetime
import html
import importlib.metadata
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from ..publishing.run_folder import digest_of
from .crumbs import with_crumbs
from .notes import notes, with_notes
from .pages import Published
from .readable import place_narrow, with_widths

MATHJAX = "tex-chtml.js"  # all in one; its fonts are read when a page asks for them
LONGEST = 200  # letters of a description
# Of MathJax' fonts those for letters that formulas of few pages have, by what asks for them.
ALPHABETS = {
    "Calligraphic": "mathcal",
    "Fraktur": "mathfrak",
    "SansSerif": "mathsf",
    "Script": "mathscr",
    "Typewriter": "mathtt",
}
# An icon of Font Awesome in its script: a name, width, height, other names, code and path.
ICON = re.compile(r'("?[a-z0-9-]+"?):\[\d+,\d+,\[[^\[\]]*\],"[0-9a-f]+",(?:"[^"]*"|\["[^"]*","[^"]*"\])\],?')
FIELD = 'search-button-field search-button__button pst-js-only"'  # has its name in it, unlike the small one
ACCESSIBLE = (
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
    ('class="pst-scrollable-table-container" tabindex="-1"', 'class="pst-scrollable-table-container" tabindex="0"'),
    (
        '<div id="pst-primary-sidebar" ',
        '<div id="pst-primary-sidebar" role="region" aria-label="Contents of the book" ',
    ),
    ('<div role="list" class="citation-list">', '<div class="citation-list">'),
    (' role="doc-biblioentry"', ""),  # allowed on items of a list only, and deprecated
    ('<span class="search-button__kbd-shortcut">', '<span class="search-button__kbd-shortcut" aria-hidden="true">'),
    (f'{FIELD} title="Search" aria-label="Search"', FIELD),
    (' title="Light"></i>', "></i>"),
    (' title="Dark"></i>', "></i>"),
    (' title="System Settings"></i>', "></i>"),
)
SUMMARY = (
    "An executable companion to arXiv 2402.02872: do query and key matrices of in-context heads act as two towers for "
    "metric learning? The paper's experiments, re-run on open models: every claim with its effect, interval and "
    "computed verdict."
)


def finish(root: Path, site: Path, runs: Sequence[Published]) -> None:
    """Bring a built site to its final form."""
    pages = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in _pages(site)}
    built, address = _built(root), site_address(root)
    place_narrow(root / "_build" / "book", site)
    _prune(site, "".join(pages.values()))
    described = {name: description(text) for name, text in pages.items()}
    once, said, widths = _kept_once(site), notes(pages.get("method.html", "")), dict[str, int | None]()
    for name, text in pages.items():
        finished = _sidebar(_downloads(_print_heading(text), once), runs)
        finished = with_crumbs(with_widths(with_notes(finished, said), site, widths), name, runs)
        finished = _head(finished, name, described[name], address)
        finished = _accessible(finished)
        finished = finished.replace(_FOOTER, f'{_FOOTER}\n<div class="footer-item"><p>{built}</p></div>', 1)
        (site / name).write_text(finished, encoding="utf-8")
    if (root / "CITATION.cff").is_file():
        shutil.copy2(root / "CITATION.cff", site)
    (site / "llms.txt").write_text(_llms(pages, described), encoding="utf-8")
    if address:
        (site / "sitemap.xml").write_text(_sitemap(pages, address), encoding="utf-8")
        (site / "robots.txt").write_text(f"User-agent: *\nSitemap: {address}/sitemap.xml\n", encoding="utf-8")


_FOOTER = '<div class="bd-footer-content__inner container">'


def site_address(root: Path) -> str:
    """Where the site will be read: `url` of CITATION.cff; empty as long as there is none."""
    try:
        said = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    except OSError:
        return ""
    return str(said.get("url", "")).rstrip("/")


def _pages(site: Path) -> Iterator[Path]:
    yield from (path for path in sorted(site.rglob("*.html")) if path.relative_to(site).parts[0] != "_static")


def _built(root: Path) -> str:
    """Version, commit and day, for the foot of every page."""
    said = f"Two Towers {importlib.metadata.version('twotowers')}"
    asked = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=root, capture_output=True, text=True)
    said += f", commit {asked.stdout.strip()}" if not asked.returncode else ""
    return f"{said}, built on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}"


# Small


def _prune(site: Path, pages: str) -> None:
    """Remove what no page reads: other forms and fonts of MathJax, translations, maps of scripts, icons of no page."""
    static = site / "_static"
    for path in [
        *(static / "mathjax").glob("*"),
        *static.glob("locales"),
        *static.rglob("*.map"),
        *static.rglob("*.ttf"),
    ]:
        if path.name not in (MATHJAX, "output"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (static / "mathjax" / "output").glob("*"):
        if path.name != "chtml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    fonts = static / "mathjax" / "output" / "chtml" / "fonts"
    unused = [name for name, asked in ALPHABETS.items() if f"\\{asked}" not in pages]
    brands = (static / "vendor").rglob("fa-brands-*")
    for path in [fonts / "tex.js", *brands, *(p for name in unused for p in fonts.rglob(f"MathJax_{name}-*"))]:
        path.unlink(missing_ok=True)
    icons = static / "scripts" / "fontawesome.js"
    if icons.is_file():
        scripts = (path for path in static.rglob("*.js") if path != icons and "mathjax" not in path.parts)
        used = set(re.findall(r"fa-([a-z0-9-]+)", pages + "".join(path.read_text("utf-8") for path in scripts)))
        text = icons.read_text(encoding="utf-8")
        icons.write_text(ICON.sub(lambda icon: icon[0] if icon[1].strip('"') in used else "", text), encoding="utf-8")


def _kept_once(site: Path) -> dict[str, str]:
    """Remove downloads that are pictures of the site anyway; gives the pictures' places by those of the downloads."""
    shown = {digest_of(path): path for path in (site / "_images").glob("*.svg")}
    once = {}
    for path in sorted((site / "_downloads").rglob("*.svg")):
        if picture := shown.get(digest_of(path)):
            once[path.relative_to(site).as_posix()] = picture.relative_to(site).as_posix()
            path.unlink()
            path.parent.rmdir()
    return once


def _downloads(page: str, once: Mapping[str, str]) -> str:
    """Lead to the pictures themselves, by the names that the downloads had."""

    def other(link: re.Match[str]) -> str:
        kept = once.get(html.unescape(link[2]))
        return f'download="{link[2].rpartition("/")[2]}" href="{link[1]}{html.escape(kept)}"' if kept else link[0]

    return re.sub(r'download="" href="((?:\.\./)*)(_downloads/[^"]*)"', other, page)


# A page


def _print_heading(page: str) -> str:
    """The heading for print, in which the theme writes the page's title as HTML: as text."""
    heading = r'(<div id="jb-print-docs-body" class="onlyprint">\s*<h1>)(.*)(</h1>\s*<!-- Table of contents -->)'
    return re.sub(heading, lambda x: x[1] + html.escape(x[2], quote=False) + x[3], page, count=1, flags=re.DOTALL)


def description(page: str) -> str:
    """What was found, else the first paragraph of a page's text, as plain text of one line."""
    article = page.partition("<article")[2]
    after = article.partition('class="finding')[2] or article.partition("</h1>")[2]
    for paragraph in re.findall(r"<p>(.*?)</p>", after, re.DOTALL):
        text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", paragraph)).split())
        if text:
            return text if len(text) <= LONGEST else text[: LONGEST - 1].rsplit(" ", 1)[0] + "…"
    return ""


def _head(page: str, name: str, said: str, address: str) -> str:
    """Description, Open Graph and address; formulas are set only where there are any."""
    title = re.search(r"<title>(.*?)</title>", page, re.DOTALL)
    lines = [f'<meta name="description" content="{html.escape(said)}"/>'] if said else []
    lines += [f'<meta property="og:title" content="{title[1].strip()}"/>'] if title else []
    lines += [f'<meta property="og:description" content="{html.escape(said)}"/>'] if said else []
    lines += ['<meta property="og:type" content="article"/>', '<meta property="og:site_name" content="Two Towers"/>']
    if address:
        lines += [f'<link rel="canonical" href="{address}/{name}"/>']
        lines += [f'<meta property="og:url" content="{address}/{name}"/>']
    if 'class="math' not in page:
        page = re.sub(r"<script[^>]*mathjax/[^>]*></script>", "", page)
        page = re.sub(r"<script>window\.MathJax = .*?</script>", "", page, flags=re.DOTALL)
    return page.replace("</head>", "\n".join([*lines, "</head>"]), 1)


def _sidebar(page: str, runs: Sequence[Published]) -> str:
    """Mark the parts of the sidebar that belong to a run, and hide those of all but the page's own, or the first."""
    own = re.search(r'<nav class="page-bar"[^>]*data-run="([^"]*)"', page)
    shown = own[1] if own else runs[0].name
    for run in runs:
        caption = re.escape(html.escape(run.title, quote=False))
        hidden = "" if run.name == shown else " hidden"
        heading = rf'(<p)([^>]*class="caption"[^>]*><span class="caption-text">{caption}</span></p>\s*<ul)'
        mark = f' data-run="{run.name}"{hidden}'
        page = re.sub(heading, rf"\1{mark}\2{mark}", page, count=1)
    return page


def _accessible(page: str) -> str:
    """What screen readers and keyboards need, and the theme and extensions leave out."""
    for old, new in ACCESSIBLE:
        page = page.replace(old, new)
    # A link that is a formula has no letters that are read.
    return re.sub(
        r'<a ([^>]*href="[^"]*#sym-([a-z0-9-]+)"[^>]*)>(?=(?:<span[^>]*>)*<span class="math)',
        r'<a \1 aria-label="\2">',
        page,
    )


# The site


def _llms(pages: dict[str, str], described: dict[str, str]) -> str:
    """The pages with what they say, for readers that are programs (llmstxt.org)."""
    titles = {name: re.search(r"<title>(.*?)</title>", text, re.DOTALL) for name, text in pages.items()}
    lines = [
        f"- [{html.unescape(title[1]).strip()}]({name})" + (f": {described[name]}" if described[name] else "")
        for name, title in titles.items()
        if title and name not in ("index.html", "search.html")
    ]
    return "\n".join(["# Two Towers", "", f"> {SUMMARY}", "", "## Pages", "", *lines, ""])


def _sitemap(pages: dict[str, str], address: str) -> str:
    places = "".join(f"<url><loc>{address}/{name}</loc></url>\n" for name in pages if name != "index.html")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        f"{places}</urlset>\n"
    )

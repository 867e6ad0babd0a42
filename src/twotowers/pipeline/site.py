"""Build the site from the pages and the runs that exist, strictly, and look whether everything is in it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat
import yaml
from filelock import FileLock, Timeout

from ..bench import verdicts
from ..bench.page import performance
from ..chapters.registry import CHAPTERS
from ..errors import SiteError, StalePageError, UserError
from ..publishing.ledger import atlas, ledger
from ..publishing.markdown import escape
from ..publishing.run_folder import RunFolder, digest_of, figure_ids, project_root, runs_of
from ..toy.page import page as toy_page
from .freshness import State
from .status import not_fit_to_publish, run_status

Runs = Mapping[RunFolder, list[str]]  # with the chapters that have a page
Marks = dict[tuple[str, str], State]  # pages, by run and chapter, that are published though they are not up to date
PAGES = ("intro", "method", "atlas", "toy", "rerun", "performance", "cite")  # that belong to no run


class NoRunError(UserError):
    """A site without any run."""


class NoBookError(UserError):
    """The program that builds the site is not installed."""


class BusyError(UserError):
    """Another build goes on."""


def build(*, stale: bool = False) -> Path:
    """Build the book with every warning an error, and return its first page.

    Nothing is done if nothing has changed since the last build that succeeded. Otherwise all pages are made anew:
    Sphinx looks only at pages that have changed, and would pass a broken link on another at the second try.

    Args:
        stale: publish pages that are stale or damaged, marked as such, instead of refusing them.

    Raises:
        UserError: no model has been run, a page is stale or damaged, Jupyter Book is not installed, or another build
            goes on.
        SiteError: the build warned, or a page or figure is missing; the message says which.
    """
    root = project_root()
    runs = {run: [c for c in CHAPTERS if run.notebook(c).is_file()] for run in runs_of(root)}
    runs = {run: chapters for run, chapters in runs.items() if chapters}
    if not runs:
        raise NoRunError("There is no run to build a site from; run a model first with: twotowers run")
    if importlib.util.find_spec("jupyter_book") is None:
        raise NoBookError("Jupyter Book is not installed; run: python -m pip install -e '.[book]'")
    (root / "_build").mkdir(exist_ok=True)
    try:
        with FileLock(root / "_build" / ".lock", timeout=0):
            marked = _marked(root, runs, stale)
            return _build(root, runs, marked)
    except Timeout:
        raise BusyError("Another build of this site goes on; wait until it is done.") from None


def _marked(root: Path, runs: Runs, stale: bool) -> Marks:
    """Pages that are to be published although they are stale or damaged.

    Raises:
        StalePageError: they are not to be published.
    """
    found = {
        (run.name, chapter): state
        for run in runs
        for chapter, state in not_fit_to_publish(run_status(root, run)).items()
    }
    if found and not stale:
        (run, chapter), state = next(iter(found.items()))
        others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise StalePageError(
            f"The page {run}/{chapter} is {state}{others}; bring it up to date with twotowers run, look at twotowers "
            f"status, or publish it marked as such with twotowers build --stale."
        )
    return found


def _build(root: Path, runs: Runs, marked: Marks) -> Path:
    html, done, book = root / "_build" / "html", root / "_build" / "done.json", root / "_build" / "book"
    _stage(root, book, runs, marked)
    made_of = _digest([*_files(book), root / "_config.yml"], book)
    if done.is_file() and json.loads(done.read_text()) == {"from": made_of, "site": _digest(_files(html), html)}:
        return html / "index.html"
    for old in (root / "_build").glob("[!.]*"):
        if old != book:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    _jupyter_book(root)
    if missing := _missing(html, runs):
        raise SiteError("The site lacks " + "; ".join(missing))
    done.write_text(json.dumps({"from": made_of, "site": _digest(_files(html), html)}))
    return html / "index.html"


def _stage(root: Path, book: Path, runs: Runs, marked: Marks) -> None:
    """Put together what Sphinx reads: pages, of every run only what it has made, and what is computed of all runs."""
    shutil.rmtree(book, ignore_errors=True)
    shutil.copytree(root / "book", book, ignore=shutil.ignore_patterns("runs", "chapters", "_toc.yml", ".*"))
    for run, chapters in runs.items():
        for chapter in chapters:
            for file in run.entry(chapter)["files"]:
                if (run.path / file).is_file() and not (run.path / file).is_symlink():
                    target = book / "runs" / run.name / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(run.path / file, target)
            if state := marked.get((run.name, chapter)):
                _mark(book / "runs" / run.name / f"{chapter}.ipynb", state)
    titles = _titles(runs)
    pages = {
        "_atlas.md": atlas({escape(titles[run]): ledger(run.path) for run in runs}),
        "_performance.md": performance(book / "bench"),
        "_verdicts.md": verdicts.page(book / verdicts.FILE),
        "_toy.md": toy_page(book / "_toy", run="toy-gpt2" if "toy-gpt2" in {run.name for run in runs} else None),
        "_toc.yml": yaml.safe_dump(_contents(runs, titles), sort_keys=False, allow_unicode=True),
    }
    for name, text in pages.items():
        (book / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def _mark(page: Path, state: State) -> None:
    """Say at the head of a page that it is not up to date."""
    notebook = nbformat.read(page, as_version=4)
    said = str(state).replace("`", "")
    mark = nbformat.v4.new_markdown_cell(f"```{{warning}}\nThis page is {said}.\n```")
    notebook.cells.insert(1, mark)
    nbformat.write(notebook, page)


def _titles(runs: Runs) -> dict[RunFolder, str]:
    """What a reader is told of each run; of two models of one name, with the names of their runs."""
    titles = [run.title for run in runs]
    return {run: run.title if titles.count(run.title) == 1 else f"{run.title} ({run.name})" for run in runs}


def _contents(runs: Runs, titles: Mapping[RunFolder, str]) -> dict[str, object]:
    def part(caption: str, files: list[str]) -> dict[str, object]:
        return {"caption": caption, "chapters": [{"file": file} for file in files]}

    models = [part(titles[run], [f"runs/{run.name}/{name}" for name in names]) for run, names in runs.items()]
    parts = [
        part("The method", ["method"]),
        *models,
        part("All models", ["atlas", "toy"]),
        part("Use it", ["rerun", "performance", "cite"]),
    ]
    return {"format": "jb-book", "root": "intro", "parts": parts}


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if file.is_file()]


def _digest(files: list[Path], folder: Path) -> str:
    """Of files by their names, and of the programs that make a site of them."""
    tools = {name: importlib.metadata.version(name) for name in ("jupyter-book", "sphinx", "myst-nb")}
    digests = {str(f.relative_to(folder) if f.is_relative_to(folder) else f.name): digest_of(f) for f in files}
    return hashlib.sha256(json.dumps([digests, tools], sort_keys=True).encode()).hexdigest()


# Sphinx in a process of its own, which ends when this one does, however that ends.
_SPHINX = """
import os, threading, time
from jupyter_book.cli.main import main

def watch():
    while os.getppid() == PARENT:
        time.sleep(0.2)
    os._exit(1)

threading.Thread(target=watch, daemon=True).start()
main()
"""


def _jupyter_book(root: Path) -> None:
    command = [
        sys.executable, "-c", _SPHINX.replace("PARENT", str(os.getpid())), "build", "_build/book",
        "--config", "_config.yml", "--path-output", ".", "-n", "-W", "--keep-going", "-q",
    ]  # fmt: skip
    log = root / "_build" / "build.log"
    print("building the site", file=sys.stderr, flush=True)
    with (
        log.open("w", encoding="utf-8") as output,
        subprocess.Popen(command, cwd=root, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        try:
            status = process.wait()
        except BaseException:
            process.kill()
            raise
    if status:
        said = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8"))  # Sphinx colours its warnings
        lines = [line for line in said.splitlines() if "WARNING" in line or "ERROR" in line]
        raise SiteError(f"The site did not build cleanly (see {log}): {' | '.join(lines[:5]) or 'no message'}")


def _missing(html: Path, runs: Runs) -> list[str]:
    """Pages and figures that should be on the site and are not."""
    missing = [f"page {page}" for page in ("index", *PAGES) if not (html / f"{page}.html").is_file()]
    for run, chapters in runs.items():
        for chapter in chapters:
            page = html / "runs" / run.name / f"{chapter}.html"
            text = page.read_text(encoding="utf-8") if page.is_file() else ""
            missing += [] if text else [f"page {run.name}/{chapter}"]
            figures = figure_ids(run.name, run.entry(chapter).get("files", ()))
            missing += [f"figure {run.name}/{f}" for f in figures if f'id="fig-{run.name}-{f}"' not in text]
    return missing

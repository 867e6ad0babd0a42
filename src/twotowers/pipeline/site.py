"""Build the site from the pages and the runs that exist, strictly, and look whether everything is in it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from ..bench.page import performance
from ..chapters.registry import CHAPTERS
from ..errors import SiteError, UserError
from ..publishing.ledger import atlas
from ..publishing.run_folder import project_root
from ..toy.page import page as toy_page


class NoRunError(UserError):
    """A site without any run."""


class NoBookError(UserError):
    """The program that builds the site is not installed."""


def build() -> Path:
    """Write the table of contents, build the book with every warning an error, and return its first page.

    Raises:
        NoRunError: no model has been run.
        NoBookError: Jupyter Book is not installed.
        SiteError: the build warned, or a page or figure is missing; the message says which.
    """
    root = project_root()
    runs = {folder.name: _chapters(folder) for folder in sorted((root / "book" / "runs").glob("*/"))}
    runs = {model: chapters for model, chapters in runs.items() if chapters}
    if not runs:
        raise NoRunError("There is no run to build a site from; run a model first with: twotowers run")
    if importlib.util.find_spec("jupyter_book") is None:
        raise NoBookError("Jupyter Book is not installed; run: python -m pip install -e '.[book]'")
    folders = {model: root / "book" / "runs" / model for model in runs}
    (root / "book" / "_atlas.md").write_text(atlas(folders) + "\n", encoding="utf-8")
    (root / "book" / "_performance.md").write_text(performance(root / "book" / "bench") + "\n", encoding="utf-8")
    (root / "book" / "_toy.md").write_text(toy_page(root / "book" / "_toy") + "\n", encoding="utf-8")
    contents = yaml.safe_dump(_contents(runs), sort_keys=False)
    toc = root / "book" / "_toc.yml"
    if not toc.is_file() or toc.read_text(encoding="utf-8") != contents:
        shutil.rmtree(root / "_build", ignore_errors=True)  # no page of an earlier table of contents stays
        toc.write_text(contents, encoding="utf-8")
    _jupyter_book(root)
    html = root / "_build" / "html"
    missing = _missing(root, html, runs)
    if missing:
        raise SiteError("The site lacks " + "; ".join(missing))
    return html / "index.html"


def _chapters(folder: Path) -> list[str]:
    return [name for name in CHAPTERS if (folder / f"{name}.ipynb").is_file()]


def _contents(runs: dict[str, list[str]]) -> dict[str, object]:
    def part(caption: str, files: list[str]) -> dict[str, object]:
        return {"caption": caption, "chapters": [{"file": file} for file in files]}

    models = [part(model, [f"runs/{model}/{chapter}" for chapter in chapters]) for model, chapters in runs.items()]
    parts = [
        part("The method", ["method"]),
        *models,
        part("All models", ["atlas", "toy"]),
        part("Use it", ["rerun", "performance", "cite"]),
    ]
    return {"format": "jb-book", "root": "intro", "parts": parts}


def _jupyter_book(root: Path) -> None:
    command = [
        sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "book",
        "--config", "_config.yml", "--path-output", ".", "-n", "-W", "--keep-going", "-q",
    ]  # fmt: skip
    log = root / "_build" / "build.log"
    log.parent.mkdir(exist_ok=True)
    print("building the site", file=sys.stderr, flush=True)
    with log.open("w", encoding="utf-8") as output:
        status = subprocess.run(command, cwd=root, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if "WARNING" in line or "ERROR" in line]
        raise SiteError(f"The site did not build cleanly (see {log}): {' | '.join(lines[:5]) or 'no message'}")


def _missing(root: Path, html: Path, runs: dict[str, list[str]]) -> list[str]:
    """Pages and figures that should be on the site and are not."""
    missing = [
        f"page {page}"
        for page in ("index", "intro", "method", "atlas", "toy", "rerun", "performance", "cite")
        if not (html / f"{page}.html").is_file()
    ]
    for model, chapters in runs.items():
        record = json.loads((root / "book" / "runs" / model / "run.json").read_text(encoding="utf-8"))
        for chapter in chapters:
            page = html / "runs" / model / f"{chapter}.html"
            text = page.read_text(encoding="utf-8") if page.is_file() else ""
            missing += [] if text else [f"page {model}/{chapter}"]
            figures = record["chapters"].get(chapter, {}).get("figures", [])
            missing += [f"figure {model}/{f}" for f in figures if f'id="fig-{model}-{f}"' not in text]
    return missing

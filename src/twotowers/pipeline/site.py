"""Build the site from the pages and the runs that exist, strictly, and look whether everything is in it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from ..bench import verdicts
from ..bench.page import performance
from ..chapters.registry import CHAPTERS
from ..errors import SiteError, StalePageError, UserError, writing
from ..processes import Processes, processes
from ..publishing.crowd import write_whole
from ..publishing.markdown import plain
from ..publishing.run_folder import RunFolder, digest_of, figure_ids, project_root, runs_of
from ..toy.page import page as toy_page
from . import costs
from .contributed import AGAIN, contribution
from .explore import TITLE, stage_look
from .families_page import families_page
from .figures import RunNameError, require_own_name
from .finish import finish
from .freshness import PACKAGE, State
from .looks import draw_looks_anew
from .machine import cores
from .narrow import stage_narrow
from .overview import atlas_page, chapters_of, compare, home
from .pages import LOOK, Published, stage
from .pictures import draw_ahead
from .status import not_fit_to_publish, run_status

Runs = Mapping[RunFolder, list[str]]  # with the chapters that have a page
Marks = dict[tuple[str, str], State]  # pages, by run and chapter, that are published though they are not up to date
OF_ALL = ("atlas", "compare", "toy")  # pages that belong to no run: about all of them
USE = ("method", "rerun", "families", "performance", "cite")
DEFAULT, TOY = "smollm2-135m", "toy-gpt2"  # runs that stand first, and behind the page on the toy


class NoRunError(UserError):
    """A site without any run."""


class NoBookError(UserError):
    """The program that builds the site is not installed."""


class BusyError(UserError):
    """Another build goes on."""


def build(*, stale: bool = False) -> Path:
    """Build the book with every warning an error, and return its first page.

    Pages that only look otherwise today, by a colour, a caption or prose, are drawn anew first.
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
    if odd := [run.name for run in runs if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", run.name)]:
        raise RunNameError(f"The run folder '{odd[0]}' has a name of no run; rename it to small letters and dashes.")
    for run in runs:
        require_own_name(run)
    if not runs:
        raise NoRunError("There is no run to build a site from; run a model first with: twotowers run")
    if importlib.util.find_spec("jupyter_book") is None:
        raise NoBookError("Jupyter Book is not installed; run: python -m pip install -e '.[book]'")
    with writing("The site in", root / "_build"), contextlib.ExitStack() as held:
        (root / "_build").mkdir(exist_ok=True)
        try:
            held.enter_context(FileLock(root / "_build" / ".lock", timeout=0))
        except Timeout:
            raise BusyError("Another build of this site goes on; wait until it is done.") from None
        with processes(cores()) as drawing:
            return _build(root, runs, stale, drawing)


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
            f"The page {run}/{chapter} is {state}{others}; bring it up to date with twotowers run (one that was "
            f"contributed: {AGAIN}), look at twotowers status, or publish it marked as such with twotowers build "
            f"--stale."
        )
    return found


def _build(root: Path, runs: Runs, stale: bool, drawing: Processes) -> Path:
    html, done, book = root / "_build" / "html", root / "_build" / "done.json", root / "_build" / "book"
    if not stale:
        draw_looks_anew(root, runs, drawing)
    published = _published(runs)
    with _undisturbed(runs):
        marked = _marked(root, runs, stale)
        made_of = _made_of(root, marked)
        if _read(done) == {"from": made_of, "site": _digest(_files(html), html)}:
            return html / "index.html"
        draw_ahead(published, *_pictures(root), drawing)
        _stage(root, book, published, marked)
        figures = {
            (run, chapter): figure_ids(run.name, run.entry(chapter).get("files", ()))
            for run, chapters in runs.items()
            for chapter in chapters
        }
    for old in (root / "_build").glob("[!.]*"):
        if old != book:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    _jupyter_book(root)
    finish(root, html, published)
    if missing := _missing(html, figures, published):
        raise SiteError("The site lacks " + "; ".join(missing))
    write_whole(done, json.dumps({"from": made_of, "site": _digest(_files(html), html)}))
    return html / "index.html"


def _made_of(root: Path, marked: Marks) -> str:
    """Digest of all that pages are put together of: texts, runs and those with other seeds, this package, and marks."""
    code = [file for file in _files(PACKAGE) if file.suffix != ".pyc"]
    texts = [root / "_config.yml", *_files(root / "book")]
    passing = (".tmp-", ".parts-", ".jobs", ".sources")
    kept = [
        file
        for file in texts
        if file.suffix != ".lock" and not any(part.startswith(passing) for part in file.relative_to(root).parts)
    ]
    said = sorted((*page, str(state)) for page, state in marked.items())
    return hashlib.sha256(json.dumps([_digest(code, PACKAGE), _digest(kept, root), said]).encode()).hexdigest()


@contextlib.contextmanager
def _undisturbed(runs: Runs) -> Iterator[None]:
    """While pages are put together of runs, a command that makes a chapter of one waits before it moves it there."""
    with contextlib.ExitStack() as held:
        for run in runs:
            held.enter_context(run.undisturbed())
        yield


def _read(done: Path) -> object:
    try:
        return json.loads(done.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _pictures(root: Path) -> tuple[Path, Path]:
    """Where pictures for narrow places, and with common axes, stay from one build to the next."""
    return root / "_build" / ".narrow", root / "_build" / ".compare"


def _stage(root: Path, book: Path, runs: Sequence[Published], marked: Marks) -> None:
    """Put together what Sphinx reads: pages, of every run only what it has made, and what is computed of all runs."""
    narrow, alike = _pictures(root)
    shutil.rmtree(book, ignore_errors=True)
    shutil.copytree(root / "book", book, ignore=shutil.ignore_patterns("runs", "chapters", "_toc.yml", ".*"))
    for own in runs:
        for chapter in own.chapters:
            for file in own.run.entry(chapter)["files"]:
                if (own.run.path / file).is_file() and not (own.run.path / file).is_symlink():
                    target = book / "runs" / own.name / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(own.run.path / file, target)
            stage(book, own, chapter, runs, marked.get((own.name, chapter)))
            stage_narrow(book, own, chapter, narrow)
        stage_look(book, own, runs, marked.get((own.name, "towers")))
    toy = next((own for own in runs if own.name == TOY and own.contributed is None), None)
    pages = {
        "_home.md": home(runs),
        "_chapters.md": chapters_of(runs[0]),
        "_models.md": costs.of_the_paper(runs),
        "_costs.md": costs.measured(runs),
        "_registry.md": costs.registry(),
        "_atlas.md": atlas_page(runs),
        "_compare.md": compare(runs, book, alike),
        "_performance.md": performance(book / "bench"),
        "_verdicts.md": verdicts.page(book / verdicts.FILE),
        "_families.md": families_page(),
        "_toy.md": toy_page(book / "_toy", chapters=toy.chapters if toy else ()),
        "_toc.yml": yaml.safe_dump(contents(runs), sort_keys=False, allow_unicode=True),
    }
    for name, text in pages.items():
        (book / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def _published(runs: Runs) -> list[Published]:
    """The runs in the order of the book, contributed ones last; of two models of one name, with their runs' names."""
    own = {run: plain(run.title) for run in runs}
    titles, others = list(own.values()), {run: contribution(run) is not None for run in runs}
    order = sorted(runs, key=lambda run: (others[run], run.name != DEFAULT, run.name != TOY, run.name))
    return [
        Published(run, runs[run], titled(own[run], run.name if titles.count(own[run]) > 1 else "", others[run]))
        for run in order
    ]


def titled(title: str, name: str, contributed: bool) -> str:
    """What a reader is told of a run wherever it is named: with the run's name where a title is there twice."""
    return title + (f" ({name})" if name else "") + (", contributed" if contributed else "")


def contents(runs: Sequence[Published]) -> dict[str, object]:
    """The sidebar: the first run, what is about all of them and the page on the toy, then the others."""

    def part(caption: str, files: list[dict[str, str]]) -> dict[str, object]:
        return {"caption": caption, "chapters": files}

    def of_run(own: Published) -> dict[str, object]:
        pages = [(chapter, own.title_of(chapter)) for chapter in own.chapters]
        pages += [(LOOK, TITLE)] if own.has(LOOK) else []
        return part(own.title, [{"file": f"runs/{own.name}/{page}", "title": title} for page, title in pages])

    models = [of_run(own) for own in runs]
    of_all = part("All models", [{"file": name} for name in OF_ALL])
    use = part("Use it", [{"file": name} for name in USE])
    return {"format": "jb-book", "root": "intro", "parts": [models[0], of_all, *models[1:], use]}


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if file.is_file()]


def _digest(files: list[Path], folder: Path) -> str:
    """Of files by their names, and of the programs that make a site of them."""
    tools = {name: importlib.metadata.version(name) for name in ("jupyter-book", "sphinx", "myst-nb")}
    digests = {str(f.relative_to(folder) if f.is_relative_to(folder) else f.name): digest_of(f) for f in files}
    return hashlib.sha256(json.dumps([digests, tools], sort_keys=True).encode()).hexdigest()


# Sphinx in a process of its own, which ends when this one does.
_SPHINX = """
from twotowers.process import end_with
end_with(PARENT)
from jupyter_book.cli.main import main
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


def _missing(
    html: Path, figures: Mapping[tuple[RunFolder, str], list[str]], published: Sequence[Published]
) -> list[str]:
    """Pages and figures that should be on the site and are not."""
    looks = [f"runs/{own.name}/{LOOK}" for own in published if own.has(LOOK)]
    missing = [
        f"page {page}" for page in ("index", "intro", *OF_ALL, *USE, *looks) if not (html / f"{page}.html").is_file()
    ]
    for (run, chapter), ids in figures.items():
        page = html / "runs" / run.name / f"{chapter}.html"
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        missing += [] if text else [f"page {run.name}/{chapter}"]
        missing += [f"figure {run.name}/{f}" for f in ids if f'id="fig-{run.name}-{f}"' not in text]
    return missing

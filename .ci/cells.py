"""Lint the code cells of the book's chapters: print what is wrong with them, exit with 1 if anything is.

Each chapter goes to ruff as one notebook, with the settings of the project, so that a name may come from an earlier
cell. A cell has at most three lines beside its imports: what takes more belongs into the package, where it is tested.

    python .ci/cells.py [CHAPTER.md ...]      default: every chapter of the book
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parents[1]
LINES = 3  # of a cell, beside its imports
# Sorted and wrapped, the import of one chapter's modules would fill a screen.
CHECK = ("check", "--extend-ignore=I001", "--output-format=concise")


def code(text: str) -> nbformat.NotebookNode:
    """A chapter's MyST text as a notebook of its code cells only, which hence are counted from 1."""
    notebook = jupytext.reads(text, fmt="md:myst")
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return notebook


def lines(source: str) -> list[str]:
    """The lines of a cell that are not blank: ruff wants one after imports, for which a cell is too small."""
    return [line for line in source.splitlines() if line.strip()]


def too_long(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """A sentence for every cell with too many lines."""
    for number, cell in enumerate(notebook.cells, 1):
        found = sum(not line.startswith(("import ", "from ")) for line in lines(cell.source))
        if found > LINES:
            yield f"cell {number}: {found} lines beside imports, at most {LINES}: move some into the package"


def ruff(notebook: nbformat.NotebookNode, *options: str) -> subprocess.CompletedProcess[str]:
    """Run ruff, with the settings of the project, on a notebook."""
    command = [sys.executable, "-m", "ruff", *options, "--quiet", "--stdin-filename=chapter.ipynb", "-"]
    return subprocess.run(command, input=nbformat.writes(notebook), cwd=ROOT, capture_output=True, text=True)


def unclean(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """What ruff says about a notebook's style, and cells that it would format otherwise."""
    checked, formatted = ruff(notebook, *CHECK), ruff(notebook, "format")
    if checked.returncode:
        yield from (line.removeprefix("chapter.ipynb:") for line in (checked.stdout + checked.stderr).splitlines())
    if formatted.returncode:
        yield formatted.stderr.rstrip()
        return
    written = nbformat.reads(formatted.stdout, 4)
    for number, (ours, theirs) in enumerate(zip(notebook.cells, written.cells, strict=True), 1):
        if lines(ours.source) != lines(theirs.source):
            yield f"cell {number}: not formatted, ruff writes\n{theirs.source}"


def problems(text: str) -> list[str]:
    """Everything that is wrong with the cells of a chapter's text; nothing if all is well."""
    notebook = code(text)
    return [*too_long(notebook), *unclean(notebook)]


def main(chapters: list[str]) -> int:
    """Lint these chapters, or those of the checkout that this file lies in."""
    paths = [Path(chapter) for chapter in chapters] or sorted((ROOT / "book" / "chapters").glob("*.md"))
    found = [f"{path.name}: {problem}" for path in paths for problem in problems(path.read_text(encoding="utf-8"))]
    print("\n".join(found) or f"{len(paths)} chapters: every cell is clean")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

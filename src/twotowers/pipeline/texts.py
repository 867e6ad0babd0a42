"""The text of a chapter as a notebook, as it is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
import nbformat

from ..chapters.registry import CHAPTERS, needs_two_labels


def notebook_of(text: Path, labels: int = 2) -> Any:
    """The chapter at `text`, for prompts with so many labels.

    Where its question has no meaning with more than two, only its title and the cells that open its page are left, and
    one that says so.
    """
    notebook = jupytext.read(text)
    if labels == 2 or text.stem not in CHAPTERS or not needs_two_labels(text.stem):
        return notebook
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    opens = next(number for number, cell in enumerate(code) if "= open_page(" in cell.source)
    title = nbformat.v4.new_markdown_cell(notebook.cells[0].source.partition("\n")[0])
    said = nbformat.v4.new_code_cell("page.needs_two_labels()", metadata={"tags": ["hide-input"]})
    notebook.cells = [title, *code[: opens + 1], said]
    return notebook

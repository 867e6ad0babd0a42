"""Draw a chapter anew from what is stored of it: other prose, colours or captions, the same results, no model."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from ..paper import CLAIMS
from ..publishing.ledger import NEEDS_TWO, claim_text
from ..publishing.provenance import RUN_NOTE
from ..publishing.publish import Figure, Text
from ..publishing.run_folder import RunFolder, is_drawn
from ..publishing.shown import Item, Shown
from ..publishing.specification import specification_digest
from .texts import notebook_of


def redraw(
    text: Path, run: RunFolder, chapter: str, workplace: Path, entry: Mapping[str, Any], revision: str | None
) -> bool:
    """Make a chapter in a workplace from the results in its run's folder and from today's text and `page`.

    Its results are copied, its figures drawn, its computed texts written, and its notebook put together from the
    text's cells and the executed cells' outputs.

    Args:
        revision: of the model's weights, which are those that the results were made with; None where the model is not
            at hand, and what was said of it holds.

    Returns:
        False if today's page shows something that is not stored: then the chapter has to be executed.
    """
    for file in entry["files"]:
        if is_drawn(file):
            continue
        (workplace / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(run.path / file, workplace / file)
    shown, items = Shown.read(workplace, chapter), items_of(chapter)
    today = {"specification_sha256": specification_digest()}  # verdicts are made anew
    today |= {"revision": revision} if revision is not None else {}
    shown.facts = dataclasses.replace(shown.facts, provenance={**shown.facts.provenance, **today})
    try:
        shown.rename_tables(items)
        texts = {item_id: shown.render(items[item_id]) for item_id in shown.items}
    except (KeyError, TypeError):  # an item of another name, or with other inputs
        for file in _files(workplace):
            file.unlink()
        return False
    executed = nbformat.read(run.notebook(chapter), as_version=4)
    outputs = [cell for cell in executed.cells if cell.cell_type == "code"]
    for cell in outputs:
        for output in cell.outputs:
            item_id = output.get("metadata", {}).get("item")
            if item_id is not None:
                output.data["text/markdown"] = texts[item_id]
                output.data["text/plain"] = "<IPython.core.display.Markdown object>"
    executed.cells = _woven(notebook_of(text, len(shown.facts.labels)).cells, outputs)
    nbformat.write(executed, workplace / f"{chapter}.ipynb")
    return True


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def items_of(chapter: str) -> dict[str, Item]:
    """Everything that a chapter's page, or pages, can show, by id."""
    folder = importlib.import_module(f"twotowers.chapters.{chapter}")
    names = [module.name for module in pkgutil.iter_modules(folder.__path__) if module.name.endswith("page")]
    pages = [importlib.import_module(f"{folder.__name__}.{name}") for name in names]
    own = [item for page in pages for item in vars(page).values() if isinstance(item, Figure | Text)]
    return {item.id: item for item in (RUN_NOTE, NEEDS_TWO, *map(claim_text, CLAIMS), *own)}


def _woven(cells: list[Any], executed: list[Any]) -> list[Any]:
    """The cells of a text, its code cells with their outputs; the injected parameters stay behind the parameters."""
    woven, left = [], list(executed)
    for cell in cells:
        if cell.cell_type != "code":
            woven.append(nbformat.v4.new_markdown_cell(cell.source, metadata=_tags(cell)))
            continue
        done = left.pop(0)
        done.metadata = nbformat.from_dict(_tags(cell))
        woven.append(done)
        if "parameters" in cell.metadata.get("tags", []):
            woven.append(left.pop(0))
    for number, cell in enumerate(woven):
        cell.id = f"cell-{number}"
    return woven


def _tags(cell: Any) -> dict[str, Any]:
    return {"tags": list(cell.metadata["tags"])} if cell.metadata.get("tags") else {}

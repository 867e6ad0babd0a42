"""Draw a chapter anew from what is stored of it: other prose, colours or captions, the same results, no model."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import multiprocessing
import os
import pkgutil
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import nbformat

from ..errors import UserError
from ..paper import CLAIMS
from ..publishing.ledger import NEEDS_TWO, claim_text
from ..publishing.provenance import RUN_NOTE
from ..publishing.publish import Figure, Text
from ..publishing.run_folder import RunFolder, is_drawn
from ..publishing.shown import Item, Shown
from ..publishing.specification import specification_digest
from .texts import notebook_of

Redraw = Callable[[Path, RunFolder, str, Path, Mapping[str, Any], str | None], bool]


class DrawingError(UserError):
    """A process that drew figures was ended from outside."""


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


@contextlib.contextmanager
def redrawing(at_once: int) -> Iterator[Redraw]:
    """`redraw`, to be called from so many threads at once: each call then has a process, since one draws one at a time.

    Raises:
        DrawingError: such a process was ended, as where memory is short.
    """
    if at_once < 2:
        yield redraw
        return
    with ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), _end_with_parent) as pool:

        def call(*given: Any) -> bool:
            try:
                return pool.submit(redraw, *given).result()
            except BrokenProcessPool:
                raise DrawingError(
                    "A process that drew figures was ended, perhaps for want of memory; repeat the command."
                ) from None

        with _uninterrupted():
            pool.submit(int)  # begins them all
        yield call


def end_redrawing() -> None:
    """Nobody waits any more for what is being drawn."""
    for process in multiprocessing.active_children():
        process.kill()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that begin meanwhile leave it to this one to answer an interruption, which a terminal tells to all."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Of a process that draws: it ends when the one that began it does, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


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

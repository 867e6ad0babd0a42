"""The evidence that the book's chapters would judge the claims by, of any study, without kernels and figures.

It is the chapters' own code: of their cells those statements are run that a `page.judge` or `page.hand_on` rests on.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jupytext
import pandas as pd

from twotowers.chapters.chapter import Page
from twotowers.chapters.registry import CHAPTERS
from twotowers.prompts.sets import PromptSet, categories_of
from twotowers.publishing.evidence import Evidence
from twotowers.statistics import Verdict, holm
from twotowers.study import Study
from twotowers.tracing.heads import Head

BOOK = Path(__file__).resolve().parents[1] / "book" / "chapters"
KEPT = ("judge", "hand_on")  # methods of a page for whose sake its statements are run


class Bare(Page):
    """A page that shows nothing: it keeps in memory what is judged, and what is handed on."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.evidence: dict[str, Evidence] = {}
        self.kept: dict[str, Any] = {}

    def judge(self, claim: str, effects: pd.DataFrame, *, accuracy: Any = None, **given: Any) -> None:
        gate = pd.DataFrame(self.kept["accuracy"]) if accuracy is None else accuracy
        categories = categories_of(self.evaluation)
        self.evidence[claim] = Evidence(claim, self.seed, effects, categories, accuracy=gate, **given)

    @property
    def half(self) -> list[PromptSet]:
        """All sets, for there are few."""
        return self.evaluation

    def hand_on(self, name: str, value: Any) -> None:
        self.kept[name] = value

    def handed(self, name: str) -> Any:
        return self.kept[name]


def gathered(
    study: Study, heads: Sequence[Head] | None = None, chapters: Sequence[str] = CHAPTERS
) -> dict[str, Evidence]:
    """The evidence of the claims of some chapters.

    Args:
        heads: what counts as in-context heads in place of those that the selection finds.
        chapters: in the order of the book; those that they read from among them.
    """
    page = Bare(study)
    for chapter in chapters:
        names: dict[str, Any] = {"page": page, "seed": study.seed}
        for statement in statements(BOOK / f"{chapter}.md"):
            exec(compile(ast.Module([statement], []), chapter, "exec"), names)
            if heads is not None and chapter == "knockout":
                names |= {"heads": list(heads), "folds": [list(heads)] * 2}
    return page.evidence


def verdicts(evidence: dict[str, Evidence]) -> dict[str, Verdict]:
    """As a ledger says them, by Holm over all that was gathered."""
    return holm({name: own.verdict for name, own in evidence.items()})


def statements(chapter: Path) -> list[ast.stmt]:
    """The statements of a chapter that a kept one rests on, in their order; of the page itself none is opened."""
    notebook = jupytext.read(chapter)
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    found, needed = [], set[str]()
    for statement in reversed(_Typed().visit(ast.parse(source)).body):
        if _imports(statement) or _keeps(statement) or needed & {*_assigned(statement), *_changed(statement)}:
            needed -= set(_assigned(statement))
            needed |= _read(statement)
            found.append(statement)
    return [s for s in reversed(found) if "open_page" not in _read(s)]


class _Typed(ast.NodeTransformer):
    """A share that is given as a whole number is one: types are checked here, and more strictly than Python does."""

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        if node.arg == "share" and isinstance(node.value, ast.Constant):
            node.value = ast.copy_location(ast.Constant(float(node.value.value)), node.value)
        return node


def _imports(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


def _called(statement: ast.stmt) -> Iterator[tuple[str, str]]:
    """Name and method, where the statement is a call of one."""
    match statement:
        case ast.Expr(ast.Call(ast.Attribute(ast.Name(name), method))):
            yield name, method


def _keeps(statement: ast.stmt) -> bool:
    return any(name == "page" and method in KEPT for name, method in _called(statement))


def _changed(statement: ast.stmt) -> Iterator[str]:
    """What a call may change in place; of a page nothing."""
    yield from (name for name, _ in _called(statement) if name != "page")


def _assigned(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.Assign):
        yield from (x.id for x in ast.walk(statement) if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store))


def _read(statement: ast.stmt) -> set[str]:
    return {x.id for x in ast.walk(statement) if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Load)}

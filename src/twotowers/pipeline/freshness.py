"""Whether a chapter of a run is up to date, and if not, why, in words.

The layout is the rule. A chapter's *results* hang on the code cells of its text, on its folder, on the folders of
chapters that it imports, on the wings below, on the model and the data, and on what it reads of earlier chapters. Its
*look*, what is drawn from the results, hangs on the prose, on its pages (modules whose names end in `page`), and on
the wing `publishing`: if only that has changed, it is drawn anew from what was stored. Comments and docstrings decide
nothing.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import io
import json
import threading
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jupytext

from ..chapters.registry import files_read
from ..publishing.citing import SOURCE
from ..publishing.run_folder import RunFolder, digest_of
from ..study import Study

PACKAGE = Path(__file__).parents[1]
# What measures stand on.
BELOW = (
    "arguments.py",
    "clustering.py",
    "statistics.py",
    "errors.py",
    "hub.py",
    "study.py",
    "models",
    "prompts",
    "tracing",
    "chapters/chapter.py",
)
LOOKS = ("paper.py", "publishing")  # what pages are drawn with, beside their own pages
LIBRARIES = ("torch", "transformers", "nnsight")

_ONE_AT_A_TIME = threading.Lock()  # `ast.parse` has failed in two threads at once

DONE, STALE, LOOK, MISSING, DAMAGED = "done", "stale", "look", "missing", "damaged"


@dataclass(frozen=True)
class State:
    """Of one chapter of a run: `DONE`, or `LOOK`, `STALE`, `MISSING` or `DAMAGED`, and why, in words."""

    name: str
    reasons: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        name = "stale" if self.name == LOOK else self.name
        return f"{name}: {'; '.join(self.reasons)}" if self.reasons else name


def text_of(root: Path, chapter: str) -> Path:
    return root / "book" / "chapters" / f"{chapter}.md"


def made_of(root: Path, chapter: str, study: Study | None, run: RunFolder) -> dict[str, Any]:
    """Everything that decides a chapter's results and look, each with a digest, by names that a reader understands.

    Args:
        study: None where the model is not at hand; what it decides is then left out.
    """
    with _ONE_AT_A_TIME:
        return _made_of(root, chapter, study, run)


def _made_of(root: Path, chapter: str, study: Study | None, run: RunFolder) -> dict[str, Any]:
    code, prose = _cells(text_of(root, chapter).read_text(encoding="utf-8"))
    of_code = {f"the code of {name}": _code(PACKAGE / name) for name in (*BELOW, *imported(chapter))}
    pages = sorted(f"chapters/{chapter}/{file.name}" for file in (PACKAGE / "chapters" / chapter).glob("*page.py"))
    of_look = {f"the code of {name}": _code(PACKAGE / name) for name in (*LOOKS, *pages)}
    results = {"the cells of its text": code, **of_code, **_of_study(study)}
    results |= {f"{file}, which it reads,": run.digest_in_record(file) for file in files_read(chapter)}
    return {"results": results, "look": {"its prose": prose, **of_look, SOURCE: _cited(root)}}


def _cited(root: Path) -> str | None:
    """Digest of whom and what a figure's citation names."""
    return digest_of(root / SOURCE) if (root / SOURCE).is_file() else None


def state(run: RunFolder, chapter: str, now: Mapping[str, Any]) -> State:
    """The state of a chapter of a run, from what would decide it `now` (`made_of`)."""
    record = run.record_or_empty()
    entry = record["chapters"].get(chapter)
    if entry is None:
        stopped = chapter in record["moving"]
        return State(MISSING, ("it was stopped while it was moved into place",) if stopped else ())
    if damage := run.damage(entry):
        return State(DAMAGED, tuple(damage))
    if entry.get("redo"):
        return State(STALE, ("it was asked to be done again",))
    if changed := changed_results(entry, now):
        return State(STALE, changed)
    changed = _changed(entry["made_of"]["look"], now["look"])
    return State(LOOK, changed) if changed else State(DONE)


def changed_results(entry: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """What decides a chapter's results and is no longer what it was, in words; nothing if all is."""
    return _changed(entry["made_of"]["results"], now["results"])


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """What differs, in words. What is not known now, because the model is not at hand, is not compared."""
    reasons = []
    for name, value in now.items():
        if name not in before:
            reasons.append(f"{name} is new")
        elif before[name] != value:
            short = all(isinstance(x, int | str) and len(str(x)) < 30 for x in (before[name], value))
            reasons.append(f"{name} changed" + (f" from {before[name]} to {value}" if short else ""))
    known = "the weights" in now
    reasons += [f"{name} is gone" for name in before if name not in now and (known or name.startswith("the code"))]
    return tuple(reasons)


def _of_study(study: Study | None) -> dict[str, Any]:
    libraries = {name: importlib.metadata.version(name).partition("+")[0] for name in LIBRARIES}
    if study is None:
        return libraries
    return libraries | study.facts()


def check_digest(study: Study) -> str:
    """What decides whether the identities hold: the model, and the code that they are about."""
    wings = [_code(PACKAGE / wing) for wing in ("models", "prompts", "tracing")]
    return _sha([study.model.facts(), study.evaluation[0].words, wings])


# Code


@functools.lru_cache(maxsize=1024)
def _stripped(source: str) -> str:
    """A module's source without comments, docstrings and blank lines."""
    drop = [(node.lineno, node.end_lineno) for node in _docstrings(ast.parse(source))]
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    kept = (line.rstrip() for n, line in enumerate(lines, 1) if not any(a <= n <= (b or a) for a, b in drop))
    return "\n".join(line for line in kept if line)


def _docstrings(tree: ast.AST) -> Iterable[ast.Expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield first


def _code(place: Path) -> str:
    """Digest of a module, or of all files of a folder; of a chapter's folder without its pages."""
    if place.is_file():
        files = [place]
    else:
        of_chapter = place.parent.name == "chapters"
        files = [
            f
            for f in sorted(place.rglob("*"))
            if f.suffix in (".py", ".yaml") and not (of_chapter and f.name.endswith("page.py"))
        ]
    parts = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        parts.append([file.name, _stripped(text) if file.suffix == ".py" else text])
    return _sha(parts)


def imported(chapter: str) -> list[str]:
    """The folders of a chapter and of those chapters whose modules its measures import, and theirs."""
    found, ahead = list[str](), [f"chapters/{chapter}"]
    while ahead:
        folder = ahead.pop()
        if folder in found:
            continue
        found.append(folder)
        for file in sorted({*(PACKAGE / folder).glob("*.py")} - {*(PACKAGE / folder).glob("*page.py")}):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level == 2 and node.module:
                    name = f"chapters/{node.module.partition('.')[0]}"
                    ahead += [name] if (PACKAGE / name).is_dir() else []
    return sorted(found)


@functools.lru_cache(maxsize=64)
def _cells(text: str) -> tuple[str, str]:
    """Digests of a chapter's code cells and of its prose."""
    notebook = jupytext.reads(text, fmt="md:myst")
    kinds = {kind: [c.source for c in notebook.cells if (c.cell_type == "code") == kind] for kind in (True, False)}
    tags = [c.metadata.get("tags", []) for c in notebook.cells]
    return _sha(kinds[True]), _sha([kinds[False], tags])


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

"""Tasks: texts in categories, each category split into a selection half and an evaluation half.

Heads are selected on texts of one half and measured on texts of the other, so no word that chose a head is
ever used to judge it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import yaml

from .errors import TaskError, UnknownNameError

Half = Literal["selection", "evaluation"]
HALVES: tuple[Half, Half] = ("selection", "evaluation")
BUILT_IN = ("words",)
_SPLIT_SEED = 240202872  # the split belongs to the task, not to a run: it never changes with a run's seed


@dataclass(frozen=True)
class Task:
    """Texts by category and half.

    Attributes:
        name: what the task is called in captions and provenance.
        texts: category -> half -> texts; the two halves of a category are disjoint.
        digest: SHA-256 of the texts and their split.
    """

    name: str
    texts: Mapping[str, Mapping[Half, tuple[str, ...]]]
    digest: str

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(self.texts)

    def require(self, per_category: int) -> None:
        """Raise `TaskError` unless every category has `per_category` texts in each half."""
        for category, halves in self.texts.items():
            for half in HALVES:
                if len(halves[half]) < per_category:
                    raise TaskError(
                        f"Task '{self.name}': category '{category}' has {len(halves[half])} texts in its {half} "
                        f"half but {per_category} are needed for one prompt set; add texts or ask for fewer "
                        f"demonstrations."
                    )


def load_task(name: str) -> Task:
    """Load a built-in task by name, or a user's CSV file (`text,label` and optionally `split`) by path.

    Raises:
        UnknownNameError: neither a built-in task nor an existing file.
        TaskError: the file cannot be used; the message names file, row and column.
    """
    if name in BUILT_IN:
        source = resources.files("twotowers") / "data" / f"{name}.yaml"
        return _split(name, yaml.safe_load(source.read_text(encoding="utf-8")))
    path = Path(name)
    if path.suffix == ".csv" or path.exists():
        return _from_csv(path)
    raise UnknownNameError("task", name, BUILT_IN, hint=" (or give a CSV file with the columns text,label)")


def _from_csv(path: Path) -> Task:
    given: dict[str, dict[str, str | None]] = {}  # category -> text -> split
    seen: dict[str, tuple[str, int]] = {}
    for number, row in _rows(path):
        text, category = (row[column].strip() for column in ("text", "label"))
        for column, value in (("text", text), ("label", category)):
            if not value:
                raise TaskError(f"{path}, row {number}, column '{column}' is empty; fill it in or remove the row.")
        if "\n" in text:
            raise TaskError(f"{path}, row {number}, column 'text' has a line break; put each text on one line.")
        if text in seen and seen[text][0] != category:
            other, first = seen[text]
            raise TaskError(
                f"{path}, row {number}, column 'text': '{text}' is labelled '{category}' but '{other}' in row "
                f"{first}; keep one of them."
            )
        split = (row.get("split") or "").strip() or None
        if split not in (None, *HALVES):
            raise TaskError(f"{path}, row {number}, column 'split' is '{split}'; use selection or evaluation.")
        if given.get(category, {}).get(text, split) != split:
            raise TaskError(
                f"{path}, row {number}, column 'split': '{text}' is in the other half in row "
                f"{seen[text][1]}; keep one of them."
            )
        seen.setdefault(text, (category, number))
        given.setdefault(category, {})[text] = split
    if len(given) < 2:
        found = f"only '{next(iter(given))}'" if given else "no rows"
        raise TaskError(f"{path}, column 'label' has {found}; at least two different labels are needed.")
    splits = {split for texts in given.values() for split in texts.values()}
    if splits == {None}:
        return _split(path.name, {category: list(texts) for category, texts in given.items()})
    if None in splits:
        raise TaskError(f"{path}, column 'split' is filled in some rows only; fill it in every row or in none.")
    halves = {
        category: {half: tuple(t for t, s in texts.items() if s == half) for half in HALVES}
        for category, texts in given.items()
    }
    return _task(path.name, halves)


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with the line number on which each one ends (the header is line 1)."""
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise TaskError(f"There is no file {path}; give a CSV file with the columns text,label.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise TaskError(f"{path}, row {line} is not UTF-8; save the file as UTF-8.") from None
    except OSError as error:
        raise TaskError(f"{path} cannot be read ({error.strerror}); give a readable CSV file.") from None
    reader = csv.DictReader(io.StringIO(content, newline=""), restval="")
    rows = []
    try:
        missing = {"text", "label"} - set(reader.fieldnames or ())
        if missing:
            names = " and no column ".join(f"'{name}'" for name in sorted(missing))
            raise TaskError(f"{path} has no column {names}; name them in row 1.")
        for row in reader:
            if None in row:  # more fields than columns: an unquoted comma has moved the label
                raise TaskError(
                    f"{path}, row {reader.line_num} has more fields than columns; put quotes around a text that "
                    f"has a comma."
                )
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise TaskError(f"{path}, row {reader.line_num + 1} cannot be read ({error}); mend the row.") from None
    return rows


def _split(name: str, categories: Mapping[str, list[str]]) -> Task:
    """Split each category at random into two halves, always in the same way for the same words."""
    halves: dict[str, dict[Half, tuple[str, ...]]] = {}
    for category, texts in categories.items():
        ordered = sorted(texts)
        order = np.random.default_rng([_SPLIT_SEED, *category.encode()]).permutation(len(texts))
        first = len(texts) // 2
        halves[category] = {
            "selection": tuple(sorted(ordered[i] for i in order[:first])),
            "evaluation": tuple(sorted(ordered[i] for i in order[first:])),
        }
    return _task(name, halves)


def _task(name: str, halves: Mapping[str, Mapping[Half, tuple[str, ...]]]) -> Task:
    digest = hashlib.sha256(json.dumps(halves, sort_keys=True).encode()).hexdigest()
    return Task(name, halves, digest)

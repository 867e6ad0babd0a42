"""Tasks: texts in categories, each category split into a selection half and an evaluation half.

Heads are selected on texts of one half and measured on texts of the other, so no word that chose a head is
ever used to judge it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from ..errors import TaskError, UnknownNameError
from . import datasets, sampling, tables
from .tables import Row

Half = Literal["selection", "evaluation"]
HALVES: tuple[Half, Half] = ("selection", "evaluation")
BUILT_IN = ("words", *datasets.SETS)
_SHOTS = ":shots="
_SPLIT_SEED = 240202872  # the split belongs to the task, not to a run: it never changes with a run's seed


@dataclass(frozen=True)
class Task:
    """Texts by category and half.

    Attributes:
        name: what the task is called in captions and provenance, as one would ask for it again.
        texts: category -> half -> texts; the two halves of a category are disjoint.
        digest: SHA-256 of the texts and their split.
        shots: most demonstrations of each label in a prompt; None leaves it to the scale.
        own: the texts are a user's file or folder, whose name says little.
        facts: where the texts come from and what was left out, for the provenance; `account` says it on a page.
    """

    name: str
    texts: Mapping[str, Mapping[Half, tuple[str, ...]]]
    digest: str
    shots: int | None = None
    own: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    account: str = ""

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
    """Load a task: `words`, a data set of sentences, or a user's own file or folder by path.

    A data set may be followed by two of its classes (`ag-news:world,sports`), and every task by the most
    demonstrations of each label (`ag-news:world,sports:shots=2`).

    Raises:
        UnknownNameError: neither a built-in task nor an existing file or folder.
        TaskError: the texts cannot be read or used; the message says where and what to do.
    """
    asked, shots = _shots(name)
    key, _, classes = asked.partition(":")
    if asked == "words":
        source = resources.files(__package__) / "words.yaml"
        lists: dict[str, list[str]] = yaml.safe_load(source.read_text(encoding="utf-8"))
        number = sum(map(len, lists.values()))
        account = f"The source is our own list of {number:,} words in {len(lists)} categories; none is left out."
        task = replace(_split(asked, lists), account=account)
    elif key in datasets.SETS:
        task = _of_sentences(key, classes)
    elif Path(asked).suffix in (".csv", ".parquet") or Path(asked).exists():
        task = _own(Path(asked), tables.read(Path(asked)))
    else:
        raise UnknownNameError(
            "task", asked, BUILT_IN, hint=" (or give a CSV file with the columns text,label, or a folder)"
        )
    return replace(task, name=f"{task.name}{_SHOTS}{shots}", shots=shots) if shots else task


def portable(name: str) -> str:
    """The same task's name from any working folder: a path becomes absolute."""
    asked, shots = _shots(name)
    if asked.partition(":")[0] in BUILT_IN or not Path(asked).exists():
        return name
    return f"{Path(asked).resolve()}{f'{_SHOTS}{shots}' if shots else ''}"


def _shots(name: str) -> tuple[str, int | None]:
    """A task's name without its last part `:shots=N`, and N."""
    asked, found, number = name.rpartition(_SHOTS)
    if not found:
        return name, None
    if not number.isdecimal() or int(number) < 1:
        raise TaskError(f"The task '{name}' asks for '{number}' demonstrations; give a whole number from 1.")
    return asked, int(number)


def _of_sentences(key: str, classes: str) -> Task:
    pair = datasets.choose(key, classes)
    drawn = sampling.balanced(key, pair)
    name = key if len(datasets.SETS[key].classes) == 2 else f"{key}:{','.join(pair)}"
    task = _split(name, drawn.texts)
    return replace(task, shots=datasets.SHOTS, facts=drawn.facts, account=datasets.account(drawn.facts))


def _own(path: Path, rows: Sequence[Row]) -> Task:
    """A user's own rows, all of them: the same row twice counts once, everything else that is odd is an error."""
    given: dict[str, dict[str, str]] = {}  # category -> text -> split
    first: dict[str, Row] = {}
    for row in rows:
        _require_cells(row)
        before = first.setdefault(row.text, row)
        if before.label != row.label:
            raise TaskError(
                f"{row.place}, column 'text': '{row.text}' is labelled '{row.label}' but '{before.label}' in "
                f"{before.seen_from(row)}; keep one of them."
            )
        if before.split != row.split:
            raise TaskError(
                f"{row.place}, column 'split': '{row.text}' is in the other half in {before.seen_from(row)}; keep "
                f"one of them."
            )
        given.setdefault(row.label, {})[row.text] = row.split
    if len(given) < 2:
        found = f"only '{next(iter(given))}'" if given else "no rows"
        raise TaskError(f"{path}, column 'label' has {found}; at least two different labels are needed.")
    given = dict(sorted(given.items()))  # the order of rows changes nothing, nor which category gets which label
    splits = {row.split for row in rows}
    if splits == {""}:
        task = _split(path.name, {category: list(texts) for category, texts in given.items()})
    elif "" in splits:
        raise TaskError(f"{path}, column 'split' is filled in some rows only; fill it in every row or in none.")
    else:
        halves = {
            category: {half: tuple(t for t, s in texts.items() if s == half) for half in HALVES}
            for category, texts in given.items()
        }
        task = _task(path.name, halves)
    facts = {"source": path.name, "rows": len(rows), "dropped": {"repeated": len(rows) - len(first)}}
    texts = {category: len(own) for category, own in given.items()}
    return replace(task, own=True, facts=facts | {"texts": texts}, account=_own_account(facts, texts))


def _own_account(facts: Mapping[str, Any], texts: Mapping[str, int]) -> str:
    counts = ", ".join(f"{number:,} *{category}*" for category, number in texts.items())
    return (
        f"The source is `{facts['source']}` with {facts['rows']:,} rows; {facts['dropped']['repeated']:,} that say the "
        f"same as another count once with it. Its texts by category: {counts}."
    )


def _require_cells(row: Row) -> None:
    for column, value in (("text", row.text), ("label", row.label)):
        if not value:
            raise TaskError(f"{row.place}, column '{column}' is empty; fill it in or remove the row.")
    if "\n" in row.text:
        raise TaskError(f"{row.place}, column 'text' has a line break; put each text on one line.")
    if row.split not in ("", *HALVES):
        raise TaskError(
            f"{row.place}, column 'split' is '{row.split}'; use selection or evaluation (heads are chosen on the one "
            f"and judged on the other)."
        )


def _split(name: str, categories: Mapping[str, Sequence[str]]) -> Task:
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

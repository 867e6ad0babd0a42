"""Tasks: texts in categories, each category split into a selection half and an evaluation half.

Heads are selected on texts of one half and measured on texts of the other, so no word that chose a head is
ever used to judge it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from ..errors import TaskError, UnknownNameError
from . import datasets, sampling, tables
from .missing import is_missing, is_perhaps_missing
from .rows import COLUMNS, Row, Table
from .spelling import computed, damaged, listed, named, named_plainly, spelt_plainly
from .task_labels import MOST, TaskLabels, number_shown, task_labels, usual_labels
from .written import cut, is_path, unwritable

Half = Literal["selection", "evaluation"]
HALVES: tuple[Half, Half] = ("selection", "evaluation")
BUILT_IN = ("words", *datasets.SETS)
_OPTIONS = (":shots=", ":labels=", ":classes=")  # what may follow a task's name
_ONE_WORD = {  # names of our categories that are several words, in one that tokenizers have whole
    "bad_qualities": "negative",
    "good_qualities": "positive",
    "little_words": "function",
    "thinking_and_speaking": "thought",
}
MOST_COUNTED = 20  # categories whose texts are counted by name in the account of a task
_SPLIT_SEED = 240202872  # the split belongs to the task, not to a run: it never changes with a run's seed


@dataclass(frozen=True)
class Task:
    """Texts by category and half.

    Attributes:
        name: what the task is called in captions and provenance, as one would ask for it again.
        texts: category -> half -> texts; the two halves of a category are disjoint.
        digest: SHA-256 of the texts and their split.
        shots: most demonstrations of each label in a prompt; None leaves it to the scale.
        labels: which words are written for the labels of a prompt set, one for each class that it shows.
        own: the texts are a user's file or folder, whose name says little.
        facts: where the texts come from and what was left out, for the provenance; `account` says it, in plain text.
    """

    name: str
    texts: Mapping[str, Mapping[Half, tuple[str, ...]]]
    digest: str
    shots: int | None = None
    labels: TaskLabels = field(default_factory=TaskLabels)
    own: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    account: str = ""

    @property
    def classes(self) -> int:
        """How many of the categories a prompt set shows."""
        return len(self.labels.names)

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


def load_task(name: str | Path) -> Task:
    """Load a task: `words`, a data set of sentences, or a user's own file or folder by path.

    A data set may be followed by two of its classes (`ag-news:world,sports`), and every task by the most
    demonstrations of each label, by the labels (`ag-news:world,sports:shots=2:labels=natural`), and by how many
    categories a prompt set shows, where that is not two (`words:classes=4`, `ag-news:classes=all`).

    Raises:
        UnknownNameError: neither a built-in task nor an existing file or folder.
        TaskError: the texts cannot be read or used; the message says where and what to do.
    """
    if not isinstance(name, str | Path):
        raise UnknownNameError("task", name, BUILT_IN)
    asked, options = _options(str(name))
    key, _, classes = asked.partition(":")
    shows = options.get(":classes=", "2")
    if asked == "words":
        source = resources.files(__package__) / "words.yaml"
        lists: dict[str, list[str]] = yaml.safe_load(source.read_text(encoding="utf-8"))
        number = sum(map(len, lists.values()))
        account = f"The source is our own list of {number:,} words in {len(lists)} categories; none is left out."
        task = replace(_split(asked, lists), account=account)
    elif key in datasets.SETS:
        task = _of_sentences(key, classes, many=shows != "2")
    elif is_path(asked):
        task = _own(Path(asked), tables.read(Path(asked)))
    else:
        raise UnknownNameError(
            "task", asked, BUILT_IN, hint=" (or give a CSV file with the columns text,label, or a folder)"
        )
    number = number_shown(task.name, len(task.categories), shows)
    labels = task_labels(options.get(":labels=", usual_labels(number).asked), _own_names(key), classes=number)
    said = {
        ":classes=": number if number != 2 else None,
        ":shots=": options.get(":shots="),
        ":labels=": labels.asked if not labels.usual else None,
    }
    return replace(
        task,
        name=task.name + "".join(f"{option}{value}" for option, value in said.items() if value),
        shots=int(options.get(":shots=", 0)) or task.shots,
        labels=labels,
        account=" ".join(filter(None, (task.account, labels.account()))),
    )


def _own_names(key: str) -> Mapping[str, str]:
    """What is written for the classes of a built-in task where they are called by their own names."""
    if key in datasets.SETS:
        return datasets.SETS[key].written
    return _ONE_WORD if key == "words" else {}


def find_half(name: str) -> Half:
    for half in HALVES:
        if half == name:
            return half
    raise UnknownNameError("half", str(name), HALVES)


def portable(name: str) -> str:
    """The same task's name from any working folder: a path becomes absolute."""
    asked, _ = _options(name)
    if asked.partition(":")[0] in BUILT_IN or not is_path(asked) or not Path(asked).exists():
        return name
    return f"{Path(asked).resolve()}{name.removeprefix(asked)}"


def asks_for_labels(name: str) -> bool:
    """Whether a task's name says which labels stand for its categories."""
    return ":labels=" in _options(name)[1]


def _options(name: str) -> tuple[str, dict[str, str]]:
    """A task's name without what follows it, and that: shots, labels and classes, as they were asked for."""
    found = dict[str, str]()
    while place := max(((name.rfind(option), option) for option in _OPTIONS if option in name), default=None):
        asked, option, value = name.rpartition(place[1])
        if option in found:
            raise TaskError(f"The task '{name}' says '{option.strip(':=')}' twice; say it once.")
        found[option], name = value, asked
    number = found.get(":shots=")
    if number is not None and not re.fullmatch("[1-9][0-9]{0,5}", number):
        raise TaskError(f"The task '{name}' asks for '{number[:20]}' demonstrations; give a whole number from 1.")
    shows = found.get(":classes=", "all")
    if shows != "all" and not (re.fullmatch("[1-9][0-9]{0,2}", shows) and 2 <= int(shows) <= MOST):
        raise TaskError(
            f"The task '{name}' shows '{shows[:20]}' classes; give a whole number from 2 to {MOST}, or all."
        )
    return name, found


def _of_sentences(key: str, classes: str, *, many: bool = False) -> Task:
    chosen = datasets.choose(key, classes, many=many)
    drawn = sampling.balanced(key, chosen)
    name = key if chosen == datasets.SETS[key].classes else f"{key}:{','.join(chosen)}"
    task = _split(name, drawn.texts)
    return replace(task, shots=datasets.SHOTS, facts=drawn.facts, account=datasets.account(drawn.facts))


def _own(path: Path, table: Table) -> Task:
    """A user's own rows: what is missing or repeated is left out and counted, what contradicts is an error."""
    rows, dropped = _present(table.rows)
    first: dict[str, Row] = {}
    for row in rows:
        _require_usable(row)
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
    splits = {row.split for row in rows}
    if len(splits) > 1 and "" in splits:
        raise TaskError(f"{path}, column 'split' is filled in some rows only; fill it in every row or in none.")
    texts, alike, torn = _once(first)
    if len(texts) < 2:
        found = f"only '{next(iter(texts))}'" if texts else "no rows"
        left = ", ".join(f"{number:,} {reason}" for reason, number in dropped.items())
        raise TaskError(
            f"{path}, column 'label' has {found}; at least two different labels are needed"
            + (f" (left out were {left})." if left else ".")
        )
    if splits == {""}:
        task = _split(path.name, texts)
    else:
        halves = {
            category: {half: tuple(sorted(t for t in own if first[t].split == half)) for half in HALVES}
            for category, own in texts.items()
        }
        task = _task(path.name, halves)
    counted = {"repeated": len(rows) - len(first), **({"alike": len(alike)} if alike else {}), **dropped}
    numbers = {category: len(own) for category, own in texts.items()}
    facts = {"source": path.name, "rows": len(table.rows), "dropped": counted, "texts": numbers}
    facts |= {name: list(own) for name in ("unused", "unread") if (own := getattr(table, name))}
    account = _own_account(facts, texts, alike, torn)
    return replace(task, own=True, facts=facts, account=account)


def _present(rows: Sequence[Row]) -> tuple[list[Row], dict[str, int]]:
    """The rows that have a text and a label, and how many others there are, by what they say instead."""
    present, dropped = [], Counter[str]()
    for row in rows:
        missing = next((name for name in COLUMNS if is_missing(getattr(row, name))), None)
        if missing is None:
            present.append(row)
        else:
            written = getattr(row, missing)
            dropped[f"without a {missing}" + (f" (written '{written}')" if written else "")] += 1
    return present, dict(sorted(dropped.items()))


def _once(first: Mapping[str, Row]) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """Texts by category, each in one spelling: the smallest, so that the order of rows changes nothing.

    Were two spellings in two halves, heads would be judged on texts that they were chosen on.

    Returns:
        the texts, in the order of the file; the other spellings; texts of which a spelling is in another category.
    """
    spellings: dict[tuple[str, str], list[str]] = {}
    for text, row in first.items():
        spellings.setdefault((row.label, spelt_plainly(text)), []).append(text)
    texts: dict[str, list[str]] = {}
    least = {own: min(alike) for own, alike in spellings.items()}
    for (category, _), text in least.items():
        texts.setdefault(category, []).append(text)
    times = Counter(plain for _, plain in spellings)
    torn = sorted(text for (_, plain), text in least.items() if times[plain] > 1)
    others = sorted(text for own, alike in spellings.items() for text in alike if text != least[own])
    return dict(sorted(texts.items())), others, torn


def _own_account(
    facts: Mapping[str, Any], texts: Mapping[str, Sequence[str]], alike: Sequence[str], torn: Sequence[str]
) -> str:
    """What became of the rows of a user's own task, in plain text."""
    dropped = dict(facts["dropped"])
    said = [
        f"The source is '{facts['source']}' with {facts['rows']:,} rows; {dropped.pop('repeated'):,} that say the same "
        f"as another count once with it."
    ]
    if dropped.pop("alike", 0):
        said.append(
            f"{len(alike):,} that differ from another only in case, spaces, quotes or the marks around them count "
            f"once with it, in one half: {named(alike)}."
        )
    if dropped:
        said.append(f"Left out were {', '.join(f'{number:,} {reason}' for reason, number in dropped.items())}.")
    counts = [f"{number:,} {named([name])}" for name, number in facts["texts"].items()]
    said.append(f"Its texts by category: {listed(counts, MOST_COUNTED)}.")
    if torn:
        said.append(f"In two categories, though in different spellings, are {named(torn)}.")
    names = list(facts["texts"])
    times = Counter(map(named_plainly, names))
    if near := [name for name in names if times[named_plainly(name)] > 1]:
        said.append(f"The categories {named(near)} differ only in how they are written; each counts as one of its own.")
    if perhaps := [name for name in names if is_perhaps_missing(name)]:
        said.append(
            f"Perhaps {named(perhaps)} is written where there is no label, but it counts as a category; leave the "
            f"label empty if it is none."
        )
    if marked := damaged([*(text for own in texts.values() for text in own), *names]):
        said.append(marked)
    if "unused" in facts:
        said.append(f"Not used are {len(facts['unused']):,} other columns: {named(facts['unused'])}.")
    if "unread" in facts:
        said.append(f"Not read are {len(facts['unread']):,} other files: {named(facts['unread'])}.")
    return " ".join(said)


def _require_usable(row: Row) -> None:
    for column, value in (("text", row.text), ("label", row.label)):
        if "\n" in value or "\r" in value:
            raise TaskError(f"{row.place}, column '{column}' has a line break; put each {column} on one line.")
        if found := unwritable(value):
            raise TaskError(
                f"{row.place}, column '{column}' has the character {found}, which no page can show; remove it there."
            )
        if what := computed(value):
            raise TaskError(f"{row.place}, column '{column}' has {what} ({cut(value, 40)}); write one plain {column}.")
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

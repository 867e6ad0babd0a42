"""Sentence tasks: public data sets, of which two classes make a task, or more where it asks for them.

A data set is read once from the hub. Its sentences are filtered by length and drawn with a fixed seed, and what was
drawn is kept in the cache folder: a second run needs no network and sees the same sentences. Every row that is left
out is counted by its reason, and the counts go into the provenance.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import TaskError

SHOTS = 4  # most demonstrations of each label, unless a task says otherwise: the paper has 2 to 4 with sentences


@dataclass(frozen=True)
class DataSet:
    """One row of the table of data sets.

    Attributes:
        source: hub id; `revision` and `folder` say where in it the files are, if not at the usual place.
        splits: read one after the other.
        text, label: names of the columns; labels are numbers that count through `classes`.
        pair: the two classes of the task unless others are named.
        holds: what the sentences are, for a list; `licence` is what the hub's card says of it.
        written: what is written for a class as a label of its own name, where that is no single word.
    """

    key: str
    source: str
    splits: tuple[str, ...]
    text: str
    label: str
    classes: tuple[str, ...]
    pair: tuple[str, str]
    holds: str
    licence: str
    revision: str | None = None
    folder: str | None = None
    written: Mapping[str, str] = field(default_factory=dict)


# The loading scripts of the first set are no longer read by the library: the hub's own conversion of it is.
SETS: dict[str, DataSet] = {
    row.key: row
    for row in (
        DataSet(
            "financial-phrasebank",
            "takala/financial_phrasebank",
            ("train",),
            "sentence",
            "label",
            classes=("negative", "neutral", "positive"),
            pair=("negative", "positive"),
            holds="sentences of financial news on whose mood all annotators agree",
            licence="CC BY-NC-SA 3.0",
            revision="refs/convert/parquet",
            folder="sentences_allagree",
        ),
        DataSet(
            "ag-news",
            "fancyzhx/ag_news",
            ("train",),
            "text",
            "label",
            classes=("world", "sports", "business", "sci-tech"),
            pair=("world", "sports"),
            holds="titles and first lines of news articles",
            licence="not stated",
            written={"sci-tech": "technology"},
        ),
        DataSet(
            "amazon",
            "fancyzhx/amazon_polarity",
            ("test",),
            "content",
            "label",
            classes=("negative", "positive"),
            pair=("negative", "positive"),
            holds="product reviews",
            licence="Apache-2.0",
        ),
        DataSet(
            "ethos",
            "SetFit/ethos_binary",
            ("train", "test"),
            "text",
            "label",
            classes=("no-hate-speech", "hate-speech"),
            pair=("no-hate-speech", "hate-speech"),
            holds="comments on social media",
            licence="AGPL-3.0",
            written={"no-hate-speech": "neutral", "hate-speech": "hate"},
        ),
        DataSet(
            "sst2",
            "stanfordnlp/sst2",
            ("train",),
            "sentence",
            "label",
            classes=("negative", "positive"),
            pair=("negative", "positive"),
            holds="sentences and phrases of film reviews",
            licence="not stated",
        ),
    )
}


@dataclass(frozen=True)
class Sample:
    """What was drawn from a data set: up to `SAMPLE / 2` sentences of each class, in the order of the draw.

    `facts` says where they come from and how many rows were left out for which reason.
    """

    texts: Mapping[str, tuple[str, ...]]
    facts: Mapping[str, Any]


def choose(key: str, classes: str = "", *, many: bool = False) -> tuple[str, ...]:
    """The classes that `classes` names (`world,sports`), in the data set's order; its own pair if it is empty.

    Args:
        many: there may be more than two; all of them, if none are named.

    Raises:
        TaskError: not so many different classes of this data set.
    """
    data = SETS[key]
    if not classes:
        return data.classes if many else data.pair
    known, named = ", ".join(data.classes), [name.strip().lower() for name in classes.split(",")]
    for name in named:
        if name not in data.classes:
            close = difflib.get_close_matches(name, data.classes, n=1, cutoff=0.5)
            meant = f" (did you mean '{close[0]}'?)" if close else ""
            raise TaskError(f"The task {key} has no class '{name}'{meant}; its classes are {known}.")
    if many and len(named) == len(set(named)) > 1:
        return tuple(sorted(named, key=data.classes.index))
    if len(named) != 2 or len(set(named)) != 2:
        raise TaskError(f"The task {key} needs two different classes, as in {key}:{','.join(data.pair)}, of: {known}.")
    first, second = sorted(named, key=data.classes.index)
    return first, second


def account(facts: Mapping[str, Any]) -> str:
    """What became of the rows of a data set, in plain text."""
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in facts["dropped"].items())
    names = facts["sentences"]
    *others, last = (f"{facts['left'][name]:,} '{name}'" for name in names)
    left = f"{', '.join(others)} and {last}"
    each = "the two" if len(names) == 2 else f"the {len(names)}"
    over = sum(facts["passed_over"][name] for name in names)
    number = next(iter(names.values()))
    revision = f", revision {facts['revision'][:12]}" if facts["revision"] else ""
    return (
        f"The source is '{facts['source']}' ({' and '.join(facts['splits'])}{revision}) with {facts['rows']:,} rows. "
        f"Left out were {dropped}; that leaves {left}. From each of {each} classes {number:,} were drawn at random "
        f"with a fixed seed, passing over {over:,} that are part of another sentence."
    )

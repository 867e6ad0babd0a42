"""Samples of data sets, drawn once and kept: their filter, draw and digest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import HfApi

from ..errors import TaskError
from ..hub import HUB_TIMEOUT, cache_folder, datasets_library, first_line, quiet
from .datasets import SETS, DataSet, Sample

SAMPLE = 1000  # sentences of a task, half of them of each class
WORDS = (5, 40)  # fewest and most words of a sentence, counted between spaces
_SEED = 240202872  # the sample belongs to the task, not to a run: it never changes with a run's seed


def balanced(key: str, classes: tuple[str, ...]) -> Sample:
    """The sentences of some classes of a data set, as many of one as of another.

    Raises:
        TaskError: library, network, columns or cache folder are not there; the message says what to do.
    """
    drawn = sample(SETS[key])
    number = min(len(drawn.texts[name]) for name in classes)
    texts = {name: drawn.texts[name][:number] for name in classes}
    return Sample(texts, dict(drawn.facts) | {"sentences": dict.fromkeys(classes, number)})


def sample(data: DataSet) -> Sample:
    """The sample of a data set: the one that is kept, or else a new one from the hub, which is then kept."""
    place = kept_at(data)
    kept = _read(place)
    if kept is None:
        datasets = datasets_library(f"The task {data.key}")
        commit = _commit(data)
        _require_writable(place.parent)
        print(f"{data.key}: reading {data.source} from the hub, once", file=sys.stderr, flush=True)
        drawn = draw(data, _rows(datasets, data, commit))
        kept = Sample(drawn.texts, {"source": data.source, "revision": commit, **drawn.facts})
        _write(place, kept)
    return kept


def kept_at(data: DataSet) -> Path:
    """Where the sample is kept; the name changes with all that the sample depends on, but for the hub's revision."""
    recipe = hashlib.sha256(repr((data, SAMPLE, WORDS, _SEED)).encode()).hexdigest()
    return cache_folder() / "tasks" / f"{data.key}-{recipe[:16]}.json"


def draw(data: DataSet, rows: Iterable[tuple[Any, Any]]) -> Sample:
    """Filter (text, label number) pairs and draw from each class at random, always the same from the same rows.

    A sentence that is part of another one of the sample is passed over, so that the two halves of a task never share
    words of one sentence.
    """
    classes, dropped, total = _filter(data, rows)
    texts: dict[str, tuple[str, ...]] = {}
    taken: list[str] = []
    overlapping = dict.fromkeys(data.classes, 0)
    for name in data.classes:
        ordered = sorted(classes[name])
        mine: list[str] = []
        rng = np.random.default_rng([_SEED, *f"{data.key}/{name}".encode()])
        for i in rng.permutation(len(ordered)):
            if len(mine) == SAMPLE // 2:
                break
            text = ordered[i].casefold()
            if any(text in other or other in text for other in taken):
                overlapping[name] += 1
            else:
                taken.append(text)
                mine.append(ordered[i])
        texts[name] = tuple(mine)
    facts = {
        "splits": list(data.splits),
        "rows": total,
        "dropped": dropped,
        "left": {name: len(classes[name]) for name in data.classes},
        "passed_over": overlapping,
        "drawn": {name: len(texts[name]) for name in data.classes},
    }
    return Sample(texts, facts)


def _filter(data: DataSet, rows: Iterable[tuple[Any, Any]]) -> tuple[dict[str, list[str]], dict[str, int], int]:
    """Sentences by class, how many rows were dropped for which reason, and how many there were."""
    few, many = WORDS
    short, long = f"shorter than {few} words", f"longer than {many} words"
    reasons = ("without a label", short, long, "repeated", "with two labels")
    dropped: Counter[str] = Counter(dict.fromkeys(reasons, 0))
    first: dict[str, tuple[str, str]] = {}  # sentence without case -> as written, class
    times: Counter[str] = Counter()
    torn: set[str] = set()
    total = 0
    for content, number in rows:
        total += 1
        words = str(content or "").split()
        text, key = " ".join(words), " ".join(words).casefold()
        if not isinstance(number, int) or not 0 <= number < len(data.classes):
            dropped["without a label"] += 1
        elif len(words) < few:
            dropped[short] += 1
        elif len(words) > many:
            dropped[long] += 1
        else:
            # The smallest spelling stands for all, so that the order of rows changes nothing.
            spelling, name = first.get(key, (text, data.classes[number]))
            if name != data.classes[number]:
                torn.add(key)
            first[key] = (min(spelling, text), name)
            times[key] += 1
    classes: dict[str, list[str]] = {name: [] for name in data.classes}
    for key, (text, name) in first.items():
        if key in torn:
            dropped["with two labels"] += times[key]
        else:
            dropped["repeated"] += times[key] - 1
            classes[name].append(text)
    return classes, dict(dropped), total


def _rows(datasets: Any, data: DataSet, commit: str | None) -> Iterator[tuple[Any, Any]]:
    """Stream text and label of every row; nothing is written to the disk."""
    try:
        with quiet(datasets):
            for split in data.splits:
                stream = datasets.load_dataset(
                    data.source, data_dir=data.folder, split=split, revision=commit, streaming=True
                )
                for row in stream:
                    missing = [name for name in (data.text, data.label) if name not in row]
                    if missing:
                        raise TaskError(
                            f"The data set {data.source} has no column '{missing[0]}' any more, only "
                            f"{', '.join(row)}; give its sentences as a CSV file with the columns text,label."
                        )
                    yield row[data.text], row[data.label]
    except TaskError:
        raise
    except Exception as error:  # whatever the library or its HTTP client raises
        raise TaskError(
            f"The data set {data.source} cannot be read ({first_line(error)}); look at the network and run it again, "
            f"or give its sentences as a CSV file with the columns text,label."
        ) from error


def _commit(data: DataSet) -> str | None:
    """The commit of the hub's data set; also the quick answer to whether the hub can be reached."""
    try:
        return HfApi().dataset_info(data.source, revision=data.revision, timeout=HUB_TIMEOUT).sha
    except Exception as error:  # as above
        raise TaskError(
            f"The data set {data.source} cannot be fetched from the hub ({first_line(error)}); connect to the network "
            f"once, or give its sentences as a CSV file with the columns text,label."
        ) from None


def _read(place: Path) -> Sample | None:
    """A sample that was kept; None if there is none or it is damaged."""
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
        texts = {name: tuple(own) for name, own in record["texts"].items()}
        whole = record["sha256"] == _digest(texts, record["facts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Sample(texts, record["facts"]) if whole else None


def _write(place: Path, drawn: Sample) -> None:
    record = {"sha256": _digest(drawn.texts, drawn.facts), "facts": drawn.facts, "texts": drawn.texts}
    temporary = place.with_suffix(f".{os.getpid()}")
    try:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(place)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _folder_error(place.parent, error) from error


def _digest(texts: Mapping[str, tuple[str, ...]], facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([texts, facts], sort_keys=True).encode()).hexdigest()


def _require_writable(folder: Path) -> None:
    """Say before anything is fetched that it could not be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b" ")
    except OSError as error:
        raise _folder_error(folder, error) from error


def _folder_error(folder: Path, error: OSError) -> TaskError:
    return TaskError(
        f"The sentences cannot be kept in {folder} ({error.strerror}); free space there or set TWOTOWERS_CACHE to "
        f"another folder."
    )

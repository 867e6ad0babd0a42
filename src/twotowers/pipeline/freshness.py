"""Whether a chapter of a run is up to date, and if not, why."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..chapters.registry import READS
from ..study import Study

ENDINGS = ("svg", "png", "csv", "json")  # the files of a figure
PACKAGE = Path(__file__).parents[1]
# No result of a chapter depends on the command, the benchmark, the training of the toy, and how chapters are run.
APART = ("bench", "toy", "pipeline", "cli.py")


def entry_of(digest: str, seconds: float, figures: Sequence[str], study: Study) -> dict[str, Any]:
    """What the record says of a chapter."""
    return {
        "digest": digest,
        "seconds": round(seconds, 1),
        "figures": list(figures),
        "scale": study.scale.name,
        "task": study.task.name,
        "seed": study.seed,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def digest_of(root: Path, chapter: str, study: Study, folder: Path) -> str:
    """What decides whether a chapter is up to date: its text, parameters, model, data, our code, and what it reads."""
    read = sorted(folder.glob(READS[chapter])) if chapter in READS else []
    code = [*digests([source_of(root, chapter)]), *code_digests(lambda wing: wing not in APART), *digests(read)]
    facts = [code, study.model.provenance(), study.task.digest, repr(study.scale), study.seed]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def code_digests(counts: Callable[[str], bool]) -> list[str]:
    """SHA-256 of the modules of the package, of those wings (or single files at its top) that count."""
    return digests(file for file in sorted(PACKAGE.rglob("*.py")) if counts(file.relative_to(PACKAGE).parts[0]))


def digests(files: Iterable[Path]) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def source_of(root: Path, chapter: str) -> Path:
    return root / "book" / "chapters" / f"{chapter}.md"


def up_to_date(folder: Path, entry: Mapping[str, Any], digest: str, chapter: str) -> bool:
    figures = [folder / "figures" / f"{f}.{ending}" for f in entry.get("figures", ()) for ending in ENDINGS]
    files = [folder / f"{chapter}.ipynb", *figures]
    return entry.get("digest") == digest and all(file.is_file() for file in files)

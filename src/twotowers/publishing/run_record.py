"""What the record of a run, `run.json`, may say: it may be a stranger's, so nothing is believed that is not checked.

The files that it names are those of the run's own folder: they are read, published, moved and removed by these names.
"""

from __future__ import annotations

import datetime
import json
import re
from pathlib import PurePosixPath
from typing import Any

FORMAT = 2
EMPTY: dict[str, Any] = {"format": FORMAT, "run": {}, "check": {}, "chapters": {}, "moving": {}}

_TEXTS = ("title", "model", "kind", "identity", "task", "scale")  # of what the run is of
LARGEST = 10**15  # of anything that is counted
_SHA = re.compile("[0-9a-f]{64}")


class NewerError(ValueError):
    """A record of a later version than this one."""


def parsed(text: str) -> dict[str, Any]:
    """The record that is written in a text.

    Raises:
        NewerError: a later version has written it.
        ValueError: it is none, or says something that no run writes.
    """
    try:
        record = json.loads(text)
        json.dumps(record, ensure_ascii=False).encode()  # half a pair of UTF-16 can be read, but no page can be written
    except RecursionError:
        raise ValueError("too deep") from None
    _require(isinstance(record, dict))
    form = record.get("format")
    if isinstance(form, int) and FORMAT < form < LARGEST:
        raise NewerError(f"was written by a later version of Two Towers (format {form}); update this one, or")
    _require(form == FORMAT)
    _require(all(isinstance(record.get(name), dict) for name in ("run", "check", "chapters")))
    record = {**EMPTY, **record}
    _require_facts(record["run"])
    _require(isinstance(record["check"].get("digest", ""), str))
    for entry in record["chapters"].values():
        _require_entry(entry)
    _require(isinstance(record["moving"], dict))
    for files in record["moving"].values():
        _require(isinstance(files, list) and all(map(_is_own, files)))
    return record


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("this is no record of a run")


def _require_facts(facts: dict[str, Any]) -> None:
    _require(all(isinstance(facts.get(name, ""), str) for name in _TEXTS))
    seed, loading = facts.get("seed", 0), facts.get("loading", {})
    _require(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0)
    _require(isinstance(loading, dict))
    _require(all(isinstance(way, bool if name == "remote" else str) for name, way in loading.items()))
    _require(isinstance(facts.get("own_task", False), bool))


def _require_entry(entry: Any) -> None:
    """One chapter: what made it and what that took, and its files with their digests."""
    _require(isinstance(entry, dict) and isinstance(entry.get("files"), dict))
    for file, digest in entry["files"].items():
        _require(_is_own(file) and isinstance(digest, str) and bool(_SHA.fullmatch(digest)))
    made_of = entry.get("made_of")
    _require(isinstance(made_of, dict) and all(isinstance(made_of.get(name), dict) for name in ("results", "look")))
    date = entry.get("date")
    _require(isinstance(date, str) and bool(date) and _is_number(entry.get("seconds")))
    datetime.datetime.fromisoformat(date)
    if "cost" in entry:
        _require_cost(entry["cost"])


def _require_cost(cost: Any) -> None:
    """What a chapter took of which machine."""
    _require(isinstance(cost, dict) and isinstance(cost.get("machine"), dict) and _is_number(cost.get("jobs")))
    machine: dict[str, Any] = cost["machine"]
    _require(cost.get("peak_memory") is None or _is_number(cost["peak_memory"]))
    _require(isinstance(machine.get("processor"), str) and isinstance(machine.get("gpu") or "", str))
    _require(all(_is_number(machine.get(name)) for name in ("cores", "memory")))


def _is_number(value: Any) -> bool:
    """Whether it is a number, not below zero, that can be counted with: of seconds, bytes or cores."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _is_own(file: Any) -> bool:
    """Whether a name can be that of a file in a run's folder, by the layout of `run_folder`."""
    if not isinstance(file, str) or not file.isprintable() or "\\" in file:
        return False
    parts = PurePosixPath(file).parts
    return "/".join(parts) == file != "" and not any(part in ("/", "..") or part.startswith(".") for part in parts)

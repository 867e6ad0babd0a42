"""The record of a figure: what it is of, what made it, and of which data; the same fields for every figure.

It is written beside the figure as JSON and, in short, into the files of the picture, so that one that has left its page
still says where it is from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DamagedRunError
from .citing import Citation, project
from .markdown import plain
from .run_folder import digest_of

# Of what made a figure; null where that does not apply. What else is known of it stands under `settings`.
FIELDS = (
    "model", "family", "revision", "weights_sha256", "quantised", "dtype", "device", "task", "task_sha256",
    "task_source", "shots", "template", "scale", "seed", "specification_sha256", "packages", "git_commit", "command",
    "date",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a figure is shown.

    Attributes:
        page: its page, from the top of the site.
        anchor: without the `fig-` that all anchors of figures begin with.
        run: the name of its run; None if it belongs to none.
    """

    page: str
    anchor: str
    run: str | None = None


def figure_record(
    figure_id: str, place: Place, facts: Mapping[str, Any], tables: Mapping[str, Path], values: Mapping[str, Any]
) -> dict[str, Any]:
    """The provenance of a figure, all fields of it.

    Args:
        facts: what made it; what is none of `FIELDS` goes under `settings`.
        tables: the files of its numbers, by the names under which they are published.
        values: what else it is drawn from, as JSON.
    """
    data = {name: digest_of(file) for name, file in tables.items()}
    if values:
        data["values"] = _sha(values)
    record = {"figure": figure_id, "run": place.run, "page": place.page, "anchor": f"fig-{place.anchor}"}
    record |= {name: facts.get(name) for name in FIELDS}
    settings = {name: value for name, value in facts.items() if name not in (*FIELDS, "figure")}
    return record | {
        "settings": settings, "licence": project().licence, "data": data, "data_sha256": _sha(data)
    }  # fmt: skip


# What is made of them, as a key of BibTeX, has no place for anything else.
_PATTERNS = {"anchor": r"fig-[\w-]+", "data_sha256": "[0-9a-f]{64}", "date": r"(\d{4}-\d{2}-\d{2}(T[\d:.+-]+)?)?"}
_NO_TEXTS = ("task_source", "shots", "seed", "packages")
_TEXTS = ("figure", "page", "anchor", "data_sha256")


def told_of_figure(text: str | bytes, file: str) -> dict[str, Any]:
    """Caption, alt text and provenance of a figure, from what stands beside it in JSON, which may be a stranger's.

    Args:
        file: with its run's name, for the message.

    Raises:
        DamagedRunError: it is not what is written beside a figure, or not all of it.
    """
    try:
        told = dict(json.loads(text))
        made, named = told["provenance"], [made for name, made in told["provenance"].items() if name in FIELDS]
        whole = len(named) == len(FIELDS) and all(isinstance(told[name], str) for name in ("caption", "alt"))
        whole = whole and all(isinstance(made[name], str) for name in _TEXTS)
        whole = whole and all(isinstance(made[name] or "", str) for name in FIELDS if name not in _NO_TEXTS)
        whole = whole and all(isinstance(said or {}, dict) for said in (made["packages"], made["settings"]))
        whole = whole and all(re.fullmatch(pattern, made[name] or "") for name, pattern in _PATTERNS.items())
        by = (made["settings"].get("contributed") or {"by": None})["by"]
        whole = whole and isinstance(by or "", str)
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise DamagedRunError(
            f"{file} is not what this version writes beside a figure; run the model again to draw it anew."
        )
    return told


def inside(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What is written into the files of a picture, by their endings, as `savefig` takes it.

    Nothing in it tells when the file was drawn: two drawings of the same data are the same, byte by byte.
    """
    cited = Citation(record)
    title, author, rights = plain(cited.title), "; ".join(cited.project.authors), cited.project.licence
    about, source = plain(". ".join([f"In: {cited.project.title}", *cited.details])), plain(record["command"] or "")
    date = str(record["date"] or "")[:10]
    return {
        "svg": {
            "Title": title, "Creator": author, "Description": about, "Identifier": cited.key, "Source": source,
            "Rights": rights, "Date": date or None, "Keywords": [str(record["figure"]), plain(record["model"])],
        },
        "png": {
            "Title": title, "Author": author, "Description": about, "Source": source, "Copyright": rights,
            "Comment": cited.key,
        },
        "pdf": {
            "Title": title, "Author": author, "Subject": f"{about}. Made by: {source}. Licence: {rights}",
            "Keywords": cited.key, "CreationDate": None,
        },
    }  # fmt: skip


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

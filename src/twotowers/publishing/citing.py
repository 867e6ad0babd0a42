"""How a figure is cited: from its record, as BibTeX, as RIS and in words.

Who is cited, and where the project is to be found, stands in `CITATION.cff` alone.
"""

from __future__ import annotations

import functools
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .markdown import plain
from .run_folder import project_root

SOURCE = "CITATION.cff"
SHORT = 8  # digits of a digest that a citation's key ends with
LONG = 16  # digits of a digest within a citation: enough to find a file by

# TeX's own characters. Braces have names: BibTeX counts them also behind a backslash.
_TEX = {
    "\\": r"\textbackslash{}", "{": r"\textbraceleft{}", "}": r"\textbraceright{}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", **{character: f"\\{character}" for character in "%&#$_"},
}  # fmt: skip


@dataclass(frozen=True)
class Project:
    """Who and what is cited: `site` and `repository` are addresses, empty as long as there are none."""

    authors: tuple[str, ...]
    title: str
    version: str
    year: str
    licence: str
    site: str
    repository: str


def project() -> Project:
    """As the project says of itself.

    Raises:
        RunFolderError: there is no book here.
    """
    file = project_root() / SOURCE
    return _read(file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(file: Path, changed: int) -> Project:
    said = yaml.safe_load(file.read_text(encoding="utf-8"))
    return Project(
        authors=tuple(_name(author) for author in said["authors"]),
        title=said["title"],
        version=str(said["version"]),
        year=str(said["date-released"])[:4],
        licence=said["license"],
        site=said.get("url", "").rstrip("/"),
        repository=said.get("repository-code", "").rstrip("/"),
    )


def _name(author: Mapping[str, str]) -> str:
    return author.get("name") or f"{author['family-names']}, {author['given-names']}"


class Citation:
    """What is cited of a figure.

    Args:
        record: its provenance, as `record.figure_record` makes it.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record, self.project = record, project()

    @property
    def key(self) -> str:
        """Of a citation manager: another one if the figure's data are others."""
        anchor = self.record["anchor"].removeprefix("fig-")
        return f"twotowers-{anchor}:{self.record['data_sha256'][:SHORT]}"

    @property
    def title(self) -> str:
        task = f", task {self.record['task']}" if self.record["task"] else ""
        return f"Figure {self.record['figure']}, model {self.record['model']}{task}"

    @property
    def version(self) -> str:
        """Of the package that computed the figure's numbers."""
        return str((self.record["packages"] or {}).get("twotowers") or self.project.version)

    @property
    def date(self) -> str:
        """On which the numbers were computed, as 2026-11-25; empty if that is not known."""
        return str(self.record["date"] or "")[:10]

    @property
    def year(self) -> str:
        return self.date[:4] or self.project.year

    @property
    def url(self) -> str:
        """Of the figure on the site, else of the repository; empty as long as there is neither."""
        site = self.project.site
        return f"{site}/{self.record['page']}#{self.record['anchor']}" if site else self.project.repository

    @property
    def details(self) -> list[str]:
        """What a reader needs to find or make the very same figure, a few words each."""
        made = self.record
        weights = f"weights sha256:{made['weights_sha256'][:LONG]}" if made["weights_sha256"] else ""
        revision, quantised = str(made["revision"] or ""), made["quantised"]
        version = "" if revision.startswith("sha256:") else revision and f"revision {revision}"  # else said twice
        named = [f"model {made['model']}", version, weights, f"quantised {quantised}" if quantised else ""]
        given = {name: made[name] for name in ("task", "seed", "scale") if made[name] is not None}
        contributed = made.get("settings", {}).get("contributed")
        by = contributed and (contributed["by"] or "somebody who gives no name")
        parts = [
            f"Run contributed by {by}" if by else "",
            f"Version {self.version}" + (f", commit {made['git_commit']}" if made["git_commit"] else ""),
            _capital(", ".join(filter(None, named))),
            _capital(", ".join(f"{name} {value}" for name, value in given.items())),
            f"Computed on {self.date}" if self.date else "",
            f"Data sha256:{made['data_sha256'][:LONG]}",
        ]
        return [part for part in parts if part]


def bibtex(record: Mapping[str, Any]) -> str:
    """As an entry of BibTeX."""
    cited = Citation(record)
    names = [tex(name) if "," in name else f"{{{tex(name)}}}" for name in cited.project.authors]  # braces: one whole
    fields = {
        "author": " and ".join(names),
        "title": f"{{{tex(cited.title)}}}",
        "howpublished": f"In: {tex(cited.project.title)}",
        "year": cited.year,
        "version": tex(cited.version),
        "note": tex(". ".join(cited.details)),
        "url": _address(cited.url),
    }
    width = max(map(len, fields))
    lines = [f"  {name:{width}} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{cited.key},", *lines, "}"])


def ris(record: Mapping[str, Any]) -> str:
    """As an entry of RIS."""
    cited = Citation(record)
    fields = [
        ("TY", "FIGURE"),
        *(("AU", name) for name in cited.project.authors),
        ("TI", cited.title),
        ("T2", cited.project.title),
        ("PY", cited.year),
        ("DA", cited.date.replace("-", "/")),
        ("ET", cited.version),
        ("ID", cited.key),
        *(("N1", part) for part in cited.details),
        ("UR", _address(cited.url)),
    ]
    return "\n".join([*(f"{tag}  - {_line(value)}" for tag, value in fields if value), "ER  - "])


def text(record: Mapping[str, Any]) -> str:
    """In words, on one line."""
    cited = Citation(record)
    where = f" {_address(cited.url)}" if cited.url else ""
    return _line(
        f"{'; '.join(cited.project.authors)} ({cited.year}). {cited.title}. In: {cited.project.title}. "
        f"{'. '.join(cited.details)}.{where}"
    )


FORMATS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "bibtex": ("BibTeX", bibtex),
    "ris": ("RIS", ris),
    "text": ("Text", text),
}


def tex(words: str) -> str:
    """A text on one line in which TeX finds nothing of its own."""
    return "".join(_TEX.get(character, character) for character in _line(words))


def _line(words: str) -> str:
    return plain(words)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _address(url: str) -> str:
    """An address in which no character ends a field."""
    return urllib.parse.quote(url, safe=":/?#[]@!$&'()*+,;=~%")

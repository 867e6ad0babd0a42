"""Pages about all runs: the answers on the first page, the atlas, and every figure of all models side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..chapters.claims.page import COUNTS
from ..chapters.registry import CHAPTERS
from ..publishing.findings import answer
from ..publishing.ledger import atlas
from ..publishing.markdown import escape
from .pages import Published

CENTRAL = ("towers", "towers-exchange")  # the figure that the account stands or falls with


def home(runs: Sequence[Published], book: Path) -> str:
    """For every model whether the account holds, and the way in; the central figure of the first that has it."""
    parts = []
    for own in runs:
        links = [f"[{own.title_of(own.chapters[0])}](runs/{own.name}/{own.chapters[0]}.ipynb)"]
        links += [f"[The ledger of claims](runs/{own.name}/claims.ipynb)"] if "claims" in own.chapters else []
        said = [answer(own.model, own.verdicts), COUNTS.write(own.ledger), " · ".join(links)]
        parts += [f"### {escape(own.title)}", ":::{div} finding\n" + "\n\n".join(said) + "\n:::"]
    chapter, figure = CENTRAL
    having = [own for own in runs if chapter in own.chapters and figure in own.pictures(chapter)]
    return "\n\n".join(parts + ([_central(having[0], book)] if having else []))


def _central(own: Published, book: Path) -> str:
    chapter, figure = CENTRAL
    stem = f"runs/{own.name}/{own.pictures(chapter)[figure]}"
    record = json.loads((book / f"{stem}.json").read_text(encoding="utf-8"))
    return (
        f"### The central test\n\n```{{image}} {stem}.svg\n:alt: {record['alt']}\n```\n\n"
        f":::{{div}} figure-words\n{escape(own.title)}: {record['caption']} "
        f"[More of it](#fig-{own.name}-{figure}).\n:::"
    )


def atlas_page(runs: Sequence[Published]) -> str:
    """Forests side by side, then the table."""
    having = [own for own in runs if "claims" in own.chapters]
    cards = [
        f":::{{grid-item}}\n**{escape(own.title)}**\n\n"
        f"```{{image}} runs/{own.name}/figures/claims-forest.svg\n:alt: {_alt(own)}\n```\n:::"
        for own in having
    ]
    forests = "::::{grid} 1 1 2 2\n" + "\n".join(cards) + "\n::::" if cards else ""
    ledgers = {escape(own.title): own.ledger for own in runs}
    return f"{forests}\n\n{atlas(ledgers, {escape(own.title): own.links for own in runs})}"


def _alt(own: Published) -> str:
    return f"Forest plot of the claims on {escape(own.title)}; the table below has its numbers."


def compare(runs: Sequence[Published], book: Path) -> str:
    """Every figure of every chapter, of all models that have it, side by side."""
    return "\n\n".join(_of_chapter(chapter, runs, book) for chapter in CHAPTERS if _figures(chapter, runs))


def _figures(chapter: str, runs: Sequence[Published]) -> list[str]:
    found = [figure for own in runs if chapter in own.chapters for figure in own.pictures(chapter)]
    return list(dict.fromkeys(found))


def _of_chapter(chapter: str, runs: Sequence[Published], book: Path) -> str:
    title = next(own.title_of(chapter) for own in runs if chapter in own.chapters)
    parts = [f"(compare-{chapter})=\n## {title}"]
    for figure in _figures(chapter, runs):
        cards = [_card(own, chapter, figure, book) for own in runs if chapter in own.chapters]
        parts += [f"### `{figure}`", "::::{grid} 1 1 2 2\n" + "\n".join(cards) + "\n::::"]
    return "\n\n".join(parts)


def _card(own: Published, chapter: str, figure: str, book: Path) -> str:
    pictures = own.pictures(chapter)
    if figure not in pictures:
        return f":::{{grid-item}}\n**{escape(own.title)}**\n\nThis run does not have the figure.\n:::"
    stem = f"runs/{own.name}/{pictures[figure]}"
    alt = json.loads((book / f"{stem}.json").read_text(encoding="utf-8"))["alt"]
    return (
        f":::{{grid-item}}\n[{escape(own.title)}](#fig-{own.name}-{figure})\n\n"
        f"```{{image}} {stem}.svg\n:alt: {alt}\n```\n:::"
    )

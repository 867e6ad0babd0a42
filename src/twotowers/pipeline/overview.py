"""Pages about all runs: the answers on the first page, the atlas, and every figure of all models side by side."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..chapters.registry import CHAPTERS
from ..chapters.towers.exchange_page import EXCHANGE, FOUND
from ..models.registry import REGISTRY
from ..publishing.findings import CORE, answer, beyond, claims_of
from ..publishing.ledger import atlas, badge
from ..publishing.markdown import escape, option, stacked, table_text
from ..publishing.publish import narrow_file
from ..publishing.run_folder import figure_stem
from ..statistics import SUPPORTED
from ..toy.page import NAME as TOY
from .costs import in_words
from .explore import TITLE
from .pages import LOOK, LOOK_IN, Published
from .same_axes import drawn_alike

BESIDE, BELOW = "1 1 2 2\n:gutter: 1\n", "1"  # columns of a grid by how wide the page is, close to each other
CENTRAL = ("towers", EXCHANGE.id)  # the figure that the account stands or falls with
MEASURES = {
    "task": "accuracy by number of demonstrations and by prompt template",
    "locate": "what each layer and head adds to the label's log-probability",
    "knockout": "accuracy with heads removed, beside random heads of the same layers",
    "shallow": "the margin with the classes exchanged layer by layer; accuracy with attention cut; a probe for the "
    "category",
    "values": "the labels in value vectors, and whole heads read in words",
    "towers": "the margin with queries, keys or values exchanged between the classes; attention and q·k as a test of "
    "*same class*",
    "imbalance": "answers by the share of a label, with and without heads that count; remedies",
    "order": "what the last labels do, with and without position in the heads; attention by place",
    "claims": "the paper's claims, each with effect, interval and verdict",
}


def home(runs: Sequence[Published]) -> str:
    """For every model whether the account holds, and the way in; the central figure of the first that has it."""
    parts = []
    for own in runs:
        links = [f"[{own.title_of(own.chapters[0])}](runs/{own.name}/{own.chapters[0]}.ipynb)"]
        links += [f"[The ledger of claims](runs/{own.name}/claims.ipynb)"] if "claims" in own.chapters else []
        links += [f"[{TITLE}](runs/{own.name}/{LOOK}.md)"] if own.has(LOOK) else []
        links += ["[How it was trained](toy.md)"] if own.name == TOY and own.contributed is None else []
        said = [about(own.name), answer(own.model, own.verdicts), over_seeds(own.by_seed), beyond(own.verdicts)]
        said = [*filter(None, said), " · ".join(links)]
        parts += [f"### {escape(own.title)}", ":::{div} finding\n" + "\n\n".join(said) + "\n:::"]
    chapter, figure = CENTRAL
    having = [own for own in runs if chapter in own.chapters and figure in own.pictures(chapter)]
    return "\n\n".join(parts + ([_central(having[0])] if having else []))


def about(name: str) -> str:
    """What the model of a run is that has the name of a registry key; nothing of others."""
    if name not in REGISTRY:
        return ""
    entry = REGISTRY[name]
    return f"A model with {in_words(entry.parameters)} weights, of the family `{entry.family}`."


def over_seeds(table: pd.DataFrame) -> str:
    """With how many seeds each step of the answer is supported; nothing where there is one seed only.

    Args:
        table: `seed, claim, verdict`; empty where nothing is known.
    """
    seeds = sorted(set(table.get("seed", ())))
    if len(seeds) < 2:
        return ""
    held = table[table["verdict"] == SUPPORTED].groupby("claim")["seed"].nunique()
    steps = ", ".join(f"{name} with {held.get(name, 0)}" for name in CORE)
    return f"Of {len(seeds)} seeds ({', '.join(map(str, seeds))}), steps are supported: {steps}."


def chapters_of(own: Published) -> str:
    """The questions of a run's chapters, what answers them, and the verdicts that they came to."""
    rows = []
    for chapter in own.chapters:
        verdicts = [
            f"{badge(own.verdicts[name].verdict)} {name}" for name in claims_of(chapter) if name in own.verdicts
        ]
        question = f"[{own.title_of(chapter)}](runs/{own.name}/{chapter}.ipynb)"
        rows.append((question, MEASURES[chapter], " ".join(verdicts)))
    return stacked(table_text(("question", "what it measures", f"in {own.model}"), rows))


def _central(own: Published) -> str:
    chapter, figure = CENTRAL
    stem = f"runs/{own.name}/{own.pictures(chapter)[figure]}"
    caption, alt = own.words(chapter, figure)
    found = own.said(chapter, FOUND)
    return (f"### The central test\n\n{escape(own.title)}: {found}\n\n" if found else "### The central test\n\n") + (
        f"```{{image}} {stem}.svg\n:alt: {option(alt)}\n```\n\n"
        f":::{{div}} figure-words\n{escape(own.title)}: {caption} "
        f"[More of it](#fig-{own.name}-{figure}).{_look_in(own)}\n:::"
    )


def _look_in(own: Published) -> str:
    return f" {LOOK_IN.format(f'runs/{own.name}/{LOOK}.md')}" if own.has(LOOK) else ""


def atlas_page(runs: Sequence[Published]) -> str:
    """Forests side by side, then the table."""
    having = [own for own in runs if "claims" in own.chapters]
    cards = [
        f":::{{grid-item}}\n**{escape(own.title)}**\n\n"
        f"```{{image}} runs/{own.name}/{narrow_file(figure_stem(own.name, 'claims-forest'))}\n"
        f":alt: {option(_alt(own))}\n```\n:::"
        for own in having
    ]
    forests = f"::::{{grid}} {BESIDE}\n" + "\n".join(cards) + "\n::::" if cards else ""
    ledgers = {escape(own.title): own.ledger for own in runs}
    table = atlas(ledgers, {escape(own.title): own.links for own in runs})
    handed_in = [f"{escape(own.title)}: {own.contributed.said}" for own in runs if own.contributed]
    return "\n\n".join([forests, table, *handed_in])


def _alt(own: Published) -> str:
    return f"Forest plot of the claims on {own.title}; the table below has its numbers."


def compare(runs: Sequence[Published], book: Path, kept: Path) -> str:
    """Every figure of every chapter, of all models that have it, side by side, or below each other if it needs room.

    Args:
        kept: where pictures with common axes stay from one build to the next.
    """
    return "\n\n".join(_of_chapter(chapter, runs, book, kept) for chapter in CHAPTERS if figures_of(chapter, runs))


def figures_of(chapter: str, runs: Sequence[Published]) -> dict[str, list[Published]]:
    """The figures of a chapter, each with the runs that have it."""
    found: dict[str, list[Published]] = {}
    for own in runs:
        for figure in own.pictures(chapter) if chapter in own.chapters else ():
            found.setdefault(figure, []).append(own)
    return found


def _of_chapter(chapter: str, runs: Sequence[Published], book: Path, kept: Path) -> str:
    title = next(own.title_of(chapter) for own in runs if chapter in own.chapters)
    parts = [f"(compare-{chapter})=\n## {title}"]
    for figure, having in figures_of(chapter, runs).items():
        alike = drawn_alike(figure, chapter, having, kept)
        cards = [_card(own, figure, _picture(own, chapter, figure, alike, book)) for own in having]
        lacking = ", ".join(escape(own.title) for own in runs if own not in having)
        fit = all((book / "runs" / own.name / narrow_file(figure_stem(own.name, figure))).is_file() for own in having)
        parts += [f"### `{figure}`", f"::::{{grid}} {BESIDE if fit else BELOW}\n" + "\n".join(cards) + "\n::::"]
        parts += ["Each with axes of its own."] if len(having) > 1 and not alike else []
        parts += [f"Not of {lacking}."] if lacking else []
    return "\n\n".join(parts)


def _picture(own: Published, chapter: str, figure: str, alike: Sequence[Path], book: Path) -> tuple[str, str]:
    """Place in the book, and alt text, of a figure of one run: with the axes of all, where it was drawn so."""
    stem = f"runs/{own.name}/{own.pictures(chapter)[figure]}"
    _, alt = own.words(chapter, figure)
    common = [path for path in alike if path.name.startswith(f"{own.name}-{figure}-")]
    if not common:
        return (narrow_file(stem) if (book / narrow_file(stem)).is_file() else f"{stem}.svg"), alt
    place = book / "_compare" / common[0].name
    place.parent.mkdir(exist_ok=True)
    shutil.copy2(common[0], place)
    return f"_compare/{place.name}", alt


def _card(own: Published, figure: str, picture: tuple[str, str]) -> str:
    place, alt = picture
    return (
        f":::{{grid-item}}\n[{escape(own.title)}](#fig-{own.name}-{figure})\n\n"
        f"```{{image}} {place}\n:alt: {option(alt)}\n```\n:::"
    )

"""The page of a run on which a reader looks into its heads: a prompt, a head, an exchange, a token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..chapters.towers.explore_page import EXPLORE
from ..publishing.markdown import escape, option
from .contributed import notice
from .freshness import State
from .pages import LOOK, Published, page_bar

TITLE = "Look into the heads"


def stage_look(book: Path, own: Published, others: Sequence[Published], state: State | None) -> None:
    """Write the page into the staged book, if the run has what it shows.

    Args:
        others: all runs of the site, in the order of its sidebar; the own among them.
        state: why the chapter that it is made of is not up to date, where it is published nevertheless.
    """
    if own.has(LOOK):
        text = look_page(own, others, state)
        (book / "runs" / own.name / f"{LOOK}.md").write_text(text, encoding="utf-8")


def look_page(own: Published, others: Sequence[Published], state: State | None = None) -> str:
    """MyST text of the page."""
    still = own.pictures("towers")[EXPLORE.id]
    caption, alt = own.words("towers", EXPLORE.id)
    parts = [
        f"# {TITLE} [{escape(own.title)}]{{.page-model}}",
        page_bar(own, LOOK, others),
        notice(own.contributed) if own.contributed else "",
        f"```{{warning}}\nThis page is {escape(state)}.\n```" if state else "",
        _INTRODUCTION,
        f"::::{{div}} explore-still\n```{{image}} {still}.svg\n:alt: {option(alt)}\n```\n",
        f"{caption} {_ALONE}\n::::",
        f"```{{raw}} html\n{own.explored}\n```",
        _EXPLANATION.format(run=own.name, figure=EXPLORE.id),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


_INTRODUCTION = """
Each line is a demonstration, the last one is the query. An arc shows how much a head looks from the last position at a
label; the shade of a token, how much it looks there. Choose a query, a head and what is exchanged between the classes,
as in the [chapter on query and key](towers.ipynb), and point at a token, or move over the tokens with the arrow keys.
"""
_ALONE = "Without scripts, the tables are of the same prompt and head."
_EXPLANATION = """
:::{{admonition}} What the columns say
:class: dropdown
- **Attention** is the weight with which the last position looks at the label, after the exchange that is chosen.
- **q·k** is the score that enters the softmax, {{eq}}`eq-attention`, with nothing exchanged.
- **Value says** is the label whose logit the value at this place would raise over the other's, and by how much, not
  weighted, {{eq}}`eq-logit-minus`; of more than two labels, its own over the mean of the others, or they over it.
- **Moves the margin by** is what arrives from there, to first order, by the gradient of the whole model: positive is
  towards the right label.
- **Margins** are computed anew for every exchange, {{eq}}`eq-exchange`. The probability is between the two labels; of
  more, between the right one and that to which the query is to be moved, which is chosen with it.

The heads: in-context heads of this run; the deep head with the largest AUC on the selection half, and those whose
exchange score is lowest and in the middle, where they are others.
:::

The numbers are those of [the figure of single prompts](#fig-{run}-{figure}), where they can be downloaded and cited.
"""

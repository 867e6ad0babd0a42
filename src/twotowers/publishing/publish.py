"""Publish a figure: vector and picture, the plotted numbers, caption, alt text and provenance.

Runs inside a chapter's kernel. Files go to `figures/` of the folder named by TWOTOWERS_RUN (set by the pipeline), so
that `figures/<id>.svg` is right for the executed chapter beside it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from ..study import Study
from .provenance import provenance
from .run_folder import run_folder


def publish(study: Study, figure_id: str, figure: Figure, table: pd.DataFrame, *, caption: str, alt: str) -> None:
    """Write `figures/<id>.svg|.png|.csv|.json` and show the figure on the page with its anchor and files.

    Args:
        table: the plotted values, a row each.
        caption: what is compared, with numbers that were computed; MyST Markdown.
        alt: what the picture shows, for those who cannot see it; plain text.
    """
    facts = {"figure": figure_id} | provenance(study)
    caption, alt = write_figure(
        run_folder() / "figures", figure_id, figure, table, caption=caption, alt=alt, facts=facts
    )
    say(figure_text(f"{study.model.key}-{figure_id}", f"figures/{figure_id}", figure_id, caption, alt))


def write_figure(
    folder: Path, figure_id: str, figure: Figure, table: pd.DataFrame, *, caption: str, alt: str, facts: dict[str, Any]
) -> tuple[str, str]:
    """Write `<id>.svg|.png|.csv|.json` into a folder; returns caption and alt text, each on one line."""
    folder.mkdir(parents=True, exist_ok=True)
    caption, alt = " ".join(caption.split()), " ".join(alt.split())
    with mpl.rc_context({"svg.hashsalt": figure_id, "svg.fonttype": "path"}):
        figure.savefig(folder / f"{figure_id}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{figure_id}.png", dpi=200)
    table.to_csv(folder / f"{figure_id}.csv", index=False, float_format="%.6g")
    record = {"caption": caption, "alt": alt, "provenance": facts}
    (folder / f"{figure_id}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return caption, alt


def figure_text(anchor: str, stem: str, figure_id: str, caption: str, alt: str) -> str:
    """MyST text that shows the figure whose files begin with `stem`, with its anchor `fig-<anchor>` and its files."""
    endings = (("vector", "svg"), ("picture", "png"), ("numbers", "csv"), ("caption and provenance", "json"))
    files = " · ".join(f"{{download}}`{text} <{stem}.{ending}>`" for text, ending in endings)
    return (
        f"```{{figure}} {stem}.svg\n:name: fig-{anchor}\n:alt: {alt}\n\n{caption}\n```\n\n"
        f":::{{div}} figure-files\n`{figure_id}` · {files} · [cite](#cite-figure)\n:::"
    )


def say(text: str) -> None:
    """Show computed MyST text on the page."""
    display(Markdown(text))


def run_note(study: Study) -> None:
    """What was run: the note at the head of every chapter."""
    scale, facts = study.scale, provenance(study)
    text, separator = study.evaluation[0].prompts[0], facts["task"]
    lines = [
        f"Model `{facts['model']}` ({facts['family']} family, {facts['dtype']}, {facts['device']}; weights "
        f"`{facts['weights_sha256'][:12]}`), task `{separator}`, scale `{scale.name}`, seed {study.seed}.",
        f"Heads are selected on {scale.selection_sets} demonstration sets; everything is reported on "
        f"{scale.evaluation_sets} others, of other texts: {scale.evaluation_sets * scale.queries} prompts of "
        f"{scale.shots} demonstrations a label (the first has {len(text.ids)} tokens).",
        f"Run on {facts['date'][:10]} with twotowers {facts['packages']['twotowers']}, PyTorch "
        f"{facts['packages']['torch']}, nnsight {facts['packages']['nnsight']}. Repeat it with `{facts['command']}`.",
    ]
    say(":::{admonition} This run\n:class: run-note\n" + "\n".join(lines) + "\n:::")

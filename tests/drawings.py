"""Every figure of the toy's run in the project, drawn from what is stored of it, and what is drawn in a figure."""

import json
import warnings
from importlib import resources
from pathlib import Path

import matplotlib.text
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from twotowers.bench import page as bench
from twotowers.chapters.registry import CHAPTERS
from twotowers.pipeline.redraw import items_of
from twotowers.publishing.forest import forest, forest_table
from twotowers.publishing.ledger import verdicts_of
from twotowers.publishing.plots import folded
from twotowers.publishing.publish import Figure, drawn, is_narrow
from twotowers.publishing.run_folder import RunFolder
from twotowers.publishing.shown import Shown
from twotowers.publishing.style import WIDTH, styled
from twotowers.toy import page as toy

RUN = Path(__file__).resolve().parents[1] / "book" / "runs" / "toy-gpt2"
SHOWN = {chapter: Shown.read(RUN, chapter) for chapter in CHAPTERS}
OF_CHAPTERS = {
    item: chapter
    for chapter in CHAPTERS
    for item in SHOWN[chapter].items
    if isinstance(items_of(chapter)[item], Figure)
}
ALONE = ("claims-forest", "toy-training", "bench-ratio", "bench-scaling")
FIGURES = (*OF_CHAPTERS, *ALONE)


def draw(name, width=WIDTH):
    """A figure by its id."""
    if name in OF_CHAPTERS:
        shown, item = SHOWN[OF_CHAPTERS[name]], items_of(OF_CHAPTERS[name])[name]
        return drawn(item, shown.facts, shown.inputs(name), width=width)
    with styled(width):
        drawing = _alone(name)
        if is_narrow(drawing):
            folded(drawing)
        return drawing


def _alone(name):
    if name == "claims-forest":
        return forest(forest_table(verdicts_of(RunFolder(RUN))))
    if name == "toy-training":
        source = resources.files("twotowers.toy") / "toy-gpt2"
        stages = json.loads((source / "training.json").read_text(encoding="utf-8"))["stages"]
        return toy.training(pd.read_csv(source / "curve.csv"), stages)
    part = name.removeprefix("bench-")
    table = pd.read_csv(RUN.parents[1] / "bench" / "figures" / f"smollm2-135m-float32-{part}.csv")
    return {"ratio": bench.ratios, "scaling": bench.scaling}[part](table)


def texts_of(drawing):
    """All texts that are drawn, with their boxes in the units of `drawing.bbox`; a warning is an error."""
    found = []
    usual = matplotlib.text.Text.draw

    def noted(text, renderer):
        if text.get_visible() and text.get_text().strip():
            found.append((text.get_text(), matplotlib.text.Text.get_window_extent(text, renderer)))
        usual(text, renderer)

    with pytest.MonkeyPatch.context() as patch, styled(), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # of seaborn's use of matplotlib
        drawing.draw_without_rendering()
        patch.setattr(matplotlib.text.Text, "draw", noted)
        FigureCanvasAgg(drawing).draw()
    return found

"""A task of four classes from end to end: verdicts, evidence, and every chapter in its own order."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from twotowers.chapters.registry import CHAPTERS, needs_two_labels
from twotowers.chapters.towers.reading import attention_by_class, attention_effects
from twotowers.clustering import clustered_error
from twotowers.paper import CLAIMS
from twotowers.pipeline.freshness import text_of
from twotowers.pipeline.texts import notebook_of
from twotowers.prompts.task_labels import TaskLabels, usual_labels
from twotowers.prompts.tasks import load_task
from twotowers.publishing.evidence import Evidence
from twotowers.publishing.run_folder import project_root
from twotowers.statistics import SUPPORTED, UNTESTABLE, judge

FOUR = ["first", "second", "third", "fourth"]


def frame(values):
    return pd.DataFrame({"set": range(len(values)), "effect": np.asarray(values, dtype=float)})


def shown(rows):
    return pd.DataFrame([(i, *row) for i, row in enumerate(rows)], columns=["set", *FOUR[: len(rows[0])]])


def test_chance_is_one_over_the_number_of_labels():
    effects, accuracy = frame(np.linspace(0.4, 0.6, 16)), frame(np.linspace(0.35, 0.45, 16))
    assert judge(effects, 0.05, accuracy=accuracy).verdict == UNTESTABLE
    assert judge(effects, 0.05, accuracy=accuracy, chance=0.25).verdict == SUPPORTED
    guessing = judge(effects, 0.05, accuracy=frame(np.linspace(0.15, 0.35, 16)), chance=0.25)
    assert guessing.reason == "the interval of accuracy between the labels includes chance, 25.0%"


def test_equal_attention_to_all_positions_prefers_no_class():
    """Three of four classes are others: they count as their mean, in the figure as in the claim."""
    labels = [label for label in FOUR for _ in range(2)]
    rows = [(3, 1, 0, gold, gold, i, label, label == gold, 1 / 8) for gold in FOUR for i, label in enumerate(labels)]
    names = ["layer", "head", "set", "query", "gold", "demonstration", "label", "same", "weight"]
    classes = attention_by_class(pd.DataFrame(rows, columns=names))
    assert (classes[["same", "other"]] == 1 / 4).all(axis=None)
    assert (attention_effects(classes)["effect"] == 0).all()


def test_sets_that_share_one_of_many_categories_are_related():
    """The error by pairs of sets, one by one; three categories of two are the same as two."""
    rng = np.random.default_rng(0)
    rows = [tuple(rng.choice(list("abcdefgh"), 3, replace=False)) for _ in range(20)]
    residuals = rng.normal(size=20)
    residuals -= residuals.mean()
    related = np.array([[bool({*a} & {*b}) for b in rows] for a in rows])
    wanted = np.sqrt(max(0, (np.outer(residuals, residuals) * related).sum()) / 400 / (1 - related.mean()))
    assert clustered_error(np.arange(20), residuals, shown(rows)) == (pytest.approx(wanted), 8)
    pairs = [row[:2] for row in rows]
    doubled = shown([(a, b, b) for a, b in pairs])
    assert clustered_error(np.arange(20), residuals, doubled) == pytest.approx(
        clustered_error(np.arange(20), residuals, shown(pairs))
    )


def test_evidence_of_four_classes_comes_back_and_sets_chance():
    evidence = Evidence("C4", 0, frame(np.linspace(0.4, 0.6, 16)), shown([tuple("abcd")] * 16), random=[0.0] * 20,
                        accuracy=frame(np.linspace(0.35, 0.45, 16)))  # fmt: skip
    again = Evidence.of(json.loads(json.dumps(evidence.record())))
    assert (again.labels, again.chance, again.verdict.verdict) == (4, 0.25, SUPPORTED)
    two = Evidence("C11", 0, frame(np.linspace(0.4, 0.6, 16)), shown([tuple("abcd")] * 16))
    assert (two.verdict.verdict, two.verdict.reason) == (UNTESTABLE, "its question needs two labels, and here are 4")


def test_words_for_two_labels_are_read_otherwise_where_there_are_four():
    said = usual_labels(4).account()
    assert "where it says the other label" in said
    assert said.endswith("Two-way accuracy is then that between all 4.")
    assert "wo-way" not in TaskLabels().account()


def test_only_a_chapter_of_one_of_two_labels_is_cut_short():
    whole = [name for name in CHAPTERS if not needs_two_labels(name)]
    assert sorted({*CHAPTERS} - {*whole}) == ["imbalance", "order"]
    for name in CHAPTERS:
        text = text_of(project_root(), name)
        two, four = notebook_of(text).cells, notebook_of(text, 4).cells
        assert (len(two) == len(four)) == (name in whole)
    short = notebook_of(text_of(project_root(), "order"), 4).cells
    assert [cell.source for cell in short if cell.cell_type == "code"][-1] == "page.needs_two_labels()"


@pytest.fixture
def four(tmp_path):
    words = load_task("words").texts
    names = ("animals", "countries", "family", "numbers")
    rows = [f"{word},{name}" for name in names for half in words[name].values() for word in half]
    (tmp_path / "four.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return f"{tmp_path / 'four.csv'}:classes=all"


# All chapters as their cells stand, one after the other, in a folder by hand; figures are laid out, and not written.
RUN = """
import json, sys
import twotowers.chapters.chapter as chapters, twotowers.publishing.shown as shown
from twotowers.chapters.registry import CHAPTERS
from twotowers.pipeline.freshness import text_of
from twotowers.pipeline.texts import notebook_of
from pathlib import Path

said, root = {}, Path(sys.argv[2])
chapters.display = lambda made, metadata: said.update({metadata["item"]: made.data})
def write_figure(stem, drawing, **_):
    stem.parent.mkdir(parents=True, exist_ok=True)
    drawing.draw_without_rendering()
    legends = [*drawing.legends, *(ax.get_legend() for ax in drawing.axes if ax.get_legend())]
    for box in (legend.get_window_extent() for legend in legends):
        if box.x0 < -1 or box.x1 > drawing.bbox.width + 1:
            said.setdefault("outside", []).append(stem.name)
shown.write_figure = write_figure
for name in CHAPTERS:
    known = {}
    for cell in notebook_of(text_of(root, name), 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, known)
            if "parameters" in cell.metadata.get("tags", []):
                known |= {"model": "toy-gpt2", "task": sys.argv[1], "scale": "smoke"}
print(json.dumps(said))
"""


def test_every_chapter_runs_on_a_file_of_four_classes(four, tmp_path):
    command = [sys.executable, "-c", RUN, four, str(project_root())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    claims = {name: text for name, text in said.items() if name.startswith("claim-")}
    assert "outside" not in said, "legends wider than their figures"
    assert sorted(claims) == sorted(f"claim-{name}" for name in CLAIMS)
    for name, claim in CLAIMS.items():
        assert ("needs two labels, and here are 4" in claims[f"claim-{name}"]) == claim.two_labels
    assert "between the 4 labels" in said["task-can"]
    assert "attention in the paper" not in said["towers-swap-table"]
    assert "Here a prompt has 4 (bar, baz, foo, qux)" in said["needs-two-labels"]
    account = {"task-account"} | {*claims}  # which says how claims and prose, made for two labels, are to be read
    for name in {*said} - account:
        assert not re.search(r"the \*?other\*?('s| (class|label)\b)|to the other\b|both (labels|groups)", said[name]), (
            name
        )
    assert said["claims-table"].count("not testable") == len(CLAIMS)  # two sets are too few for the others

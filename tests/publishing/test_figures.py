"""Figures draw the table they are given, and publishing writes everything a citer needs."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from twotowers.chapters.knockout import page as knockout
from twotowers.chapters.locate import page as locate
from twotowers.chapters.task import page as task
from twotowers.prompts.tasks import load_task
from twotowers.publishing.plots import head_map
from twotowers.publishing.provenance import provenance
from twotowers.publishing.publish import publish, run_note
from twotowers.study import SCALES, Study


def with_interval(rows, columns):
    table = pd.DataFrame(rows, columns=[*columns, "mean"])
    return table.assign(low=table["mean"] - 0.05, high=table["mean"] + 0.05)


def plotted(ax, label):
    line = next(line for line in ax.get_lines() if line.get_label() == label)
    return dict(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_shots_draws_each_measure_with_chance():
    table = with_interval([(1, "a", 0.2), (2, "a", 0.6), (1, "b", 0.5), (2, "b", 0.8)], ["shots", "measure"])
    (ax,) = task.shots(table).axes
    assert plotted(ax, "a") == {1: 0.2, 2: 0.6}
    assert plotted(ax, "b") == {1: 0.5, 2: 0.8}
    assert plotted(ax, "chance between two labels")[0] == 0.5


def test_templates_draws_a_bar_for_each_gold_label():
    rows = [("lines", "foo", 0.7), ("lines", "bar", 0.9), ("paper", "foo", 0.6), ("paper", "bar", 0.8)]
    (ax,) = task.templates(with_interval(rows, ["template", "label"])).axes
    bars = {c.get_label(): [bar.get_height() for bar in c] for c in ax.containers if hasattr(c, "patches")}
    assert bars == {"gold label bar": [0.9, 0.8], "gold label foo": [0.7, 0.6]}


def test_layers_draws_attention_and_mlp_apart():
    rows = [(0, "attention", 1.0), (1, "attention", -2.0), (0, "mlp", 3.0), (1, "mlp", 4.0)]
    left, right = locate.layers(with_interval(rows, ["layer", "component"])).axes
    assert [bar.get_height() for bar in left.patches] == [1.0, -2.0]
    assert [bar.get_height() for bar in right.patches] == [3.0, 4.0]
    assert left.get_ylim() == right.get_ylim()


def test_head_map_puts_layers_on_x_and_frames_the_marked_heads():
    table = pd.DataFrame([(layer, head, 10.0 * layer + head) for layer in range(3) for head in range(2)])
    table.columns = ["layer", "head", "drop"]
    ax = head_map(table.sample(frac=1, random_state=0), "drop", title="t", marked=[(2, 1)]).axes[0]
    np.testing.assert_array_equal(ax.collections[0].get_array().reshape(2, 3), [[0, 10, 20], [1, 11, 21]])
    (frame,) = [patch for patch in ax.patches if isinstance(patch, mpl.patches.Rectangle)]
    assert frame.get_xy() == (2, 1)
    low, high = ax.collections[0].get_clim()
    assert low == -high


def test_dose_draws_top_and_random_heads_for_each_gold_label():
    rows = [(n, kind, label, 0.9 - n / 10) for n in (0, 3) for kind in ("top", "random") for label in ("bar", "foo")]
    figure = knockout.dose(with_interval(rows, ["removed", "kind", "label"]), ["bar", "foo"])
    for ax in figure.axes:
        assert plotted(ax, "most harmful heads") == pytest.approx({0: 0.9, 3: 0.6})
        assert plotted(ax, "random heads, same layers") == pytest.approx({0: 0.9, 3: 0.6})


def test_agreement_rings_and_names_the_in_context_heads():
    columns = ["layer", "head", "log_increase", "margin_drop", "in_context"]
    table = pd.DataFrame([(9, 1, 0.5, 0.2, True), (8, 0, -0.1, 0.0, False)], columns=columns)
    ax = knockout.agreement(table).axes[0]
    assert [text.get_text() for text in ax.texts] == ["9.1"]
    assert ax.collections[1].get_offsets().tolist() == [[0.5, 0.2]]


@pytest.fixture
def study(tiny_gpt2):
    return Study(tiny_gpt2, load_task("words"), SCALES["smoke"], seed=7)


@pytest.fixture
def published(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TWOTOWERS_RUN", str(tmp_path))
    shown = []
    monkeypatch.setattr("twotowers.publishing.publish.display", lambda markdown: shown.append(markdown.data))
    figure = Figure()
    figure.subplots().plot([0, 1], [1, 2])
    table = pd.DataFrame({"x": [0, 1], "y": [1 / 3, 2.0]})
    publish(study, "task-shots", figure, table, caption="What is\n  compared.", alt="A line\ngoing up.")
    return tmp_path / "figures", shown[0]


def test_publishing_writes_vector_picture_numbers_and_provenance(published, study):
    folder, _ = published
    assert {file.name for file in folder.iterdir()} == {f"task-shots.{e}" for e in ("svg", "png", "csv", "json")}
    assert (folder / "task-shots.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")
    assert (folder / "task-shots.png").read_bytes().startswith(b"\x89PNG")
    assert pd.read_csv(folder / "task-shots.csv")["y"].tolist() == pytest.approx([1 / 3, 2.0], rel=1e-5)
    record = json.loads((folder / "task-shots.json").read_text(encoding="utf-8"))
    assert record["caption"] == "What is compared."
    assert record["alt"] == "A line going up."
    facts = record["provenance"]
    assert facts["figure"] == "task-shots"
    assert facts["weights_sha256"] == study.model.digest
    assert facts["task_sha256"] == study.task.digest
    assert (facts["seed"], facts["scale"], facts["dtype"], facts["device"]) == (7, "smoke", "float32", "cpu")
    assert {"model", "revision", "packages", "git_commit", "command", "date"} <= set(facts)
    assert "--seed 7" in facts["command"]


def test_a_figure_has_anchor_alt_text_and_files(published, study):
    _, text = published
    assert f":name: fig-{study.model.key}-task-shots\n:alt: A line going up.\n" in text
    for ending in ("svg", "png", "csv", "json"):
        assert f"<figures/task-shots.{ending}>" in text


def test_a_figure_is_written_the_same_twice(published, study, tmp_path):
    folder, _ = published
    first = (folder / "task-shots.svg").read_bytes()
    figure = Figure()
    figure.subplots().plot([0, 1], [1, 2])
    publish(study, "task-shots", figure, pd.DataFrame(), caption="c", alt="a")
    assert (folder / "task-shots.svg").read_bytes() == first


def test_the_run_note_states_what_was_run(study, monkeypatch):
    shown = []
    monkeypatch.setattr("twotowers.publishing.publish.display", lambda markdown: shown.append(markdown.data))
    run_note(study)
    for fact in ("tiny-gpt2", "gpt2 family", "float32", "scale `smoke`", "seed 7", study.model.digest[:12]):
        assert fact in shown[0]
    assert provenance(study)["command"].startswith("twotowers run --model ")

"""Figures draw the table they are given, and publishing writes everything a citer needs."""

import hashlib
import json
import math
import warnings
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from twotowers.prompts.tasks import load_task
from twotowers.publishing import publish
from twotowers.publishing.citing import FORMATS, LONG, Citation
from twotowers.publishing.plots import head_map
from twotowers.publishing.provenance import RUN_NOTE, facts_of, run_name
from twotowers.publishing.record import FIELDS
from twotowers.publishing.results import read_table, write_table
from twotowers.publishing.shown import Shown
from twotowers.study import SCALES, Study


def with_interval(rows, columns):
    table = pd.DataFrame(rows, columns=[*columns, "mean"])
    return table.assign(low=table["mean"] - 0.05, high=table["mean"] + 0.05)


def plotted(ax, label):
    line = next(line for line in ax.get_lines() if line.get_label() == label)
    return dict(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_head_map_puts_layers_on_x_and_frames_the_marked_heads():
    table = pd.DataFrame([(layer, head, 10.0 * layer + head) for layer in range(3) for head in range(2)])
    table.columns = ["layer", "head", "drop"]
    ax = head_map(table.sample(frac=1, random_state=0), "drop", title="t", marked=[(2, 1)]).axes[0]
    np.testing.assert_array_equal(ax.collections[0].get_array().reshape(2, 3), [[0, 10, 20], [1, 11, 21]])
    (frame,) = [patch for patch in ax.patches if isinstance(patch, mpl.patches.Rectangle)]
    assert frame.get_xy() == (2, 1)
    low, high = ax.collections[0].get_clim()
    assert low == -high


def map_of(values):
    """A map of one layer's heads, laid out."""
    table = pd.DataFrame({"layer": 0, "head": range(len(values)), "rise": values})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # of seaborn's use of matplotlib
        figure = head_map(table, "rise", title="log-probability increase (nats)")
        figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("heads", [1, 3, 12])
def test_the_label_of_a_map_has_room_however_few_its_heads(heads):
    figure = map_of([1.0] * heads)
    box = figure.axes[1].yaxis.label.get_window_extent()
    assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1


@pytest.mark.parametrize(("values", "hatched"), [([1.0, 0.0], False), ([1.0, math.nan], True), ([math.nan] * 2, True)])
def test_a_value_that_is_not_known_looks_unlike_zero_and_is_named(values, hatched):
    ax = map_of(values).axes[0]
    assert bool(ax.patch.get_hatch()) == hatched
    assert ([text.get_text() for text in ax.get_legend().get_texts()] if hatched else ax.get_legend()) == (
        ["not known"] if hatched else None
    )
    assert ax.collections[0].get_clim() == (-1.0, 1.0)


@pytest.fixture
def study(tiny_gpt2):
    return Study(tiny_gpt2, load_task("words"), SCALES["smoke"], seed=7)


def lines(table):
    figure = Figure()
    figure.subplots().plot(table["x"], table["y"])
    return figure


SHOTS = publish.Figure("task-shots", lines, lambda: "What is\n  compared.", lambda: "A line\ngoing up.")
TABLE = pd.DataFrame({"x": [0, 1], "y": [1 / 3, 2.0]})


@pytest.fixture
def published(study, tmp_path):
    shown = Shown(tmp_path, "task", facts_of(study))
    shown.add(SHOTS, {"table": TABLE})
    return tmp_path / "figures", shown.render(SHOTS), shown


@pytest.fixture
def stem(published, study):
    """The files of the figure, without their endings."""
    return published[0] / f"{run_name(study)}_task-shots"


def test_publishing_writes_pictures_numbers_and_provenance(published, stem, study):
    endings = ("svg", "png", "pdf", "csv", "json")
    assert {file.name for file in stem.parent.iterdir()} == {f"{stem.name}.{ending}" for ending in endings}
    assert stem.with_suffix(".svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")
    assert stem.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert stem.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert pd.read_csv(stem.with_suffix(".csv"))["y"].tolist() == [1 / 3, 2.0]  # all digits
    record = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["caption"] == "What is compared."
    assert record["alt"] == "A line going up."
    facts = record["provenance"]
    assert facts["figure"] == "task-shots"
    assert facts["weights_sha256"] == study.model.digest
    assert facts["revision"] == f"sha256:{study.model.digest}"
    assert facts["task_sha256"] == study.task.digest
    assert (facts["seed"], facts["scale"], facts["dtype"], facts["device"]) == (7, "smoke", "float32", "cpu")
    assert set(FIELDS) <= set(facts)
    assert "--seed 7" in facts["command"]
    assert facts["data"] == {f"{stem.name}.csv": hashlib.sha256(stem.with_suffix(".csv").read_bytes()).hexdigest()}


def test_a_figure_has_anchor_alt_text_files_and_citations(published, stem, study):
    text = published[1]
    assert f':name: fig-{run_name(study)}-task-shots\n:alt: "A line going up."\n' in text
    for ending in ("svg", "png", "pdf", "csv", "json"):
        assert f"<figures/{stem.name}.{ending}>" in text
    record = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))["provenance"]
    for title, write in FORMATS.values():
        assert f"{{tab-item}} {title}" in text
        assert f"```text\n{write(record)}\n```" in text


def test_a_figure_is_drawn_the_same_from_what_was_stored(published, stem):
    folder, text, shown = published
    endings = (".svg", ".png", ".pdf", ".json")
    first = {ending: stem.with_suffix(ending).read_bytes() for ending in endings}
    again = Shown.read(folder.parent, "task")
    assert again.facts == shown.facts
    pd.testing.assert_frame_equal(again.inputs("task-shots")["table"], TABLE.astype({"x": "int64"}))
    assert again.render(SHOTS) == text
    assert {ending: stem.with_suffix(ending).read_bytes() for ending in endings} == first


def test_a_figure_that_has_left_its_page_says_where_it_is_from(published, stem, study):
    record = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))["provenance"]
    cited = Citation(record)
    wanted = [
        cited.title,
        cited.project.title,
        cited.key,
        record["command"],
        record["weights_sha256"][:LONG],
        record["licence"],
    ]
    assert all(wanted)
    names = {"dc": "http://purl.org/dc/elements/1.1/"}
    work = ElementTree.parse(stem.with_suffix(".svg")).getroot()
    assert work.find(".//dc:title", names).text == cited.title
    assert work.find(".//dc:date", names).text == record["date"][:10]
    inside = {"svg": " ".join(work.itertext()), "png": " ".join(Image.open(stem.with_suffix(".png")).text.values())}
    inside["pdf"] = stem.with_suffix(".pdf").read_bytes().decode("latin-1")
    for part in wanted:
        assert all(part in said for said in inside.values()), part
    assert "CreationDate" not in inside["pdf"]


def test_other_numbers_or_values_give_a_figure_another_identity(study, tmp_path):
    def key(name, **inputs):
        shown = Shown(tmp_path / name, "task", facts_of(study))
        shown.add(SHOTS, inputs)
        shown.render(SHOTS)
        (file,) = (tmp_path / name / "figures").glob("*.json")
        return Citation(json.loads(file.read_text(encoding="utf-8"))["provenance"]).key

    keys = [
        key("one", table=TABLE),
        key("same", table=TABLE),
        key("other", table=TABLE + 1),
        key("value", table=TABLE, threshold=1),
        key("another", table=TABLE, threshold=2),
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_tables_of_an_earlier_name_are_named_anew(published, stem):
    shown = published[2]
    (table,) = shown.items["task-shots"]["tables"].values()
    (stem.parent / "task-shots.csv").write_bytes(stem.with_suffix(".csv").read_bytes())
    stem.with_suffix(".csv").unlink()
    table["file"] = "figures/task-shots.csv"
    shown.rename_tables({"task-shots": SHOTS})
    assert Shown.read(shown.folder, "task").render(SHOTS) == published[1]
    assert not (stem.parent / "task-shots.csv").exists()


def test_a_page_shows_nothing_twice(published):
    with pytest.raises(ValueError, match="shows 'task-shots' twice"):
        published[2].add(SHOTS, {"table": TABLE})


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame(
            {"text": ["a,b", 'say "x"', "nan", "line\r\nbreak", "é|$"], "x": [0.1 + 0.2, 1e-300, -0.0, 1 / 3, 1.0]}
        ),
        pd.DataFrame({"n": [2**53 + 1, -1], "yes": [True, False], "maybe": [True, None], "gap": ["a", None]}),
        pd.DataFrame({"x": [float("nan"), float("inf")], "single": pd.Series([0.1, 0.2], dtype="float32")}),
        pd.DataFrame({"x": []}, dtype=float),
    ],
)
def test_a_table_comes_back_as_it_was(table, tmp_path):
    back = read_table(tmp_path / "t.csv", write_table(table, tmp_path / "t.csv"))
    wide = table.astype({name: "float64" for name in table if table[name].dtype == "float32"})
    pd.testing.assert_frame_equal(back, wide, check_exact=True)


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(TypeError, match="column 'x' holds neither"):
        write_table(pd.DataFrame({"x": [[1], [2]]}), tmp_path / "t.csv")


def test_the_run_note_states_what_was_run(study):
    text = publish.call(RUN_NOTE.write, facts_of(study), {"tokens": 17})
    assert "scale `smoke`, seed 7" in text
    assert "the first has 17 tokens" in text
    assert study.model.digest[:12] in text
    assert "twotowers run --model" in text

"""A real run on a tiny model: what is in its folder, and that the second time nothing is left to do."""

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pandas as pd
import papermill
import pytest

from clones import PROJECT, clone, read, tree
from twotowers.models import model as models
from twotowers.pipeline import run as pipeline
from twotowers.pipeline.freshness import ENDINGS

pytestmark = pytest.mark.usefixtures("one_thread")
FIGURES = {
    "task": ["task-shots", "task-templates"],
    "locate": ["locate-heads", "locate-layers"],
    "knockout": ["knockout-agreement", "knockout-dose", "knockout-heads"],
}
CHAPTERS = list(FIGURES)  # those that are executed here


# A real run on a tiny model


@pytest.fixture(scope="module")
def real_run(tiny_folders, tmp_path_factory):
    """The clone, its run folder and the outcomes of its chapters."""
    with pytest.MonkeyPatch.context() as patch:
        root = clone(tmp_path_factory.mktemp("real") / "clone", patch)
        patch.setenv("TWOTOWERS_CACHE", str(tmp_path_factory.mktemp("cache")))
        before = dict(os.environ)
        outcomes = pipeline.run(str(tiny_folders["gpt2"]), chapters=CHAPTERS, scale="smoke")
        assert dict(os.environ) == before
        yield root, root / "book" / "runs" / "tiny-gpt2", outcomes


@pytest.fixture
def folder(real_run):
    return real_run[1]


def test_every_chapter_runs_and_says_so(real_run):
    _, _, outcomes = real_run
    assert [(o.model, o.chapter, o.state) for o in outcomes] == [("tiny-gpt2", c, "run") for c in CHAPTERS]
    assert [o.figures for o in outcomes] == [len(FIGURES[c]) for c in CHAPTERS]
    assert all(o.seconds > 0 for o in outcomes)


def test_the_run_folder_holds_chapters_figures_and_record_and_nothing_else(folder):
    names = {f"{chapter}.ipynb" for chapter in CHAPTERS} | {"run.json", "figures", "claims", "heads.json"}
    assert {path.name for path in folder.iterdir()} == names
    files = {f"{figure}.{ending}" for c in CHAPTERS for figure in FIGURES[c] for ending in ENDINGS}
    assert {path.name for path in (folder / "figures").iterdir()} == files


def test_the_record_says_what_was_run_and_that_the_identities_hold(folder):
    record = json.loads((folder / "run.json").read_text())
    assert record["model"]["model"] == "tiny-gpt2"
    assert all(row["holds"] for row in record["check"]["identities"])
    for chapter in CHAPTERS:
        entry = record["chapters"][chapter]
        assert entry["figures"] == FIGURES[chapter]
        assert (entry["scale"], entry["task"], entry["seed"]) == ("smoke", "words", 0)


@pytest.mark.parametrize("figure", [figure for chapter in CHAPTERS for figure in FIGURES[chapter]])
def test_a_figure_has_a_picture_numbers_caption_alt_text_and_provenance(folder, figure):
    file = folder / "figures" / figure
    assert ElementTree.parse(f"{file}.svg").getroot().tag.endswith("svg")
    assert Path(f"{file}.png").read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(f"{file}.csv")) > 0
    record = json.loads(Path(f"{file}.json").read_text())
    assert len(record["caption"]) > 40
    assert len(record["alt"]) > 20
    provenance = record["provenance"]
    assert set(provenance) >= {
        "figure", "model", "family", "revision", "weights_sha256", "dtype", "device", "task", "task_sha256", "scale",
        "seed", "packages", "git_commit", "command", "date",
    }  # fmt: skip
    assert provenance["figure"] == figure
    assert provenance["command"] == "twotowers run --model tiny-gpt2 --task words --scale smoke"
    assert {"torch", "nnsight", "transformers", "twotowers"} <= set(provenance["packages"])


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_published_notebook_is_valid_and_shows_its_figures_with_their_anchors(folder, chapter):
    notebook = read(folder, chapter)
    nbformat.validate(notebook)
    text = nbformat.writes(notebook)
    for figure in FIGURES[chapter]:
        assert f"figures/{figure}.svg" in text
        assert f":name: fig-tiny-gpt2-{figure}" in text


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_published_notebook_has_no_trace_of_the_machine_it_ran_on(folder, chapter):
    notebook = read(folder, chapter)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert outputs
    assert not [o for o in outputs if o.get("name") == "stderr" or o.output_type == "error"]
    assert not [o for o in (*notebook.cells, *outputs) if o.get("execution_count") is not None]
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    assert not [cell for cell in notebook.cells if "papermill" in str(cell.metadata)]


def test_nothing_published_holds_a_local_path(real_run, tiny_folders):
    root, folder, _ = real_run
    paths = [root, tiny_folders["gpt2"].parent, PROJECT, ".tmp-"]
    for file in folder.rglob("*"):
        if file.is_file() and file.suffix != ".png":
            text = file.read_text()
            assert not [path for path in paths if str(path) in text], file


def test_the_parameters_of_the_run_are_in_the_notebook_but_not_on_the_page(folder):
    hidden = [cell for cell in read(folder, "task").cells if "remove-cell" in cell.metadata.get("tags", ())]
    assert any("model = 'tiny-gpt2'" in cell.source and "scale = 'smoke'" in cell.source for cell in hidden)


def test_a_second_run_is_up_to_date_at_once_and_loads_no_weights(real_run, tiny_folders, monkeypatch):
    root, _, _ = real_run
    before = tree(root)
    monkeypatch.setattr(papermill, "execute_notebook", lambda *a, **k: pytest.fail("a chapter was executed"))
    monkeypatch.setattr(pipeline, "require", lambda model: pytest.fail("the identities were measured"))
    monkeypatch.setattr(models.AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("weights loaded"))
    outcomes = pipeline.run(str(tiny_folders["gpt2"]), chapters=CHAPTERS, scale="smoke")
    assert [o.state for o in outcomes] == ["up to date"] * len(CHAPTERS)
    assert [o.figures for o in outcomes] == [len(FIGURES[c]) for c in CHAPTERS]
    assert tree(root) == before

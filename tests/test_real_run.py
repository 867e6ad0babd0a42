"""A real run on a tiny model: what is in its folder, and that the second time nothing is left to do."""

import json
import os
import pkgutil
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pandas as pd
import papermill
import pytest

from clones import PROJECT, clone, kept, read, run_of, tree
from twotowers import ledger
from twotowers.chapters.registry import CHAPTERS
from twotowers.models import model as models
from twotowers.paper import CLAIMS
from twotowers.pipeline import freshness, looks, status
from twotowers.pipeline import run as pipeline
from twotowers.pipeline.verify import SAME, verify
from twotowers.processes import processes
from twotowers.publishing.publish import Figure
from twotowers.publishing.record import FIELDS
from twotowers.publishing.run_folder import RunFolder, figure_ids, figure_stem

pytestmark = pytest.mark.usefixtures("one_thread")


def figures_of(chapter):
    """The ids of all figures that the pages of a chapter define."""
    package = import_module(f"twotowers.chapters.{chapter}")
    pages = [m.name for m in pkgutil.iter_modules(package.__path__) if m.name.endswith("page")]
    defined = [vars(import_module(f"{package.__name__}.{name}")).values() for name in pages]
    return sorted({item.id for items in defined for item in items if isinstance(item, Figure)})


FIGURES = {chapter: figures_of(chapter) for chapter in CHAPTERS}


# A real run on a tiny model


@pytest.fixture(scope="module")
def real_run(tiny_folders, tmp_path_factory):
    """The clone, its run folder and the outcomes of its chapters."""
    with pytest.MonkeyPatch.context() as patch:
        root = clone(tmp_path_factory.mktemp("real") / "clone", patch)
        patch.setenv("TWOTOWERS_CACHE", str(tmp_path_factory.mktemp("cache")))
        before = dict(os.environ)
        outcomes = pipeline.run(str(tiny_folders["gpt2"]), scale="smoke")
        assert dict(os.environ) == before
        yield root, run_of(root), outcomes


@pytest.fixture
def folder(real_run):
    return real_run[1]


def test_every_chapter_runs_and_says_so(real_run):
    _, folder, outcomes = real_run
    assert [(o.run, o.chapter, o.state) for o in outcomes] == [(folder.name, c, "run") for c in CHAPTERS]
    assert [o.figures for o in outcomes] == [len(FIGURES[c]) for c in CHAPTERS]
    assert all(o.seconds > 0 for o in outcomes)


def test_the_run_folder_holds_what_its_record_names_and_nothing_else(folder):
    record = json.loads((folder / "run.json").read_text())
    named = {file for entry in record["chapters"].values() for file in entry["files"]}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == named | {"run.json"}
    for chapter, figures in FIGURES.items():
        files = record["chapters"][chapter]["files"]
        assert figure_ids(folder.name, files) == figures
        for figure in figures:
            stem = figure_stem(folder.name, figure)
            assert {f"{stem}.{ending}" for ending in ("svg", "png", "pdf", "json")} <= set(files)
            assert [file for file in files if file.startswith(stem) and file.endswith(".csv")]
    claims = [file for entry in record["chapters"].values() for file in entry["files"] if file.startswith("claims/")]
    assert sorted(claims) == sorted(f"claims/{claim}.json" for claim in CLAIMS)


def test_the_record_says_what_was_run_and_that_the_identities_hold(folder):
    record = json.loads((folder / "run.json").read_text())
    assert {name: record["run"][name] for name in ("model", "task", "scale", "seed")} == {
        "model": "tiny-gpt2", "task": "words", "scale": "smoke", "seed": 0
    }  # fmt: skip
    assert record["check"]["identities"]
    assert all(row["holds"] for row in record["check"]["identities"])


def test_the_ledger_has_a_verdict_for_every_claim(folder):
    assert "not run" not in set(ledger(folder)["verdict"])


def test_a_chapter_that_reads_of_another_comes_out_again_and_leaves_the_run_as_it_was(real_run):
    root, folder, _ = real_run
    before = tree(folder)
    assert [(verified.name, str(verified)) for verified in verify(["values-words"])] == [("values-words", SAME)]
    assert tree(folder) == before
    assert not list((root / "_build").iterdir())


def tables(folder):
    return {path: content for path, content in kept(folder).items() if path.suffix == ".csv"}


def test_a_new_look_is_drawn_from_what_was_stored_and_changes_no_number(real_run, tiny_folders, monkeypatch):
    """Every chapter drawn anew without a model is what its kernel has shown."""
    root, folder, _ = real_run
    before = tables(folder), {chapter: read(folder, chapter).cells for chapter in CHAPTERS}
    monkeypatch.setattr(pipeline, "execute", lambda *a, **k: pytest.fail("a chapter was executed"))
    monkeypatch.setattr(models.AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("weights loaded"))
    with (freshness.PACKAGE / "publishing" / "style.py").open("a") as module:
        module.write("NEW = 1\n")
    text = root / "book" / "chapters" / "order.md"
    text.write_text(text.read_text() + "\nOne more sentence.\n")
    outcomes = pipeline.run(str(tiny_folders["gpt2"]), scale="smoke")
    assert [o.state for o in outcomes] == ["drawn anew"] * len(CHAPTERS)
    assert tables(folder) == before[0]
    for chapter in CHAPTERS:
        cells = read(folder, chapter).cells
        assert [cell.source for cell in cells if cell.cell_type == "code"] == [
            cell.source for cell in before[1][chapter] if cell.cell_type == "code"
        ]
        shown = [[o.get("data", o.get("text")) for o in cell.get("outputs", ())] for cell in cells]
        assert shown == [[o.get("data", o.get("text")) for o in cell.get("outputs", ())] for cell in before[1][chapter]]
    assert read(folder, "order").cells[-1].source.endswith("One more sentence.")


def test_a_new_look_is_drawn_in_processes_side_by_side_without_the_model(real_run, monkeypatch):
    root, folder, _ = real_run
    before, run = tables(folder), RunFolder(folder)
    monkeypatch.setattr(status, "study_of", lambda run: None)  # its model is not at hand
    with (freshness.PACKAGE / "publishing" / "style.py").open("a") as module:
        module.write("NEWER = 1\n")
    with processes(2) as drawing:
        looks.draw_looks_anew(root, [run], drawing)
        assert len(drawing.workers) == 2
    assert [line.state.name for line in status.run_status(root, run)] == ["done"] * len(CHAPTERS)
    assert tables(folder) == before


@pytest.mark.parametrize("figure", [figure for chapter in CHAPTERS for figure in FIGURES[chapter]])
def test_a_figure_has_a_picture_numbers_caption_alt_text_and_provenance(folder, figure):
    file = folder / figure_stem(folder.name, figure)
    assert ElementTree.parse(f"{file}.svg").getroot().tag.endswith("svg")
    assert Path(f"{file}.png").read_bytes().startswith(b"\x89PNG")
    assert all(len(pd.read_csv(table)) for table in file.parent.glob(f"{file.name}*.csv"))
    record = json.loads(Path(f"{file}.json").read_text())
    assert len(record["caption"]) > 40
    assert len(record["alt"]) > 20
    provenance = record["provenance"]
    assert set(provenance) >= set(FIELDS)
    assert provenance["figure"] == figure
    assert provenance["command"] == "twotowers run --model tiny-gpt2 --task words --scale smoke"
    assert {"torch", "nnsight", "transformers", "twotowers"} <= set(provenance["packages"])


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_published_notebook_is_valid_and_shows_its_figures_with_their_anchors(folder, chapter):
    notebook = read(folder, chapter)
    nbformat.validate(notebook)
    text = nbformat.writes(notebook)
    for figure in FIGURES[chapter]:
        assert f"{figure_stem(folder.name, figure)}.svg" in text
        assert f":name: fig-{folder.name}-{figure}" in text


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
        if file.is_file() and file.suffix not in (".png", ".pdf"):
            text = file.read_text()
            assert not [path for path in paths if str(path) in text], file


def test_the_parameters_of_the_run_are_in_the_notebook_but_not_on_the_page(folder):
    hidden = [cell for cell in read(folder, "task").cells if "remove-cell" in cell.metadata.get("tags", ())]
    assert any("model = 'tiny-gpt2'" in cell.source and "scale = 'smoke'" in cell.source for cell in hidden)


def test_a_second_run_is_up_to_date_at_once_and_loads_no_weights(real_run, tiny_folders, monkeypatch):
    root, _, _ = real_run
    before = tree(root)
    monkeypatch.setattr(papermill, "execute_notebook", lambda *a, **k: pytest.fail("a chapter was executed"))
    monkeypatch.setattr(pipeline, "require", lambda model, labels: pytest.fail("the identities were measured"))
    monkeypatch.setattr(models.AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("weights loaded"))
    outcomes = pipeline.run(str(tiny_folders["gpt2"]), scale="smoke")
    assert [o.state for o in outcomes] == ["up to date"] * len(CHAPTERS)
    assert [o.figures for o in outcomes] == [len(FIGURES[c]) for c in CHAPTERS]
    assert tree(root) == before

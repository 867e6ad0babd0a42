"""Clones of the project for tests of the command and of the pipeline: fixtures and what they are made of."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch

from twotowers.chapters import registry
from twotowers.chapters.chapter import Page
from twotowers.models.loading import Loading
from twotowers.paper import CLAIMS
from twotowers.pipeline import freshness, site
from twotowers.pipeline import run as pipeline
from twotowers.publishing.publish import Figure
from twotowers.publishing.style import FOO
from twotowers.statistics import FEWEST
from twotowers.study import SCALES, open_study

PROJECT = Path(__file__).resolve().parents[1]
CHAPTER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter

```{code-cell} ipython3
:tags: [parameters, remove-cell]

model, task = "", ""
scale, seed = "", 0
loading, folder, reads = {}, "", {}
```

```{code-cell} ipython3
"""


@pytest.fixture(scope="module")
def one_thread():
    """A tiny model gains nothing from threads, and loses much if the machine is busy."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # the same for kernels
        yield
    torch.set_num_threads(number)


def clone(folder, patch):
    """What a run needs of a clone, and no run: configuration, chapters, and code whose digests count."""
    shutil.copytree(PROJECT / "book", folder / "book", ignore=shutil.ignore_patterns("runs", "_toc.yml"))
    for file in ("_config.yml", "CITATION.cff"):
        shutil.copy(PROJECT / file, folder)
    code = folder.parent / "package"
    shutil.copytree(Path(pipeline.__file__).parents[1], code, ignore=shutil.ignore_patterns("__pycache__"))
    patch.setattr(freshness, "PACKAGE", code)
    patch.chdir(folder)
    return folder


def for_sites(here, patch, execute=None):
    """A clone of which a site is built, and a cache beside it: identities are taken for granted, kernels are not used.

    Args:
        execute: leaves what a chapter does, of its text, parameters and workplace; `made_up` if it is not given.
    """
    clone(here / "clone", patch)
    patch.setenv("TWOTOWERS_CACHE", str(here / "cache"))
    patch.setattr(pipeline, "require", lambda model, labels: pd.DataFrame({"identity": [], "holds": []}))
    leaves = execute or made_up
    patch.setattr(pipeline, "execute", lambda text, parameters, folder, *_, **__: leaves(text, parameters, folder))


def twin(folder, place, number):
    """A copy of a tiny model with weights of its own."""
    model = Path(shutil.copytree(folder, place))
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-4] ^= number
    (model / "model.safetensors").write_bytes(weights)
    return model


def built_pages():
    """The pages of the site of the working folder, by name."""
    built = site.build().parent
    names = (path.relative_to(built).as_posix() for path in sorted(built.rglob("*.html")))
    return {name: built / name for name in names if not name.startswith("_static")}


def tree(folder):
    """Every path of a folder, with the contents of files."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def kept(folder):
    """The files of a run that are made of numbers, without the day on which they were made."""
    files = [p for p in folder.rglob("*") if p.suffix in (".csv", ".svg")]
    return {p.relative_to(folder): re.sub(rb"\d{4}-\d\d-\d\d", b"", p.read_bytes()) for p in files}


def read(folder, chapter):
    return nbformat.read(folder / f"{chapter}.ipynb", as_version=4)


def run_of(root):
    """The folder of the only run."""
    (record,) = (root / "book" / "runs").glob("[!.]*/run.json")
    return record.parent


# Small chapters in real kernels


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A clone with a model beside it; identities are taken for granted."""
    folder = clone(tmp_path / "clone", monkeypatch)
    monkeypatch.setenv("TWOTOWERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline, "require", lambda model, labels: pd.DataFrame({"identity": [], "holds": []}))
    return folder


@pytest.fixture
def model(tiny_folders, tmp_path):
    return Path(shutil.copytree(tiny_folders["gpt2"], tmp_path / "mine"))


def write_chapter(root, name, code):
    (root / "book" / "chapters" / f"{name}.md").write_text(f"{CHAPTER}{code}\n```\n")


def go(model, *chapters, **options):
    return pipeline.run(str(model), chapters=chapters or ("task",), scale="smoke", **options)


# What decides whether a chapter runs: without a kernel


def draw(table):
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing()
    drawing.subplots().plot(table["x"], table["y"], color=FOO)
    return drawing


def figure_of(chapter):
    return Figure(f"{chapter}-made-up", draw, lambda table: f"{len(table)} points.", lambda table: "Points.")


def accuracies(study, mean):
    """What `task` hands on: an accuracy of each set, here the same for all."""
    return {"set": [*range(len(study.evaluation))], "effect": [mean] * len(study.evaluation)}


def made_up(text, parameters, folder, *_, **__):
    """What a chapter leaves, without a kernel: a figure, its claims and what it hands on."""
    name = text.stem
    study = open_study(*(parameters[x] for x in ("model", "task", "scale", "seed")), Loading(**parameters["loading"]))
    page = Page(name, study, Path(folder), dict(parameters["reads"]))
    table = pd.DataFrame({"x": [1, 2, 3], "y": [0.1 + 0.2, 1 / 3, float(study.seed)]})
    page.shown.add(figure_of(name), {"table": table})
    figure = page.shown.render(figure_of(name))
    for handed in registry.find(name).hands_on:
        value = accuracies(study, 0.9) if handed == "accuracy" else {"all": [[0, 1]], "foo": [[0, 1]]}
        page.hand_on(handed, value)
    sets = range(len(study.evaluation))
    effects = pd.DataFrame({"set": sets, "effect": [2 + study.seed + 0.1 * number for number in sets]})
    for claim in (claim for claim, facts in CLAIMS.items() if facts.chapter == name):
        page.judge(claim, effects, random=[0.0] * 20, control=effects, before=effects)
    for handed in registry.find(name).reads:
        page.handed(handed)
    shown = nbformat.v4.new_output("display_data", {"text/markdown": figure})
    cells = [nbformat.v4.new_markdown_cell("# A chapter"), nbformat.v4.new_code_cell("page.show()", outputs=[shown])]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(notebook, Path(folder) / f"{name}.ipynb")


@pytest.fixture
def executed(monkeypatch):
    """Chapters leave what they would, and say that they were executed, without a kernel.

    Their studies have as many sets as a verdict needs. That prompts fit the model is taken for granted.
    """
    monkeypatch.setattr(pipeline, "require_fit", lambda study: None)
    monkeypatch.setitem(SCALES, "smoke", dataclasses.replace(SCALES["smoke"], evaluation_sets=FEWEST))
    calls = []

    def execute(text, parameters, folder, *others, **options):
        calls.append({"chapter": text.stem, **parameters})
        made_up(text, parameters, folder)

    monkeypatch.setattr(pipeline, "execute", execute)
    return calls


def chapters(executed):
    return [call["chapter"] for call in executed]


@pytest.fixture
def runs(root, model, executed):
    """The folder of a finished run of one chapter."""
    assert [o.state for o in go(model)] == ["run"]
    executed.clear()
    return run_of(root)


@pytest.fixture
def bare_clone(tmp_path, monkeypatch):
    """A clone without runs as the working folder, and the cache elsewhere."""
    monkeypatch.setenv("TWOTOWERS_CACHE", str(tmp_path / "cache"))
    return clone(tmp_path / "clone", monkeypatch)


def record(folder):
    return json.loads((folder / "run.json").read_text())

"""Clones of the project for tests of the command and of the pipeline: fixtures and what they are made of."""

import shutil
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
import torch

from twotowers.pipeline import freshness
from twotowers.pipeline import run as pipeline

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

model = ""
task = ""
scale = ""
seed = 0
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
    """What a run needs of a clone, and no run: configuration, chapters, and the package, whose digest counts."""
    shutil.copytree(PROJECT / "book", folder / "book", ignore=shutil.ignore_patterns("runs", "_toc.yml"))
    shutil.copy(PROJECT / "_config.yml", folder)
    package = folder.parent / "package"
    shutil.copytree(freshness.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "toy-gpt2"))
    patch.setattr(freshness, "PACKAGE", package)
    patch.chdir(folder)
    return folder


def tree(folder):
    """Every path of a folder, with the contents of files."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def read(folder, chapter):
    return nbformat.read(folder / f"{chapter}.ipynb", as_version=4)


# Small chapters in real kernels


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A clone with a model beside it; identities are taken for granted."""
    folder = clone(tmp_path / "clone", monkeypatch)
    monkeypatch.setenv("TWOTOWERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline, "require", lambda model: pd.DataFrame({"identity": [], "holds": []}))
    return folder


@pytest.fixture
def model(tiny_folders, tmp_path):
    return Path(shutil.copytree(tiny_folders["gpt2"], tmp_path / "mine"))


def write_chapter(root, name, code):
    (root / "book" / "chapters" / f"{name}.md").write_text(f"{CHAPTER}{code}\n```\n")


def go(model, *chapters, **options):
    return pipeline.run(str(model), chapters=chapters or ("task",), scale="smoke", **options)


# What decides whether a chapter runs: without a kernel


@pytest.fixture
def executed(monkeypatch):
    """Chapters write one figure, and say that they were executed, without a kernel."""
    calls = []

    def execute(notebook, output, parameters, **options):
        calls.append(parameters)
        figures = Path(options["resources"]["metadata"]["path"]) / "figures"
        figures.mkdir()
        for ending in freshness.ENDINGS:
            (figures / f"figure-{len(calls)}.{ending}").write_text("x")
        return notebook

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    return calls


@pytest.fixture
def runs(root, model, executed):
    """The folder of a finished run of one chapter."""
    assert [o.state for o in go(model)] == ["run"]
    executed.clear()
    return root / "book" / "runs" / "mine"


@pytest.fixture
def bare_clone(tmp_path, monkeypatch):
    """A clone without runs as the working folder, and the cache elsewhere."""
    monkeypatch.setenv("TWOTOWERS_CACHE", str(tmp_path / "cache"))
    return clone(tmp_path / "clone", monkeypatch)

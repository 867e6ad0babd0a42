"""The lint of the chapters' cells: every kind of bad cell is found, and the book's own are clean."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("ruff", reason="comes with `make lint`, not with `make test`")

ROOT = Path(__file__).resolve().parents[1]
HEAD = "# A chapter\n\n"
IMPORTS = "from twotowers.chapters import chapter as shown\nfrom twotowers.chapters.chapter import open_page"


@pytest.fixture(scope="module")
def cells():
    spec = importlib.util.spec_from_file_location("cells", ROOT / ".ci" / "cells.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text(*sources):
    """A chapter's MyST text with these code cells, and prose between them."""
    return HEAD + "\n\nSome prose, *x = 1*.\n\n".join(f"```{{code-cell}} ipython3\n{s}\n```" for s in sources)


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (["first = 1", "second = frist"], "cell 2:1:10: F821"),
        (["import os\nfirst = 1", "first"], "cell 1:1:8: F401"),
        (["first = 1", "second = [ first]"], "cell 2: not formatted, ruff writes\nsecond = [first]"),
        (["first = 1\nfirst\nfirst += 1\nfirst"], "cell 1: 4 lines beside imports, at most 3"),
        (["first = 1", "first = "], "cell 2:1:9: invalid-syntax"),
        ([f"value = '{'long' * 30}'"], "cell 1:1:121: E501"),
    ],
)
def test_a_bad_cell_is_found_and_named(cells, tmp_path, capsys, sources, said):
    (tmp_path / "bad.md").write_text(text(*sources))
    assert cells.main([str(tmp_path / "bad.md")]) == 1
    assert f"bad.md: {said}" in capsys.readouterr().out


def test_a_name_may_come_from_an_earlier_cell_and_imports_are_free(cells):
    assert cells.problems(text(f"{IMPORTS}\npage = open_page()\nfirst = 1\nfirst", "shown, page, first")) == []


def test_the_cells_of_the_book_are_clean(cells, capsys):
    chapters = len([*(ROOT / "book" / "chapters").glob("*.md")])
    assert cells.main([]) == 0
    assert capsys.readouterr().out == f"{chapters} chapters: every cell is clean\n"

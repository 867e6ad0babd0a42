"""The package is a house: every wing imports downwards only, and nothing private leaves its module."""

import ast
import re
from pathlib import Path

import twotowers
from twotowers.chapters.registry import CHAPTERS
from twotowers.paper import CLAIMS
from twotowers.pipeline.overview import MEASURES

PACKAGE = Path(twotowers.__file__).parent
LAYERS = (
    "paper errors process options",
    "arguments clustering processes",
    "statistics",
    "hub",
    "models",
    "prompts",
    "study",
    "tracing",
    "publishing",
    "chapters",
)
LAYERS += ("bench toy", "pipeline", "cli", "__main__")
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}


def imports(module):
    """The imports of ours in a module, as (parts of the other module's path, name)."""
    folder = module.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert "twotowers" not in ast.unparse(node).replace(".", " ").split(), f"{module}: write from . import"
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*folder[: len(folder) - node.level + 1], *(node.module or "").split("."))
            yield from ((tuple(filter(None, base)), alias.name) for alias in node.names)


def test_imports_lead_downwards_only():
    for module in sorted({*PACKAGE.rglob("*.py")} - {PACKAGE / "__init__.py"}):  # the front door leads everywhere
        here = module.relative_to(PACKAGE).with_suffix("").parts
        for there, name in imports(module):
            if (here, there, name) == (("cli",), (), "__version__"):
                continue
            said, wing = f"{'.'.join(here)} imports {name} from {'.'.join(there)}", (*there, name)[0]
            assert not name.startswith("_"), said
            assert wing == here[0] or RANK[wing] < RANK[here[0]], said
            if here[0] == "chapters":
                assert wing != "publishing" or here[-1].endswith("page") or here[-1] in ("registry", "chapter"), said
                if wing == "chapters" and here[1] in CHAPTERS and there[1] in CHAPTERS:
                    assert CHAPTERS.index(there[1]) <= CHAPTERS.index(here[1]), said


def test_every_file_is_of_one_concern():
    """A file that is longer, of the package or of its tests, holds two things."""
    for file in (*PACKAGE.rglob("*.py"), *Path(__file__).parent.rglob("*.py")):
        assert len(file.read_text().splitlines()) <= 350, file


def test_at_the_top_there_is_nothing_but_the_wings():
    found = {path.stem for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert found == {*RANK, "__init__"}
    assert {path.name for path in (PACKAGE / "chapters").iterdir() if path.is_dir()} - {"__pycache__"} == {*CHAPTERS}
    for module in PACKAGE.rglob("*.py"):
        folder = module.parent
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


def test_the_guides_name_every_chapter_and_count_the_claims():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (listed,) = re.findall(r"Chapters: (.*?)\. Scales:", readme, re.DOTALL)
    assert tuple(re.findall(r"`(\w+)`", listed)) == CHAPTERS
    assert tuple(MEASURES) == CHAPTERS
    assert f"claims C1 to C{len(CLAIMS)} " in readme

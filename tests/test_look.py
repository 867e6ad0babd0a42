"""The look at the site that does without the package: every kind of damage is found, and a whole site passes."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

LOOK = Path(__file__).resolve().parents[1] / ".ci" / "look.py"
PAGE = "runs/one/task.html"
FIGURE = '<figure id="fig-one-task-shots"><a><img alt="Two lines." src="../../_images/one_task-shots.svg"></a></figure>'
FILES = "".join(
    f'<a href="../../_downloads/{place}">file</a>' for place in ("a1/one_task-shots.json", "a2/one_task-shots.pdf")
)


@pytest.fixture(scope="module")
def look():
    spec = importlib.util.spec_from_file_location("look", LOOK)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "look", module)
        spec.loader.exec_module(module)
        yield module


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def html(body):
    return f"<!DOCTYPE html><html><head><script>var a = 'Traceback';</script></head><body><br>{body}</body></html>"


@pytest.fixture
def root(tmp_path):
    """A book of two pages and a run of two chapters, and its site, written by hand."""
    record = {
        "chapters": {
            "task": {"files": {"task.ipynb": "", "figures/one_task-shots.json": "", "figures/one_task-shots.pdf": ""}},
            "claims": {"files": {}},
        }
    }
    book = {
        "book/intro.md": "# Intro", "book/toy.md": "# Toy", "book/_toy.md": "included",
        "book/chapters/task.md": "# Task", "book/chapters/claims.md": "# Claims",
        "book/runs/one/run.json": json.dumps(record),
        "book/runs/one/figures/one_task-shots.json": "{}", "book/runs/one/figures/one_task-shots.svg": "<svg>one</svg>",
        "book/bench/figures/fast.json": "{}", "book/bench/figures/fast.svg": "<svg>fast</svg>",
        "book/performance.md": "# Performance",
    }  # fmt: skip
    contents = ("toy", "performance", "runs/one/task", "runs/one/claims")
    contents = "".join(f'<a href="{page}.html">x</a>' for page in contents)
    site = {
        "index.html": html('<a href="intro.html">on</a>'),
        "intro.html": html(f'{contents}<a href="runs/one/claims.html#verdict">x</a>'),
        "toy.html": html('<div id="fig-toy-training"><img alt="A line." src="_images/toy%20curve.svg"></div>'),
        "performance.html": html('<div id="fig-performance-fast"><img alt="Bars." src="_images/fast.svg"></div>'),
        PAGE: html(f'{FIGURE}{FILES}<a href="#">top</a><a href="https://example.org/none#here">elsewhere</a>'),
        "runs/one/claims.html": html('<p id="verdict">Yes</p><a href="../../intro.html">back</a>'),
        "_images/one_task-shots.svg": "<svg>one</svg>", "_images/toy curve.svg": "<svg/>",
        "_images/fast.svg": "<svg>fast</svg>", "_downloads/a1/one_task-shots.json": "{}",
        "_downloads/a2/one_task-shots.pdf": "%PDF",
        "_static/macros.html": html('<a href="{{ nowhere }}">a template of the theme</a>'),
    }  # fmt: skip
    write(tmp_path, book | {f"_build/html/{name}": text for name, text in site.items()})
    return tmp_path


def site(root, name=PAGE):
    return root / "_build" / "html" / name


def replace(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_a_whole_site_passes(look, root):
    assert list(look.problems(root, ["one"])) == []


def in_page(old, new, name=PAGE):
    return lambda root: replace(site(root, name), old, new)


def record(change):
    def damage(root):
        file = root / "book" / "runs" / "one" / "run.json"
        facts = json.loads(file.read_text())
        change(facts["chapters"])
        file.write_text(json.dumps(facts))

    return damage


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda root: site(root, "performance.html").unlink(), "performance.html: no such page"),
        (lambda root: site(root, "index.html").unlink(), "index.html: no such page"),
        (lambda root: site(root).unlink(), f"{PAGE}: no such page"),
        (record(lambda chapters: chapters.update(order={"files": {}})), "runs/one/order.html: no such page"),
        (record(lambda chapters: chapters.update(towers={"files": {"figures/one_towers-explore.json": ""}})),
         "runs/one/explore.html: no such page"),
        (record(lambda chapters: chapters.pop("claims")), "book/runs/one/run.json: no chapter claims"),
        (lambda root: write(root, {"book/runs/one/run.json": "{"}), "book/runs/one/run.json: not a record"),
        (lambda root: (root / "book" / "runs" / "one" / "run.json").unlink(), "book/runs: no run"),
        (in_page("toy.html", "intro.html", "intro.html"), "toy.html: not in the table of contents"),
        (in_page('id="fig-one-task-shots"', ""), f"{PAGE}: no figure fig-one-task-shots"),
        (in_page("performance-fast", "x", "performance.html"), "performance.html: no figure fig-performance-fast"),
        (in_page("fig-toy-training", "other", "toy.html"), "toy.html: no figure fig-toy-training"),
        (in_page("<img", "<i"), f"{PAGE}: no picture in fig-one-task-shots"),
        (in_page(FIGURE, '<p id="fig-one-task-shots"></p><img alt="Apart." src="../../_images/one_task-shots.svg">'),
         f"{PAGE}: no picture in fig-one-task-shots"),
        (lambda root: site(root, "_images/fast.svg").write_text(""), "performance.html: _images/fast.svg is empty"),
        (lambda root: site(root, "_images/toy curve.svg").write_text(""), "toy.html: _images/toy%20curve.svg is empty"),
        (lambda root: site(root, "_images/one_task-shots.svg").write_text("<svg>two</svg>"),
         f"{PAGE}: the picture in fig-one-task-shots is not the run's one_task-shots.svg"),
        (lambda root: (root / "book" / "runs" / "one" / "figures" / "one_task-shots.svg").unlink(),
         f"{PAGE}: one_task-shots.svg, shown in fig-one-task-shots, is not in the book"),
        (in_page("a2/one_task-shots.pdf", "a1/one_task-shots.json"), f"{PAGE}: no link to figures/one_task-shots.pdf"),
        (in_page('alt="Two lines."', ""), f"{PAGE}: no alt text for ../../_images/one_task-shots.svg"),
        (in_page('alt="Two lines."', 'alt=" "'), f"{PAGE}: no alt text for ../../_images/one_task-shots.svg"),
        (in_page("</figure>", "</figure><pre>Trace<b>back</b> (most recent call last)</pre>"), f"{PAGE}: a traceback"),
        (in_page("intro.html", "into.html", "index.html"), "index.html: dead link 'into.html'"),
        (in_page("#verdict", "#verdicts", "intro.html"), "intro.html: dead link 'runs/one/claims.html#verdicts'"),
        (in_page('"#"', '"#nowhere"'), f"{PAGE}: dead link '#nowhere'"),
        (in_page('"#"', '"../../../secret.html"'), f"{PAGE}: dead link '../../../secret.html'"),
        (lambda root: site(root, "_images/one_task-shots.svg").unlink(),
         f"{PAGE}: dead link '../../_images/one_task-shots.svg'"),
    ],
)  # fmt: skip
def test_damage_is_found(look, root, damage, found):
    (root / "_build" / "secret.html").write_text("outside of the site")
    damage(root)
    assert found in look.problems(root, ["one"])


def test_a_required_run_that_is_not_there_lacks_every_chapter(look, root):
    lines = list(look.problems(root, ["other"]))
    assert lines == [f"book/runs/other/run.json: no chapter {chapter}" for chapter in ("claims", "task")]


def test_a_site_that_was_never_built_lacks_everything(look, root):
    (root / "_build").rename(root / "elsewhere")
    lines = list(look.problems(root, ["one"]))
    assert len(lines) == 6
    assert all(line.endswith(": no such page") for line in lines)


def test_it_stands_alone_prints_a_line_a_problem_and_exits_with_1(root):
    write(root, {".ci/look.py": LOOK.read_text()})

    def run():
        return subprocess.run(
            [sys.executable, "-I", "-S", root / ".ci" / "look.py", "one"], capture_output=True, text=True, cwd="/"
        )  # without any installed package

    whole = run()
    assert (whole.returncode, whole.stderr) == (0, "")
    site(root).unlink()
    broken = run()
    assert (broken.returncode, broken.stderr) == (1, "")
    assert broken.stdout.splitlines() == [f"{PAGE}: no such page", f"intro.html: dead link '{PAGE}'"]


def test_it_is_short():
    source = LOOK.read_text()
    assert len(source.splitlines()) < 200
    assert ast.get_docstring(ast.parse(source))

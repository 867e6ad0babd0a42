"""The site, built by Sphinx from made-up runs: whatever a model is called, whatever has gone wrong before."""

import contextlib
import errno
import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from clones import PROJECT, clone, go, made_up
from twotowers.errors import RunFolderError, SiteError, StalePageError
from twotowers.pipeline import freshness, looks, site
from twotowers.pipeline import run as pipeline
from twotowers.pipeline.status import run_status
from twotowers.publishing.citing import FORMATS
from twotowers.publishing.run_folder import RunFolder, figure_stem, runs_of

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("qwen2.5_0.5b", "Modèle--é 1", "here/a*b*<i>$1$", "there/a*b*<i>$1$")  # two are called the same


@pytest.fixture(scope="module")
def look():
    spec = importlib.util.spec_from_file_location("look", PROJECT / ".ci" / "look.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "look", module)
        spec.loader.exec_module(module)
        yield lambda root: list(module.problems(root, []))


def as_it_was(text, run, chapter, workplace, entry, revision):
    """In place of a drawing of today, since there are no pages of what is made up."""
    for file in entry["files"]:
        (workplace / file).parent.mkdir(exist_ok=True)
        shutil.copy(run.path / file, workplace / file)
    return True


@pytest.fixture(scope="module")
def book(tiny_folders, tmp_path_factory, one_thread):
    """A clone with a run of a chapter of each of several models, and its site."""
    with pytest.MonkeyPatch.context() as patch:
        here = tmp_path_factory.mktemp("site")
        root = clone(here / "my [own] clone, 100 % #1", patch)  # whose brackets are none of a pattern
        patch.setenv("TWOTOWERS_CACHE", str(here / "cache"))
        patch.setattr(looks, "redraw", as_it_was)
        patch.setattr(site, "cores", lambda: 1)  # other processes do not know of what is made up
        patch.setattr(pipeline, "require", lambda model, labels: pd.DataFrame({"identity": [], "holds": []}))
        patch.setattr(pipeline, "execute", lambda text, parameters, folder, *_, **__: made_up(text, parameters, folder))
        for number, name in enumerate(NAMES):
            model = Path(shutil.copytree(tiny_folders["gpt2"], here / name))
            weights = bytearray((model / "model.safetensors").read_bytes())
            weights[-4] ^= number  # each has weights of its own
            (model / "model.safetensors").write_bytes(weights)
            go(model)
        site.build()
        yield root


@pytest.fixture
def root(book):
    """The same, as it was after the test."""
    kept = book.with_name("kept")
    shutil.copytree(book, kept)
    yield book
    for name in ("book", "_config.yml"):
        place = book / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        shutil.move(kept / name, place)
    shutil.rmtree(kept)


def text(root, page):
    return (root / "_build" / "html" / f"{page}.html").read_text(encoding="utf-8")


def test_models_of_any_name_have_their_pages_and_figures(book, look):
    assert look(book) == []
    assert len(runs_of(book)) == len(NAMES)
    captions = re.findall(r'class="caption-text">(.*?)<', text(book, "intro"))
    for name in NAMES:
        model = html.escape(Path(name).name)
        assert [caption for caption in captions if caption.startswith(model)], name
        assert len(set(captions)) == len(captions)


def test_under_a_figure_stand_its_files_and_its_citation_ready_to_be_copied(book):
    for run in runs_of(book):
        page = text(book, f"runs/{run.name}/task")
        stem = figure_stem(run.name, "task-made-up")
        made = json.loads((run.path / f"{stem}.json").read_text(encoding="utf-8"))["provenance"]
        (cite,) = re.findall(r"<details[^>]*figure-cite.*?</details>", page, re.DOTALL)
        shown = [
            html.unescape(re.sub("<.*?>", "", block)) for block in re.findall(r"<pre>(.*?)</pre>", cite, re.DOTALL)
        ]
        assert [block.rstrip("\n") for block in shown] == [write(made) for _, write in FORMATS.values()]
        assert {Path(link).name for link in re.findall(r'href="([^"]*_(?:downloads|images)[^"]*)"', page)} >= {
            f"{Path(stem).name}.{ending}" for ending in ("svg", "png", "pdf", "csv", "json")
        }
        assert "copybutton" in page


def test_every_run_has_a_column_of_the_atlas_also_if_two_models_have_one_name(book):
    ledgers = text(book, "atlas").partition('id="atlas-paper"')[0]
    columns = [html.unescape(found) for found in re.findall(r'<th class="head"><p>(.*?)</p>', ledgers)]
    twins = [f"a*b*<i>$1$ ({run.name})" for run in runs_of(book) if run.title == "a*b*<i>$1$"]
    assert len(twins) == 2
    assert sorted(columns) == sorted(["claim", *NAMES[:-2], *twins])


def test_without_its_run_the_toy_page_says_so_and_leads_nowhere(book):
    assert "toy-gpt2" not in {run.name for run in runs_of(book)}
    assert "twotowers run --model toy-gpt2" in text(book, "toy").replace('</span> <span class="pre">', " ")


def test_with_nothing_changed_nothing_is_built(book, monkeypatch):
    for step in ("_stage", "_jupyter_book"):
        monkeypatch.setattr(site, step, lambda *given: pytest.fail("it was built again"))
    assert site.build() == book / "_build" / "html" / "index.html"


def test_all_that_a_page_may_hang_on_counts_as_a_change_and_nothing_else(root):
    before = site._made_of(root, {})
    for name in (".tmp-vm-1-task/task.ipynb", ".parts-task/a.parquet", "../.a-run.task.lock"):
        passing = first_run(root) / name
        passing.parent.mkdir(exist_ok=True)
        passing.write_text("passing")
    assert site._made_of(root, {}) == before
    seen = {before, site._made_of(root, {("a-run", "task"): freshness.State("stale", ("it is old",))})}
    for name in ("_config.yml", "book/cite.md", "book/runs/.seeds/1/a-run/run.json", first_run(root) / "run.json"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() if file.is_file() else "") + " ")
        seen.add(site._made_of(root, {}))
    assert len(seen) == 6


def test_a_broken_reference_fails_until_it_is_mended(root, look):
    page = root / "book" / "cite.md"
    whole = page.read_text()
    page.write_text(whole + "\nSee {doc}`nowhere-at-all`.\n")
    for _ in range(2):
        with pytest.raises(SiteError, match="nowhere-at-all"):
            site.build()
    page.write_text(whole + "\nMended.\n")
    site.build()
    assert "Mended." in text(root, "cite")
    assert look(root) == []


def first_run(root):
    return root / "book" / "runs" / runs_of(root)[0].name


def drawn(run, ending):
    """A file of the run's figure."""
    return run / f"{figure_stem(run.name, 'task-made-up')}.{ending}"


def edit(file, new):
    file.write_text(new(file.read_text(encoding="utf-8")), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda run: edit(drawn(run, "csv"), lambda text: text.replace("0.3", "0.4")),
         "damaged: {stem}.csv was changed"),
        (lambda run: edit(drawn(run, "svg"), lambda text: text.replace("<path", "<path ", 1)),
         "damaged: {stem}.svg was changed"),
        (lambda run: (drawn(run, "svg")).write_text(""),
         "damaged: {stem}.svg was changed"),
        (lambda run: drawn(run, "png").unlink(), "damaged: {stem}.png is gone"),
        (lambda run: (run / "task.ipynb").write_text(""), "damaged: task.ipynb was changed"),
    ],
)  # fmt: skip
def test_what_was_edited_since_is_refused_by_name(root, change, why):
    run = first_run(root)
    change(run)
    said = why.format(stem=figure_stem(run.name, "task-made-up"))
    with pytest.raises(StalePageError, match=f"^The page {run.name}/task is {re.escape(said)}"):
        site.build()


@contextlib.contextmanager
def edited_code(module):
    file = freshness.PACKAGE / module
    whole = file.read_text()
    file.write_text(whole + "\nNEW = 1\n")
    yield
    file.write_text(whole)


def test_edited_code_is_refused_by_name_for_every_run(root):
    with edited_code("tracing/capture.py"):
        with pytest.raises(StalePageError, match="is stale: the code of tracing changed") as caught:
            site.build()
        assert f"(and {len(NAMES) - 1} more)" in str(caught.value)


def test_another_look_is_drawn_by_the_build_for_every_run(root, look, capsys):
    edit(root / "book" / "chapters" / "task.md", lambda text: text + "\nMore of it.\n")
    with edited_code("publishing/style.py"):
        site.build()
        said = capsys.readouterr().err
        for run in runs_of(root):
            assert f"{run.name}: task (drawn anew: its prose changed; the code of publishing changed)" in said
            assert [str(line.state) for line in run_status(root, run) if line.chapter == "task"] == ["done"]
        assert look(root) == []


def test_what_cannot_be_drawn_from_what_is_stored_is_refused_by_name(root, monkeypatch):
    edit(root / "book" / "chapters" / "task.md", lambda text: text + "\nMore of it.\n")
    monkeypatch.setattr(looks, "redraw", lambda *given: False)
    with pytest.raises(StalePageError, match="/task is stale: its prose changed"):
        site.build()


def test_a_folder_that_cannot_be_written_is_named_where_its_look_is_stale(root, monkeypatch):
    edit(root / "book" / "chapters" / "task.md", lambda text: text + "\nMore of it.\n")
    monkeypatch.setattr(RunFolder, "commit", lambda *given: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))
    with pytest.raises(RunFolderError, match=r"^The run folder .* cannot be written \(read-only\)"):
        site.build()
    assert not list(root.glob("book/runs/*/.tmp-*"))


def test_a_page_that_is_published_though_it_is_stale_says_so(root, look):
    run = first_run(root)
    edit(run.parents[1] / "chapters" / "task.md", lambda text: text + "\nMore.\n")
    edit(drawn(run, "csv"), lambda text: text.replace("0.3", "0.4"))
    site.build(stale=True)
    damaged = f"{figure_stem(run.name, 'task-made-up')}.csv"
    assert f"This page is damaged: {damaged} was changed." in text(root, f"runs/{run.name}/task")
    assert "This page is stale: its prose changed." in text(root, f"runs/{runs_of(root)[1].name}/task")
    assert look(root) == []


def test_a_build_that_is_killed_leaves_no_process_and_nothing_in_the_temporary_folder(root, look, tmp_path):
    edit(root / "book" / "cite.md", lambda text: text + "\nTo be built.\n")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    build = subprocess.Popen(
        [sys.executable, "-m", "twotowers", "build"], cwd=root, env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    command, pages, deadline = psutil.Process(build.pid), root / "_build" / "html", time.monotonic() + 600
    while not (left := command.children(recursive=True)) or not any(pages.glob("*.html")):  # until Sphinx writes pages
        assert build.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    build.kill()
    build.wait()
    _, alive = psutil.wait_procs(left, timeout=600)
    assert not alive
    assert not list(temporary.rglob("*"))
    site.build()
    assert "To be built." in text(root, "cite")
    assert look(root) == []

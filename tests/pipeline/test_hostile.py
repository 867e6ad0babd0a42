"""Texts from outside that are made to be more than texts: on every page of a site they are shown as they are."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pandas as pd
import pytest

from browsing import needs_browser
from clones import accuracies, built_pages, for_sites, go
from drawings import SHOWN
from twotowers.chapters import registry
from twotowers.chapters.chapter import Page
from twotowers.chapters.registry import CHAPTERS
from twotowers.models.loading import Loading
from twotowers.pipeline import run as pipeline
from twotowers.pipeline.contributed import KEY
from twotowers.pipeline.pages import LOOK
from twotowers.pipeline.redraw import items_of
from twotowers.publishing import publish
from twotowers.publishing.dark import with_dark
from twotowers.publishing.markdown import plain
from twotowers.publishing.run_folder import effects_file, runs_of
from twotowers.publishing.specification import specification_digest
from twotowers.publishing.style import styled
from twotowers.study import open_study

pytestmark = [pytest.mark.usefixtures("one_thread"), needs_browser]
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{x}}$\\alpha$|`[a](javascript:alert(1))*b*_c_\u202e```{raw}</script>"
SHOWN_AS = plain(HOSTILE)
BY_PLACE = ("imbalance", "order")  # their tables call the first and the second label bar and foo, whatever they are
OF_RECORD = ("dtype", "device", "task", "template", "command", "git_commit", "revision", "quantised", "model", "family")
LABELS = {"foo": f"foo{HOSTILE}", "bar": f"bar{HOSTILE}"}


def hostile(value):
    """Labels, texts and tokens of a result exchanged for others."""
    if isinstance(value, str):
        return re.sub(r"\b(foo|bar)\b", lambda label: LABELS[label[0]], value).replace("love", HOSTILE)
    if isinstance(value, dict):
        return {hostile(name): hostile(part) for name, part in value.items()}
    if isinstance(value, list):
        return [*map(hostile, value)]
    if isinstance(value, pd.DataFrame):
        texts = [name for name in value if value[name].map(type).eq(str).any()]
        return value.assign(**{name: value[name].map(hostile) for name in texts}).rename(columns=hostile)
    return value


def made_hostile(text, parameters, folder):
    """What a chapter leaves: all that the toy's page shows, of other texts."""
    name, given = text.stem, [parameters[x] for x in ("model", "task", "scale", "seed")]
    study = open_study(*given, Loading(**parameters["loading"]))
    page = Page(name, study, Path(folder), dict(parameters["reads"]))
    made = page.shown.facts.provenance | dict.fromkeys(OF_RECORD, HOSTILE)
    made |= {"packages": dict.fromkeys(made["packages"], HOSTILE), "date": "2026-01-02"}
    made |= {KEY: {"by": HOSTILE, "date": HOSTILE, "imported": HOSTILE}}
    page.shown.facts = dataclasses.replace(
        page.shown.facts, family=HOSTILE, template=HOSTILE, labels=tuple(sorted(LABELS.values())), provenance=made,
        account=f"{HOSTILE} is a category.",
    )  # fmt: skip
    outputs, old = [], SHOWN[name]
    for item_id, item in ((i, items_of(name)[i]) for i in old.items):
        inputs = old.inputs(item_id)
        evidence = item_id.startswith("claim-")
        places = {"evidence": effects_file(item_id.removeprefix("claim-"))} if evidence else None
        page.shown.add(item, inputs if evidence or name in BY_PLACE else hostile(inputs), places)
        data, said = {"text/markdown": page.shown.render(item)}, {"item": item_id}
        shown = nbformat.v4.new_output("display_data", data, metadata=said)
        outputs.append(nbformat.v4.new_code_cell("page.show()", outputs=[shown]))
    strange = nbformat.v4.new_output("display_data", {"text/html": HOSTILE, "application/javascript": "alert(1)"})
    cells = [nbformat.v4.new_markdown_cell("# A chapter"), *outputs, nbformat.v4.new_code_cell("0", outputs=[strange])]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(notebook, Path(folder) / f"{name}.ipynb")
    for handed in registry.find(name).hands_on:
        page.hand_on(handed, accuracies(study, 0.9) if handed == "accuracy" else {"all": [[0, 1]]})


def only_svg(stem, drawing, *, caption, alt, record):
    """Of a figure's files those that are read again; the picture has to be XML."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for ending in ("svg", "png", "pdf"):
        stem.with_name(f"{stem.name}.{ending}").touch()
    picture = stem.with_name(f"{stem.name}.svg")
    with styled():
        drawing.savefig(picture, metadata=publish.inside(record)["svg"])
    picture.write_text(with_dark(picture.read_text(encoding="utf-8")), encoding="utf-8")
    ElementTree.parse(picture)
    whole = {"caption": caption, "alt": alt, "provenance": record}
    stem.with_name(f"{stem.name}.json").write_text(json.dumps(whole), encoding="utf-8")


@pytest.fixture(scope="module")
def pages(tiny_folders, tmp_path_factory, one_thread):
    """The pages of a site of one model, task and run whose every name is hostile."""
    with pytest.MonkeyPatch.context() as patch:
        here = tmp_path_factory.mktemp("hostile")
        for_sites(here, patch, made_hostile)
        patch.setattr(pipeline, "require_fit", lambda study: None)
        patch.setattr("twotowers.publishing.shown.write_figure", only_svg)
        model = Path(shutil.copytree(tiny_folders["gpt2"], here / HOSTILE.replace("/", "")))
        task = here / f"{HOSTILE.replace('/', '')}.csv"
        rows = [(f"{category[:4]}{n}", category) for category in ("fruit", HOSTILE) for n in range(24)]
        pd.DataFrame(rows, columns=["text", "label"]).to_csv(task, index=False)
        go(model, *CHAPTERS, task=str(task))
        (run,) = runs_of(Path.cwd())
        by = dict.fromkeys(("by", "date", "imported", "version", "archive_sha256"), HOSTILE)
        run.update(lambda now: now.update({KEY: by | {"specification_sha256": specification_digest()}}))
        yield built_pages()


def test_texts_from_outside_are_texts_on_every_page(pages, tab):
    (run,) = runs_of(Path.cwd())
    tab.on("dialog", lambda dialog: (tab.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    seen = {}
    for name, path in pages.items():
        if name == "index.html":
            continue
        tab.goto(path.as_uri())
        seen[name] = tab.locator("body").text_content()
        script = "article script:not([src]):not([type='application/json'])"  # the page that looks into heads has ours
        made = f"img[src='x'], [onerror], a[href^='javascript' i], {script}, article em em"
        assert tab.locator(made).count() == 0, name
        rows = "table => [...table.rows].map(row => [...row.cells].reduce((n, cell) => n + cell.colSpan, 0))"
        widths = tab.eval_on_selector_all("article table", f"tables => tables.map({rows})")
        assert [of_table for of_table in widths if len(set(of_table)) > 1] == [], name
    assert [wrong for wrong in tab.wrong if "search" not in wrong] == []
    for chapter in (*CHAPTERS, LOOK):
        text = seen[f"runs/{run.name}/{chapter}.html"]
        assert text.count(SHOWN_AS) > 3, chapter
        assert f"This run was contributed by {SHOWN_AS}: it was made on {SHOWN_AS} with" in text, chapter
    assert SHOWN_AS.replace("/", "") in seen["intro.html"]

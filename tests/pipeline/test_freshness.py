"""What makes a chapter of a run stale, damaged or missing, in words; and what does not."""

import json
import os
import shutil
from pathlib import Path

import pytest

from clones import chapters, go, kept, record, run_of
from twotowers.pipeline import freshness, run
from twotowers.pipeline.status import run_status
from twotowers.publishing.run_folder import RunFolder, figure_stem

pytestmark = pytest.mark.usefixtures("one_thread")


def state_of(root, folder, chapter="task"):
    return next(line.state for line in run_status(root, RunFolder(folder)) if line.chapter == chapter)


def edit(name, text="\nNEW = 1\n"):
    with (freshness.PACKAGE / name).open("a") as module:
        module.write(text)


def change_weights(model):
    file = model / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def change_config(model):
    facts = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(facts | {"layer_norm_epsilon": 0.5}))


def swap_tokens(model):
    file = model / "tokenizer.json"
    facts = json.loads(file.read_text())
    words = facts["model"]["vocab"]
    first, second = [word for word in words if word.startswith("Ġ")][:2]
    words[first], words[second] = words[second], words[first]
    file.write_text(json.dumps(facts))


def add_cell(root):
    file = root / "book" / "chapters" / "task.md"
    file.write_text(file.read_text() + "\n```{code-cell} ipython3\nprint(1)\n```\n")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda root, model: change_config(model), "the configuration changed"),
        (lambda root, model: swap_tokens(model), "the tokenizer changed"),
        (lambda root, model: (model / "special_tokens_map.json").write_text("{}"), "the tokenizer changed"),
        (lambda root, model: add_cell(root), "the cells of its text changed"),
        (lambda root, model: edit("tracing/capture.py"), "the code of tracing changed"),
        (lambda root, model: edit("chapters/task/accuracy.py"), "the code of chapters/task changed"),
        (lambda root, model: edit("prompts/words.yaml", "\nanimals2: [a]\n"), "the code of prompts changed"),
        (lambda root, model: edit("statistics.py"), "the code of statistics.py changed"),
    ],
)
def test_what_decides_a_number_makes_a_chapter_stale_and_says_so(root, model, runs, executed, change, why):
    change(root, model)
    assert str(state_of(root, runs)).startswith(f"stale: {why}")
    assert [o.state for o in go(model)] == ["run"]
    assert [o.state for o in go(model)] == ["up to date"]
    assert len(executed) == 1


@pytest.mark.parametrize("library", freshness.LIBRARIES)
def test_another_version_of_a_library_makes_a_chapter_stale(root, runs, monkeypatch, library):
    plain = freshness.importlib.metadata.version
    monkeypatch.setattr(
        freshness.importlib.metadata, "version", lambda name: "0.0.1" if name == library else plain(name)
    )
    assert f"{library} changed from" in str(state_of(root, runs))
    assert "to 0.0.1" in str(state_of(root, runs))


def test_other_weights_are_another_run(root, model, runs, executed):
    change_weights(model)
    go(model)
    assert len(list((root / "book" / "runs").glob("[!.]*/run.json"))) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda root, model, runs: os.utime(model / "model.safetensors"),
        lambda root, model, runs: edit("chapters/order/order.py"),
        lambda root, model, runs: edit("cli.py"),
        lambda root, model, runs: edit("pipeline/run.py"),
        lambda root, model, runs: edit("tracing/capture.py", "\n\n# one more remark\n"),
        lambda root, model, runs: (runs / "notes.txt").write_text("mine"),
    ],
    ids=["file times", "a later chapter", "the command", "the pipeline", "a comment", "other files"],
)
def test_what_changes_no_result_runs_nothing_again(root, model, runs, executed, change):
    change(root, model, runs)
    assert str(state_of(root, runs)) == "done"
    assert [o.state for o in go(model)] == ["up to date"]
    assert not executed


def test_a_comment_within_a_function_and_a_docstring_decide_nothing(root, runs, executed):
    file = freshness.PACKAGE / "tracing" / "capture.py"
    source = file.read_text()
    assert '"""' in source
    file.write_text(source.replace("import torch\n", "import torch  # the tensors\n", 1).replace('"""', '"""Well: ', 1))
    assert str(state_of(root, runs)) == "done"


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (
            lambda runs: next(runs.glob("figures/*.csv")).write_text("x,y\n1,2\n"),
            "{stem}.csv was changed",
        ),
        (lambda runs: next(runs.glob("figures/*.svg")).write_text(""), "{stem}.svg was changed"),
        (lambda runs: next(runs.glob("figures/*.png")).unlink(), "{stem}.png is gone"),
        (lambda runs: (runs / "task.ipynb").write_text('{"cells": ['), "task.ipynb was changed"),
        (lambda runs: (runs / "task.ipynb").unlink(), "task.ipynb is gone"),
        (lambda runs: (runs / "handed" / "accuracy.json").unlink(), "handed/accuracy.json is gone"),
    ],
)
def test_damaged_files_are_noticed_named_and_mended(root, model, runs, executed, damage, why):
    before = kept(runs)
    damage(runs)
    assert str(state_of(root, runs)) == f"damaged: {why.format(stem=figure_stem(runs.name, 'task-made-up'))}"
    assert [o.state for o in go(model)] == ["run"]
    assert kept(runs) == before
    assert str(state_of(root, runs)) == "done"


@pytest.mark.parametrize("content", ["", '{"chapters": ', "[]", '{"chapters": {}}'])
def test_a_record_that_is_none_is_made_again(root, model, runs, executed, content):
    (runs / "run.json").write_text(content)
    assert [o.state for o in go(model)] == ["run"]
    assert list(record(runs)["chapters"]) == ["task"]


def test_a_folder_named_like_a_registry_key_is_another_run(root, model, executed):
    """Its template is another, too: what counts is the model, not its name."""
    here = Path(shutil.copytree(model, root / "toy-gpt2"))
    go("toy-gpt2")
    go(here)
    assert [call["model"] for call in executed] == ["toy-gpt2", str(here)]
    names = sorted(path.parent.name for path in (root / "book" / "runs").glob("[!.]*/run.json"))
    assert names[0] == "toy-gpt2"
    assert names[1].startswith("toy-gpt2-")


def test_two_folders_of_one_name_do_not_meet(root, model, executed, tmp_path):
    other = Path(shutil.copytree(model, tmp_path / "elsewhere" / "mine"))
    change_weights(other)
    for folder in (model, other, model):
        go(folder)
    assert [call["model"] for call in executed] == [str(model), str(other)]
    assert len(list((root / "book" / "runs").glob("mine-*/run.json"))) == 2


def test_the_same_weights_are_the_same_run_whatever_path_leads_to_them(root, model, runs, executed, monkeypatch):
    monkeypatch.chdir(model)
    monkeypatch.setattr(run, "project_root", lambda: root)
    assert [o.state for o in go(".")] == ["up to date"]


def test_tasks_and_ways_of_loading_have_runs_of_their_own(root, model, runs, executed):
    for number, folder in enumerate(("one", "two")):
        rows = [f"{word}{n},{word}" for word in ("apple", "saw") for n in range(8 + number)]
        (root / folder).mkdir()
        (root / folder / "words.csv").write_text("\n".join(["text,label", *rows]))
        go(model, task=str(root / folder / "words.csv"))
    go(model, loading=run.Loading(dtype="bfloat16"))
    names = {path.parent.name for path in (root / "book" / "runs").glob("[!.]*/run.json")}
    assert len(names) == 4
    assert sum("-on-words-csv-" in name for name in names) == 2
    assert sum(name.endswith("-in-bfloat16") for name in names) == 1
    assert str(state_of(root, runs)) == "done"


def test_a_chapter_is_stale_while_one_that_it_reads_is(root, model, executed):
    go(model, "values")
    folder = run_of(root)
    assert chapters(executed) == ["task", "knockout", "values"]
    edit("chapters/knockout/knockout.py")
    assert "knockout, which it reads of, is stale" in str(state_of(root, folder, "values"))
    assert state_of(root, folder, "knockout").name == "stale"
    assert [o.state for o in go(model, "values")] == ["up to date", "run", "up to date"]  # the same heads as before

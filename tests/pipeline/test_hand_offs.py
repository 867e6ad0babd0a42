"""What chapters hand on is tied to what made it, and what is missing is made first."""

import json

import pytest

from clones import accuracies, chapters, go, made_up, record, run_of
from twotowers import ledger
from twotowers.chapters import registry
from twotowers.chapters.chapter import Page
from twotowers.errors import DamagedRunError, OtherRunError, UnknownNameError
from twotowers.paper import CLAIMS
from twotowers.pipeline import run as pipeline
from twotowers.study import open_study

pytestmark = pytest.mark.usefixtures("one_thread", "light_figures")


def test_what_a_chapter_needs_is_made_first_in_one_command(root, model, executed):
    assert [(o.chapter, o.state) for o in go(model, "values")] == [
        ("task", "run"), ("knockout", "run"), ("values", "run")
    ]  # fmt: skip


@pytest.mark.parametrize("file", ["handed/heads.json", "claims/C4.json", "handed/accuracy.json"])
def test_a_hand_off_that_is_gone_or_edited_is_made_again_by_what_reads_it(root, model, executed, file):
    go(model, *registry.CHAPTERS)
    folder = run_of(root)
    before = (folder / file).read_text()
    for damage in (lambda path: path.unlink(), lambda path: path.write_text("{}")):
        damage(folder / file)
        executed.clear()
        reader = "values" if "heads" in file else "claims"
        go(model, reader)
        assert len(executed) == 1
        assert (folder / file).read_text() == before
        assert set(ledger(folder)["verdict"]) == {"supported"}


def test_another_seed_or_scale_is_refused_with_what_to_do_or_replaces_the_whole_run(root, model, executed, capsys):
    go(model, "values")
    folder = run_of(root)
    before = record(folder)
    with pytest.raises(OtherRunError, match=r"was made with seed 0; .*add --replace"):
        go(model, "values", seed=1)
    with pytest.raises(OtherRunError, match="was made with scale smoke"):
        pipeline.run(str(model), chapters=["values"], scale="book")
    assert record(folder) == before
    executed.clear()
    go(model, "task", seed=1, replace=True)
    assert "makes way for this one" in capsys.readouterr().out
    assert list(record(folder)["chapters"]) == ["task"]
    assert record(folder)["run"]["seed"] == 1
    assert not (folder / "values.ipynb").exists()
    assert not list(folder.glob("claims/*"))
    go(model, "values", seed=1)
    assert chapters(executed) == ["task", "knockout", "values"]
    assert {call["seed"] for call in executed} == {1}


def test_a_reader_refuses_what_was_made_of_something_else(root, model, executed):
    go(model, "knockout")
    folder = run_of(root)
    file = "handed/heads.json"
    study = open_study(str(model), "words", "smoke", 1)
    work = folder / ".tmp-by-hand"
    digest = record(folder)["chapters"]["knockout"]["files"][file]
    with pytest.raises(DamagedRunError, match="another model, task, scale or seed"):
        Page("values", study, work, {file: digest}).handed("heads")
    study = open_study(str(model), "words", "smoke", 0)
    assert Page("values", study, work, {file: digest}).selected["all"] == [(0, 1)]
    with pytest.raises(DamagedRunError, match="is not what was made"):
        Page("values", study, work, {file: "0" * 64}).handed("heads")
    with pytest.raises(DamagedRunError, match="is missing"):
        Page("values", study, work, {}).handed("heads")


@pytest.mark.parametrize("jobs", [1, 2, 4])
@pytest.mark.parametrize("accuracy", [0.9, 0.6])
def test_verdicts_depend_neither_on_jobs_nor_on_the_order_of_chapters(
    root, model, executed, monkeypatch, jobs, accuracy
):
    def execute(text, parameters, folder, *others, **options):
        made_up(text, parameters, folder)
        if text.stem == "task":
            study = open_study(parameters["model"], parameters["task"], parameters["scale"], parameters["seed"])
            page = Page("task", study, folder, {})
            page.hand_on("accuracy", accuracies(study, accuracy))

    monkeypatch.setattr(pipeline, "execute", execute)
    go(model, *reversed(registry.CHAPTERS), jobs=jobs)
    table = ledger(run_of(root))
    assert set(table["verdict"]) == {"supported" if accuracy == 0.9 else "not testable"}  # 0.6 - 3/8 is below one half
    assert list(table["claim"]) == list(CLAIMS)


def test_the_ledger_refuses_effects_that_were_edited(root, model, executed):
    go(model, "knockout")
    folder = run_of(root)
    judged = [claim for claim, facts in CLAIMS.items() if facts.chapter == "knockout"]
    table = ledger(folder)
    assert list(table[table["verdict"] != "not run"]["claim"]) == judged
    file = folder / "claims" / "C4.json"
    file.write_text(file.read_text().replace('"effects"', '"Effects"'))
    with pytest.raises(DamagedRunError, match=r"claims/C4\.json is not what was made"):
        ledger(folder)


def test_forced_chapters_that_were_done_before_an_interruption_are_not_done_again(root, model, executed, monkeypatch):
    go(model, "task", "locate")
    executed.clear()

    def stop(text, *arguments, **options):
        if text.stem == "locate":
            raise KeyboardInterrupt
        made_up(text, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "execute", stop)
        with pytest.raises(KeyboardInterrupt):
            go(model, "task", "locate", force=True, jobs=1)
    assert [(o.chapter, o.state) for o in go(model, "task", "locate")] == [("task", "up to date"), ("locate", "run")]


def test_an_unknown_chapter_is_refused_before_anything_is_written(root, model):
    with pytest.raises(UnknownNameError, match="There is no chapter"):
        go(model, "task", "nope")
    assert not (root / "book" / "runs").exists()


def test_nothing_travels_by_the_environment(root, model, executed, monkeypatch):
    import os

    seen = []
    monkeypatch.setattr(
        pipeline,
        "execute",
        lambda text, parameters, folder, *o, **k: (
            seen.append({n: v for n, v in os.environ.items() if n.startswith("TWOTOWERS")}),
            made_up(text, parameters, folder),
        ),
    )
    before = {n: v for n, v in os.environ.items() if n.startswith("TWOTOWERS")}
    go(model, "task", loading=pipeline.Loading(dtype="bfloat16"))
    assert seen == [before]
    assert json.loads((run_of(root) / "shown" / "task.json").read_text())["facts"]["provenance"]["dtype"] == "bfloat16"

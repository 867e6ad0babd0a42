"""Runs of others: what is exported comes in whole, is marked wherever it is shown, and never counts as our own."""

import json
import os
import re
import shutil
import zipfile

import nbformat
import pytest
from rocrate.rocrate import ROCrate

from archives import BY, TOY, in_text, packed, unpacked
from clones import clone, record, tree
from twotowers.chapters.registry import CHAPTERS
from twotowers.cli import main
from twotowers.models.loading import Loading
from twotowers.pipeline import contributed, expected, site, verify
from twotowers.pipeline.contributed import CONTRIBUTED, contribution
from twotowers.pipeline.crate import METADATA, RECORD
from twotowers.pipeline.expected import write_expected
from twotowers.pipeline.freshness import DAMAGED, STALE
from twotowers.pipeline.handed_in import import_run
from twotowers.pipeline.pages import LOOK, Published
from twotowers.pipeline.run import prepare
from twotowers.pipeline.status import chapters_made, run_status
from twotowers.publishing.run_folder import RunFolder, figure_ids, is_drawn

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def own(house, tmp_path, monkeypatch):
    """A clone of its own with the finished run."""
    root = clone(tmp_path / "own", monkeypatch)
    shutil.copytree(house / "book" / "runs", root / "book" / "runs")
    return root


@pytest.fixture(scope="module")
def taken(archive, tmp_path_factory):
    """A clone that has taken in the run, with small pictures."""
    with pytest.MonkeyPatch.context() as patch:
        root = clone(tmp_path_factory.mktemp("taken") / "clone", patch)
        patch.setattr("twotowers.publishing.shown.write_figure", small)
        assert main(["import", str(archive)]) == 0
        yield root


def small(stem, drawing, *, caption, alt, record):
    """Figures are laid out, but the files of their pictures are small."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    drawing.draw_without_rendering()
    for ending, content in {"svg": '<svg xmlns="http://www.w3.org/2000/svg"/>', "png": "", "pdf": ""}.items():
        stem.with_name(f"{stem.name}.{ending}").write_text(content)
    whole = {"caption": caption, "alt": alt, "provenance": record}
    stem.with_name(f"{stem.name}.json").write_text(json.dumps(whole))


def folder(root):
    return root / "book" / "runs" / TOY


def run_in(root):
    return RunFolder(folder(root))


# Handing in


def test_the_same_run_gives_the_same_bytes_wherever_and_whenever_it_lies(archive, own, tmp_path):
    for file in folder(own).rglob("*"):
        os.utime(file, (0, 0))
    assert main(["export", TOY, "--by", f" {BY} ", "--output", str(tmp_path / "again.zip")]) == 0
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    assert main(["export", TOY]) == 0
    assert unpacked(own / f"{TOY}.zip").keys() == unpacked(archive).keys()
    assert BY not in unpacked(own / f"{TOY}.zip")[METADATA].decode()


def test_the_archive_is_a_crate_that_says_what_it_is(archive, tmp_path):
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "crate")
    crate = ROCrate(tmp_path / "crate")
    files = {file.id for file in crate.data_entities}
    made = record(tmp_path / "crate")
    assert files == {RECORD, *(file for entry in made["chapters"].values() for file in entry["files"])}
    assert crate.root_dataset["author"]["name"] == BY
    assert crate.license.id.endswith("/MIT")
    versions = {tool["name"]: tool["softwareVersion"] for tool in crate.root_dataset["softwareRequirements"]}
    figure = json.loads((tmp_path / "crate" / f"figures/{TOY}_task-shots.json").read_text())
    assert versions == figure["provenance"]["packages"]
    assert crate.get(f"figures/{TOY}_task-shots.svg")["description"] == figure["alt"]
    assert crate.get("#run")["name"] == figure["provenance"]["command"]
    # What the standard's own validator asks of a crate, where it looked at one of ours.
    for tool in crate.root_dataset["softwareRequirements"]:
        assert tool["version"] == tool["softwareVersion"]
        assert tool["url"] == f"pkg:pypi/{tool['name']}@{tool['version'].replace('+', '%2B')}"
    assert all(file["name"] and file["description"].endswith(".") for file in crate.data_entities)
    assert crate.root_dataset["publisher"]["name"] == BY


def unfinish(root):
    run_in(root).update(lambda made: made["chapters"].pop("order"))


def edit(root):
    (folder(root) / "task.ipynb").write_text("{}")


def outdate(root):
    run_in(root).update(lambda made: made["chapters"]["task"]["made_of"]["results"].update({"the seed": 1}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(unfinish, "order of toy-gpt2 is missing"), (edit, "damaged: task.ipynb"), (outdate, "stale: the seed changed")],
)
def test_what_is_not_finished_is_not_handed_in_and_the_command_that_mends_it_is_named(spoil, said, own, capsys):
    spoil(own)
    assert main(["export", TOY]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert f"twotowers run --model {TOY} --task words --scale book" in err
    assert not (own / f"{TOY}.zip").exists()


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "Ann\u202e"])
def test_a_name_that_cannot_be_shown_is_refused(name, own, capsys):
    assert main(["export", TOY, "--by", name]) == 2
    assert "--by" in capsys.readouterr().err


# Taking in


def test_what_comes_in_has_the_numbers_that_were_handed_in_and_says_who_made_them(archive, taken):
    handed, here = unpacked(archive), run_in(taken)
    numbers = [name for name in handed if name.endswith(".csv") or name.startswith(("claims/", "handed/"))]
    assert {name: (here.path / name).read_bytes() for name in numbers} == {name: handed[name] for name in numbers}
    files = {file for entry in here.record()["chapters"].values() for file in entry["files"]}
    assert files | {RECORD, METADATA} == handed.keys()
    made, before = contribution(here), json.loads(handed[RECORD])
    assert made.by == BY
    assert made.date == max(entry["date"] for entry in before["chapters"].values())[:10]
    now = here.record()["chapters"]
    assert all(now[name]["made_of"] == entry["made_of"] for name, entry in before["chapters"].items())
    for figure in figure_ids(TOY, files):
        settings = json.loads((here.path / f"figures/{TOY}_{figure}.json").read_text())["provenance"]["settings"]
        assert settings["contributed"]["by"] == BY


def test_pictures_are_drawn_here_whatever_was_handed_in_and_tokens_may_look_like_html(archive, tmp_path, monkeypatch):
    root = clone(tmp_path / "other", monkeypatch)
    monkeypatch.setattr("twotowers.publishing.shown.write_figure", small)
    files = in_text(f"figures/{TOY}_values-words.csv", ",love,", ",<s>,")(unpacked(archive))  # as some models call it
    run = import_run(packed(files, tmp_path / "mine.zip"))
    assert run.path == folder(root)
    for file in (file for entry in run.record()["chapters"].values() for file in entry["files"] if is_drawn(file)):
        assert (run.path / file).read_bytes() != files[file]


def test_it_is_never_said_to_be_ours(taken, capsys, monkeypatch):
    monkeypatch.chdir(taken)
    assert {line.state.name for line in run_status(taken, run_in(taken))} == {CONTRIBUTED}
    assert main(["status"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if f"contributed: by {BY}" in line and "not run here" in line]) == len(CHAPTERS)
    assert chapters_made(TOY) == 0
    same = iter([verify.Verified("task-shots", verify.SAME), verify.Verified("task-taste", verify.DIFFERS, "x")])
    monkeypatch.setattr(verify, "_verified", lambda *_: same)
    assert [v.said for v in verify.verify(model=TOY)] == [
        f"the run was contributed by {BY}",
        f"x; the run was contributed by {BY}",
    ]
    keep = taken / "book" / "expected" / TOY
    with monkeypatch.context() as ours:
        ours.setattr(expected, "contribution", lambda run: None)
        write_expected(TOY)
    assert all(v.said == f"the run was contributed by {BY}" for v in expected.compare_expected(TOY))
    assert len(Published(run_in(taken), CHAPTERS, TOY).seeds) == 1
    shutil.rmtree(keep)
    for command in (["export", TOY], ["run", "--model", TOY], ["verify", "--model", TOY, "--write-expected"]):
        before = tree(taken)
        assert main(command) == 2
        assert f"was contributed by {BY}" in capsys.readouterr().err
        assert tree(taken) == before
    with pytest.raises(contributed.NotOursError):
        write_expected(TOY)


def test_it_does_not_become_stale_when_the_code_moves_on_but_damage_and_other_claims_are_noticed(taken, monkeypatch):
    def states(root):
        return {line.chapter: line.state.name for line in run_status(root, run_in(root))}

    text = taken / "book" / "chapters" / "task.md"
    prose = text.read_text()
    text.write_text(prose.replace("page", "paper"))
    assert set(states(taken).values()) == {CONTRIBUTED}
    text.write_text(prose)
    table = folder(taken) / "figures" / f"{TOY}_task-shots.csv"
    whole = table.read_bytes()
    table.write_bytes(whole + b"1")
    assert states(taken)["task"] == DAMAGED
    table.write_bytes(whole)
    monkeypatch.setattr(contributed, "specification_digest", lambda: "0" * 64)
    assert set(states(taken).values()) == {STALE}


def test_a_second_one_of_the_same_name_is_refused_with_what_to_do(archive, taken, capsys, monkeypatch):
    monkeypatch.chdir(taken)
    before = tree(taken)
    assert main(["import", str(archive)]) == 2
    assert f"remove book/runs/{TOY}" in capsys.readouterr().err
    assert tree(taken) == before


def test_a_run_of_ones_own_takes_its_place_as_a_whole(taken, tmp_path, monkeypatch):
    root = clone(tmp_path / "replaced", monkeypatch)
    shutil.copytree(taken / "book" / "runs", root / "book" / "runs")
    prepare(TOY, "words", "book", 0, Loading()).begin(replace=True)
    assert contribution(run_in(root)) is None
    assert record(folder(root))["chapters"] == {}
    left = [file.name for file in folder(root).rglob("*") if file.is_file()]
    assert [name for name in left if not name.startswith(".tmp-")] == ["run.json"]  # and the mark of who is at it


def test_every_page_atlas_and_citation_say_who_made_it(taken, monkeypatch, capsys):
    monkeypatch.chdir(taken)
    site.build()
    html = taken / "_build" / "html"
    name = BY.replace(" ", ".{1,9}")  # a space may be an entity
    for chapter in (*CHAPTERS, LOOK):
        page = (html / "runs" / TOY / f"{chapter}.html").read_text(encoding="utf-8")
        assert re.search(f"This run was contributed by {name}", page), chapter
        assert f"{TOY}, contributed" in re.search("<title>.*?</title>", page, re.DOTALL)[0]
    assert re.search(f"contributed by {name}", (html / "atlas.html").read_text(encoding="utf-8"))
    assert main(["cite", "task-shots", "--format", "text"]) == 0
    assert f"Run contributed by {BY}." in capsys.readouterr().out
    notebook = nbformat.read(taken / "_build" / "book" / "runs" / TOY / "task.ipynb", as_version=4)
    assert sum("Run contributed by" in str(cell) for cell in notebook.cells) > 0

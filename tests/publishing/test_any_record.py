"""Records of runs made by chance, and by strangers: what does not parse is not believed, and no name leads outside."""

import copy
import functools
import json
import os
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ENTRY, message
from twotowers.cli import main
from twotowers.errors import DamagedRunError, RunFolderError, UserError
from twotowers.pipeline import costs, freshness
from twotowers.pipeline.contributed import contribution
from twotowers.pipeline.crate import require_finished
from twotowers.pipeline.figures import command_of
from twotowers.pipeline.pages import Published
from twotowers.pipeline.status import run_status
from twotowers.publishing.citing import FORMATS
from twotowers.publishing.ledger import ledger
from twotowers.publishing.record import told_of_figure
from twotowers.publishing.run_folder import RunFolder
from twotowers.publishing.specification import specification_digest

ROOT = Path(__file__).parents[2]
TOY = ROOT / "book" / "runs" / "toy-gpt2" / "run.json"
OUTSIDE = ["../outside", "/etc/passwd", "..", "a/../../outside", ".hidden", "", "a//b", "./a", "a\\b", "a\nb", "a/\0"]


def small():
    """The toy's record with two chapters, of few files."""
    record = json.loads(TOY.read_text())
    record["chapters"] = {name: record["chapters"][name] for name in ("task", "towers")}
    for entry in record["chapters"].values():
        entry["files"] = dict(sorted(entry["files"].items())[:2])
    return record


def places(value, path=()):
    """Every place in JSON, as the keys that lead there."""
    yield path
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(OUTSIDE)
JSON = st.recursive(
    LEAVES, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=4), one, max_size=3), max_leaves=5
)


@st.composite
def changed(draw):
    """A record with something else at one to three places, or with something more there."""
    record = copy.deepcopy(small())
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in places(record) if path] or [("run",)]))
        inside = record
        for key in path[:-1]:
            inside = inside[key]
        if draw(st.booleans()) or not isinstance(inside, dict):
            inside[path[-1]] = draw(JSON)
        else:
            inside[draw(st.sampled_from(OUTSIDE) | st.text(max_size=4))] = draw(JSON | st.just(inside[path[-1]]))
    return json.dumps(record).encode()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "toy-gpt2"
    folder.mkdir()
    (folder.parent / "outside").write_text("keep me")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_code", "imported"):  # the same for every record
            patch.setattr(freshness, name, functools.cache(getattr(freshness, name)))
        yield RunFolder(folder)


def pages(run):
    """What pages say of a run by its record alone."""
    own = Published(run, list(run.record()["chapters"]), run.title)
    return costs.measured([own]), costs.of_the_paper([own]), contribution(run)


def named(action):
    """What an action gives; None where it is refused by a sentence that names the record."""
    try:
        return action()
    except UserError as error:
        refused = str(error)
    assert "toy-gpt2/" in refused
    return None


@given(content=changed() | st.binary(max_size=50) | st.integers(0, 3000).map(lambda n: TOY.read_bytes()[:n]))
def test_a_record_is_believed_or_refused_by_name(run, content):
    (run.path / "run.json").write_bytes(content)
    record = named(run.record)
    if record is not None:
        files = [file for entry in record["chapters"].values() for file in entry["files"]]
        files += [file for moved in record["moving"].values() for file in moved]
        assert all((run.path / file).resolve().is_relative_to(run.path.resolve()) for file in files)
        assert isinstance(run.title, str)
    assert all(line.run == "toy-gpt2" for line in run_status(ROOT, run))
    named(lambda: ledger(run.path))
    named(lambda: pages(run))
    assert (run.path.parent / "outside").read_text() == "keep me"


ODD = [None, 5, -1, 1e400, float("nan"), "x", "", [], {}, True, ["a"], {"a": 1}, 10**400, "9999-99-99"]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:12])
def test_what_pages_are_made_of_is_not_believed_unseen(run, odd):
    """Every place in a chapter's entry, and whose run it is; lists of digests and machines stopped a build."""
    record = small() | {"contributed": {"by": "A. Reader", "date": "2026-11-30", "version": "0.1.0"}}
    found = [path for path in places(record) if path[:2] == ("chapters", "task") or path[:1] == ("contributed",)]
    for path in found:
        changed = inside = copy.deepcopy(record)
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = odd
        (run.path / "run.json").write_text(json.dumps(changed))
        named(lambda: pages(run))


BESIDE = TOY.parent / "figures" / "toy-gpt2_task-shots.json"  # a figure


@pytest.mark.parametrize("odd", [*ODD, "gone"], ids=lambda odd: repr(odd)[:12])
def test_what_stands_beside_a_figure_is_cited_or_refused(odd):
    """Every place in it; what was missing, or no text, stopped a citation and a build with an error of Python's."""
    for path in [path for path in places(json.loads(BESIDE.read_text())) if path]:
        changed = inside = json.loads(BESIDE.read_text())
        for key in path[:-1]:
            inside = inside[key]
        if odd == "gone":
            del inside[path[-1]]
        else:
            inside[path[-1]] = odd
        told = named(lambda changed=changed: told_of_figure(json.dumps(changed), "toy-gpt2/figures/a.json"))
        if told is not None:
            assert all(isinstance(say(told["provenance"]), str) for _, say in FORMATS.values())
            assert isinstance(told["caption"] + told["alt"], str)


@pytest.mark.parametrize(
    ("name", "odd"),
    [("anchor", "fig-a},\n@misc{b"), ("data_sha256", "}" * 64), ("date", "}}}}-01-02"), ("date", "2026")],
)
def test_what_a_citation_has_no_place_for_is_refused(name, odd):
    """An anchor became part of BibTeX's key, and a year was written as it stood."""
    told = json.loads(BESIDE.read_text())
    told["provenance"][name] = odd
    assert "run the model again" in message(DamagedRunError, lambda: told_of_figure(json.dumps(told), "toy-gpt2/a"))


@pytest.mark.parametrize("own", [small(), {}, {"run": [], "new": 1}])
def test_a_record_of_a_later_version_is_told_as_that(run, own):
    (run.path / "run.json").write_text(json.dumps(own | {"format": 3}))
    said = message(DamagedRunError, run.record)
    assert "run.json was written by a later version of Two Towers (format 3); update this one, or run the" in said


@pytest.mark.parametrize("loading", [{"dtype": "x; rm -rf ~"}, {"unknown": "y"}, {"remote": True}])
def test_the_command_that_makes_a_run_is_one_command_whatever_its_record_says(run, loading):
    """It is to be pasted; what was unknown of loading stopped the message in which it stood."""
    record = small()
    record["run"] |= {"model": "a b; rm -rf ~", "task": "$(id)", "loading": loading}
    record["run"].pop("scale")
    (run.path / "run.json").write_text(json.dumps(record))
    words = shlex.split(command_of(run), comments=True)
    assert words[:8] == ["twotowers", "run", "--model", "a b; rm -rf ~", "--task", "$(id)", "--scale", "book"]
    assert words[8:] == [*(("--dtype", "x; rm -rf ~") if "dtype" in loading else ["--remote"] * ("remote" in loading))]


def test_nothing_of_a_record_is_obeyed_by_a_terminal(run, capsys, monkeypatch):
    """What changed, and who contributed a run, are a stranger's words; they cleared screens and set titles."""
    odd, record = "x\x1b[2J\x1b]0;title\x07\u202e", small()
    monkeypatch.setattr("twotowers.pipeline.status.runs_of", lambda root: [run])
    monkeypatch.setattr("twotowers.pipeline.figures.runs_of", lambda root: [run])
    record["chapters"]["task"]["files"] = {}
    record["chapters"]["task"]["made_of"]["results"][f"the code of {odd}"] = 1
    for more in ({}, {"contributed": {"by": odd, "date": odd, "specification_sha256": specification_digest()}}):
        (run.path / "run.json").write_text(json.dumps(record | more))
        assert main(["status"]) == 0
        assert main(["export", "toy-gpt2"]) == 2
        out, err = capsys.readouterr()
        assert "x[U+001B]" in out
        assert "x[U+001B]" in err
        assert all(line.isprintable() for line in (out + err).split("\n"))


@pytest.mark.parametrize("text", ["", "[]", "5", "{}", '{"provenance": []}', b"\xff\xfe"])
def test_what_is_no_json_beside_a_figure_is_refused(text):
    assert "run the model again" in message(DamagedRunError, lambda: told_of_figure(text, "toy-gpt2/a.json"))


@pytest.mark.parametrize("gone", ["seconds", "date", "files", "made_of"])
def test_a_chapter_of_which_something_is_not_said_is_no_record(run, gone):
    record = small()
    del record["chapters"]["task"][gone]
    (run.path / "run.json").write_text(json.dumps(record))
    assert "toy-gpt2/run.json is not a record of a run" in message(DamagedRunError, run.record)


def test_half_a_pair_is_no_text_of_a_record(run):
    """It can be read, escaped as it is, but no page and no archive could be written with it."""
    record = small()
    record["run"]["title"] = "a\ud800"
    (run.path / "run.json").write_text(json.dumps(record))
    assert "toy-gpt2/run.json is not a record of a run" in message(DamagedRunError, run.record)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_in_the_place_of_a_record_or_file_is_not_waited_for(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    os.mkfifo(run.path / "run.json")
    assert "run/run.json is not a record of a run" in message(DamagedRunError, run.record)
    assert "run/run.json is not a record of a run" in message(DamagedRunError, lambda: require_finished(ROOT, run))
    os.mkfifo(run.path / "a.csv")
    assert run.damage({"files": {"a.csv": "0" * 64}}) == ["a.csv is a pipe"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("where", ["files", "moving"])
def test_no_name_in_a_record_leads_out_of_its_folder(run, name, where):
    record = small()
    if where == "files":
        record["chapters"]["task"]["files"] = {name: "0" * 64}
    else:
        record["moving"] = {"task": [name]}
    (run.path / "run.json").write_text(json.dumps(record))
    assert "toy-gpt2/run.json is not a record of a run" in message(DamagedRunError, run.record)
    with run.workplace("task") as place:
        (place / "task.ipynb").write_text("{}")
        run.commit("task", place, ENTRY)
    assert (run.path.parent / "outside").read_text() == "keep me"
    assert list(run.record()["chapters"]) == ["task"]


def test_a_link_in_a_strangers_run_is_damage_and_nothing_is_written_through_it(tmp_path):
    run = RunFolder(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    run.require_writable()
    with run.workplace("task") as place:
        (place / "tables").mkdir()
        (place / "tables" / "a.csv").write_text("a\n1\n")
        run.commit("task", place, ENTRY)
    (run.path / "tables" / "a.csv").rename(tmp_path / "elsewhere" / "a.csv")
    (run.path / "tables").rmdir()
    (run.path / "tables").symlink_to(tmp_path / "elsewhere")
    assert run.damage(run.entry("task")) == ["tables/a.csv leads out of the run's folder"]
    digest = run.digest_in_record("tables/a.csv")
    assert "is not what was made" in message(DamagedRunError, lambda: run.read("tables/a.csv", digest))
    assert "is a link; remove it" in message(RunFolderError, run.require_writable)

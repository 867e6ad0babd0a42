"""Archives of runs that are not whole, or not harmless: each is refused, and nothing of it is kept."""

import json
import os
import shutil
import stat
import zipfile

import pytest

from archives import (
    TOY,
    added,
    encrypted,
    in_json,
    in_text,
    repacked,
    sealed,
    shows,
    with_bytes,
)
from clones import tree
from twotowers.cli import main
from twotowers.pipeline import archive as reading
from twotowers.pipeline.crate import METADATA, RECORD

SVG = f"figures/{TOY}_task-shots.svg"
CSV = f"figures/{TOY}_task-shots.csv"
SHOWN = "shown/task.json"


def without(name):
    def change(files):
        del files[name]
        return files

    return change


def bomb(archive, place):
    """A file of zeros: a thousandth of its size when packed."""
    shutil.copy(archive, place)
    with zipfile.ZipFile(place, "a", zipfile.ZIP_DEFLATED) as opened, opened.open("zeros.csv", "w") as entry:
        for _ in range(reading.MOST_BYTES // 2**20 + 1):
            entry.write(bytes(2**20))


def lying_bomb(archive, place):
    """The same, but its headers say that it has one byte."""
    bomb(archive, place)
    content, size = bytearray(place.read_bytes()), reading.MOST_BYTES + 2**20
    place.write_bytes(content.replace(size.to_bytes(4, "little"), (1).to_bytes(4, "little")))


def many(archive, place):
    shutil.copy(archive, place)
    with zipfile.ZipFile(place, "a") as opened:
        for number in range(reading.MOST_FILES):
            opened.writestr(f"tables/a-{number}.csv", "")


def changed(files):
    """A file is another than its digest says."""
    files[CSV] = files[CSV].replace(b"1", b"2", 1)
    return files


def extra_in_record(files):
    """A file of which the record does not know, though the description lists it."""
    described = json.loads(files[METADATA])
    (root,) = (entity for entity in described["@graph"] if entity["@id"] == "./")
    root["hasPart"].append({"@id": "tables/extra-x.csv"})
    described["@graph"].append({"@id": "tables/extra-x.csv", "@type": "File", "sha256": ""})
    files |= {METADATA: json.dumps(described).encode(), "tables/extra-x.csv": b"a\n"}
    return sealed(files)


def of_another_specification(files):
    described = json.loads(files[METADATA])
    (said,) = (entity for entity in described["@graph"] if entity["@id"] == "#specification")
    said["value"] = "0" * 64
    return files | {METADATA: json.dumps(described).encode()}


def named(name):
    def change(files):
        described = json.loads(files[METADATA])
        (who,) = (entity for entity in described["@graph"] if entity["@id"] == "#who")
        who["name"] = name
        return files | {METADATA: json.dumps(described).encode()}

    return change


def called(name):
    def change(files):
        described = json.loads(files[METADATA])
        (root,) = (entity for entity in described["@graph"] if entity["@id"] == "./")
        root["identifier"] = name
        return files | {METADATA: json.dumps(described).encode()}

    return change


def markdown(text):
    return shows({"data": {"text/markdown": text}})


ENTITIES = '<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>\n<svg>&b;'
FACTS = ("facts", "provenance")
HOSTILE = {
    # the archive
    "not a zip": (lambda _, place: place.write_text("a run"), "not a zip"),
    "cut off": (with_bytes(lambda content: content[:-2000]), "not a zip"),
    "something behind": (with_bytes(lambda content: content + b"x"), "not a zip"),
    "something before": (with_bytes(lambda content: b"x" + content), "not a zip"),
    "a damaged sum": (with_bytes(lambda content: content.replace(b"PK\3\4", b"PK\3\5", 3)), "not a zip"),
    "traversal": (added("../../x.json"), "no name of a run's file"),
    "traversal within": (added("tables/../../x.csv"), "no name of a run's file"),
    "absolute": (added("/x.json"), "no name of a run's file"),
    "backslash": (added("..\\x.json"), "no name of a run's file"),
    "drive": (added("C:x.json"), "no name of a run's file"),
    "hidden": (added(".x.json"), "no name of a run's file"),
    "another alphabet": (added("tаsk.ipynb"), "no name of a run's file"),  # noqa: RUF001
    "symlink": (added("tables/a-b.csv", b"../../run.json", stat.S_IFLNK | 0o777), "is a link"),
    "device": (added("tables/a-b.csv", b"", stat.S_IFCHR | 0o666), "is a link, a folder or a device"),
    "folder": (added("tables/"), "no name of a run's file"),
    "twice": (added(RECORD, b"{}"), "in it twice"),
    "another spelling": (added("RUN.json", b"{}"), "in it twice, or in two spellings"),
    "encrypted": (with_bytes(encrypted), "is encrypted"),
    "packed oddly": (added("tables/a-b.csv", b"a\n", kind=zipfile.ZIP_LZMA), "packed in an unusual way"),
    "a bomb": (bomb, "unpacked it has more than"),
    "a bomb that lies": (lying_bomb, "cannot be read"),
    "many files": (many, "lists more than"),
    # its files
    "no description": (repacked(without(METADATA)), f"has no {METADATA}"),
    "no record": (repacked(without(RECORD)), f"{RECORD} is missing"),
    "a missing file": (repacked(without(SVG)), f"{SVG} is missing"),
    "an extra file": (added("tables/a-b.csv", b"a\n"), "not in its list"),
    "a file that the record does not know": (repacked(extra_in_record), "not in its list"),
    "a wrong digest": (repacked(changed), "not what its digest says"),
    "a bad description": (repacked(lambda f: f | {METADATA: b"{"}), "no JSON"),
    "a deep description": (repacked(lambda f: f | {METADATA: b"[" * 100_000}), "no JSON"),
    "an empty description": (repacked(lambda f: f | {METADATA: b"{}"}), "not as such a file is"),
    "a bad record": (repacked(lambda f: sealed(f) | {RECORD: f[RECORD] + b","}), "not what its digest says"),
    "a chapter less": (repacked(in_json(RECORD, "chapters", "order", to=None)), "chapters"),
    "a check that fails": (repacked(in_json(RECORD, "check", "identities", 0, "holds", to=False)), "identities"),
    "a file of no chapter": (
        repacked(in_json(RECORD, "chapters", "task", "files", "values.ipynb", to="0" * 64)),
        "no file of the chapter",
    ),
    "another name": (repacked(called("smollm2-135m")), "its model is another"),
    "a name that leads out": (repacked(called("../x")), "not as such a file is"),
    "a name that nobody sees": (repacked(named("Ann\u202eeiraM")), "cannot be shown"),
    "another specification": (repacked(of_another_specification), "another specification"),
    "another specification on a page": (
        repacked(in_json(SHOWN, *FACTS, "specification_sha256", to="0" * 64)),
        "another specification",
    ),
    # what is in them
    "a script in a picture": (repacked(in_text(SVG, "</svg>", "<script>alert(1)</script></svg>")), "'script'"),
    "HTML in a picture": (repacked(in_text(SVG, "</svg>", "<foreignObject/></svg>")), "'foreignobject'"),
    "a handler in a picture": (repacked(in_text(SVG, "<defs", "<defs onload='x'")), "'onload'"),
    "a picture from elsewhere": (
        repacked(in_text(SVG, "</svg>", '<image href="https://example.org/x.png"/></svg>')),
        "leads elsewhere",
    ),
    "a style from elsewhere": (
        repacked(in_text(SVG, "</svg>", "<style>@import 'https://example.org'</style></svg>")),
        "loads something",
    ),
    "entities": (repacked(lambda f: sealed(f | {SVG: ENTITIES.encode() + b"</svg>"})), "entities"),
    "no picture": (repacked(lambda f: sealed(f | {SVG: b"<html/>"})), "no picture"),
    "HTML on a page": (repacked(shows({"data": {"text/html": "<b>x</b>"}})), "no computed figure or text"),
    "a script on a page": (repacked(markdown("<script>alert(1)</script>")), "shows HTML"),
    "a frame on a page": (repacked(markdown("x\n\n<iframe src='x'>")), "shows HTML"),
    "raw HTML on a page": (repacked(markdown("```{raw} html\n```")), "the directive 'raw'"),
    "a file on a page": (repacked(markdown("> :::{include} x\n> :::")), "the directive 'include'"),
    "a script behind a link": (repacked(markdown("[x](javascript:alert(1))")), "shows a"),
    "a handler on a page": (repacked(markdown('[x]{.a onclick="alert(1)"}')), "shows a handler"),
    "a widget": (
        repacked(shows({"data": {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}})),
        "no computed figure or text",
    ),
    "no notebook": (repacked(lambda f: sealed(f | {"task.ipynb": b"{}"})), "no notebook"),
    "a bad table": (repacked(lambda f: sealed(f | {CSV: b'a,b\n1\n"'})), "no table"),
    "no text": (repacked(lambda f: sealed(f | {CSV: b"\xff\xfe"})), "no text in UTF-8"),
    "bad JSON": (repacked(lambda f: sealed(f | {"claims/C1.json": b"{"})), "no JSON"),
    "no effects": (repacked(lambda f: sealed(f | {"claims/C1.json": b"{}"})), "holds no effects"),
    "effects of another claim": (
        repacked(lambda f: sealed(f | {"claims/C1.json": f["claims/C2.json"]})),
        "of another claim",
    ),
    "markup in a fact": (repacked(in_json(SHOWN, *FACTS, "packages", "torch", to="`<b>`")), "not as such a file is"),
    "another run's page": (repacked(in_json(SHOWN, "facts", "run", to="x")), "its run is another"),
    "a table from elsewhere": (
        repacked(in_json(SHOWN, "items", "task-shots", "tables", to={"x": {"file": "run.json", "kinds": {}}})),
        "none of its chapter's",
    ),
    "a table that is called from elsewhere": (
        repacked(in_json(SHOWN, "items", "task-shots", "tables", to={"../../x": {"file": CSV, "kinds": {}}})),
        "not as such a file is",
    ),
    "an item that is not known": (
        repacked(in_json(SHOWN, "items", "task-new", to={"tables": {}, "values": {}, "files": {}})),
        "shows other things",
    ),
    "numbers that cannot be drawn": (
        repacked(in_json(SHOWN, "items", "run-note", "values", "tokens", to=None)),
        "shows other things",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_not_whole_and_harmless_is_refused_in_one_sentence_and_leaves_nothing(
    case, archive, other, tmp_path, capsys
):
    make, said = HOSTILE[case]
    make(archive, tmp_path / "hostile.zip")
    before = tree(other)
    assert main(["import", str(tmp_path / "hostile.zip")]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1
    assert err.startswith("twotowers: This ")
    assert tree(other) == before


@pytest.mark.parametrize(
    ("what", "said"), [("nothing", "is not there"), ("a folder", "is a folder"), ("pipe", "is no")]
)
def test_what_is_no_file_is_not_told_as_a_bad_archive(what, said, other, tmp_path, capsys):
    """Whoever mistyped a name was told to ask for another archive."""
    place = tmp_path / "run.zip"
    if what == "a folder":
        place.mkdir()
    if what == "pipe":
        os.mkfifo(place)
    assert main(["import", str(place)]) == 2
    assert f"run.zip' {said}" in (err := capsys.readouterr().err)
    assert "Ask whoever" not in err


def test_a_script_among_words_is_taken_in_as_the_words_that_it_is(other, tmp_path, archive):
    repacked(in_text("tables/task-taste-templates.csv", "\nlines,", "\n<script>alert(1)</script>,"))(
        archive, tmp_path / "words.zip"
    )
    assert main(["import", str(tmp_path / "words.zip")]) == 0
    page = next(other.glob("book/runs/*/task.ipynb")).read_text(encoding="utf-8")
    assert "alert" in page
    assert "<script" not in page

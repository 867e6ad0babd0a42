"""Archives of runs for tests: the committed run as it is exported, and what a hostile hand makes of it."""

import hashlib
import json
import shutil
import stat
import warnings
import zipfile

import pytest

from clones import PROJECT, clone
from twotowers.chapters.registry import CHAPTERS
from twotowers.cli import main
from twotowers.pipeline.crate import METADATA, RECORD
from twotowers.pipeline.freshness import made_of
from twotowers.publishing.run_folder import RunFolder
from twotowers.study import open_study

TOY = "toy-gpt2"
BY = "Ann Öther"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A clone in which the committed run is up to date, whatever has changed since it was made."""
    with pytest.MonkeyPatch.context() as patch:
        root = clone(tmp_path_factory.mktemp("house") / "clone", patch)
        folder = root / "book" / "runs" / TOY
        shutil.copytree(PROJECT / "book" / "runs" / TOY, folder)
        run, study = RunFolder(folder), open_study(TOY)
        for chapter in CHAPTERS:
            now = made_of(root, chapter, study, run)
            run.update(lambda record, name=chapter, made=now: record["chapters"][name].update(made_of=made))
        yield root


@pytest.fixture(scope="module")
def archive(house, tmp_path_factory):
    """Its archive."""
    file = tmp_path_factory.mktemp("handed") / "run.zip"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(house)
        assert main(["export", TOY, "--by", BY, "--output", str(file)]) == 0
    return file


@pytest.fixture
def other(tmp_path, monkeypatch):
    """Another clone, without any run, as the working folder."""
    return clone(tmp_path / "other", monkeypatch)


def unpacked(archive):
    """The files of an archive, by name."""
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def packed(files, place):
    """An archive of files; of a name with two contents both."""
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return place


def sealed(files):
    """With every digest as the files have it: only what is in them can then be found fault with."""
    record = json.loads(files[RECORD])
    for entry in record["chapters"].values():
        entry["files"] = {name: _sha(files[name]) if name in files else made for name, made in entry["files"].items()}
    files[RECORD] = json.dumps(record).encode()
    described = json.loads(files[METADATA])
    for entity in described["@graph"]:
        if entity["@id"] in files and "sha256" in entity:
            entity["sha256"] = _sha(files[entity["@id"]])
    files[METADATA] = json.dumps(described).encode()
    return files


def _sha(content):
    return hashlib.sha256(content).hexdigest()


def in_json(name, *path, to):
    """A change: a value within a JSON file is another, and all digests agree."""

    def change(files):
        whole = json.loads(files[name])
        place = whole
        for key in path[:-1]:
            place = place[key]
        if to is None:
            del place[path[-1]]
        else:
            place[path[-1]] = to
        files[name] = json.dumps(whole).encode()
        return sealed(files)

    return change


def in_text(name, old, new):
    """A change: within a file one text stands for another, and all digests agree."""

    def change(files):
        assert old.encode() in files[name]
        files[name] = files[name].replace(old.encode(), new.encode(), 1)
        return sealed(files)

    return change


def shows(output):
    """A change: a page shows something else."""

    def change(files):
        notebook = json.loads(files["task.ipynb"])
        shown = next(cell for cell in notebook["cells"] if cell.get("outputs"))
        shown["outputs"].append({"output_type": "display_data", "metadata": {"item": "run-note"}, **output})
        files["task.ipynb"] = json.dumps(notebook).encode()
        return sealed(files)

    return change


def added(name, content=b"", mode=0, kind=zipfile.ZIP_DEFLATED):
    """A whole archive with one file more, whatever its name and kind."""

    def make(archive, place):
        shutil.copy(archive, place)
        entry = zipfile.ZipInfo("x" * len(name))
        entry.filename = name  # as it is: the constructor would mend it
        entry.external_attr, entry.compress_type = (mode or stat.S_IFREG | 0o644) << 16, kind
        with zipfile.ZipFile(place, "a") as opened, warnings.catch_warnings(action="ignore"):  # that it is there twice
            opened.writestr(entry, content)

    return make


def repacked(change):
    """An archive of the changed files."""

    def make(archive, place):
        packed(change(unpacked(archive)), place)

    return make


def with_bytes(change):
    """The archive's bytes, changed."""

    def make(archive, place):
        place.write_bytes(change(bytearray(archive.read_bytes())))

    return make


def encrypted(content):
    """Every entry says that it is encrypted."""
    for mark, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        place = content.find(mark)
        while place >= 0:
            content[place + at] |= 1
            place = content.find(mark, place + 4)
    return content

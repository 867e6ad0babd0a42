"""Disks that are full or may only be read, real ones: each command says so in one sentence, and the next one mends."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from clones import kept, record, write_chapter
from twotowers.cli import main
from twotowers.pipeline import crate

pytestmark = pytest.mark.usefixtures("one_thread", "light_figures")
ROOM = 4  # KiB that are left on a full disk


def mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def disk(tmp_path):
    """Lays a disk in memory over a folder, with what that holds; gives what makes it a usual one again."""
    laid = []

    def lay(folder, way):
        folder.mkdir(parents=True, exist_ok=True)
        side = tmp_path / f"side-{len(laid)}"
        side.mkdir()
        if mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", side).returncode:
            pytest.skip("nothing can be mounted here")
        laid.append(side)
        shutil.copytree(folder, side, dirs_exist_ok=True)
        mount("--bind", side, folder)
        laid.append(folder)
        if way == "read-only":
            mount("-o", "remount,bind,ro", folder)
            return lambda: mount("-o", "remount,bind,rw", folder)
        used = 64 * 1024 - shutil.disk_usage(side).free // 1024
        mount("-o", f"remount,size={used + ROOM}k", side)
        return lambda: mount("-o", "remount,size=64m", side)

    if not hasattr(os, "geteuid") or os.geteuid():
        pytest.skip("only root may mount")
    yield lay
    for place in reversed(laid):
        subprocess.run(["umount", "-l", str(place)], check=False)


def one_line(capsys):
    said = capsys.readouterr().err.splitlines()
    (line,) = (line for line in said if line.startswith("twotowers: "))
    return line.removeprefix("twotowers: ")


SENTENCE = {"full": "No space left on device", "read-only": "Read-only file system"}


@pytest.mark.parametrize("way", SENTENCE)
def test_a_run_on_such_a_disk_keeps_what_it_had(runs, model, disk, way, capsys):
    before = kept(runs)
    mend = disk(runs, way)
    command = ["run", "--model", str(model), "--scale", "smoke", "--chapter", "task", "--force"]
    assert main(command) == 2
    said = one_line(capsys)
    assert SENTENCE[way] in said
    assert str(runs) in said
    mend()
    assert main(command) == 0
    assert kept(runs) == before
    assert list(record(runs)["chapters"]) == ["task"]
    assert not list(runs.glob(".tmp-*"))


def test_a_chapter_that_fills_the_disk_from_its_kernel_is_told_so(root, model, disk, capsys):
    write_chapter(root, "task", "open(folder + '/figures', 'wb').write(bytes(2**20))")
    go_on = disk(root / "book" / "runs", "read-only")
    go_on()
    mount("-o", "remount,size=200k", root.parent / "side-0")
    assert main(["run", "--model", str(model), "--scale", "smoke", "--chapter", "task"]) == 2
    assert "No space left on device" in one_line(capsys)
    assert not list(root.rglob(".tmp-*"))


def test_a_kernel_that_the_system_kills_is_one_sentence(root, model, capsys):
    write_chapter(root, "task", "import os; os.kill(os.getpid(), 9)")
    assert main(["run", "--model", str(model), "--scale", "smoke", "--chapter", "task"]) == 1
    assert one_line(capsys).startswith("The kernel of chapter 'task' died, most likely for lack of memory; use")
    assert not list(root.rglob(".tmp-*"))


@pytest.fixture
def finished(runs, model, monkeypatch):
    """The run, which counts as complete although it has one chapter."""
    monkeypatch.setattr(crate, "require_finished", lambda root, run: None)
    return runs


@pytest.mark.parametrize("way", SENTENCE)
def test_an_archive_that_cannot_be_written_is_named_and_leaves_none(finished, tmp_path, disk, way, capsys, monkeypatch):
    monkeypatch.setattr(crate, "archive_of", lambda run, by: bytes(2**16))
    mend = disk(tmp_path / "out", way)
    command = ["export", finished.name, "--by", "Somebody", "--output", str(tmp_path / "out" / "run.zip")]
    assert main(command) == 2
    assert one_line(capsys).startswith(
        f"The archive {tmp_path / 'out' / 'run.zip'} cannot be written ({SENTENCE[way]})"
    )
    assert not list((tmp_path / "out").iterdir())
    mend()
    assert main(command) == 0


def test_a_run_that_may_only_be_read_is_exported_all_the_same(finished, tmp_path, disk, monkeypatch):
    """The lock could not be written."""
    monkeypatch.setattr(crate, "archive_of", lambda run, by: b"archive")
    disk(finished.parent, "read-only")
    assert main(["export", finished.name, "--by", "Somebody", "--output", str(tmp_path / "run.zip")]) == 0


def test_an_archive_goes_into_a_folder_and_through_a_link(finished, tmp_path, monkeypatch):
    """A folder was refused, with advice on its space, or stopped the command; a link was replaced by the archive."""
    monkeypatch.setattr(crate, "archive_of", lambda run, by: b"archive")
    monkeypatch.chdir(finished.parents[2])
    (tmp_path / "link.zip").symlink_to(tmp_path / "real.zip")
    for output in (tmp_path, tmp_path / "link.zip", "."):
        assert main(["export", finished.name, "--output", str(output)]) == 0
    archives = [tmp_path / f"{finished.name}.zip", tmp_path / "real.zip", Path(f"{finished.name}.zip")]
    assert [file.read_bytes() for file in archives] == [b"archive"] * 3
    assert (tmp_path / "link.zip").is_symlink()


def test_what_stands_in_the_place_of_a_folder_is_to_be_moved_away(root, model, executed, capsys):
    """It was advised to free space."""
    (root / "book" / "runs").touch()
    assert main(["run", "--model", str(model), "--scale", "smoke", "--chapter", "task"]) == 2
    assert "something else stands in its place, move that away" in one_line(capsys)


def test_no_archive_takes_the_place_of_a_device(finished, tmp_path, capsys):
    """Whoever may do so replaced /dev/null by a file."""
    os.mkfifo(tmp_path / "pipe")
    assert main(["export", finished.name, "--output", str(tmp_path / "pipe")]) == 2
    assert "is a device or a pipe, not a file" in one_line(capsys)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("way", SENTENCE)
def test_a_site_that_cannot_be_written_is_one_sentence(root, runs, disk, way, capsys):
    disk(root / "_build", way)
    assert main(["build", "--stale"]) == 2
    said = one_line(capsys)
    assert said.startswith(f"The site in {root / '_build'} cannot be written ({SENTENCE[way]}")


def test_a_second_build_is_told_that_another_goes_on(root, runs, capsys):
    """It was told that the site cannot be written, and to free space."""
    (root / "_build").mkdir()
    with FileLock(root / "_build" / ".lock"):
        assert main(["build", "--stale"]) == 2
    assert one_line(capsys) == "Another build of this site goes on; wait until it is done."

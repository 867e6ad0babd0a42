"""What counts as free memory: the machine's, within the limits of a container, a cluster's job and the shell."""

from types import SimpleNamespace

import psutil
import pytest
import torch

from twotowers.models import memory

MACHINE, LIMIT, USED, KEPT = 64 * 2**30, 8 * 2**30, 3 * 2**30, 2**30
LEFT = LIMIT - USED + KEPT
ONE = ("memory.limit_in_bytes", "memory.usage_in_bytes", "cache 5\ntotal_inactive_file")
TWO = ("memory.max", "memory.current", "file 5\ninactive_file")


@pytest.fixture
def system(monkeypatch, tmp_path):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=MACHINE))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    return tmp_path


def group(folder, names, limit):
    folder.mkdir(parents=True)
    most, taken, kept = names
    (folder / most).write_text(f"{limit}\n")
    (folder / taken).write_text(f"{USED}\n")
    (folder / "memory.stat").write_text(f"{kept} {KEPT}\n")


@pytest.mark.parametrize(
    ("own", "place", "names"),
    [
        ("0::/job/step", "job/step", TWO),
        ("0::/job/step", "job", TWO),  # the limit is that of a group around its own
        ("0::/", "", TWO),  # in a container with a view of its own
        ("1:cpu:/\n0::/job", "unified/job", TWO),  # both versions side by side
        ("4:memory:/job\n1:cpu:/other", "memory/job", ONE),
        ("4:cpu,memory:/docker/1234", "memory", ONE),  # a container that sees its own group at the top
    ],
)
def test_the_limit_of_a_group_counts(system, own, place, names):
    (system / "own").write_text(f"{own}\n")
    group(system / "groups" / place, names, LIMIT)
    assert memory.machine_memory() == memory.free_memory() == LEFT


@pytest.mark.parametrize("limit", ["max", 2**63 - 4096])
def test_a_group_without_a_limit_leaves_what_the_machine_has(system, limit):
    (system / "own").write_text("0::/job\n4:memory:/job\n")
    group(system / "groups" / "job", TWO, limit)
    assert memory.free_memory() == MACHINE


def test_groups_of_others_do_not_count(system):
    (system / "own").write_text("0::/job\n4:cpu:/other\n")
    group(system / "groups" / "other", TWO, LIMIT)
    group(system / "groups" / "memory" / "other", ONE, LIMIT)
    assert memory.free_memory() == MACHINE


def test_a_group_that_has_used_more_than_it_may_has_nothing_left(system):
    (system / "own").write_text("0::/job\n")
    group(system / "groups" / "job", TWO, 2**30)
    assert memory.free_memory() == 0


def test_where_there_are_no_groups_the_machine_counts(system):
    assert memory.free_memory() == MACHINE


@pytest.mark.parametrize(("limit", "own"), [(-1, MACHINE), (LIMIT, LIMIT - USED), (USED - 1, 0), (2**40, MACHINE)])
def test_the_limit_of_addresses_counts_for_this_process_only(system, monkeypatch, limit, own):
    """Chapters that run side by side have one each."""
    process = SimpleNamespace(rlimit=lambda _: (limit, -1), memory_info=lambda: SimpleNamespace(vms=USED))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    monkeypatch.setattr(psutil, "RLIMIT_AS", 9, raising=False)
    assert (memory.free_memory(), memory.machine_memory()) == (own, MACHINE)


def test_a_system_that_limits_no_addresses_has_what_the_machine_has(system, monkeypatch):
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace())
    assert memory.free_memory() == MACHINE

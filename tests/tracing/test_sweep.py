"""Parts of a sweep: an interrupted one goes on where it stopped, with the same bits, and never with another's parts."""

import ast
import contextlib
import gc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import twotowers
from sweeps import HEADS, SWEEPS
from twotowers.models import parts as keeping
from twotowers.models.parts import Parts, PartsIn, part_name
from twotowers.tracing import capture
from twotowers.tracing.outcomes import outcomes


def even_sets(model, number=4):
    """As many sets as an interruption needs, or more of them."""
    pairs = [("cat", "foo"), ("seven", "bar"), ("two", "bar"), ("horse", "foo")]
    queries = [("dog", "foo"), ("nine", "bar")]
    return [twotowers.prompt_set(model, pairs[i % 4 :] + pairs[: i % 4], queries) for i in range(number)]


class Interrupted(Parts):
    """Keeps parts, and stops the work when there are as many as were asked for."""

    def __init__(self, kept, left):
        self.kept, self.left = kept, left

    def find(self, name):
        return self.kept.find(name)

    def keep(self, name, tables):
        self.kept.keep(name, tables)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.fixture
def model(tiny_gpt2):
    yield tiny_gpt2
    tiny_gpt2.parts = Parts()


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Every part is written when it is made, whatever the clock says, and a batch is one set."""
    monkeypatch.setattr(keeping, "EVERY", 0.0)
    batches = capture.batches
    monkeypatch.setattr(capture, "batches", lambda model, sets, budget: batches(model, sets, 1))


@contextlib.contextmanager
def forwards(model):
    """A list that grows by one with every forward of a model."""
    found = []
    hook = model.nn._module.register_forward_pre_hook(lambda *_: found.append(1))
    try:
        yield found
    finally:
        hook.remove()


@pytest.mark.parametrize("name", SWEEPS)
def test_interrupted_at_every_part_a_sweep_gives_the_same_bits_and_repeats_no_forward(model, tmp_path, name):
    sets, measure = even_sets(model), SWEEPS[name]
    made = Interrupted(Parts(), left=-1)
    model.parts = made
    with forwards(model) as whole:
        expected = measure(model, sets)
    parts = -1 - made.left
    assert parts >= len(sets)
    for number in range(1, parts + 1):
        folder = tmp_path / str(number)
        with forwards(model) as again:
            model.parts = Interrupted(PartsIn(folder, "maker"), left=number)
            with pytest.raises(KeyboardInterrupt):
                measure(model, sets)
            model.parts = PartsIn(folder, "maker")
            pd.testing.assert_frame_equal(measure(model, sets), expected, check_exact=True)
        assert len(again) == len(whole), f"part {number} of {parts}"


def test_no_measure_of_a_chapter_goes_over_sets_without_keeping_parts():
    """`sweep` and its like do; who packs batches by hand keeps their parts by hand."""
    for module in Path(twotowers.__file__).parent.rglob("chapters/**/*.py"):
        names = {alias.name for node in ast.walk(ast.parse(module.read_text()))
                 if isinstance(node, ast.ImportFrom) for alias in node.names}  # fmt: skip
        assert "part" in names or not names & {"numbered", "batches"}, module


class Alive(Parts):
    """Counts the tensors, and their bytes, that are alive when a part is done, but for what parts are made of."""

    def __init__(self):
        self.made, self.most = [], (0, 0)

    def keep(self, name, tables):
        self.made += [table for table in tables if isinstance(table, np.ndarray)]
        kept = {array.ctypes.data for array in self.made}
        gc.collect()
        tensors = [x for x in gc.get_objects() if isinstance(x, torch.Tensor) and x.layout == torch.strided]
        tensors = [x for x in tensors if x.is_meta or x.data_ptr() not in kept]
        self.most = max(self.most, (len(tensors), sum(x.nbytes for x in tensors)))


@pytest.mark.parametrize("name", sorted({*SWEEPS} - {"probe"}))  # its fits are of all demonstrations together
def test_nothing_of_a_set_stays_in_memory_but_its_part(model, name):
    """Counted, not timed: twice as many sets have as many tensors alive when a part is done."""
    most = []
    for number in (4, 8):
        model.parts = Alive()
        SWEEPS[name](model, even_sets(model, number))
        most.append(model.parts.most)
        model.parts = Parts()
    assert most[0][0]
    assert most[0] == most[1]


def test_a_part_of_another_maker_set_or_question_is_never_found(model, tmp_path):
    sets = even_sets(model)
    model.parts = PartsIn(tmp_path, "maker")
    outcomes(model, sets[:2], [HEADS])
    asked = []

    class Counted(PartsIn):
        def find(self, name):
            asked.append(super().find(name) is not None)
            return super().find(name)

    for other, groups, found in ((sets[:2], [HEADS], True), (sets[2:], [HEADS], False), (sets[:2], [[(1, 0)]], False)):
        asked.clear()
        model.parts = Counted(tmp_path, "maker")
        outcomes(model, other, groups)
        assert asked == [found, found]
    asked.clear()
    model.parts = Counted(tmp_path, "another")
    outcomes(model, sets[:2], [HEADS])
    assert asked == [False, False]


def test_a_damaged_part_is_removed_and_made_again(tmp_path):
    table = pd.DataFrame({"x": [0.1 + 0.2, float("nan")], "n": [1, 2], "word": ["a", "b"], "yes": [True, False]})
    PartsIn(tmp_path, "maker").keep("a", (table,))
    (file,) = tmp_path.iterdir()
    text = file.read_text()
    (back,) = PartsIn(tmp_path, "maker").find("a")
    pd.testing.assert_frame_equal(back, table, check_exact=True)
    damaged = text.replace('"b"', '"c"', 1)
    assert damaged != text
    file.write_text(damaged)
    assert PartsIn(tmp_path, "maker").find("a") is None
    assert not list(tmp_path.iterdir())


def test_what_json_does_not_give_back_is_not_kept(tmp_path):
    parts = PartsIn(tmp_path, "maker")
    parts.keep("odd", (pd.DataFrame({"x": [(1, 2), None]}),))
    parts.keep("single", (pd.DataFrame({"x": np.array([0.1], dtype="float32")}),))
    parts.keep("array", (np.arange(6, dtype="float32").reshape(2, 3) / 7, np.array([True, False])))
    again = PartsIn(tmp_path, "maker")
    assert again.find("odd") is None
    numbers, truths = again.find("array")
    assert (numbers.dtype, numbers.tolist()) == ("float32", (np.arange(6, dtype="float32").reshape(2, 3) / 7).tolist())
    assert truths.tolist() == [True, False]
    assert again.find("single")[0]["x"].dtype == "float32"


def test_parts_are_written_together_not_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "EVERY", 1e9)
    parts = PartsIn(tmp_path, "maker")
    for number in range(50):
        parts.keep(str(number), (pd.DataFrame({"x": [number]}),))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(keeping, "EVERY", 0.0)
    parts.keep("last", (pd.DataFrame({"x": [50]}),))
    assert len(list(tmp_path.iterdir())) == 1
    assert PartsIn(tmp_path, "maker").find("7") is not None


def test_names_depend_on_everything_and_on_nothing_else():
    first = part_name("a", [(0, 1)], np.arange(3.0), range(2))
    assert first == part_name("a", [[np.int64(0), 1]], np.arange(3.0), [0, 1])
    assert (
        len({first, part_name("a", [(0, 2)], np.arange(3.0), range(2)), part_name("a", [(0, 1)], np.ones(3), range(2))})
        == 3
    )

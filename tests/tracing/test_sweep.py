"""Parts of a sweep: an interrupted one goes on where it stopped, with the same bits, and never with another's parts."""

import functools
import gc

import numpy as np
import pandas as pd
import pytest
import torch

import twotowers
from twotowers.chapters.knockout import group
from twotowers.chapters.order import order, removal
from twotowers.models import parts as keeping
from twotowers.models.parts import Parts, PartsIn, part_name
from twotowers.tracing import capture, exchange
from twotowers.tracing.balancing import balanced
from twotowers.tracing.hand_over import hand_overs
from twotowers.tracing.outcomes import outcomes

HEADS = [(1, 0), (2, 1)]


def even_sets(model):
    """As many sets as an interruption needs."""
    pairs = [("cat", "foo"), ("seven", "bar"), ("two", "bar"), ("horse", "foo")]
    queries = [("dog", "foo"), ("nine", "bar")]
    return [twotowers.prompt_set(model, pairs[i:] + pairs[:i], queries) for i in range(4)]


def in_orders(model, sets):
    numbered = dict(enumerate(sets, start=3))
    return removal.answers_in(model, numbered, {n: [(0, 1, 2, 3), (3, 2, 1, 0)] for n in numbered}, {"own": HEADS})


def in_two_orders(model, sets):
    found = order.in_orders(model, sets, {"own": HEADS}, [(0, 1, 2, 3), (1, 0, 2, 3)], strengths=(0.0, 0.5))
    return pd.concat([found.prompts, found.attention])


SWEEPS = {
    "knock-out": lambda model, sets: outcomes(model, sets, [[], [(0, 1)], HEADS]),
    "exchange": lambda model, sets: exchange.exchanges(model, sets, [([], "none"), (HEADS, "query-other")]),
    "one exchange": lambda model, sets: exchange.exchange(model, sets, HEADS, "values"),
    "hand over": lambda model, sets: hand_overs(model, sets, {("query", False): [0, 2], ("text", True): [1]}),
    "balance": lambda model, sets: balanced(model, sets, [[], HEADS]),
    "block": lambda model, sets: twotowers.block(model, sets, ["text_to_label"], [range(1), range(1, 3)]),
    "mean": lambda model, sets: group.at_mean(model, sets, HEADS, group.mean_z(model, sets)),
    "orders": in_orders,
    "order": in_two_orders,
}


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
    monkeypatch.setattr(capture, "batches", functools.partial(capture.batches, budget=1))


@pytest.mark.parametrize("name", SWEEPS)
def test_an_interrupted_sweep_goes_on_and_gives_the_same_bits(model, tmp_path, name):
    sets, measure = even_sets(model), SWEEPS[name]
    expected = measure(model, sets)
    model.parts = Interrupted(PartsIn(tmp_path, "maker"), left=2)
    with pytest.raises(KeyboardInterrupt):
        measure(model, sets)
    found, made = [], []

    class Counted(PartsIn):
        def find(self, name):
            tables = super().find(name)
            (made if tables is None else found).append(name)
            return tables

    model.parts = Counted(tmp_path, "maker")
    pd.testing.assert_frame_equal(measure(model, sets), expected, check_exact=True)
    assert len(found) == 2
    assert made


@pytest.mark.parametrize("name", SWEEPS)
def test_nothing_of_a_set_stays_in_memory_but_its_part(model, name):
    """Counted, not timed: tensors that are alive when a part is done are as many for the last as for the second."""
    alive = []

    class Counting(Parts):
        def keep(self, name, tables):
            gc.collect()
            tensors = [x for x in gc.get_objects() if isinstance(x, torch.Tensor)]
            alive.append((len(tensors), sum(x.nbytes for x in tensors if x.layout == torch.strided)))

    model.parts = Counting()
    SWEEPS[name](model, even_sets(model))
    assert len(alive) >= 4
    assert len(set(alive[1:])) == 1, alive


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
    file.write_text(text.replace("0.3", "0.4", 1))
    assert PartsIn(tmp_path, "maker").find("a") is None
    assert not list(tmp_path.iterdir())


def test_what_json_does_not_give_back_is_not_kept(tmp_path):
    parts = PartsIn(tmp_path, "maker")
    parts.keep("odd", (pd.DataFrame({"x": [(1, 2), None]}),))
    parts.keep("single", (pd.DataFrame({"x": np.array([0.1], dtype="float32")}),))
    again = PartsIn(tmp_path, "maker")
    assert again.find("odd") is None
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

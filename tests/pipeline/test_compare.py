"""Where two results first differ, in words, and what counts as the same."""

import pandas as pd
import pytest

from twotowers.pipeline.compare import Tolerance, first_difference

TABLE = pd.DataFrame({"head": [0, 1, 2], "name": ["a", "b", None], "x": [1.0, float("nan"), 0.0]})


def changed(**cells):
    """The table with other columns or cells; `row` counts from 0."""
    table = TABLE.copy()
    for column, (row, value) in cells.items():
        table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (TABLE, None),
        (changed(x=(0, 1.0009)), None),
        (changed(x=(2, 9e-5)), None),
        (changed(x=(0, 1.002)), "table, row 1, column x: 1 was kept, now it is 1.002"),
        (changed(x=(1, 0.0)), "table, row 2, column x: nan was kept, now it is 0"),
        (changed(x=(2, 2e-4)), "table, row 3, column x: 0 was kept, now it is 0.0002"),
        (changed(head=(2, 3)), "table, row 3, column head: 2 was kept, now it is 3"),
        (changed(name=(1, "c"), x=(2, 9.0)), "table, row 2, column name: 'b' was kept, now it is 'c'"),
        (TABLE.head(2), "table: there were 3 rows, now there are 2"),
        (TABLE[["head", "x"]], "table: the columns were head, name, x, now they are head, x"),
        ([1], "table: the columns were head, name, x, now they are none"),
    ],
)
def test_the_first_row_and_column_that_differ_are_named(now, said):
    assert first_difference({"table": TABLE}, {"table": now}) == said


@pytest.mark.parametrize(
    ("kept", "now", "said"),
    [
        ({"a": {"b": [1, 2.0]}}, {"a": {"b": [1, 2.0001]}}, None),
        ({"a": {"b": [1, 2.0]}}, {"a": {"b": [1, 2.1]}}, "a, b, 2: 2 was kept, now it is 2.1"),
        ({"a": [[1, 2]]}, {"a": [[1, 2], [3, 4]]}, "a: [[1, 2]] was kept, now it is [[1, 2], [3, 4]]"),
        ({"a": None}, {"a": float("nan")}, None),
        ({"a": 1}, {"a": 2}, "a: 1 was kept, now it is 2"),
        ({"a": 1}, {}, "a is not made any more"),
        ({}, {"a": 1}, "a was not made before"),
        ({"a": "foo"}, {"a": "bar"}, "a: 'foo' was kept, now it is 'bar'"),
    ],
)
def test_all_else_is_compared_part_by_part(kept, now, said):
    assert first_difference(kept, now) == said


def test_a_tolerance_is_absolute_or_relative():
    assert first_difference({"x": 100.0}, {"x": 101.0}, Tolerance(0.0, 0.011)) is None
    assert first_difference({"x": 0.0}, {"x": 0.5}, Tolerance(0.6, 0.0)) is None
    assert first_difference({"x": 0.0}, {"x": 0.5}, Tolerance(0.4, 0.1))

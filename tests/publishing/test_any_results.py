"""Tables of results made by chance: read back exactly as they were, and no rewritten row of a run is believed."""

import hashlib
import itertools

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twotowers.errors import UserError
from twotowers.publishing.results import read_table, write_table
from twotowers.publishing.run_folder import RunFolder

COLUMNS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
    st.lists(st.floats(allow_nan=True), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=1, max_size=4),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4), min_size=1, max_size=4),
)
NUMBER = itertools.count()
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return RunFolder(tmp_path_factory.mktemp("runs") / "run")


@given(names=st.lists(NAMES, min_size=1, max_size=3, unique=True), cells=st.lists(COLUMNS, min_size=3, max_size=3))
@example(names=["\r"], cells=[["a\rb", "\r"]] * 3)
def test_any_table_is_read_back_as_it_was(run, names, cells):
    length = min(map(len, cells))
    table = pd.DataFrame({name: own[:length] for name, own in zip(names, cells, strict=False)})
    file = run.path / "table.csv"
    kinds = write_table(table, file)
    pd.testing.assert_frame_equal(read_table(file, kinds), table, check_dtype=False)


@given(content=st.binary(min_size=1, max_size=40), at=st.integers(0, 60), cut=st.integers(0, 10))
def test_a_rewritten_row_is_not_believed(run, content, at, cut):
    name = f"tables/{next(NUMBER)}.csv"  # digests are remembered by name, size and time of change
    file = run.path / name
    file.parent.mkdir(exist_ok=True, parents=True)
    whole = b"layer,head,margin\n" + b"".join(b"%d,%d,%d.5\n" % (i, i, i) for i in range(5))
    file.write_bytes(changed := whole[:at] + content + whole[at + cut :])
    digest = hashlib.sha256(whole).hexdigest()
    if changed == whole:
        assert run.read(name, digest) == whole.decode()
        return
    with pytest.raises(UserError, match="is not what was made"):
        run.read(name, digest)

"""Tables made by chance: whatever a file holds, it is read right, with every row accounted for, or refused by name."""

import csv
import io
import json
import random
import string

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from twotowers.errors import UserError
from twotowers.prompts.tasks import HALVES, load_task
from twotowers.prompts.written import READ, unwritable

ENDINGS = [ending for ending in READ if ending != ".parquet"]
ODD = " \t\n\r\0\x07\x85\u2028\u200b\ufeff\u00ad\ud800\uffff\",;|'.!-#\\éÉß…٣"
PIECES = st.sampled_from(
    ["text", "label", "split", "sep=;", "selection", "evaluation", "nan", "\r\n", '"', '""', "{", "[{"]
)
CHARACTERS = st.sampled_from(string.ascii_letters[:8] + string.digits[:4] + ODD)
WRITTEN = st.lists(PIECES | CHARACTERS | st.sampled_from(ODD), max_size=60).map("".join)
CELLS = (
    st.text(CHARACTERS, max_size=6) | st.text(max_size=6) | st.sampled_from(["nan", "None", "-", "1", "1.0", "true"])
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


def outcome(file, content):
    """The task in a file, or the sentence with which it is refused."""
    file.write_bytes(content)
    try:
        task = load_task(str(file))
    except UserError as error:
        refused = str(error)
    else:
        event("read")
        require_account(task)
        return task
    assert len(refused.splitlines()) == 1, refused
    assert file.name in refused
    return refused


def require_account(task):
    """Every row is in the task, or is counted; no text in two halves, none that cannot be written down."""
    assert task.facts["rows"] == sum(task.facts["texts"].values()) + sum(task.facts["dropped"].values())
    assert len(task.texts) >= 2
    for category, halves in task.texts.items():
        texts = [text for half in HALVES for text in halves[half]]
        assert len(texts) == len(set(texts)) == task.facts["texts"][category] > 0
        for written in (category, *texts):
            assert written.strip() == written != ""
            assert not unwritable(written)
            assert not set(written) & set("\r\n")
    assert not unwritable(task.account)


def encoded(text, encoding):
    return text.encode(encoding, "surrogatepass")


@given(
    content=st.binary(max_size=200)
    | st.builds(encoded, WRITTEN, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    | WRITTEN.map(lambda text: encoded("text,label\na,b\nc,d\n" + text, "utf-8")),
    ending=st.sampled_from(ENDINGS),
)
@example(b"text,label\n\xe9,a\n", ".csv")
def test_any_bytes_are_a_task_or_refused_by_name(place, content, ending):
    outcome(place / f"mine{ending}", content)


# Line ends are refused or passed over; half a pair of UTF-16 can be escaped in JSON, but no file of UTF-8 has it.
ONE_LINE = CELLS.map(
    lambda cell: cell.translate(dict.fromkeys(map(ord, "\r\n\0"), " ")).encode("utf-8", "replace").decode()
)
ROWS = st.lists(
    st.tuples(ONE_LINE, ONE_LINE, st.sampled_from(["", "selection", "Evaluation "])), min_size=1, max_size=12
)


class Backwards(random.Random):
    """Turns rows round, where chance would."""

    def shuffle(self, x):
        x.reverse()


@given(
    rows=ROWS, order=st.randoms(use_true_random=False), again=st.booleans(), around=st.sampled_from(["", " ", "\u00a0"])
)
@example(
    rows=[("a", "x", "selection"), ("b", "y", "selection"), ("c", "x", "selection")],
    order=Backwards(),
    again=False,
    around="",
)
def test_rows_in_another_order_again_or_with_spaces_around_are_the_same_task(place, rows, order, again, around):
    turned = [[f"{around}{cell}{around}" for cell in row] for row in (rows + rows[:3] if again else rows)]
    order.shuffle(turned)
    one, other = (
        outcome(place / "mine.csv", encoded(as_csv(own, ["text", "label", "split"], ",", csv.QUOTE_ALL, "\n"), "utf-8"))
        for own in (rows, turned)
    )
    assert getattr(one, "digest", None) == getattr(other, "digest", None), (one, other)


def as_csv(rows, names, separator, quoting, line_end):
    written = io.StringIO()
    writer = csv.writer(written, delimiter=separator, quoting=quoting, lineterminator=line_end)
    writer.writerows([names, *rows])
    return written.getvalue()


@given(
    rows=ROWS,
    columns=st.sampled_from([2, 3]),
    separator=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_the_same_rows_are_the_same_task_however_they_are_written(
    place, rows, columns, separator, quoting, line_end, encoding
):
    names = ["Text", " label", "SPLIT"][:columns]
    rows = [row[:columns] for row in rows]
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    table = as_csv(rows, names, separator, quoting, line_end)
    told = f"sep={separator}{line_end}" + table
    others = [
        outcome(place / "mine.csv", encoded(told, "utf-8")),
        outcome(place / "mine.csv", encoded(table, encoding)),
        outcome(place / "mine.json", json.dumps(objects).encode()),
        outcome(place / "mine.jsonl", line_end.join(map(json.dumps, objects)).encode()),
    ]
    tasks = [getattr(one, "digest", None) for one in others]
    assert len(set(tasks)) == 1, others

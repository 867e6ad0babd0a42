"""A small table that is as it should be, of two classes, and how tests give a file to a task."""

import pytest

from conftest import message
from twotowers.errors import TaskError
from twotowers.prompts.tasks import load_task

FRUIT, TOOLS = ("apple", "pear", "plum", "fig"), ("saw", "hammer", "drill", "file")
PAIRS = [*((text, "fruit") for text in FRUIT), *((text, "tool") for text in TOOLS)]
GOOD = "text,label\n" + "".join(f"{text},{label}\n" for text, label in PAIRS)


def written(file, content):
    """Write a file and load it as a task."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_task(str(file))


@pytest.fixture
def given(tmp_path):
    """Load a table from its text or bytes, under a name of one's own."""
    return lambda content, name="mine.csv": written(tmp_path / name, content)


@pytest.fixture
def refused(given):
    """The sentence with which a file is refused, which names it if it can be shown."""

    def why(content, name="mine.csv"):
        text = message(TaskError, lambda: given(content, name))
        assert name in text or not name.isprintable()
        return text

    return why

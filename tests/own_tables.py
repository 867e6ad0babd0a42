"""A small table that is as it should be, of two classes, and how tests give a file to a task."""

from twotowers.prompts.tasks import load_task

FRUIT, TOOLS = ("apple", "pear", "plum", "fig"), ("saw", "hammer", "drill", "file")
PAIRS = [*((text, "fruit") for text in FRUIT), *((text, "tool") for text in TOOLS)]
GOOD = "text,label\n" + "".join(f"{text},{label}\n" for text, label in PAIRS)


def written(file, content):
    """Write a file and load it as a task."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_task(str(file))

"""Every mistake a user can make has a name here, and a message that says what to do.

The command turns a `UserError` into one sentence and exit status 2; in Python it is an ordinary exception.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

LISTED = 380  # characters of names that one may choose from
BEGIN, END = 600, 300  # characters of a message that is longer than one can read: what it names came from outside


class UserError(Exception):
    """A mistake in what was asked for; the message is one sentence, on one line, that says how to mend it."""

    def __init__(self, message: str) -> None:
        line = " ".join(message.splitlines())
        super().__init__(line if len(line) <= BEGIN + END else f"{line[:BEGIN]} … {line[-END:]}")


class UnknownNameError(UserError):
    """A model, task, chapter or scale that does not exist."""

    def __init__(self, kind: str, name: object, known: Iterable[str], hint: str = "", alike: float = 0.5) -> None:
        known = list(known)
        asked = str(name) if len(str(name)) <= 100 else f"{str(name)[:100]}…"
        close = difflib.get_close_matches(asked.lower(), known, n=1, cutoff=alike)
        listed = textwrap.shorten(", ".join(known), LISTED, placeholder=" and more")
        meant = f"choose one of: {listed}" if known else "there is none at all"
        meant = f"did you mean '{close[0]}'?" if close else meant
        super().__init__(f"There is no {kind} '{asked}': {meant}{hint}")


class ArgumentError(UserError, ValueError):
    """What a function was given from Python is of a kind or size that it cannot use."""


class TaskError(UserError):
    """A word list or data set that cannot be read, or has too few texts for what was asked."""


class LabelError(UserError):
    """A label that is not exactly one token, or more or fewer labels than a question can be asked of."""


class PromptError(UserError):
    """A prompt that cannot be built, or is longer than the model's context."""


class SeedError(UserError):
    """A seed that is no whole number from 0."""


class ModelError(UserError):
    """A model that cannot be found, reached or read."""


class FamilyError(ModelError):
    """A model whose architecture the package does not know how to take apart."""


class ServerError(UserError):
    """A server that cannot be reached, does not let us in, lacks the model, or is of another version."""


class MemoryLimitError(UserError):
    """More memory than there is."""


class HeadError(UserError):
    """A head that the model does not have, or heads that have not been selected yet."""


class CheckError(UserError):
    """A model on which an identity of the check does not hold; it must not be interpreted."""


class PlaceError(UserError):
    """A folder or file that cannot be written."""


class RunFolderError(PlaceError):
    """A run folder that cannot be written."""


class OtherRunError(UserError):
    """A run folder that holds another scale or seed than was asked for."""


class DamagedRunError(UserError):
    """A file of a run that is missing, or is not what the run has made."""


class StalePageError(UserError):
    """A page that is not up to date, and was not asked to be published as it is."""


class ChapterError(Exception):
    """A chapter that stopped with an error of ours, not of the user's."""


class SiteError(Exception):
    """A site that was built with warnings, or lacks a page or a figure."""


NO_MEMORY = (
    "can't allocate memory",
    "Cannot allocate memory",
    "can't start new thread",
    "not enough memory",
    "failed to map segment from shared object",  # a library that finds no room while it loads
)


@contextlib.contextmanager
def writing(what: str, place: Path, kind: type[PlaceError] = PlaceError) -> Iterator[None]:
    """While something is written: an error of the disk becomes one sentence, which names what is not there now.

    Args:
        what: is written, as a sentence begins with it: "The site".
        place: where; named if the error names no file of its own.
    """
    try:
        yield
    except OSError as error:
        why, name = _why(error)
        file = "" if name in (None, str(place)) else f": {name}"
        other = error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
        mend = "something else stands in its place, move that away" if other else "free space there or make it writable"
        raise kind(f"{what} {place} cannot be written ({why}{file}); {mend}.") from error


def _why(error: OSError) -> tuple[str, str | None]:
    """What is wrong, in the system's words, and with which file; of many files that were copied, with the first."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        _, name, why = error.args[0][0]
        return re.sub(r"^\[Errno \d+\] ([^:]*).*", r"\1", str(why), flags=re.DOTALL), str(name)
    return error.strerror or str(error), None if error.filename is None else str(error.filename)


def unforeseen(error: BaseException) -> tuple[str, int]:
    """What is said of an error that has no name here, in one line, and with which exit status."""
    if out_of_memory(error):
        return "There is too little memory for this; use a smaller scale or model, fewer --jobs, or another machine.", 2
    if isinstance(error, OSError):
        why, name = _why(error)
        return f"{why}{f': {name}' if name else ''}", 2
    first = (str(error).strip().splitlines() or [""])[0]
    if names := _set_outside(first):
        return f"{' and '.join(names)} in the environment cannot be read ({first}); mend or unset it.", 2
    return f"Stopped by {type(error).__name__}: {first} (TWOTOWERS_DEBUG=1 shows where)", 1


def _set_outside(said: str) -> list[str]:
    """Variables of the environment that libraries read as a number, and that are none, by what was said of them."""
    wrong = re.fullmatch(r"(?:could not convert string to float|invalid literal for int\(\) with base 10): (.*)", said)
    return sorted(name for name, value in os.environ.items() if wrong and repr(value) == wrong[1])


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no more memory, in whose words whatever."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return type(error).__name__ == "OutOfMemoryError" or any(words in str(error) for words in NO_MEMORY)

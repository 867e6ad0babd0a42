"""How the command's options are read: none is silently preferred, and each value is checked where it is given."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser of command lines that says what is wrong in one line.

    An option of one value that is given twice is refused unless both are the same; options of several values add up.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("action", None, _Once)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        return super().parse_known_args(list(map(_at_home, sys.argv[1:] if args is None else args)), namespace)

    def error(self, message: str) -> NoReturn:
        super().error(" ".join(message.splitlines()))


def _at_home(word: str) -> str:
    """`--option=~/place` with the home folder in it: shells write that out only where a word begins."""
    option, _, value = word.partition("=")
    return f"{option}={os.path.expanduser(value)}" if option.startswith("--") and value.startswith("~/") else word


class _Once(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given = vars(namespace).setdefault("given", {})
        if given.setdefault(self.dest, values) != values:
            parser.error(f"{option_string} is given twice, with different values; give it once")
        setattr(namespace, self.dest, values)


class NamedValues(argparse.Action):
    """Collects `NAME=VALUE` from everywhere into one dictionary; a name with two values is refused."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        found = dict(getattr(namespace, self.dest))
        for name, value in values:
            if found.setdefault(name, value) != value:
                parser.error(f"{option_string} gives two values of {name}; give one")
        setattr(namespace, self.dest, found)


def seed(text: str) -> int:
    """A whole number from 0, or `ArgumentTypeError`."""
    return _whole(text, 0, "seed")


def count(text: str) -> int:
    """A whole number from 1, or `ArgumentTypeError`."""
    return _whole(text, 1, "such number")


def _whole(text: str, least: int, what: str) -> int:
    with contextlib.suppress(ValueError):  # it has more digits than Python reads
        if text.isdecimal() and int(text) >= least:
            return int(text)
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    raise argparse.ArgumentTypeError(f"'{shown}' is no {what}; give a whole number from {least}")


def named_value(text: str) -> tuple[str, str]:
    """Name and value of `NAME=VALUE`, or `ArgumentTypeError`."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"'{text}' is no option; give it as name=value")
    return name, value

"""The objects of a JSON file, with what is in them as it is written."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from ..errors import TaskError
from ..hub import first_line


def lines_of_json(text: str) -> bool | None:
    """Whether a text that is JSON has one value a line; None for a text that is none."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    for part in (text, next(line for line in text.splitlines() if line.strip())):
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(part)
            return part is not text
    return None


def objects(path: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    """What a JSON list, or a text with an object a line, holds, each with its number; within are tuples of pairs.

    Raises:
        TaskError: it is no JSON, or not of such objects; the message names the row.
    """
    found: list[tuple[int, Any]] = []
    number = 0
    try:
        whole = _parsed(text)
        found = list(enumerate(whole if isinstance(whole, list) else [whole], start=1))
    except ValueError as error:
        if text.lstrip().startswith("[") and "Extra data" not in str(error):  # a list that is cut off, say
            raise TaskError(
                f"{path} is no JSON ({first_line(error)}); mend the list there, or write it again."
            ) from None
        try:
            for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
                if line.strip():
                    found.append((number, _parsed(line)))
        except (ValueError, RecursionError) as error:
            raise TaskError(
                f"{path}, row {number} is no JSON ({first_line(error)}); give a list of objects, or one object a line."
            ) from None
    except RecursionError:
        raise TaskError(f"{path} is too deep to be read; give a list of objects with text and label.") from None
    for number, pairs in found:
        if not isinstance(pairs, tuple) or len(dict(pairs)) < len(pairs):
            raise TaskError(f"{path}, row {number} is no object with each name once; write text and label of each row.")
    return [(number, dict(pairs)) for number, pairs in found]


def _parsed(content: str) -> Any:
    """JSON with numbers as they are written, and objects as tuples of pairs, so that no name gets lost."""
    return json.loads(content, object_pairs_hook=tuple, parse_int=str, parse_float=str, parse_constant=str)

"""Files of a model's folder as they lie there: what they are instead of what their names say, and what they hold."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

_INSTEAD = {
    b"version https://git-lfs": "is a pointer of git-lfs, so run: git lfs pull",
    b"GGUF": "is a GGUF file, so name it so (.gguf), and give it as the model",
    b"<": "is a page of the web, so fetch the file itself",
    codecs.BOM_UTF8: "begins with a byte order mark, so save it as UTF-8 without one",
    codecs.BOM_UTF16_LE: "is UTF-16, so save it as UTF-8",
    codecs.BOM_UTF16_BE: "is UTF-16, so save it as UTF-8",
}
_PICKLES = (b"PK\x03\x04", b"\x80")  # as PyTorch writes them


def instead_of(file: Path) -> str:
    """What a file is instead of what its name says, and what to do; empty if its first bytes do not tell."""
    with file.open("rb") as handle:
        begin = handle.read(100)
    if not begin.strip():
        return "is empty, so fetch it again"
    if file.suffix == ".safetensors" and begin.startswith(_PICKLES):
        return "is a pickle of PyTorch, so take the model's own *.safetensors"
    return next((what for start, what in _INSTEAD.items() if begin.startswith(start)), "")


def damage_of(file: Path) -> str:
    """Why a file holds no JSON object, or not one alone, and what to do; empty if it does, or is not there."""
    if not file.is_file():
        return ""
    if found := instead_of(file):
        return found
    if _object(file) is None:
        return "is no JSON object, so it is damaged: fetch it again"
    return next((f"says '{name}' twice, so keep one of them" for name in _twice(file)), "")


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none."""
    return _object(file) or {}


def _twice(file: Path) -> list[str]:
    """Names that a JSON object has more than once, of which readers take the last."""
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        found.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)
        return dict(pairs)

    json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=look)
    return found


def _object(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        return None
    return found if isinstance(found, dict) else None

"""Whether the files of somebody else's run are what their names say, and nothing in them is alive.

Pictures and pages of such a run are drawn anew from its tables (`contributed`), so nothing that is looked at here
reaches a reader as it came, but for code cells and numbers. An archive that holds something alive is refused
nevertheless: no run of ours has any.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import nbformat
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from .archive import ArchiveError

DIRECTIVES = {"admonition", "div", "dropdown", "figure", "tab-item", "tab-set"}  # that computed items are made with
ROLES = {"download"}
PROSE_ROLES = {"cite:p", "cite:t", "doc", "eq", "ref"}  # beside which a chapter's prose has admonitions only
SHOWN = {"text/markdown", "text/plain"}
ALIVE = {"script", "foreignobject", "iframe", "embed", "object", "set", "handler", "listener", "a"}  # and animations

_DIRECTIVE = re.compile(r"(?:`{3,}|~{3,}|:{3,})\s*\{([^}]*)\}")
_AT_LINE = re.compile(rf"^[ \t>*+\-\d.)]*{_DIRECTIVE.pattern}", re.MULTILINE)  # where alone it is one
_ROLE = re.compile(r"\{([^}`\s]+)\}`")
_DOWNLOAD = re.compile(r"\{download\}`[^`<>]*<[^`<>]*>`")
_ALT = re.compile(r"(```\{figure\} \S+\n:name: \S+\n):alt: [^\n]*")
_FENCED = re.compile(r"^(`{3,})text\n.*?\n\1$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<![`}])(`+)(?!`)[^\n]*?(?<!`)\1(?!`)")  # within a line, and no role
_TAG = re.compile(r"<\s*[A-Za-z/!?]")
_LINK = re.compile(r"\]\(\s*(?!#)|^[ >]*\[[^\]\n]*\]:", re.MULTILINE)  # that leads elsewhere than to an anchor
_HANDLER = re.compile(r"\{[^}\n]*\bon[a-z]+\s*=", re.IGNORECASE)
_SCHEME = re.compile(r"(?:javascript|vbscript|data)\s*:\s*[^\s]", re.IGNORECASE)
_WIDGETS = "application/vnd.jupyter.widget"


def require_harmless(name: str, content: bytes) -> None:
    """Look into one file, by the ending of its name.

    Raises:
        ArchiveError: it is something else, or alive.
    """
    look = _LOOKS.get(name.rpartition(".")[2])
    if look is None:
        raise ArchiveError(f"{name} is of no kind that a run has")
    look(name, content)


def read_json(name: str, content: bytes) -> Any:
    """What a JSON file holds.

    Raises:
        ArchiveError: it is no JSON.
    """
    try:
        return json.loads(_text(name, content))
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"{name} is no JSON") from error


def alive(text: str) -> str:
    """What of a Markdown text might do something in a browser or read a file, in words; empty if nothing does.

    Only what computed items are made with is let through. The words for those who cannot see a figure are no Markdown:
    they are shown as they are, and a model's own tokens, as `<s>`, may stand in them.
    """
    if odd := _odd(text, DIRECTIVES, ROLES, _DIRECTIVE):
        return odd
    text = _DOWNLOAD.sub("", _ALT.sub(r"\1", text))
    for what, pattern in (("HTML", _TAG), ("a handler", _HANDLER), ("a script", _SCHEME), ("a link", _LINK)):
        if pattern.search(text):
            return what
    return ""


def odd_in_page(notebook: Any) -> str:
    """What a run's page holds that no page of ours does, and may read a file or be alive, in words; empty if nothing.

    Any run is looked through, since the folder of one may come from somebody else.
    """
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (odd := _odd(cell.source, {"admonition"}, PROSE_ROLES)):
            return odd
        for output in cell.get("outputs", ()):
            text = _not_code("".join(output.get("data", {}).get("text/markdown", "")))
            if odd := _odd(_ALT.sub(r"\1", text), DIRECTIVES, ROLES):
                return odd
    return ""


def odd_in_caption(text: str) -> str:
    """What a figure's caption holds that none of ours does, likewise."""
    return _odd(_not_code(text), set(), PROSE_ROLES, _DIRECTIVE)


def _not_code(text: str) -> str:
    """Without what is shown as it is."""
    return _CODE.sub("", _FENCED.sub("", text))


def _odd(text: str, directives: set[str], roles: set[str], directive: re.Pattern[str] = _AT_LINE) -> str:
    for what, found, known in (("directive", directive, directives), ("role", _ROLE, roles)):
        if odd := next((name for name in found.findall(text) if name not in known), None):
            return f"the {what} {odd[:40]!a}"
    return ""


def require_still(name: str, notebook: Any) -> None:
    """Refuse a notebook whose outputs are anything but computed items in harmless Markdown."""
    if any(key.startswith(_WIDGETS) for key in notebook.metadata.get("widgets", {})):
        raise ArchiveError(f"{name} has widgets")
    for cell in notebook.cells:
        if cell.get("attachments"):
            raise ArchiveError(f"{name} has attachments")
        for output in cell.get("outputs", ()):
            kinds = set(output.get("data", {}))
            if output.output_type != "display_data" or not kinds <= SHOWN or "item" not in output.metadata:
                raise ArchiveError(f"{name} shows something that is no computed figure or text")
            if found := alive("".join(output.data.get("text/markdown", ""))):
                raise ArchiveError(f"{name} shows {found}, which may be alive")


def _notebook(name: str, content: bytes) -> None:
    text = _text(name, content)
    try:
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # whatever a library says of a file that was made to break it
        raise ArchiveError(f"{name} is no notebook") from error
    require_still(name, notebook)


def _svg(name: str, content: bytes) -> None:
    try:
        picture = fromstring(content)
    except (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError) as error:
        raise ArchiveError(f"{name} is no picture, or one with entities") from error
    if _local(picture.tag) != "svg":
        raise ArchiveError(f"{name} is no picture")
    for element in picture.iter():
        if found := next(_alive_in(element), None):
            raise ArchiveError(f"{name} has {found}, which may be alive or lead elsewhere")


def _alive_in(element: Element) -> Iterator[str]:
    tag = _local(element.tag)
    if tag in ALIVE or tag.startswith("animate"):
        yield f"an element {tag!a}"
    if tag == "style" and _leads_elsewhere(element.text or ""):
        yield "a style that loads something"
    for key, value in element.attrib.items():
        attribute = _local(key)
        if attribute.startswith("on"):
            yield f"an attribute {attribute!a}"
        if attribute in ("href", "src") and not value.strip().startswith(("#", "data:image/png;base64,")):
            yield f"an attribute {attribute!a} that leads elsewhere"
        if _leads_elsewhere(value):
            yield f"an attribute {attribute!a} that loads something"


def _leads_elsewhere(style: str) -> bool:
    return bool(re.search(r"url\(\s*['\"]?(?!#)|@import|expression\(|javascript:", style, re.IGNORECASE))


def _local(name: object) -> str:
    return str(name).rpartition("}")[2].lower()


def _csv(name: str, content: bytes) -> None:
    try:
        rows = list(csv.reader(io.StringIO(_text(name, content), newline=""), strict=True))
    except csv.Error as error:
        raise ArchiveError(f"{name} is no table") from error
    if not rows or len({len(row) for row in rows}) != 1:
        raise ArchiveError(f"{name} is no table")


def _begins(*beginnings: bytes) -> Callable[[str, bytes], None]:
    def look(name: str, content: bytes) -> None:
        if not content.startswith(beginnings):
            raise ArchiveError(f"{name} is not of the kind that its name says")

    return look


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArchiveError(f"{name} is no text in UTF-8") from error


_LOOKS: dict[str, Callable[[str, bytes], Any]] = {
    "json": read_json,
    "csv": _csv,
    "ipynb": _notebook,
    "svg": _svg,
    "png": _begins(b"\x89PNG\r\n\x1a\n"),
    "pdf": _begins(b"%PDF-"),
}

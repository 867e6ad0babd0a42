"""Notes over links to a symbol or an equation: what the page on the method says of it, taken from that page."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

_SYMBOL = re.compile(r'<tr[^>]*><td>(?:(?!</tr>).)*?id="(sym-[a-z0-9-]+)".*?</td>\s*<td>(.*?)</td>', re.DOTALL)
_HEADING_OR_EQUATION = re.compile(
    r'<h[1-4]>(?P<heading>.*?)<a class="headerlink"|id="(?P<anchor>equation-[^"]+)">\s*'
    r'<span class="eqno">\((?P<number>\d+)\)',
    re.DOTALL,
)
_LINK = re.compile(r'<a (class="reference internal" href="[^"#]*#((?:sym|equation)-[^"]+)")(?![^>]* title=)')


def notes(method: str) -> dict[str, str]:
    """What is said of each anchor of a symbol or equation on the built page on the method, as plain text."""
    found = {anchor: re.sub(r", \(\d+\)$", "", _text(meaning)) for anchor, meaning in _SYMBOL.findall(method)}
    heading = ""
    for match in _HEADING_OR_EQUATION.finditer(method):
        if match["anchor"]:
            found[match["anchor"]] = f"Equation {match['number']}: {heading}"
        else:
            heading = _text(match["heading"])
    return {anchor: note for anchor, note in found.items() if note}


def with_notes(page: str, said: Mapping[str, str]) -> str:
    """A page whose links to symbols and equations say what is there."""

    def noted(link: re.Match[str]) -> str:
        note = said.get(link[2])
        return f'<a {link[1]} title="{html.escape(note)}"' if note else link[0]

    return _LINK.sub(noted, page)


def _text(fragment: str) -> str:
    """HTML as text; a formula of one letter as that letter."""
    words = html.unescape(re.sub(r"<[^>]+>", "", fragment))
    return " ".join(words.replace(r"\(", "").replace(r"\)", "").split())

"""Texts from outside in each kind of place of a page: what is read there is what was given."""

import html
import re

import pytest
from markdown_it import MarkdownIt

from twotowers.publishing.markdown import code, escape, fenced, option, plain, table_text

TEXTS = [
    "plain words", "foo-heads, answer foo", "qwen2.5-0.5b", "<b>&amp;", "a_b _c_ *d* `e` ``f``", "`", "[a](b) ![c](d)",
    "# no heading", "- no list", "1. no list", "a | b", "$x$ {{y}} {ref}`z`", "\\*", "~~~", "-> --",
    "'quoted' \"too\"", "été ␣",
]  # fmt: skip


def read(markdown):
    """The text of a paragraph or table, and how many elements are in it."""
    page = MarkdownIt("commonmark").enable("table").render(markdown)
    return html.unescape(re.sub(r"<[^>]+>", "", page)).strip(), page


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read_as_it_was(text):
    words, page = read(f"before {escape(text)} behind")
    assert words == f"before {text} behind"
    assert re.findall("<[a-z0-9]+", page) == ["<p"]
    assert read(escape(text))[0] == text
    words, page = read(f"before {code(text)} behind")
    assert words == f"before {text} behind"
    assert re.findall("<[a-z0-9]+", page) == ["<p", "<code"]
    assert read(table_text(["a", "b"], [(escape(text), code(text))]))[1].count("<td>") == 2


@pytest.mark.parametrize("text", ["```", "~~~~", "a\n````\nb", "`````` x"])
def test_nothing_ends_a_fence_but_its_end(text):
    page = read(f"{fenced(text)}\n\nbehind")[1]
    assert page.count("<pre>") == 1
    assert page.endswith("<p>behind</p>\n")


def test_signs_that_cannot_be_seen_are_named():
    assert plain("a\u202eb\x08c\nd") == "a[U+202E]b[U+0008]c d"
    assert fenced("a\u202eb\tc\x0bd") == "```text\na[U+202E]b\tc\nd\n```"
    assert option('a "b" # c: \\') == r'"a \"b\" # c: \\"'

"""Tables as they should not be: other formats under a table's name, rows torn apart, signs that cannot be seen."""

import gzip
import io
import json
import lzma
import tarfile
import unicodedata
import zipfile

import numpy as np
import pytest

from own_tables import GOOD, PAIRS
from twotowers.errors import BEGIN, END, TaskError, UserError
from twotowers.prompts.spelling import damaged, named_plainly
from twotowers.prompts.written import unwritable, writable


def archive(*names):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name in names:
            file.writestr(name, GOOD)
    return made.getvalue()


def tar():
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        file.addfile(tarfile.TarInfo("mine.csv"))
    return made.getvalue()


def array():
    made = io.BytesIO()
    np.save(made, np.arange(3))
    return made.getvalue()


# Other formats under a table's name


@pytest.mark.parametrize(
    ("content", "what"),
    [
        pytest.param(archive("[Content_Types].xml", "xl/workbook.xml"), "is a spreadsheet", id="xlsx"),
        pytest.param(archive("mimetypeapplication/vnd.oasis.opendocument.spreadsheet"), "is a spreadsheet", id="ods"),
        pytest.param(archive("mine.csv"), "is compressed", id="zip"),
        pytest.param(archive(), "is compressed", id="empty zip"),
        pytest.param(gzip.compress(GOOD.encode()), "is compressed", id="gz"),
        pytest.param(b"(\xb5/\xfd\x04\x00rest", "is compressed", id="zst"),
        pytest.param(b"\x04\x22M\x18rest", "is compressed", id="lz4"),
        pytest.param(b"Rar!\x1a\x07\x01\x00", "is compressed", id="rar"),
        pytest.param(lzma.compress(GOOD.encode(), format=lzma.FORMAT_ALONE), "is no text file", id="lzma"),
        pytest.param(tar(), "is no text file", id="tar"),
        pytest.param(array(), "is no text file", id="npy"),
        pytest.param(b"\x7fELF\x02\x01\x01", "is no text file", id="program"),
        pytest.param(b"\xff\xd8\xff\xe0\x00\x10JFIF", "is no text file", id="jpg"),
        pytest.param(bytes(5000), "is no text file", id="zeros"),
        pytest.param(GOOD.encode("utf-16-le"), "is UTF-16 without the mark", id="utf-16-le"),
        pytest.param(json.dumps(PAIRS).encode("utf-16-be"), "is UTF-16 without the mark", id="utf-16-be"),
        pytest.param(("\ufeff" + GOOD).encode("utf-32-be"), "not UTF-8, but UTF-32", id="utf-32-be"),
        pytest.param("<!DOCTYPE html><html></html>", "is a page or document", id="page"),
        pytest.param('\n<?xml version="1.0"?><a/>', "is a page or document", id="xml"),
    ],
)
def test_a_file_is_named_for_what_is_in_it(refused, content, what):
    assert f"mine.csv{',' if 'UTF-32' in what else ''}" in refused(content)
    assert what in refused(content)


@pytest.mark.parametrize("ending", ["rar", "lz4", "docx", "dta", "fods", "csv.zst", "ORC"])
def test_a_file_is_named_for_its_ending(refused, ending):
    assert f"mine.{ending} is " in refused(GOOD, f"mine.{ending}")


@pytest.mark.parametrize("name", ["mi\nne.csv", "mi\x1bne.csv", "mi\udcffne.csv"])
def test_a_file_whose_name_no_page_can_show_is_refused(refused, name):
    assert "no page can show; rename it" in refused(GOOD, name)


# Rows torn apart


def test_rows_without_the_separator_of_their_header_are_told_so(refused):
    """They were told as rows without a label."""
    assert "';' between the columns of its first row and in no other" in refused(GOOD.replace(",", ";", 1))


def test_a_header_that_comes_again_is_no_category(refused):
    assert "row 10 names the columns again" in refused(GOOD + GOOD)


def test_a_header_within_quotes_or_behind_a_false_separator_says_what_to_do(refused):
    assert "take away the quotes around whole rows" in refused("".join(f'"{line}"\n' for line in GOOD.splitlines()))
    assert "its first line says sep=;, so write that" in refused("sep=;\n" + GOOD)
    assert "with a comma, semicolon or tab" in refused(GOOD.replace(",", "::"))


def test_a_list_that_is_cut_off_is_told_where(refused):
    """It was told as a first row that is no JSON, since a list in lines is no object a line."""
    rows = json.dumps([{"text": text, "label": label} for text, label in PAIRS], indent=1)
    why = refused(rows[:-2], "mine.json")
    assert f"line {rows.count(chr(10))} column" in why
    assert "mend the list" in why


@pytest.mark.parametrize("blank", ["\t", " \t ", "|", ";"])
def test_a_line_of_nothing_but_another_separator_is_left_out_as_any_blank_one(given, blank):
    assert given(GOOD + f"{blank}\n").digest == given(GOOD).digest


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_field_too_many_is_told_by_the_tables_own_separator(refused, separator):
    assert f"a text that has {separator!r} in it" in refused(GOOD.replace(",", separator) + f"kiwi{separator * 2}x\n")


# Signs that cannot be seen


@pytest.mark.parametrize("sign", ["\u034f", "\u180e", "\u3164", "\ufe0f", "\U000e0041", "\u2800", "\u200b", "\u2066"])
def test_a_sign_that_shows_nothing_makes_no_other_text(given, sign):
    task = given(GOOD + f"ap{sign}ple,fruit\n{sign},tool\n")
    assert task.digest == given(GOOD + "apple,fruit\n").digest or "alike" in task.facts["dropped"]
    assert sum(task.facts["texts"].values()) == 8
    assert [n for reason, n in task.facts["dropped"].items() if reason.startswith("without a text")] == [1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("it's", "it\u2019s"),
        ("a-b", "a\u2013b"),
        ("\ufb01sh", "fish"),
        ("a b", "a\u00a0b"),
    ],
)
def test_two_spellings_by_machine_count_once(given, one, other):
    assert given(GOOD + f"{one},fruit\n{other},fruit\n").facts["dropped"]["alike"] == 1


def test_flags_of_two_regions_are_two_texts(given):
    """They differ only in signs that show nothing by themselves."""
    flags = ("".join(map(chr, (0x1F3F4, *(0xE0000 + ord(c) for c in name), 0xE007F))) for name in ("gbeng", "gbsct"))
    assert "alike" not in given(GOOD + "".join(f"{flag},fruit\n" for flag in flags)).facts["dropped"]


@pytest.mark.parametrize(
    ("one", "other"), [("-1", "\u22121"), ("very good", "very_good"), ("Yes", "yes"), ("1", "1.0"), ("a", "a\u200b")]
)
def test_categories_in_two_spellings_are_told(one, other):
    assert named_plainly(one) == named_plainly(other)


# Sizes


@pytest.mark.parametrize("text", ["<br" * 300_000, "&#" * 300_000, "<b " * 300_000])
def test_a_text_of_a_million_marks_is_looked_through_once(text):
    assert damaged([text]) == ""


def test_what_cannot_be_written_is_the_same_by_one_search_as_sign_by_sign():
    odd = [chr(n) for n in (*range(0x100), 0x2028, 0xD7FF, 0xD800, 0xDFFF, 0xE000, 0xFFFD, 0xFFFE, 0xFFFF, 0x10FFFF)]
    wrong = [c for c in odd if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r\x85"] + ["\ufffe", "\uffff"]
    assert [c for c in odd if unwritable(f"a{c}")] == sorted(wrong)
    assert writable("".join(odd)) == "".join("?" if c in wrong else c for c in odd)


def test_many_and_long_names_are_not_all_named(given, refused):
    many = given("text,label\n" + "".join(f"word{i},class{i}\n" for i in range(3000)))
    assert "and 2,980 more" in many.account
    assert len(many.account) < 2000
    assert len(given(GOOD + f"kiwi,{'l' * 5000}\n").account) < 1000
    with pytest.raises(TaskError, match=r"keep one of them\.$") as caught:
        given(GOOD + "".join(f"{'long' * 5000},{label}\n" for label in ("fruit", "tool")))
    assert len(str(caught.value)) < BEGIN + END + 10


def test_a_message_keeps_its_remedy_however_long_what_it_names():
    said = str(UserError(f"There is no file {'x' * 10_000}; give another."))
    assert said.startswith("There is no file x")
    assert said.endswith("; give another.")
    assert len(said) < BEGIN + END + 10

"""Tables as spreadsheets, statistics programs, data bases and tools for labelling write them."""

import io
import json

import pyarrow
import pyarrow.parquet
import pytest

from own_tables import GOOD, PAIRS


def table(row, header="text,label\n"):
    return header + "".join(row(text, label) + "\n" for text, label in PAIRS)


OBJECTS = [{"text": text, "label": label} for text, label in PAIRS]
LINES = "".join(json.dumps(row) + "\n" for row in OBJECTS)


# Errors of sheets: no text and no class


ENGLISH = ["#SPILL!", "#CALC!", "#GETTING_DATA", "#ERROR!", "Loading...", "########", "#N/A N/A", "Err:502"]
OTHERS = ["#NV", "#WERT!", "#VALEUR!", "#NOM?", "#RIF!", "#\u00a1VALOR!", "#\u00bfNOMBRE?", "#N\u00daM!"]


@pytest.mark.parametrize("error", [*ENGLISH, *OTHERS])
def test_what_a_sheet_writes_for_an_error_is_no_value(given, error):
    task = given(GOOD + f"{error},fruit\nkiwi,{error}\n")
    assert task.digest == given(GOOD).digest
    assert task.facts["dropped"] == {
        "repeated": 0,
        f"without a label (written '{error}')": 1,
        f"without a text (written '{error}')": 1,
    }


@pytest.mark.parametrize("text", ["#love", "#MeToo!", "C#", "##", "err: 5", "Loading", "# 1"])
def test_a_text_that_only_looks_like_one_is_a_text(given, text):
    assert sum(given(GOOD + f"{text},fruit\n").facts["texts"].values()) == 9


@pytest.mark.parametrize("written", ["tbd", "???", "-999", "[object Object]", "k.A."])
def test_what_people_write_for_no_label_is_told(given, written):
    assert f"Perhaps '{written}' is written where there is no label" in given(GOOD + f"kiwi,{written}\n").account


# What stands in place of a plain text


@pytest.mark.parametrize("cell", ['"=""kiwi"""', "=CONCAT(A1;A2)", '"=VLOOKUP(A1,B2)"'])
def test_a_formula_is_no_text_and_no_class(refused, cell):
    assert "row 10, column 'text' has a formula" in refused(GOOD + f"{cell},fruit\n")
    assert "row 10, column 'label' has a formula" in refused(GOOD + f"kiwi,{cell}\n")


@pytest.mark.parametrize("text", ["=)", "=kiwi", "=5", "[kiwi]", "{kiwi}", "[1]", '["kiwi', "[]"])
def test_a_text_that_only_begins_like_one_is_a_text(given, text):
    assert sum(given(GOOD + '"{}",fruit\n'.format(text.replace('"', '""'))).facts["texts"].values()) == 9


@pytest.mark.parametrize("cell", ["\"['fruit']\"", '"[""fruit"", ""food""]"', "\"{'name': 'fruit'}\""])
def test_a_list_in_a_cell_is_refused_as_it_is_in_json(refused, cell):
    """It was a class of its own, in whatever order its parts stood."""
    assert "row 10, column 'label' has a list" in refused(GOOD + f"kiwi,{cell}\n")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("caf\u00c3\u00a9", "read in another encoding"),
        ("it\u00e2\u20ac\u2122s", "read in another encoding"),
        ("caf\ufffd", "a character that was lost"),
        ("salt &amp; pepper", "marks of a page"),
        ("kiwi<br>", "marks of a page"),
        ("one\\ntwo", "marks of a page or program"),
        ("\\u00e9t\u00e9", "marks of a page or program"),
    ],
)
def test_a_text_that_was_perhaps_damaged_on_its_way_is_told(given, text, what):
    account = given(GOOD + f"{text},fruit\n").account
    assert (
        f"Perhaps damaged: 1 have {'' if what[0] == 'a' else 'characters that were ' if what[0] == 'r' else ''}{what}"
        in account
    )
    assert f"'{text}'" in account


@pytest.mark.parametrize("text", ["caf\u00e9", "\u00e9t\u00e9", "\u6f22\u5b57", "a < b", "R&D", "AT&T;", "\u00c3o"])
def test_a_text_that_was_not_is_not(given, text):
    assert "damaged" not in given(GOOD + f'"{text}",fruit\n').account


# Rows that are none


@pytest.mark.parametrize(
    "content",
    [
        table("| {} | {} |".format, "| text | label |\n|------|-------|\n"),
        table("| {} | {} |".format, "| text | label |\n|:-----|:-----:|\n"),
        table("{},{}".format, "text,label\n----,-----\n"),
        table("{}\t{}".format, "text\tlabel\n====\t=====\n"),
    ],
)
def test_a_line_drawn_under_the_names_is_no_class(refused, content):
    assert "row 2 is a line drawn under the names of the columns" in refused(content)


def test_what_a_data_base_says_below_is_left_out_and_told(given):
    task = given(table("{}|{}".format, "text|label\n") + "(8 rows)\n")
    assert task.digest == given(GOOD).digest
    assert task.facts["dropped"] == {"repeated": 0, "without a label": 1}


def test_the_marks_of_two_versions_are_no_rows(refused):
    lines = GOOD.splitlines(keepends=True)
    merged = [lines[0], "<<<<<<< HEAD\n", *lines[1:4], "=======\n", *lines[4:], ">>>>>>> other\n"]
    assert "row 2 is a mark of git" in refused("".join(merged))


def test_rows_with_another_separator_from_somewhere_on_are_refused(refused):
    """They were left out as rows without a label."""
    lines = GOOD.splitlines(keepends=True)
    mixed = "".join(lines[:5]) + "".join(lines[5:]).replace(",", ";")
    assert "row 6 has ';' between its columns where row 1 has ','" in refused(mixed)


# Headers


@pytest.mark.parametrize("sign", [" ", "   ", "^", " - ", "\uff0c"])
def test_another_sign_between_quoted_columns_is_named(refused, sign):
    """It was told as a quote that does not close; R writes a space."""
    content = table('"1"{sign}"{}"{sign}"{}"'.replace("{sign}", sign).format, f'"text"{sign}"label"\n')
    assert f"{sign!r} between the columns of its first row; write a comma" in refused(content)


def test_single_quotes_around_the_names_are_told(refused):
    assert "write double quotes around them, or none" in refused(table("'{}','{}'".format, "'text','label'\n"))


def test_a_column_of_numbers_without_a_name_is_told(refused):
    """R writes a header that is one shorter than its rows."""
    assert "name every column in row 1" in refused(table('"1","{}","{}"'.format, '"text","label"\n'))


# Another format under a table's name


def test_json_and_csv_under_each_others_names_are_named(refused):
    assert "is JSON; name it so (.json)" in refused(json.dumps(OBJECTS, indent=1))
    assert "is JSON; name it so (.jsonl)" in refused(LINES)
    assert "is JSON; name it so (.json)" in refused('{"error": "not found"}', "mine.txt")
    assert "is a CSV table, no JSON; name it so (.csv)" in refused(GOOD, "mine.jsonl")


def test_rows_within_an_object_are_named(refused):
    halves = dict.fromkeys(("selection", "evaluation"), OBJECTS)
    assert "make one list of those under 'selection', 'evaluation'" in refused(json.dumps(halves), "mine.json")
    assert "give the list under 'data' by itself" in refused(json.dumps({"version": 1, "data": OBJECTS}), "mine.json")
    assert "give them in every object" in refused(json.dumps({"rows": [{"row": row} for row in OBJECTS]}), "mine.json")


def test_a_column_twice_in_parquet_is_named(refused):
    pytest.importorskip("datasets")
    made = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table([["a"], ["b"], ["c"]], names=["text", "label", "label"]), made)
    assert "has the column 'label' twice" in refused(made.getvalue(), "mine.parquet")

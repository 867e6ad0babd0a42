"""A user's own files as people have them: separators, headers, missing values, other formats; nothing goes silently."""

import bz2
import gzip
import json
import lzma
import pickle
import zipfile

import pytest

from conftest import message
from own_tables import FRUIT, GOOD, PAIRS, TOOLS
from twotowers.errors import TaskError, UserError
from twotowers.prompts.tasks import HALVES, load_task, portable
from twotowers.study import open_study


def all_texts(task):
    return {category: sorted(sum(halves.values(), ())) for category, halves in task.texts.items()}


# Separators and headers


@pytest.mark.parametrize(
    "content",
    [
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        GOOD.replace(",", "|"),
        "sep=;\n" + GOOD.replace(",", ";"),
        "\ufeffsep=;\r\n" + GOOD.replace(",", ";").replace("\n", "\r\n"),
        '"sep=,"\n' + GOOD,
        "sep=\t\n" + GOOD.replace(",", "\t"),
        GOOD.replace(",", ", "),
        GOOD.replace("\n", "\r"),
        "\n\n" + GOOD.replace("\n", "\n\n"),
        GOOD.replace("\n", ",,,\n"),
        GOOD.replace("label\n", "label,,\n"),
        GOOD.replace("text,label", " Text , LABEL "),
        GOOD.replace("text,label", '"text", "label"'),
        "\ufeff" + GOOD.replace("text,label", "\ufeffTEXT,label"),
    ],
)
def test_a_table_is_read_however_it_is_written(given, content):
    assert given(content).digest == given(GOOD).digest


@pytest.mark.parametrize("ending", ["CSV", "tsv", "txt", "Csv"])
def test_endings_are_read_in_capitals_too(given, ending):
    assert given(GOOD, f"mine.{ending}").digest == given(GOOD).digest


@pytest.mark.parametrize("name", [" split", "Split", "SPLIT ", "\tsplit"])
def test_a_split_is_used_however_it_is_spelt(given, name):
    rows = "".join(f"{text},{label},{HALVES[i % 2].upper()}\n" for i, (text, label) in enumerate(PAIRS))
    task = given(f"text,label,{name}\n" + rows)
    assert task.texts["fruit"] == {"selection": ("apple", "plum"), "evaluation": ("fig", "pear")}
    assert task.texts["tool"] == {"selection": ("drill", "saw"), "evaluation": ("file", "hammer")}


@pytest.mark.parametrize("name", ["text", "label", " Label", "TEXT"])
def test_a_column_twice_is_refused_by_name(refused, name):
    why = refused(GOOD.replace("text,label", f"text,label,{name}").replace("\n", ",x\n"))
    assert f"the column '{name.strip().lower()}' twice" in why
    assert f"'{name.strip()}'" in why


def test_a_header_that_is_not_understood_is_shown(refused):
    why = refused(GOOD.replace(",", ":"))
    assert "no column 'label' and no column 'text' but 'text:label'" in why
    assert "comma, semicolon or tab" in why


def test_columns_that_play_no_part_are_told(given):
    task = given(",text,label,notes\n" + "".join(f"{i},{t},{n},x\n" for i, (t, n) in enumerate(PAIRS)))
    assert task.facts["unused"] == ["without a name", "notes"]
    assert "Not used are 2 other columns: 'without a name', 'notes'." in task.account
    assert task.digest == given(GOOD).digest


def test_a_field_behind_the_last_column_is_refused(refused):
    assert "row 10 has more fields" in refused(GOOD.replace("label\n", "label,,\n") + "kiwi, green,fruit\n")


# Quotes


@pytest.mark.parametrize("after", ["", 'saw,"tool"\n', "pear,fruit\n" * 20_000])
def test_a_quote_that_does_not_close_is_named_where_it_opens(refused, after):
    why = refused(GOOD + '"kiwi,fruit\n' + "lime,fruit\nkaki,fruit\n" + after)
    assert "row 10 has a quote that opens there" in why
    assert "close it" in why


def test_a_quote_that_closes_rows_later_is_named_where_it_opens(refused):
    assert "quotes that open in row 10" in refused(GOOD + '"kiwi,fruit\nlime,fruit\n",fruit\n')
    assert "quotes that open in row 11" in refused("sep=,\n" + GOOD + 'kiwi,"fruit\nlime,fruit\n"\n')


def test_a_note_may_have_lines(given):
    rows = "".join(f'{t},{n},"one\ntwo"\n' for t, n in PAIRS)
    assert given("text,label,notes\n" + rows).digest == given(GOOD).digest


# What is missing, what is alike


@pytest.mark.parametrize("written", ["NA", "N/A", "NaN", "nan", "null", "NULL", "None", "none", "#N/A", "<NA>"])
def test_a_row_without_a_label_or_text_is_left_out_and_told(given, written):
    task = given(GOOD + f"kiwi,{written}\nlime, {written} \n{written},tool\n,tool\n,\nkaki\n")
    assert task.digest == given(GOOD).digest
    assert task.facts["rows"] == 14
    assert task.facts["dropped"] == {
        "repeated": 0,
        "without a label": 1,
        f"without a label (written '{written}')": 2,
        "without a text": 2,
        f"without a text (written '{written}')": 1,
    }
    assert f"2 without a label (written '{written}')" in task.account


def test_a_column_of_nothing_else_is_counted_in_the_refusal(refused):
    why = refused(GOOD.replace("fruit", "None").replace("tool", "null"))
    assert "no rows" in why
    assert "4 without a label (written 'None'), 4 without a label (written 'null')" in why
    assert "only 'tool'" in refused(GOOD.replace("fruit", "None"))


def test_a_missing_half_is_no_half(refused):
    rows = "".join(f"{t},{n},{'NA' if i else 'selection'}\n" for i, (t, n) in enumerate(PAIRS))
    assert "some rows only" in refused("text,label,split\n" + rows)


@pytest.mark.parametrize("other", ["Apple", "APPLE.", '"""apple"""', "apple!", " apple", "(apple)", "“apple”"])
def test_a_text_in_two_spellings_counts_once(given, other):
    for content in (GOOD + f"{other},fruit\n", GOOD.replace("apple,", f"apple,fruit\n{other},")):
        task = given(content)
        spellings = [text for text in all_texts(task)["fruit"] if "apple" in text.lower()]
        assert len(spellings) == 1
        assert len(all_texts(task)["fruit"]) == 4
        told = task.facts["dropped"].get("alike", 0) + task.facts["dropped"]["repeated"]
        assert told == 1
        assert "count" in task.account


def test_two_spellings_never_stand_in_two_halves(given):
    split = "text,label,split\n" + "".join(f"{t},{n},{HALVES[i % 2]}\n" for i, (t, n) in enumerate(PAIRS))
    task = given(split + "Pear,fruit,selection\n")
    assert task.facts["dropped"]["alike"] == 1
    assert "in one half: 'pear'" in task.account
    assert task.texts["fruit"] == {"selection": ("Pear", "apple", "plum"), "evaluation": ("fig",)}


def test_texts_of_marks_alone_and_other_signs_are_different_texts(given):
    task = given(GOOD + ":),fruit\n:(,fruit\nC,tool\nC#,tool\nC++,tool\n-5,tool\n5,tool\n")
    assert "alike" not in task.facts["dropped"]
    assert sum(map(len, all_texts(task).values())) == 15


def test_a_text_with_two_labels_in_two_spellings_is_told(given):
    assert "In two categories, though in different spellings, are 'Saw', 'saw'" in given(GOOD + "Saw,fruit\n").account


def test_numbers_are_labels_as_they_are_written(given):
    rows = [("1", FRUIT[:2]), ("1.0", FRUIT[2:]), ("0", TOOLS[:2]), ("00", TOOLS[2:])]
    task = given("text,label\n" + "".join(f"{text},{label}\n" for label, texts in rows for text in texts))
    assert task.categories == ("0", "00", "1", "1.0")
    assert "'0', '00', '1', '1.0' differ only in how they are written" in task.account
    assert "differ only" not in given(GOOD).account


def test_categories_that_differ_in_case_are_told(given):
    task = given(GOOD.replace("pear,fruit", "pear,Fruit"))
    assert task.categories == ("Fruit", "fruit", "tool")
    assert "'Fruit', 'fruit' differ only" in task.account


# Other formats

OBJECTS = [{"text": text, "label": label} for text, label in PAIRS]


@pytest.mark.parametrize("ending", ["jsonl", "json", "ndjson", "JSONL", "Json"])
def test_json_is_read_like_csv(given, ending):
    lines = "".join(json.dumps(row) + "\n" for row in OBJECTS)
    for content in (lines, json.dumps(OBJECTS), "\ufeff" + json.dumps(OBJECTS, indent=1), "\n" + lines + "\n"):
        assert given(content, f"mine.{ending}").digest == given(GOOD).digest


def test_numbers_and_missing_values_of_json_are_as_they_are_written(given):
    labels = ["1", "1", "1.0", "1.0", "true", "true", "null", "NaN"]
    rows = [f'{{"Text": "{text}", " label": {label}}}' for (text, _), label in zip(PAIRS, labels, strict=True)]
    task = given("\n".join([*rows, '{"Text": "kiwi"}']), "mine.jsonl")
    assert task.categories == ("1", "1.0", "True")
    dropped = {"repeated": 0, "without a label": 2, "without a label (written 'NaN')": 1}
    assert task.facts["dropped"] == dropped


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('{"text": "a", "label": "b"}\n{"text": "a"', "row 2 is no JSON"),
        ('["text", "label"]', "row 1 is no object"),
        ('{"text": "a", "text": "b", "label": "c"}', "row 1 is no object with each name once"),
        ('{"text": "a", "Text": "b", "label": "c"}', "the column 'text' twice"),
        ('{"text": ["a", "b"], "label": ["c", "d"]}', "row 1, column 'text' holds no plain text"),
        ('{"sentence": "a", "label": "c"}', "no column 'text' but 'sentence', 'label'"),
        ("[" * 100_000, "too deep"),
        ("", "no column 'label'"),
    ],
)
def test_json_that_is_no_table_is_refused(refused, content, part):
    assert part in refused(content, "mine.json")


@pytest.mark.parametrize("ending", ["xlsx", "XLS", "ods", "gz", "csv.gz", "zip", "bz2", "xz", "pkl", "pickle", "npy"])
def test_other_files_are_named_for_what_they_are(refused, tmp_path, ending):
    why = refused(GOOD, f"mine.{ending}")
    assert any(what in why for what in ("spreadsheet; save", "compressed; unpack", "pickle, which"))
    (tmp_path / f"mine.{ending}").unlink()
    assert "There is no file" in message(TaskError, lambda: load_task(str(tmp_path / f"mine.{ending}")))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


def test_other_files_are_known_by_what_is_in_them(refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "book.zip", "w") as book:
        book.writestr("xl/workbook.xml", GOOD)
    assert "compressed" in refused(gzip.compress(GOOD.encode()))
    assert "compressed" in refused(bz2.compress(GOOD.encode()))
    assert "compressed" in refused(lzma.compress(GOOD.encode()))
    assert "spreadsheet" in refused((tmp_path / "book.zip").read_bytes())
    assert "never opened" in refused(pickle.dumps(Bomb()))
    assert "never opened" in refused(pickle.dumps(Bomb()), "mine.pkl")
    assert "Parquet" in refused(b"PAR1 and more")
    assert "not UTF-8, but UTF-32" in refused(GOOD.encode("utf-32"))
    assert "not UTF-16, as it begins" in refused(GOOD.encode("utf-16")[:-1])
    assert "row 3 is not UTF-8, and other encodings" in refused(GOOD.replace("pear", "p\xeache").encode("latin-1"))
    assert "zero byte" in refused(GOOD.encode("utf-16-le"))


def test_a_folder_is_read_whole_and_says_what_it_leaves(tmp_path, given):
    folder = tmp_path / "folder"
    folder.mkdir()
    rows = GOOD.splitlines(keepends=True)
    (folder / "a.CSV").write_text("".join(rows[:4]))
    (folder / "b.tsv").write_text("".join([rows[0], *rows[4:6]]).replace(",", "\t"))
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in OBJECTS[5:]))
    (folder / "d.xlsx").write_text("")
    (folder / "inner").mkdir()
    task = load_task(str(folder))
    assert task.digest == given(GOOD).digest
    assert task.facts["unread"] == ["d.xlsx", "inner"]
    assert "Not read are 2 other files: 'd.xlsx', 'inner'." in task.account


# What a file or folder of a stranger's may try


def test_utf_16_is_read_by_its_mark(given):
    assert given(GOOD.encode("utf-16")).digest == given(b"\xfe\xff" + GOOD.encode("utf-16-be")).digest
    assert given(GOOD.replace(",", "\t").encode("utf-16"), "mine.txt").digest == given(GOOD).digest


@pytest.mark.parametrize("character", ["\x07", "\x0b", "\x1b", "\uffff"])
def test_a_character_that_no_page_can_show_is_refused_by_its_number(refused, character):
    number = f"U+{ord(character):04X}"
    assert f"row 10, column 'text' has the character {number}" in refused(GOOD + f"ki{character}wi,fruit\n")
    assert f"row 10, column 'label' has the character {number}" in refused(GOOD + f"kiwi,fr{character}uit\n")
    rows = [*OBJECTS, {"text": "a\ud800", "label": "fruit"}]
    assert "row 9, column 'text' has the character U+D800" in refused(json.dumps(rows), "mine.json")


def test_characters_that_show_nothing_make_no_class_and_no_text_of_their_own(given):
    task = given(GOOD + "kiwi,fruit\u200b\nlime,\ufefftool\n\u200b,fruit\n\u2060kaki,\u00ad\nap\u00adple,fruit\n")
    assert task.categories == ("fruit", "tool")
    assert task.facts["dropped"] == {"repeated": 0, "alike": 1, "without a label": 1, "without a text": 1}


@pytest.mark.parametrize("written", ["-", "?", "unknown", "(blank)", "—"])
def test_what_may_be_written_for_no_label_is_told(given, written):
    task = given(GOOD + f"kiwi,{written}\nlime,{written}\n")
    assert f"Perhaps '{written}' is written where there is no label, but it counts as a category" in task.account
    assert "Perhaps" not in given(GOOD).account


@pytest.mark.parametrize(("model", "mark"), [("smollm2-135m", "<|endoftext|>"), ("toy-gpt2", "<unk>")])
def test_a_text_that_holds_a_special_token_is_told(tmp_path, model, mark):
    file = tmp_path / "mine.csv"
    file.write_text(GOOD)
    assert "special token" not in open_study(model, str(file), "smoke").task.account
    file.write_text(f"{GOOD}a {mark} b,fruit\n")
    said = f"1 of the texts have in them what the tokenizer of {model} reads as a special token: 'a {mark} b'."
    assert said in open_study(model, str(file), "smoke").task.account


def test_a_link_that_leads_out_of_a_folder_is_refused(tmp_path):
    (tmp_path / "elsewhere.csv").write_text(GOOD)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.csv").write_text(GOOD)
    (folder / "b.csv").symlink_to("a.csv")
    assert load_task(str(folder)).facts["rows"] == 16
    (folder / "c.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert f"{folder / 'c.csv'} leads out of its folder; copy" in message(TaskError, lambda: load_task(str(folder)))


@pytest.mark.parametrize("name", ["", "\0", "a\0.csv", "x" * 5000, "x" * 5000 + ".csv", "words:shots=" + "9" * 5000])
def test_a_name_that_can_be_no_file_is_refused(name):
    message(UserError, lambda: load_task(name))
    if ":" not in name:
        assert portable(name) == name

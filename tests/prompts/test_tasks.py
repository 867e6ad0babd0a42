"""Tasks: the built-in words, their two halves, and a user's own CSV file."""

from importlib import resources

import pytest
import yaml

from twotowers.errors import TaskError, UnknownNameError
from twotowers.prompts.tasks import HALVES, load_task

FRUIT, TOOLS = ("apple", "pear", "plum", "fig"), ("saw", "hammer", "drill", "file")
GOOD = "text,label\n" + "".join(f"{t},fruit\n" for t in FRUIT) + "".join(f"{t},tool\n" for t in TOOLS)


@pytest.fixture(scope="module")
def words():
    return load_task("words")


@pytest.fixture(scope="module")
def listed():
    """The data file as it is written: category -> words."""
    source = resources.files("twotowers.prompts") / "words.yaml"
    return yaml.safe_load(source.read_text(encoding="utf-8"))


@pytest.fixture
def csv(tmp_path):
    """Write a CSV file and load it."""

    def load(content, name="mine.csv"):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_task(str(file))

    return load


# The built-in task


def test_there_are_at_least_12_categories_of_at_least_40_words(listed):
    assert len(listed) >= 12
    assert min(len(set(words)) for words in listed.values()) >= 40


def test_every_word_and_category_is_text(listed):
    """YAML reads on, off, yes, no and true as booleans, and 1 as a number."""
    assert all(type(category) is str for category in listed)
    assert all(type(word) is str for words in listed.values() for word in words)
    assert all(word == word.strip() and word for words in listed.values() for word in words)


def test_no_word_is_in_two_categories_nor_twice_in_one_in_any_case(listed):
    lower = [word.lower() for words in listed.values() for word in words]
    assert sorted(lower) == sorted(set(lower))


def test_halves_are_disjoint_about_equal_and_together_the_category(words, listed):
    assert set(words.categories) == set(listed)
    for category, halves in words.texts.items():
        selection, evaluation = (set(halves[half]) for half in HALVES)
        assert not selection & evaluation
        assert selection | evaluation == set(listed[category])
        assert abs(len(selection) - len(evaluation)) <= 1


def test_the_split_is_no_alphabetical_one(words):
    assert any(max(halves["selection"]) > min(halves["evaluation"]) for halves in words.texts.values())
    assert any(max(halves["evaluation"]) > min(halves["selection"]) for halves in words.texts.values())


def test_each_half_has_words_for_eight_shots_and_eight_queries(words):
    words.require(8 + 4)


def test_an_unknown_task_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match="no task 'wrods': did you mean 'words'"):
        load_task("wrods")


# A user's own file


def test_a_file_without_split_is_split_in_halves(csv):
    task = csv(GOOD)
    assert task.name == "mine.csv"
    assert task.categories == ("fruit", "tool")
    for category, texts in (("fruit", FRUIT), ("tool", TOOLS)):
        halves = task.texts[category]
        assert sorted(halves["selection"] + halves["evaluation"]) == sorted(texts)
        assert len(halves["selection"]) == 2


def test_a_file_with_split_is_split_as_it_says(csv):
    task = csv(
        "label,split,text\nfruit,selection,apple\ntool,selection,saw\n"
        'fruit,evaluation,"red pear, ripe"\ntool,evaluation,drill\n'
    )
    assert task.texts["fruit"] == {"selection": ("apple",), "evaluation": ("red pear, ripe",)}
    assert task.texts["tool"] == {"selection": ("saw",), "evaluation": ("drill",)}


def test_the_order_of_rows_changes_nothing(csv):
    header, *rows = GOOD.splitlines()
    task, other = csv(GOOD), csv("\n".join([header, *reversed(rows)]))
    assert task.texts == other.texts
    assert task.digest == other.digest


def test_the_digest_changes_with_a_word(csv):
    assert csv(GOOD).digest != csv(GOOD.replace("plum", "prune")).digest


def test_the_digest_changes_with_the_split_alone(csv):
    rows = "apple,fruit,{}\npear,fruit,{}\nsaw,tool,selection\nfile,tool,evaluation\n"
    first, second = (csv("text,label,split\n" + rows.format(*halves)).digest for halves in (HALVES, reversed(HALVES)))
    assert first != second


def test_a_repeated_row_counts_once(csv):
    assert csv(GOOD + "apple,fruit\n").texts == csv(GOOD).texts


def test_windows_line_ends_and_a_byte_order_mark_are_read(csv):
    assert csv(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()).texts == csv(GOOD).texts


def test_an_unusual_separator_inside_a_text_is_no_end_of_row(csv):
    task = csv(GOOD + "straw\u2028berry,fruit\n")
    assert "straw\u2028berry" in task.texts["fruit"]["selection"] + task.texts["fruit"]["evaluation"]


ERRORS = {
    "one class": ("text,label\napple,fruit\npear,fruit\n", ["column 'label'", "only 'fruit'", "two"]),
    "header only": ("text,label\n", ["column 'label'", "no rows"]),
    "empty file": ("", ["no column 'label' and no column 'text'", "row 1"]),
    "no text column": ("word,label\napple,fruit\n", ["no column 'text'", "row 1"]),
    "no label column": ("text,class\napple,fruit\n", ["no column 'label'", "row 1"]),
    "two labels": (
        GOOD + "apple,tool\n",
        ["row 10", "column 'text'", "'apple'", "'fruit' in row 2"],
    ),
    "unquoted comma": (GOOD + "kiwi, green,fruit\n", ["row 10", "more fields than columns", "quotes"]),
    "not UTF-8": (GOOD.encode() + "crème,fruit\n".encode("latin-1"), ["row 10", "UTF-8"]),
    "line break": (GOOD + '"ki\nwi",fruit\n', ["row 11", "column 'text'", "line break"]),
    "huge field": (GOOD + "k" * 200_000 + ",fruit\n", ["row 10", "cannot be read"]),
    "bad split": (
        "text,label,split\napple,fruit,selection\nsaw,tool,test\n",
        ["row 3", "column 'split' is 'test'", "selection or evaluation", "judged on the other"],
    ),
    "partly split": (
        "text,label,split\napple,fruit,selection\nsaw,tool,\n",
        ["column 'split'", "some rows", "every row or in none"],
    ),
    "both halves": (
        "text,label,split\napple,fruit,selection\nsaw,tool,selection\napple,fruit,evaluation\n",
        ["row 4", "column 'split'", "'apple'", "row 2"],
    ),
}


@pytest.mark.parametrize(("content", "parts"), ERRORS.values(), ids=ERRORS)
def test_a_bad_file_is_refused_with_file_row_and_column(csv, content, parts):
    with pytest.raises(TaskError) as caught:
        csv(content)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("mine.csv", *parts):
        assert part in message


def test_a_missing_file_is_refused_with_what_to_give(tmp_path):
    with pytest.raises(TaskError, match=r"no file .*absent\.csv; give a CSV file with the columns"):
        load_task(str(tmp_path / "absent.csv"))


def test_too_few_texts_for_the_shots_are_refused_with_category_half_and_numbers(csv):
    task = csv(GOOD)
    task.require(2)
    with pytest.raises(TaskError, match=r"'fruit' has 2 texts in its selection half but 3 are needed"):
        task.require(3)


def test_a_half_without_texts_is_too_few(csv):
    rows = "apple,fruit,selection\npear,fruit,evaluation\nsaw,tool,selection\n"
    with pytest.raises(TaskError, match=r"category 'tool' has 0 texts in its evaluation half"):
        csv("text,label,split\n" + rows).require(1)

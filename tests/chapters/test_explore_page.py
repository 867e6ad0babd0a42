"""Single prompts from tables made by hand: a figure, and numbers that a script can show, whatever is in them."""

import json
import re
import warnings
from html.parser import HTMLParser

import pytest

from explore_tables import HOSTILE, explore_tables, many_tables
from facts import make_facts
from twotowers.chapters.towers.explore_page import EXPLORE, shortened, visible
from twotowers.chapters.towers.look_page import NUMBERS, data, probability, says, widget
from twotowers.publishing.publish import figure_of
from twotowers.publishing.style import BAR, DARK, FOO

ONE = (("0.0", "in-context"),)


def drawn(tables, **facts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing, caption, alt = figure_of(EXPLORE, make_facts(**facts), tables)
        drawing.draw_without_rendering()
    return drawing, caption, alt


def test_the_figure_shows_the_first_prompt_in_the_first_head():
    drawing, caption, alt = drawn(explore_tables())
    left, right = drawing.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["six", "cat"]
    assert sorted(bar.get_width() for bar in left.patches) == [0.25, 0.6]
    assert "none" not in " ".join(tick.get_text() for tick in right.get_yticklabels())
    assert "Its query is *cat*, whose right label is *foo*" in caption
    assert "in head 3.1 (in-context)" in caption
    assert "with the query of *ten*" in caption
    assert "of 2 prompts and 2 heads" in caption
    assert alt == (
        "Left: bars of attention of head 3.1 at 2 label positions of a prompt whose answer is foo: 25% to bar labels "
        "and 60% to foo labels; with a query of another class 50% to bar labels and 10% to foo labels. Right: "
        "margins in all in-context heads: nothing exchanged 2.00, query of another class -1.50, query of the same "
        "class 1.90, keys of the labels -1.50, values of the labels -1.50, keys and values 2.00."
    )


def test_bars_have_the_colour_of_their_label_everywhere():
    left = drawn(explore_tables())[0].axes[0]
    by_width = {round(bar.get_width(), 2): bar for bar in left.patches}
    assert by_width[0.25].get_facecolor() != by_width[0.6].get_facecolor()
    first = widget(data(make_facts(), **explore_tables()))
    assert f"--light-0: {BAR}; --dark-0: {DARK[BAR]}; --light-1: {FOO}; --dark-1: {DARK[FOO]}" in first


@pytest.mark.parametrize("tables", [explore_tables(ONE), explore_tables(unknown=True), explore_tables(text=HOSTILE)])
def test_any_run_has_a_figure_and_a_page(tables):
    drawn(tables)
    assert widget(data(make_facts(), **tables)).count("<tr>") == 2 + 2 + 6  # two headings, two lines, six exchanges


def test_what_is_not_known_is_null_and_said_so():
    tables = explore_tables(unknown=True)
    given = data(make_facts(), **tables)
    assert given["prompts"][0]["numbers"]["3.1"] == [[None] * len(NUMBERS)] * 2
    assert given["prompts"][0]["margins"]["intact"] == {"none": None}
    assert "nan" not in widget(given).lower()
    assert widget(given).count("not known") == 2 * 4 + 2 * 6 * 2
    assert says(["bar", "foo"], "bar", None) == says(["bar", "foo"], "bar", 0.0) == ""


def test_the_data_are_the_tables():
    given = data(make_facts(), **explore_tables())
    first, second = given["prompts"]
    assert (first["text"], first["label"], first["other"], first["same"]) == ("cat", "foo", "ten", "dog")
    assert first["lines"] == [["six", "bar"], ["cat", "foo"]]
    assert first["tokens"][2] == ["bar", 0, "label"]
    assert len(first["weights"]["2.0"]) == len(first["tokens"]) == 8
    assert dict(zip(given["numbers"], first["numbers"]["3.1"][1], strict=True)) == {
        "weight": 0.6, "query_other": 0.1, "query_same": 0.58, "keys": 0.3, "score": 3.25, "value": -0.5, "moved": 0.375
    }  # fmt: skip
    assert second["margins"]["in-context heads"]["query-other"] == -1.5
    assert given["heads"][1] == {"head": "2.0", "role": "lowest exchange score"}


def test_the_table_without_scripts_says_what_the_value_says():
    text = re.sub("<[^>]+>", " ", widget(data(make_facts(), **explore_tables())).partition("</script>")[2])
    words = " ".join(text.split())
    assert "six : bar 25.0% 1.50 bar 0.75 -0.12" in words
    assert "cat : foo 60.0% 3.25 bar 0.50 +0.38" in words
    assert "query of another class 1.00 (73.1%) -1.50 (18.2%)" in words
    assert probability(-1000.0) == 0


def test_a_label_without_its_numbers_is_refused():
    tables = explore_tables()
    tables["labels"] = tables["labels"].iloc[1:]
    with pytest.raises(ValueError, match="lacks its numbers"):
        data(make_facts(), **tables)


def test_of_three_labels_each_prompt_stands_there_once_for_each_that_it_can_move_to():
    facts = make_facts(labels=("bar", "baz", "foo"))
    given = data(facts, **many_tables())
    assert [(own["label"], own["towards"]) for own in given["prompts"]] == [
        ("foo", "bar"), ("foo", "baz"), ("bar", "foo"), ("bar", "baz")
    ]  # fmt: skip
    assert [own["margins"]["intact"]["none"] for own in given["prompts"]] == [2, 1, 2, 1]
    assert all(len(own["lines"]) == 2 and len(own["tokens"]) == 8 for own in given["prompts"])
    assert "--light-2" in widget(given)
    assert tuple(says(given["labels"], "bar", value) for value in (1.0, -1.0)) == ("bar", "the others")
    caption = drawn(many_tables(), labels=facts.labels)[1]
    assert "with the query of *ten*, whose label is *bar*" in caption
    assert "of 2 prompts and 2 heads" in caption


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.scripts, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append(tag)
        self.inside = tag == "script"

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self.inside = False


def test_texts_of_a_user_turn_nothing_around_them():
    tables = explore_tables(text=HOSTILE)
    given = data(make_facts(), **tables)
    text = widget(given)
    page = Elements(text)
    assert page.found.count("script") == 1
    assert "b" not in page.found
    assert json.loads("".join(page.scripts)) == given
    assert "`" not in text  # the fence in which it stands
    assert "\u202e" not in text
    assert "\u202e" not in json.dumps(given, ensure_ascii=False)
    caption = drawn(tables)[1]
    assert "<script" not in caption
    assert "`" not in caption


def test_labels_of_a_user_turn_nothing_around_them():
    labels = ("<i>", "`x`")
    text = widget(data(make_facts(labels=labels), **explore_tables(labels=labels)))
    assert "i" not in Elements(text).found
    assert "`" not in text


def test_a_long_text_is_cut_for_the_margin_of_the_figure():
    assert shortened("a " * 40) == f"{'a ' * 10}a…"
    assert visible("a\n\u202eb") == "a \N{REPLACEMENT CHARACTER}b"

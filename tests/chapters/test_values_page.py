"""The page of values from tables made by hand: exact words and numbers, and cases at the edge."""

import dataclasses
import re
import warnings

import pandas as pd
import pytest

from facts import make_facts
from twotowers.chapters.values import page
from twotowers.chapters.values.logit_minus import (
    CONTROL,
    IN_CONTEXT,
    VALUE,
    WEIGHTED,
    beside_paper,
    by_measure,
    label_differences,
)
from twotowers.chapters.values.top_words import top_gap, top_shares
from twotowers.chapters.values.words import first_head, joined, labels_read
from twotowers.publishing.publish import Figure, Text, call, figure_of
from twotowers.publishing.shown import Shown
from twotowers.statistics import estimate
from twotowers.tracing.heads import heads_in

pytestmark = pytest.mark.usefixtures("light_figures")

NAN = float("nan")
PROMPT = "two : foo one :"
GROUPS = {"bar-heads": [[2, 0]], "foo-heads": [[3, 1]], IN_CONTEXT: [[2, 0], [3, 1]], CONTROL: [[2, 1], [3, 0], [3, 2]]}


EXCHANGED = {"intact": 2.5, "exchanged": -0.625, "mean": 1.25, "low": 1.0, "high": 1.5, "random": [0.125]}
WRITTEN = pd.DataFrame({"what": ["own", "deep", "share"], "mean": [1.0, 2.0, 0.5], "low": 0.25, "high": 3.0})


def summary_of(values, groups=GROUPS, measures=(VALUE, WEIGHTED), kinds=("bar", "foo", "other"), half=0.1):
    """A row for each measure, group and kind; `values` gives the mean of each kind."""
    rows = [
        (group, kind, values[kind] + i, values[kind] + i - half, values[kind] + i + half, measure)
        for i, measure in enumerate(measures)
        for group in groups
        for kind in kinds
    ]
    return pd.DataFrame(rows, columns=["group", "kind", "mean", "low", "high", "measure"])


def read_of(weights=(0.25, 0.5, 0.25), words=("␣foo x|y z", "", "好的 q"), head=(3, 1)):
    """One head in words on a prompt of as many tokens as there are weights."""
    tokens = ["two", "␣foo", ":"][-len(weights) :]
    rows = [
        (*head, position, token, weight, "query" if part == "key" and position == len(weights) - 1 else part, text)
        for position, (token, weight, text) in enumerate(zip(tokens, weights, words, strict=False))
        for part in ("value", "key", "layer input")
    ]
    return pd.DataFrame(rows, columns=["layer", "head", "position", "token", "weight", "part", "words"])


def text_of(text, facts=None, **inputs):
    return call(text.write, facts or make_facts(), inputs)


def usual():
    """Each item with the inputs of a usual run."""
    differences = pd.DataFrame(
        [("foo-heads", 1, 0.5, 0.25, 0.75), (CONTROL, 3, -0.0001, -0.5, 0.5)],
        columns=["group", "heads", "mean", "low", "high"],
    )
    shares = pd.DataFrame(
        [("foo-heads", 0.75, 0.5, 1.0, 0.0, 0.0, 0.0)],
        columns=["group", *(f"{name}_{whose}" for whose in ("own", "other") for name in ("mean", "low", "high"))],
    )
    at_labels = read_of().query("position == 1 and part == 'value'").assign(hit=True)
    return {
        "EXCHANGED": {"exchanged": EXCHANGED, "heads": [[2, 0], [3, 1]]},
        "WRITTEN": {"direct": WRITTEN, "share_of_heads": 0.03},
        "LOGIT_MINUS": {"summary": summary_of({"bar": -1.0, "foo": 0.5, "other": 0.25}), "groups": GROUPS},
        "DIFFERENCES": {"differences": differences},
        "BESIDE_PAPER": {
            "beside": beside_paper(summary_of({"bar": -1.0, "foo": -0.5, "other": 0.0}, measures=(WEIGHTED,)))
        },
        "TOP_SHARES": {"shares": shares},
        "TOP_GAP": {"gap": {"mean": 0.25, "low": 0.125, "high": 0.375}},
        "WORDS": {"read": read_of(), "prompt": PROMPT},
        "AT_LABELS": {"at_labels": at_labels},
        "WORDS_TABLE": {"read": read_of()},
    }


def harmless(text):
    assert text.strip()
    assert "\n\n\n" not in text
    assert not re.search(r"\bnan\b|\binf\b|-0(\.0+)?(?![\d.])|\b1 (other )?heads|\(\)", text), text


def test_every_item_of_the_page_is_stored_and_written_from_what_was_stored(tmp_path):
    shown = Shown(tmp_path, "values", make_facts())
    items = {name: item for name, item in vars(page).items() if isinstance(item, Figure | Text)}
    assert set(items) == set(usual())
    for name, inputs in usual().items():
        shown.add(items[name], inputs)
        harmless(shown.render(items[name]))
    again = Shown.read(tmp_path, "values")
    assert [again.render(items[name]) for name in items] == [shown.render(items[name]) for name in items]
    assert (tmp_path / "figures" / "invented_values-logit-minus.csv").is_file()
    assert {item.id.split("-")[0] for item in items.values()} == {"values"}


def test_logit_minus_says_what_is_compared():
    drawing, caption, alt = figure_of(page.LOGIT_MINUS, make_facts(), usual()["LOGIT_MINUS"])
    assert [ax.get_title() for ax in drawing.axes] == [VALUE, WEIGHTED]
    for i, ax in enumerate(drawing.axes):
        means = {container.get_label(): list(container[0].get_xdata()) for container in ax.containers}
        assert means == {
            "foo positions": [0.5 + i] * 4,
            "bar positions": [i - 1] * 4,
            "other positions": [0.25 + i] * 4,
        }
    assert "on 256 prompts of the evaluation half" in caption
    assert "Control: 3 other heads of the deep half. Bars: 95% intervals over 32 demonstration sets." in caption
    assert alt.startswith("Two panels of points, a row for each group of heads. vo, mean, bar-heads: -1.00 at bar")
    assert (
        "weight × vo, sum, foo-heads: +0.00 at bar positions, +1.50 at foo positions, +1.25 at other positions." in alt
    )


@pytest.mark.parametrize(
    ("facts", "summary", "groups", "words"),
    [
        (
            {"evaluation_sets": 1, "queries": 1},
            {"half": 0.0},
            GROUPS,
            ["on one prompt of", "From one demonstration set"],
        ),
        ({}, {"measures": (VALUE,)}, {IN_CONTEXT: [[3, 1]]}, ["There is no control, as every head of the deep half"]),
        (
            {},
            {"groups": {IN_CONTEXT: 0, CONTROL: 0}},
            {CONTROL: [[3, 0]]},
            ["Control: one other head of the deep"],
        ),
        ({}, {"values": {"bar": NAN, "foo": 0.0, "other": -0.0001}}, GROUPS, ["Control: 3 other heads"]),
        ({}, {"kinds": ("foo",)}, GROUPS, ["Control: 3 other heads"]),
        ({"n_layers": 1, "n_heads": 1}, {"groups": {IN_CONTEXT: 0}}, {IN_CONTEXT: [[0, 0]]}, ["There is no control"]),
    ],
)
def test_logit_minus_at_the_edge(facts, summary, groups, words):
    table = summary_of(**{"values": {"bar": 0.0, "foo": 1.0, "other": -0.001}, **summary})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing, caption, alt = figure_of(page.LOGIT_MINUS, make_facts(**facts), {"summary": table, "groups": groups})
        drawing.canvas.draw()
    harmless(caption)
    harmless(alt)
    assert all(word in caption for word in words)


def test_an_interval_that_ends_at_the_mean_but_for_rounding_is_drawn():
    table = summary_of({"bar": 0.1, "foo": 0.2, "other": 0.3}, half=0.0)
    page.logit_minus_figure(table.assign(low=table["mean"] + 1e-17, high=table["mean"] - 1e-17)).canvas.draw()


def test_differences_are_a_table_with_a_row_for_each_group():
    assert text_of(page.DIFFERENCES, **usual()["DIFFERENCES"]).splitlines() == [
        "| heads | number | $M(\\mathrm{vo})$ at foo positions minus at bar positions |",
        "|---|---|---|",
        "| foo-heads | 1 | +0.500 (+0.250 to +0.750) |",
        f"| {CONTROL} | 3 | -0.0001 (-0.5000 to +0.5000) |",
    ]
    facts = make_facts(labels=("negative", "positive"))
    table = pd.DataFrame([("x", 1, NAN, NAN, NAN)], columns=["group", "heads", "mean", "low", "high"])
    text = text_of(page.DIFFERENCES, facts, differences=table)
    assert "at positive positions minus at negative positions" in text
    assert "| x | 1 | not measured |" in text
    zero = pd.DataFrame([("x", 1, 0.0, -0.0, 0.0)], columns=["group", "heads", "mean", "low", "high"])
    assert "+0.000 (+0.000 to +0.000)" in text_of(page.DIFFERENCES, differences=zero)
    tiny = pd.DataFrame([("x", 1, -1e-9, -1e-9, 0.0)], columns=["group", "heads", "mean", "low", "high"])
    assert "-1e-09 (-1e-09 to +0e+00)" in text_of(page.DIFFERENCES, differences=tiny)
    none = pd.DataFrame([("x", 1, -1e-20, -0.04, 0.04)], columns=["group", "heads", "mean", "low", "high"])
    assert "+0.000 (-0.040 to +0.040)" in text_of(page.DIFFERENCES, differences=none)


def test_our_numbers_stand_beside_the_papers():
    text = text_of(page.BESIDE_PAPER, **usual()["BESIDE_PAPER"])
    assert "| foo-heads | foo | -0.500 (-0.600 to -0.400) | +0.26 to +0.32 | the opposite |" in text
    assert text.endswith("Our interval has the paper's sign in 2 of 3 comparisons and the opposite one in 1.")
    one = usual()["BESIDE_PAPER"]["beside"].iloc[:1]
    assert "in 0 of 1 comparison and" in text_of(page.BESIDE_PAPER, beside=one)
    assert "Our number, of one demonstration set, has" in text_of(
        page.BESIDE_PAPER, make_facts(evaluation_sets=1), beside=one
    )
    none = text_of(page.BESIDE_PAPER, beside=one.iloc[:0])
    assert none == "The paper's numbers are of foo-heads and bar-heads, which this run does not have."


@pytest.mark.parametrize(
    ("gap", "sets", "words"),
    [
        ((0.25, 0.125, 0.375), 32, "+25.0 percentage points (+12.5 to +37.5), as the paper predicts."),
        ((-0.25, -0.375, -0.125), 32, "-25.0 percentage points (-37.5 to -12.5), against the paper."),
        ((0.0, 0.0, 0.0), 32, "+0.0 percentage points (+0.0 to +0.0), which does not decide."),
        ((-0.0001, -0.5, 0.5), 32, "+0.0 percentage points (-50.0 to +50.0), which does not decide."),
        ((1.0, 1.0, 1.0), 1, "(+100.0 to +100.0), which decides nothing, as there is one demonstration set."),
        ((NAN, NAN, NAN), 32, "In-context heads minus other deep heads: not measured."),
        (None, 32, "There are no other deep heads to compare with."),
    ],
)
def test_the_gap_of_top_words_is_judged_by_its_interval(gap, sets, words):
    gap = dict(zip(("mean", "low", "high"), gap, strict=True)) if gap else {}
    text = text_of(page.TOP_GAP, make_facts(evaluation_sets=sets), gap=gap)
    harmless(text)
    assert text.endswith(words)


def test_shares_of_top_words_are_a_table():
    text = text_of(page.TOP_SHARES, **usual()["TOP_SHARES"])
    assert text.splitlines()[2] == "| foo-heads | 75.0% (50.0% to 100.0%) | 0.0% (0.0% to 0.0%) |"
    missing = usual()["TOP_SHARES"]["shares"].assign(mean_own=NAN, mean_other=-0.0)
    assert "| foo-heads | not known | 0.0% (0.0% to 0.0%) |" in text_of(page.TOP_SHARES, shares=missing)


def test_a_head_in_words_is_drawn_and_described():
    drawing, caption, alt = figure_of(page.WORDS, make_facts(), usual()["WORDS"])
    assert f"Head 3.1 in words on the prompt `{PROMPT}`" in caption
    assert alt == (
        "Table with a row for each of 3 positions. The largest weights: 0.50 on ␣foo, whose value reads nothing; "
        "0.25 on two, whose value reads ␣foo x|y z; 0.25 on :, whose value reads 好的 q."
    )
    texts = [text.get_text() for text in drawing.axes[0].texts]
    assert len(texts) == 5 * 4
    assert "␣foo  x|y  z" in texts
    assert any("□□" in text for text in texts)


@pytest.mark.parametrize(
    "read",
    [
        read_of((1.0,), ("",)),
        read_of((0.0, 0.0, 0.0)),
        read_of(words=("$x_1$ a", "\N{REPLACEMENT CHARACTER}" * 30, "`<b>|")),
    ],
)
def test_a_head_in_words_at_the_edge(read, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing, caption, alt = figure_of(
            page.WORDS, make_facts(n_layers=1, n_heads=1), {"read": read, "prompt": PROMPT}
        )
        drawing.savefig(tmp_path / "words.svg")
        table = text_of(page.WORDS_TABLE, read=read)
    harmless(caption)
    harmless(alt)
    harmless(table)
    one = read["position"].nunique() == 1
    assert ("each of one position. The only weight: " if one else "each of 3 positions. The largest weights: ") in alt


def test_the_table_of_words_is_a_table_whatever_the_words():
    lines = page.words_markdown(read_of(words=("|`$<b>{x}\\*_[a](b)", "", "␣foo"))).splitlines()
    assert {line.count("|") for line in lines} == {7}
    assert len(lines) == 2 + 3
    assert not set("`$<>{}\\*_[]()") & set(lines[2])
    text = text_of(page.WORDS_TABLE, read=read_of())
    assert text.startswith(":::{admonition} The whole table: 3 words of value and layer input, 3 of key and query\n")
    first = read_of((1.0,), ("a",)).assign(words=["a", "", "b"])
    title = text_of(page.WORDS_TABLE, read=first).splitlines()[0]
    assert title.endswith("The whole table: one word of value and layer input, none of key and query")


def test_label_positions_are_counted():
    two = pd.concat([usual()["AT_LABELS"]["at_labels"]] * 2).assign(hit=[True, False], weight=[0.125, 0.25])
    assert text_of(page.AT_LABELS, at_labels=two) == (
        "The label is among the top ten words of the value at 1 of 2 label positions. Together these positions hold "
        "38% of the head's attention."
    )
    one = text_of(page.AT_LABELS, at_labels=two.iloc[:1].assign(weight=0.0))
    assert one.endswith("at 1 of 1 label position. This position holds 0% of the head's attention.")
    none = text_of(page.AT_LABELS, make_facts(labels=("negative", "positive")), at_labels=two.iloc[:0])
    assert none == "The prompt holds neither *positive* nor *negative*, so no label position is read."


# measures that the page is made of


def prompts_of(groups=GROUPS):
    rows = [
        (layer, head, kind, s, 0, "foo", value + s, 2 * value + s)
        for layer, head in heads_in({name: [tuple(head) for head in heads] for name, heads in groups.items()})
        for kind, value in (("bar", -1.0), ("foo", float(layer)), ("other", NAN))
        for s in range(2)
    ]
    return pd.DataFrame(rows, columns=["layer", "head", "kind", "set", "query", "label", "weighted", "unweighted"])


def test_measures_by_group_leave_out_what_has_no_position():
    groups = {name: [tuple(head) for head in heads] for name, heads in GROUPS.items()}
    summary = by_measure(prompts_of(), groups).set_index(["measure", "group", "kind"])["mean"]
    assert summary[VALUE, "foo-heads", "foo"] == 6.5
    assert summary[WEIGHTED, IN_CONTEXT, "foo"] == 3.0
    assert set(summary.index.get_level_values("kind")) == {"bar", "foo"}
    assert list(dict.fromkeys(summary.index.get_level_values("measure"))) == [VALUE, WEIGHTED]
    differences = label_differences(prompts_of(), groups)
    assert differences[["group", "heads"]].to_numpy().tolist() == [[name, len(heads)] for name, heads in GROUPS.items()]
    assert differences["mean"].tolist() == [6.0, 8.0, 7.0, pytest.approx(22 / 3)]


def test_top_words_are_compared_by_group():
    found = pd.DataFrame(
        [(3, 1, s, 1.0, 0.0) for s in range(2)] + [(3, 0, s, float(s), 0.5) for s in range(2)],
        columns=["layer", "head", "set", "in_top", "other_in_top"],
    )
    groups = {IN_CONTEXT: [(3, 1)], CONTROL: [(3, 0)]}
    assert top_gap(found, groups) == dataclasses.asdict(estimate([1.0, 0.0], [0, 1]))
    assert top_gap(found, {IN_CONTEXT: [(3, 1)]}) == {}
    shares = top_shares(found, groups)
    assert shares["mean_own"].tolist() == [1.0, 0.5]
    assert shares["mean_other"].tolist() == [0.0, 0.5]


def test_words_are_joined_and_a_first_head_is_found():
    table = read_of().assign(words=[("␣foo", "x")] * 8 + [()])
    assert joined(table)["words"].tolist() == ["␣foo x"] * 8 + [""]
    found = labels_read(table, ["bar", "foo"])
    assert joined(found)["words"].tolist() == ["␣foo x"]
    assert joined(labels_read(table, ["baz"])).empty
    assert first_head({"foo": [(3, 1), (2, 0)], "all": [(2, 0), (3, 1)]}, "foo") == (3, 1)
    assert first_head({"foo": [], "all": [(2, 0)]}, "foo") == (2, 0)

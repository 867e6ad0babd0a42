"""The page of query and key from tables made by hand: exact words and numbers, and cases at the edge."""

import numpy as np
import pandas as pd
import pytest
from towers_tables import ALONE, GROUPS, NAN, ONE, USUAL, areas, attention, drawn, harmless, text_of

from drawings import texts_of
from facts import make_facts
from twotowers.chapters.towers import page
from twotowers.chapters.towers.metric import (
    above_chance,
    sharpest_of,
)
from twotowers.chapters.towers.plane_page import plane_figure
from twotowers.chapters.towers.swap import following, heads_by_label, unsigned_changes
from twotowers.publishing.publish import Figure, Text
from twotowers.publishing.shown import Shown
from twotowers.publishing.style import NARROW, WIDTH, styled
from twotowers.tracing.heads import heads_in

pytestmark = pytest.mark.usefixtures("light_figures")


def test_every_item_of_the_page_is_stored_and_written_from_what_was_stored(tmp_path):
    shown = Shown(tmp_path, "towers", make_facts())
    items = {name: item for name, item in vars(page).items() if isinstance(item, Figure | Text)}
    assert set(items) == set(USUAL)
    for name, inputs in USUAL.items():
        shown.add(items[name], inputs)
        harmless(shown.render(items[name]))
    again = Shown.read(tmp_path, "towers")
    assert [again.render(items[name]) for name in items] == [shown.render(items[name]) for name in items]
    assert {item.id.split("-")[0] for item in items.values()} == {"towers"}
    assert (tmp_path / "figures" / "invented_towers-attention.csv").is_file()
    assert (tmp_path / "figures" / "invented_towers-transfer-example.csv").is_file()


def test_attention_stands_by_head_and_by_group():
    drawing, caption, alt = drawn(page.ATTENTION, attention())
    (ax,) = drawing.axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["2.0", "3.1", *GROUPS]
    assert list(ax.containers[0].lines[0].get_xdata()) == [0.5] * 5
    assert "(in-context heads: 2, sharpest heads: 2, random deep heads: 3)" in caption
    assert caption.endswith("Whiskers: 95% intervals over 32 demonstration sets.")
    assert alt.startswith(
        "Points with whiskers, a row for each in-context head and group. 2.0: 50.0% to the same class,"
    )
    assert "random deep heads: 50.0% to the same class, 25.0% to another." in alt


@pytest.mark.parametrize(
    ("inputs", "facts", "words"),
    [
        (attention(groups=ONE), {}, "(in-context heads: 1, sharpest heads: 1)"),
        (attention(groups=ALONE), {"n_layers": 1, "n_heads": 1}, "(in-context heads: 1)"),
        (
            attention(0.0, -0.0001, half=0.0),
            {"evaluation_sets": 1},
            "From one demonstration set, so without intervals.",
        ),
        (attention(1.0, NAN), {}, "over 32 demonstration sets"),
        (attention(NAN, NAN), {}, "over 32 demonstration sets"),
    ],
)
def test_attention_at_the_edge(inputs, facts, words):
    assert words in drawn(page.ATTENTION, inputs, **facts)[1]


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            attention(),
            "The claim sums over the in-context heads. For a single head the difference is +25.0 percentage points on "
            "average, against +25.0 for a random deep head and +25.0 for one of the sharpest heads.",
        ),
        (
            attention(0.25, 0.2501, ONE),
            "There is one in-context head. Its difference is +0.0 percentage points, against +0.0 for the sharpest "
            "head.",
        ),
        (
            attention(0.0, 0.5, ALONE),
            "There is one in-context head. Its difference is -50.0 percentage points.",
        ),
        (attention(NAN, 0.5), "The difference of the in-context heads was not measured."),
    ],
)
def test_gaps_are_told_for_the_groups_that_there_are(inputs, text):
    assert text_of(page.GAPS, **inputs) == text


def test_areas_are_drawn_with_a_line_at_one_half():
    drawing, caption, alt = drawn(page.METRIC, areas())
    (ax,) = drawing.axes
    drawn_means = {c.get_label(): list(c.lines[0].get_xdata()) for c in ax.containers}
    assert drawn_means == {"q·k": [0.75] * 5, "q·k without rotation": [0.8] * 5, "cosine of the residuals": [0.5] * 5}
    assert (
        "below it groups (in-context heads: 2, sharpest heads: 2, random deep heads: 3). Dotted: guessing." in caption
    )
    assert "a dotted line at one half. 2.0: 0.75 for q·k, 0.80 for q·k without rotation, 0.50 for cosine" in alt


@pytest.mark.parametrize(
    ("inputs", "facts"),
    [
        (areas(groups=ONE), {}),
        (areas(1.0, 1.0, 1.0, ALONE, 0.0), {"evaluation_sets": 1}),
        (areas(NAN, NAN, 0.5), {}),
        (areas(0.0, 0.0, 0.0), {"rotary": True}),
    ],
)
def test_areas_at_the_edge(inputs, facts):
    drawn(page.METRIC, inputs, **facts)


@pytest.mark.parametrize(
    ("above", "facts", "text"),
    [
        (
            (0.25, 0.125, 0.375),
            {"rotary": True},
            "+0.250 (+0.125 to +0.375): above chance. Leaving positions out of q·k changes",
        ),
        (
            (-0.25, -0.375, -0.125),
            {},
            "-0.250 (-0.375 to -0.125): below chance. This family does not rotate: positions",
        ),
        ((0.0, -0.00001, 0.1), {}, "+0.000 (+0.000 to +0.100): not distinguishable from chance. This family does not"),
        ((0.5, 0.5, 0.5), {"evaluation_sets": 1}, "+0.500): one demonstration set does not tell it from chance. This"),
        ((NAN, NAN, NAN), {}, "No prompt shows both classes, so there is no AUC."),
        ((), {"rotary": True}, "No prompt shows both classes, so there is no AUC."),
    ],
)
def test_areas_are_compared_with_chance(above, facts, text):
    above = dict(zip(("mean", "low", "high"), above, strict=False))
    written = text_of(page.CHANCE, make_facts(**facts), areas=areas()["areas"], above=above)
    harmless(written)
    assert text in written
    if "Leaving" in text:
        assert written.endswith("Leaving positions out of q·k changes the AUC by +0.050.")


# measures that the page is made of


def test_the_sharpest_of_some_heads_stands_first_in_the_ranking():
    assert sharpest_of([(3, 1), (2, 0)], [(3, 2), (2, 0), (3, 1)]) == (2, 0)
    assert sharpest_of([(0, 1), (2, 0)], []) == (0, 1)
    assert sharpest_of([(0, 1), (2, 0)], [(2, 0)]) == (2, 0)
    assert heads_in({"a": [(3, 1), (2, 0)], "b": [(3, 1)]}) == [(2, 0), (3, 1)]


def test_heads_that_serve_a_label_come_second_label_first():
    selected = {"bar": [(2, 0)], "foo": [(3, 1)], "all": [(2, 0), (3, 1)]}
    assert list(heads_by_label(selected).items()) == [("foo", [(3, 1)]), ("bar", [(2, 0)])]
    assert heads_by_label(selected | {"foo": []}) == {"bar": [(2, 0)]}


def test_missing_numbers_are_left_out_of_what_is_told():
    effects = pd.DataFrame({"set": [0, 1, 2], "above_chance": [0.25, NAN, 0.25]})
    told = above_chance(effects)
    assert told["mean"] == pytest.approx(0.25)
    assert told["low"] < 0.25 < told["high"]
    assert above_chance(effects.iloc[1:2]) == {}
    zero = pd.DataFrame([(3, 1, 0, "foo", "foo", 0.0, 0.0, 0.5, 1.0), (3, 1, 1, "bar", "foo", 0.0, 0.0, 0.5, 1.0)])
    zero.columns = ["layer", "head", "set", "gold", "label", "attention_before", "attention_after", "value_before",
                    "value_after"]  # fmt: skip
    assert unsigned_changes(zero) == {"value": 1.0}
    assert following(zero) == {}
    half = zero.assign(attention_before=0.5, attention_after=[0.25, 0.75])
    assert unsigned_changes(half) == {"attention": 0.5, "value": 1.0}
    told = following(half)
    assert told["mean"] == pytest.approx(0.5)
    assert told["low"] < 0.5 < told["high"]


@pytest.mark.parametrize("width", [WIDTH, NARROW])
def test_a_name_in_the_plane_stands_on_no_arrow_and_within_the_axes(width):
    rows = [("query", "first", 0.0, 0.0), ("key", "second", 1.0, 0.0), ("key", "a name of many letters", 3.0, 0.5)]
    points = pd.DataFrame(rows, columns=["kind", "text", "x", "y"]).assign(layer=1, head=0, label="foo", share=0.9)
    arrows = pd.DataFrame([(1, 0, 0.0, 0.0, 1.0, 0.0)], columns=["layer", "head", "x", "y", "to_x", "to_y"])
    with styled(width):
        drawing = plane_figure(points, arrows)
    boxes = dict(texts_of(drawing))
    (ax,) = drawing.axes
    along = ax.transData.transform(np.linspace((0.1, 0), (0.9, 0), 50))
    for name in points["text"]:
        box = boxes[name]
        assert not any(box.contains(x, y) for x, y in along), name
        assert ax.bbox.x0 - 2 < box.x0 < box.x1 < ax.bbox.x1 + 2, name

"""The page of query and key from tables made by hand: planes, weights against increases, exchanged demonstrations."""

import pytest
from towers_tables import NAN, SIGNED, USUAL, drawn, harmless, moved, points_of, signed_of, text_of

from twotowers.chapters.towers import page
from twotowers.chapters.towers.metric import (
    CONTROL,
    IN_CONTEXT,
)


def test_the_plane_has_a_panel_for_each_head():
    drawing, caption, alt = drawn(page.PLANE, points_of())
    titles = [ax.get_title() for ax in drawing.axes]
    assert titles == ["head 3.1 (90% of the scores' variance)", "head 2.0 (90% of the scores' variance)"]
    assert (
        "Head 3.1 is the in-context head, and head 2.0 the deep head, with the largest AUC on the selection" in caption
    )
    assert alt.startswith(
        "Scatter of 2 queries and 2 demonstrations per panel. Head 2.0: the bar keys are centred at (-2.0, 0.0)."
    )
    assert "Head 3.1: the foo keys are centred at (2.0, 0.0)." in alt


def test_one_head_may_be_the_sharpest_of_both():
    _, caption, alt = drawn(page.PLANE, points_of(heads=((3, 1),)))
    assert "Head 3.1 is an in-context head, and the deep head with the largest AUC on the selection half." in caption
    assert alt.startswith("Scatter of 2 queries and 2 demonstrations. Head 3.1:")
    drawn(page.PLANE, points_of(spread=0.0))
    first = points_of(heads=((0, 0),))
    first["points"] = first["points"].query("label == 'foo'")
    assert drawn(page.PLANE, first)[2].startswith("Scatter of one query and one demonstration. Head 0.0: the foo keys")


def test_weight_and_increase_are_drawn_beside_their_correlation():
    drawing, caption, alt = drawn(page.TRANSFER, moved())
    left, right = drawing.axes
    assert sum(len(points.get_offsets()) for points in left.collections) == 4
    assert [tick.get_text() for tick in right.get_yticklabels()] == ["3.1", IN_CONTEXT, CONTROL]
    assert "own label, head 3.1, 4 positions. Right:" in caption
    assert (
        "mean over 2 prompts, for the in-context heads and one random deep head. It is not defined for 2.0, where"
        in caption
    )
    assert alt == (
        "Left: a scatter of weights from 0.0000 to 0.50 and increases from 0.00 to 2.00 nats. Right: rank "
        "correlations: 3.1 0.75, in-context heads 0.50, random deep heads 0.25."
    )


@pytest.mark.parametrize(
    ("inputs", "facts", "words"),
    [
        (moved(means=()), {}, "It is not defined for 2.0, 3.1, where one of the two does not vary."),
        (
            moved((0.5,), (1.0,), means=(0.0,), groups={IN_CONTEXT: [[3, 1]]}),
            {"evaluation_sets": 1},
            "head 3.1, one position. Right: Spearman's rank correlation of the two within a prompt, mean over one "
            "prompt, for the in-context head. From one demonstration set, so without intervals.",
        ),
        (moved((0.0, 0.0), (0.0, 0.0), means=(-0.001, NAN)), {}, "It is not defined for 2.0, where"),
        (
            moved((1.0, 1.0), (5.0, 5.0), means=(1.0, 1.0, 1.0)),
            {},
            "mean over one prompt, for the in-context heads and one",
        ),
    ],
)
def test_transfer_at_the_edge(inputs, facts, words):
    inputs["correlations"] = inputs["correlations"].dropna(subset="mean")
    assert words in drawn(page.TRANSFER, inputs, **facts)[1]


def test_signed_changes_are_bars_and_a_table():
    drawing, caption, alt = drawn(page.SWAP, signed_of())
    bars = {c.get_label(): [bar.get_height() for bar in c] for c in drawing.axes[0].containers if hasattr(c, "patches")}
    assert bars["attention"] == [-0.25, 0.5, 1.0]
    assert caption.endswith("Means of 32 demonstration sets with 95% intervals.")
    assert alt.startswith(
        "Pairs of bars. foo-heads, answer foo: attention -25%. foo-heads, answer bar: attention +50%."
    )
    assert text_of(page.SWAP_TABLE, **signed_of()).splitlines() == [
        "| heads, right answer before | attention | values | attention in the paper (summaries of version 3) |",
        "|---|---|---|---|",
        "| foo-heads, answer foo | -25% (-50% to -12%) | +0% (-10% to +10%) | -21.8% to -43.0% |",
        "| foo-heads, answer bar | +50% (+25% to +75%) | not measured | not known |",
        "| bar-heads, answer foo | +100% (+50% to +150%) | +0% (+0% to +0%) | +86.0% to +237.8% |",
    ]


@pytest.mark.parametrize("rows", [SIGNED[:1], SIGNED[2:3], [], [("a-heads, answer a", "attention", 0.0, 0.0, -1e-17)]])
def test_swap_at_the_edge(rows):
    _, caption, alt = drawn(page.SWAP, signed_of(rows), evaluation_sets=1)
    assert caption.endswith("Means of one demonstration set.")
    assert alt.startswith("Pairs of bars. ")
    harmless(text_of(page.SWAP_TABLE, **signed_of(rows)))


def test_changes_without_signs_are_told():
    text = text_of(page.CHANGES, **USUAL["CHANGES"])
    assert text.startswith("Without signs, attention changes by 50% and values by 25%. A head that")
    assert text.endswith("up where it was not, is +12% (-25% to +50%) of attention.")
    text = text_of(page.SAME_DEMONSTRATIONS, **USUAL["SAME_DEMONSTRATIONS"])
    assert "another one, attention changes by 50% and values by 175%; a value that copies" in text


@pytest.mark.parametrize(
    ("unsigned", "words"),
    [
        ({}, "no change is defined"),
        ({"attention": 0.0}, "attention changes by 0%; no change of values is defined"),
        ({"value": 1.0}, "values change by 100%; no change of attention is defined"),
    ],
)
def test_changes_that_are_not_defined_are_not_told(unsigned, words):
    assert text_of(page.CHANGES, unsigned=unsigned, follows={}) == (
        f"Without signs, {words}. A head that looks at fixed positions changes too."
    )
    harmless(text_of(page.SAME_DEMONSTRATIONS, unsigned=unsigned))

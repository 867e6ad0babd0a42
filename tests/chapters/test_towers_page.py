"""The page of query and key from tables made by hand: exact words and numbers, and cases at the edge."""

import re
import warnings

import pandas as pd
import pytest
from facts import make_facts

from twotowers.chapters.towers import page
from twotowers.chapters.towers.metric import (
    CONTROL,
    IN_CONTEXT,
    SCORES,
    SHARPEST,
    above_chance,
    sharpest_of,
)
from twotowers.chapters.towers.swap import following, heads_by_label, unsigned_changes
from twotowers.publishing.publish import Figure, Text, call, figure_of
from twotowers.publishing.shown import Shown
from twotowers.tracing.heads import heads_in

NAN = float("nan")
GROUPS = {IN_CONTEXT: [[2, 0], [3, 1]], SHARPEST: [[2, 0], [3, 2]], CONTROL: [[2, 1], [2, 2], [3, 0]]}
ONE = {IN_CONTEXT: [[3, 1]], SHARPEST: [[2, 0]]}
ALONE = {IN_CONTEXT: [[0, 0]]}
NAMES = ["name", "measure", "mean", "low", "high"]


def rows_of(means, groups=GROUPS, half=0.05):
    """A row for each head, group and measure, as `metric.by_head` gives them; `means` of each measure."""
    names = [f"{layer}.{head}" for layer, head in groups[IN_CONTEXT]] + list(groups)
    rows = [(name, m, mean, mean - half, mean + half) for name in names for m, mean in means.items()]
    return pd.DataFrame(rows, columns=NAMES)


def attention(same=0.5, other=0.25, groups=GROUPS, half=0.05):
    return {"means": rows_of({"same class": same, "other class": other}, groups, half), "groups": groups}


def areas(auc=0.75, unrotated=0.8, cosine=0.5, groups=GROUPS, half=0.05):
    means = dict(zip(SCORES.values(), (auc, unrotated, cosine), strict=True))
    return {"areas": rows_of(means, groups, half), "groups": groups}


def points_of(heads=((3, 1), (2, 0)), spread=1.0):
    rows = [
        (text, label, x * spread, y * spread, layer, head, kind, 0.9)
        for layer, head in heads
        for text, label, x, y, kind in (
            ("cat", "foo", 1.0, 0.5, "query"),
            ("two", "bar", -1.0, 0.0, "query"),
            ("dog", "foo", 2.0, -0.01, "key"),
            ("six", "bar", -2.0, 0.0, "key"),
        )
    ]
    points = pd.DataFrame(rows, columns=["text", "label", "x", "y", "layer", "head", "kind", "share"])
    arrows = [(*head, x * spread, 0.0, 2 * x * spread, 0.0) for head in heads for x in (1.0, -1.0)]
    return {
        "points": points,
        "arrows": pd.DataFrame(arrows, columns=["layer", "head", "x", "y", "to_x", "to_y"]),
    }


def moved(weights=(0.0, 0.25, 0.5, 0.125), rises=(-0.001, 1.0, 2.0, 0.5), means=(0.75, 0.5, 0.25), groups=None):
    groups = groups or {IN_CONTEXT: [[3, 1], [2, 0]], CONTROL: [[2, 1]]}
    example = pd.DataFrame(
        [
            (0, i // 2, "foo", i % 2, "foo", i % 2 == 0, 3, 1, w, r)
            for i, (w, r) in enumerate(zip(weights, rises, strict=True))
        ],
        columns=["set", "query", "gold", "demonstration", "label", "same", "layer", "head", "weight", "log_increase"],
    )
    names = ["3.1", IN_CONTEXT, CONTROL]
    rows = [(name, "rank correlation", m, m - 0.1, m + 0.1) for name, m in zip(names, means, strict=False)]
    return {"example": example, "correlations": pd.DataFrame(rows, columns=NAMES), "groups": groups}


SIGNED = [
    ("foo-heads, answer foo", "attention", -0.25, -0.5, -0.125),
    ("foo-heads, answer bar", "attention", 0.5, 0.25, 0.75),
    ("foo-heads, answer foo", "value", 0.0, -0.1, 0.1),
    ("bar-heads, answer foo", "attention", 1.0, 0.5, 1.5),
    ("bar-heads, answer foo", "value", -0.001, -0.001, 0.0),
]


def signed_of(rows=SIGNED):
    return {"signed": pd.DataFrame(rows, columns=NAMES)}


USUAL = {
    "ATTENTION": attention(),
    "GAPS": attention(),
    "METRIC": areas(),
    "CHANCE": {"areas": areas()["areas"], "above": {"mean": 0.25, "low": 0.125, "high": 0.375}},
    "PLANE": points_of(),
    "TRANSFER": moved(),
    "SWAP": signed_of(),
    "SWAP_TABLE": signed_of(),
    "CHANGES": {
        "unsigned": {"attention": 0.5, "value": 0.25},
        "follows": {"mean": 0.125, "low": -0.25, "high": 0.5},
    },
    "SAME_DEMONSTRATIONS": {"unsigned": {"attention": 0.5, "value": 1.75}},
}


def text_of(text, facts=None, **inputs):
    return call(text.write, facts or make_facts(), inputs)


def drawn(figure, inputs, **facts):
    """Drawing, caption and alt text, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing, caption, alt = figure_of(figure, make_facts(**facts), inputs)
        drawing.canvas.draw()
    harmless(caption)
    harmless(alt)
    return drawing, caption, alt


def harmless(text):
    assert text.strip()
    assert "\n\n\n" not in text
    assert not re.search(r"\bnan\b|\binf\b|-0(\.0+)?(?![\d.])|\b1 (random deep )?heads|\b1 positions|\(\)", text), text


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
    assert (tmp_path / "figures" / "towers-attention.csv").is_file()
    assert (tmp_path / "figures" / "towers-transfer-example.csv").is_file()


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
    assert "random deep heads: 50.0% to the same class, 25.0% to the other." in alt


@pytest.mark.parametrize(
    ("inputs", "facts", "words"),
    [
        (attention(groups=ONE), {}, "(in-context heads: 1, sharpest heads: 1)"),
        (attention(groups=ALONE), {"n_layers": 1, "n_heads": 1}, "(in-context heads: 1)"),
        (
            attention(0.0, -0.0001, half=0.0),
            {"evaluation_sets": 1},
            "There is one demonstration set, hence no interval.",
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
            "+0.250 (+0.125 to +0.375): above chance. Leaving rotation out changes",
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
        assert written.endswith("Leaving rotation out changes the AUC by +0.050.")


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
    assert drawn(page.PLANE, first)[2].startswith("Scatter of 1 query and 1 demonstration. Head 0.0: the foo keys")


def test_weight_and_increase_are_drawn_beside_their_correlation():
    drawing, caption, alt = drawn(page.TRANSFER, moved())
    left, right = drawing.axes
    assert sum(len(points.get_offsets()) for points in left.collections) == 4
    assert [tick.get_text() for tick in right.get_yticklabels()] == ["3.1", IN_CONTEXT, CONTROL]
    assert "own label, head 3.1, 4 positions. Right:" in caption
    assert (
        "mean over 2 prompts, for the in-context heads and 1 random deep head. It is not defined for 2.0, where"
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
            "head 3.1, 1 position. Right: Spearman's rank correlation of the two within a prompt, mean over 1 prompt, "
            "for the in-context head. There is one demonstration set, hence no interval.",
        ),
        (moved((0.0, 0.0), (0.0, 0.0), means=(-0.001, NAN)), {}, "It is not defined for 2.0, where"),
        (
            moved((1.0, 1.0), (5.0, 5.0), means=(1.0, 1.0, 1.0)),
            {},
            "mean over 1 prompt, for the in-context heads and 1",
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
        "| foo-heads, answer foo | -25% (-50% to -12%) | +0% (-10% to +10%) | -21.8 % to -43.0 % |",
        "| foo-heads, answer bar | +50% (+25% to +75%) | not measured | not known |",
        "| bar-heads, answer foo | +100% (+50% to +150%) | +0% (+0% to +0%) | +86.0 % to +237.8 % |",
    ]


@pytest.mark.parametrize("rows", [SIGNED[:1], SIGNED[2:3], [], [("a-heads, answer a", "attention", 0.0, 0.0, -1e-17)]])
def test_swap_at_the_edge(rows):
    _, caption, alt = drawn(page.SWAP, signed_of(rows), evaluation_sets=1)
    assert caption.endswith("Means of 1 demonstration set.")
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

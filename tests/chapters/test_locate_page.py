"""The page on locating: what it says of given results, without a model."""

import re
import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from facts import make_facts

from twotowers.chapters.locate import page
from twotowers.chapters.locate.locate import Located, by_head, by_layer, totals
from twotowers.publishing.publish import call, figure_of
from twotowers.publishing.shown import Shown

UNWANTED = re.compile(r"\b(nan|inf)\b|-0(\.0+)?(?![.\d])|\b1 (prompts|heads)\b")


def located_of(layer_increase, head_increase, sets=2):
    """Located parts from layers x (attention, MLP) and layers x heads, the same in each prompt of each set: its first
    prompt has the gold label bar, its second foo, for which heads score twice as much."""
    layers, heads = (torch.tensor(x, dtype=torch.float64)[..., None] for x in (layer_increase, head_increase))
    return Located(
        gold=("bar", "foo") * sets,
        set_index=tuple(np.arange(sets).repeat(2).tolist()),
        layer_increase=layers.expand(*layers.shape[:2], 2 * sets),
        head_increase=heads * torch.tensor([1.0, 2.0] * sets),
    )


HEADS = [[9.0, 0.0, 0.0], [0.5, -1.0, 0.0], [1.0, 3.0, -2.0], [0.25, 4.0, 0.0]]  # layers x heads
USUAL = located_of([[1.0, 2.0], [0.5, 0.0], [-0.25, 1.0], [3.0, 0.5]], HEADS)


def test_layers_have_means_attention_first():
    table = by_layer(USUAL)
    assert list(table.columns) == ["layer", "component", "mean", "low", "high"]
    assert table["component"].tolist() == ["attention"] * 4 + ["mlp"] * 4
    assert table["mean"].tolist() == [1.0, 0.5, -0.25, 3.0, 2.0, 0.0, 1.0, 0.5]
    assert (table["low"] == table["mean"]).all()


def test_totals_are_sums_over_layers():
    assert totals(USUAL).to_numpy().tolist() == [["attention", *[4.25] * 3], ["mlp", *[3.5] * 3]]


def test_heads_have_their_mean_and_that_of_each_label():
    table = by_head(USUAL, n=2)
    assert list(table.columns) == ["layer", "head", "log_increase", "gold bar", "gold foo", "largest"]
    assert table["log_increase"].tolist() == [1.5 * x for row in HEADS for x in row]
    assert table["gold foo"].tolist() == [2 * x for row in HEADS for x in row]
    assert table.loc[table["largest"], ["layer", "head"]].to_numpy().tolist() == [[2, 1], [3, 1]]


@pytest.mark.parametrize(("n_layers", "marked"), [(1, 0), (2, 3), (3, 3), (4, 6), (8, 10)])
def test_no_more_heads_are_marked_than_the_deep_half_has(n_layers, marked):
    table = by_head(located_of([[0.0, 0.0]] * n_layers, [[1.0, 1.0, 1.0]] * n_layers))
    assert table["largest"].sum() == marked
    assert (table.loc[table["largest"], "layer"] >= make_facts(n_layers=n_layers).half).all()


def test_layers_names_the_largest_of_each_kind():
    drawing, caption, alt = figure_of(page.LAYERS, make_facts(), {"layers": by_layer(USUAL)})
    assert "Means over 256 prompts; whiskers: 95% intervals over 32 demonstration sets." in caption
    assert alt == (
        "Two bar charts by layer. The largest attention layer is layer 3 with 3.00 nats; the largest MLP is layer 0 "
        "with 2.00 nats."
    )
    left, right = drawing.axes
    assert [bar.get_height() for bar in left.patches] == [1.0, 0.5, -0.25, 3.0]
    assert [bar.get_height() for bar in right.patches] == [2.0, 0.0, 1.0, 0.5]
    assert (left.get_title(), right.get_title()) == ("attention", "MLP")
    assert left.get_ylim() == right.get_ylim()


def test_sums_have_intervals():
    rows = pd.DataFrame([("attention", 4.0, 3.0, 5.0), ("mlp", -0.001, -1.0, 1.0)])
    table = rows.set_axis(["component", "mean", "low", "high"], axis=1)
    assert call(page.SUMS.write, make_facts(), {"totals": table}) == (
        "Over all layers, attention adds **4.00 (3.00 to 5.00)** nats and the MLPs **0.00 (-1.00 to 1.00)** (95% "
        "intervals in brackets)."
    )
    alone = call(page.SUMS.write, make_facts(evaluation_sets=1), {"totals": table})
    assert alone == "Over all layers, attention adds **4.00** nats and the MLPs **0.00**."


@pytest.mark.parametrize(
    ("attention", "mlp", "end"),
    [
        (2.0, 1.0, "more than the MLPs, and so it does here."),
        (-1.0, 1.0, "here it adds less than the MLPs."),
        (1.001, 1.0, "here it adds as much as the MLPs."),
        (float("nan"), 1.0, "here it adds an amount that cannot be compared with that of the MLPs."),
    ],
)
def test_the_authors_sums_stand_beside_ours(attention, mlp, end):
    table = pd.DataFrame({"component": ["attention", "mlp"], "mean": [attention, mlp]})
    text = call(page.ELSEWHERE.write, make_facts(), {"totals": table.assign(low=table["mean"], high=table["mean"])})
    assert "are 5.59 nats (attention) and 4.41 (MLPs) for GPT2-large, and 6.08 and 3.93 for Llama 7B." in text
    assert "There attention adds more than the MLPs" in text
    assert text.endswith(end)


def test_heads_frames_and_names_the_largest():
    heads = by_head(USUAL, n=3)
    drawing, caption, alt = figure_of(page.HEADS, make_facts(), {"heads": heads})
    assert "mean over 256 prompts, in nats. Framed: the 3 largest in the deep half of the layers. Colour" in caption
    assert alt == (
        "Heat map of heads by layer. 6 of 12 cells lie within a tenth of the largest value around zero. The largest "
        "heads of the deep half, as layer.head, are 3.1, 2.1, 2.0."
    )
    frames = [p.get_xy() for p in drawing.axes[0].patches if isinstance(p, mpl.patches.Rectangle)]
    assert frames == [(3, 1), (2, 1), (2, 0)]
    np.testing.assert_array_equal(drawing.axes[0].collections[0].get_array().reshape(3, 4), 1.5 * np.array(HEADS).T)


def test_the_largest_heads_in_a_table_with_their_share():
    assert call(page.TOP.write, make_facts(), {"heads": by_head(USUAL, n=3)}).splitlines() == [
        "| head | mean | gold bar | gold foo |",
        "|---|---|---|---|",
        "| 3.1 | 6.000 | 4.000 | 8.000 |",
        "| 2.1 | 4.500 | 3.000 | 6.000 |",
        "| 2.0 | 1.500 | 1.000 | 2.000 |",
        "",
        "These 3 heads, 25.0% of all, hold 91% of everything that heads above layer 0 add, counting only heads that "
        "add.",
    ]


def test_heads_that_lower_the_label_hold_nothing_and_take_nothing_away():
    text = call(page.TOP.write, make_facts(), {"heads": by_head(USUAL)})
    assert "These 6 heads, 50.0% of all, hold 94% of everything" in text


@pytest.mark.parametrize(
    ("heads", "framed", "text"),
    [
        ([[1.0]], "No head is framed, since the deep half of the layers has none to rank.", "has no heads to rank."),
        (
            [[1.0], [2.0]],
            "Framed: the only head in the deep half of the layers.",
            "This head, 50.0% of all, holds 100%",
        ),
        ([[1.0], [-2.0]], "Framed: the only head in", "No head above layer 0 adds to the right label."),
        ([[0.0, 0.0]] * 2, "Framed: all 2 heads in the deep half", "No head above layer 0 adds to the right label."),
        ([[1.0, 1.0]] * 2, "Framed: all 2 heads in the deep half", "These 2 heads, 50.0% of all, hold 100% of"),
        ([[0.0], [float("nan")]], "No head is framed", "has no heads to rank."),
        ([[-0.0001, 0.0], [float("nan"), -0.0001]], "Framed: the largest in the deep", "| 1.1 | 0.000 | 0.000 |"),
    ],
)
@pytest.mark.parametrize("sets", [1, 2])
def test_everything_can_be_kept_and_drawn_again(tmp_path, heads, framed, text, sets):
    located = located_of([[0.0, -0.0]] * len(heads), heads, sets=sets)
    facts = make_facts(n_layers=len(heads), n_heads=len(heads[0]), evaluation_sets=sets, queries=2)
    sums = totals(located)
    given = {
        page.LAYERS: {"layers": by_layer(located)},
        page.SUMS: {"totals": sums},
        page.ELSEWHERE: {"totals": sums},
        page.HEADS: {"heads": by_head(located)},
        page.TOP: {"heads": by_head(located)},
    }
    shown = Shown(tmp_path, "locate", facts)
    texts = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # seaborn's use of matplotlib
        for item, inputs in given.items():
            shown.add(item, inputs)
            texts[item] = Shown.read(tmp_path, "locate").render(item)
    assert not any(UNWANTED.search(found) for found in texts.values())
    assert framed in texts[page.HEADS]
    assert text in texts[page.TOP]
    assert ("intervals in brackets" in texts[page.SUMS]) == (sets == 2)
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        f"locate-{name}.{ending}" for name in ("layers", "heads") for ending in ("svg", "png", "csv", "json")
    }

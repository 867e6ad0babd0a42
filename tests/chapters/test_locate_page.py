"""The page on locating: what it says of given results, without a model."""

import dataclasses
import math
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
from twotowers.chapters.locate.margin import margin_by_layer, margin_effect, margin_sums, margin_totals
from twotowers.publishing.publish import call, figure_of
from twotowers.publishing.shown import Shown
from twotowers.tracing.direct_margin import DirectMargin

pytestmark = pytest.mark.usefixtures("light_figures")

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
        direct=direct_of(layer_increase, sets),
    )


def direct_of(written, sets, embedding=0.5, bias=0.25):
    """The margin of layers that write (attention, MLP), the same in each of two prompts of each set."""
    attention, mlp = torch.tensor(written, dtype=torch.float64).unbind(1)
    prompts = torch.ones(2 * sets, dtype=torch.float64)
    return DirectMargin(
        margin=(embedding + bias + float(attention.sum() + mlp.sum())) * prompts,
        embedding=embedding * prompts,
        attention=attention[:, None] * prompts,
        mlp=mlp[:, None] * prompts,
        heads=torch.zeros(len(attention), 1, 2 * sets),
    )


HEADS = [[9.0, 0.0, 0.0], [0.5, -1.0, 0.0], [1.0, 3.0, -2.0], [0.25, 4.0, 0.0]]  # layers x heads
USUAL = located_of([[1.0, 2.0], [0.5, 0.0], [-0.25, 1.0], [3.0, 0.5]], HEADS)


def test_layers_have_means_attention_first():
    table = by_layer(USUAL)
    assert list(table.columns) == ["layer", "component", "mean", "low", "high"]
    assert table["component"].tolist() == ["attention"] * 4 + ["mlp"] * 4
    assert table["mean"].tolist() == [1.0, 0.5, -0.25, 3.0, 2.0, 0.0, 1.0, 0.5]
    assert ((table["low"] < table["mean"]) & (table["mean"] < table["high"])).all()


def test_totals_are_sums_over_layers():
    assert totals(USUAL)[["component", "mean"]].to_numpy().tolist() == [["attention", 4.25], ["mlp", 3.5]]


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
    assert "Means over 256 prompts. Whiskers: 95% intervals over 32 demonstration sets." in caption
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


def test_margin_is_split_by_layer_and_by_half():
    table = margin_by_layer(USUAL)
    assert table["component"].tolist() == ["attention"] * 4 + ["mlp"] * 4
    assert table["mean"].tolist() == [1.0, 0.5, -0.25, 3.0, 2.0, 0.0, 1.0, 0.5]
    sums = margin_sums(USUAL)
    assert len(sums) == 4
    assert sums.iloc[0].to_dict() == pytest.approx(
        {
            "set": 0,
            "margin": 8.5,
            "embedding": 0.5,
            "shallow attention": 1.5,
            "deep attention": 2.75,
            "MLPs": 3.5,
            "deep minus shallow": 1.25,
            "share of the margin": 1.25 / 8.5,
        }
    )
    assert margin_effect(sums)["effect"].tolist() == pytest.approx([1.25 / 8.5] * 4)


def test_every_set_is_a_share_of_the_mean_margin():
    direct = dataclasses.replace(USUAL.direct, margin=torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64))
    effect = margin_effect(margin_sums(dataclasses.replace(USUAL, direct=direct)))
    assert effect["effect"].tolist() == pytest.approx([1.25 / 4] * 4)
    below = dataclasses.replace(direct, margin=-direct.margin)
    assert margin_effect(margin_sums(dataclasses.replace(USUAL, direct=below)))["effect"].isna().all()


def totals_of(half=0.25, **changes):
    means = {"margin": 4.0, "embedding": -0.001, "shallow attention": 0.5, "deep attention": 2.5, "MLPs": 1.0}
    means |= {"deep minus shallow": 2.0, "share of the margin": 0.5, **changes}
    rows = [(part, mean, mean - half, mean + half) for part, mean in means.items()]
    return pd.DataFrame(rows, columns=["component", "mean", "low", "high"])


def test_margin_is_drawn_with_what_it_is_a_sum_of():
    inputs = {"layers": margin_by_layer(USUAL), "totals": totals_of()}
    drawing, caption, alt = figure_of(page.MARGINS, make_facts(), inputs)
    assert "Together with the embedding (0.00) the parts add up to the margin (4.00), up to biases" in caption
    assert caption.endswith("Bands: 95% intervals over 32 demonstration sets.")
    lines = {line.get_label(): line for line in drawing.axes[0].lines}
    assert lines["attention"].get_ydata().tolist() == [1.0, 0.5, -0.25, 3.0]
    assert lines["MLP"].get_ydata().tolist() == [2.0, 0.0, 1.0, 0.5]
    assert list(lines["deep half begins"].get_xdata()) == [1.5, 1.5]
    assert alt == (
        "Two lines by layer around zero. The attention layer that writes most into the margin is layer 3 with 3.00 "
        "logits; the MLP that does is layer 0 with 2.00 logits."
    )


@pytest.mark.parametrize(
    ("facts", "changes", "text"),
    [
        (
            {},
            {},
            "Attention in the deep half of the layers writes 2.50 (2.25 to 2.75) logits straight into the margin, in "
            "the shallow half 0.50 (0.25 to 0.75); deep minus shallow is **2.00 (1.75 to 2.25)** (95% intervals in "
            "brackets). That is 50% of the margin. The MLPs write 1.00 (0.75 to 1.25).",
        ),
        (
            {"evaluation_sets": 1, "n_layers": 1},
            {"half": math.nan, "shallow attention": 0.0, "deep minus shallow": 2.5, "share of the margin": -0.625},
            "The only layer counts as deep; its attention writes 2.50 logits straight into the margin; deep minus "
            "shallow is **2.50**. That is -62% of the margin. The MLPs write 1.00.",
        ),
        ({}, {"share of the margin": float("nan")}, "There is no margin above zero for this to be a share of. The"),
        ({}, {"deep attention": float("nan")}, "writes not known logits"),
    ],
)
def test_deep_and_shallow_attention_in_words(facts, changes, text):
    assert text in call(page.DEPTHS.write, make_facts(**facts), {"totals": totals_of(**changes)})


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
    sums, parts = totals(located), margin_totals(margin_sums(located))
    given = {
        page.MARGINS: {"layers": margin_by_layer(located), "totals": parts},
        page.DEPTHS: {"totals": parts},
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
        f"{facts.run}_locate-{name}.{ending}"
        for name in ("layers", "heads")
        for ending in ("svg", "png", "pdf", "csv", "json")
    } | {
        f"{facts.run}_locate-margin{ending}"
        for ending in (".svg", ".png", ".pdf", "-layers.csv", "-totals.csv", ".json")
    }

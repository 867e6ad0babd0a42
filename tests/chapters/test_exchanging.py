"""The exchange test in groups of heads, and heads beside others: on tiny models and on planted tables."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import twotowers
from facts import make_facts
from twotowers.chapters.towers import edges, exchange_page, exchanging
from twotowers.publishing.publish import call, figure_of
from twotowers.tracing.exchange import PARTS
from twotowers.tracing.heads import deep_heads

HEADS = [(3, 1), (2, 0)]
NAN = float("nan")


@pytest.fixture(scope="module")
def exchanged(tiny_models):
    from conftest import make_sets

    model = tiny_models["llama-gqa"]
    return model, make_sets(model), exchanging.exchange_groups(model, make_sets(model), HEADS)


def test_groups_are_what_they_are_called(exchanged):
    model, sets, table = exchanged
    chosen = {exchanging.STRONGEST: HEADS[:1], exchanging.CHOSEN: HEADS, exchanging.OTHERS: deep_heads(model, HEADS)}
    for name, heads in chosen.items():
        for part in PARTS[1:]:
            ours = table[(table["name"] == name) & (table["part"] == part)]["margin"].to_numpy()
            assert ours == pytest.approx(twotowers.exchange(model, sets, heads, part)["margin"].to_numpy(), abs=1e-4)
    assert table[table["name"] == exchanging.RANDOM]["draw"].nunique() == 15  # pairs of the 6 others


def test_the_curve_ends_in_all_deep_heads_and_in_none(exchanged):
    model, sets, table = exchanged
    ranked = deep_heads(model)
    curve = exchanging.curve_summary(exchanging.exchange_curve(model, sets, ranked)).set_index(["name", "n"])["mean"]
    means = exchanging.summary(table).set_index(["name", "part"])["mean"]
    whole, nothing = means[exchanging.ALL_DEEP, "query-other"], means[exchanging.INTACT, "none"]
    assert (curve["first", len(ranked)], curve["all but the first", 0]) == pytest.approx((whole, whole), abs=1e-4)
    assert (curve["first", 0], curve["all but the first", len(ranked)]) == pytest.approx((nothing, nothing), abs=1e-4)


def planted(own=-1.0, others=1.9, random=1.8, intact=2.0, sets=3):
    """Margins by group: `own` is what the query of the other class leaves in the in-context heads."""
    rows = []
    for s in range(sets):
        rows.append((exchanging.INTACT, "none", -1, s, intact))
        for name, other in ((exchanging.STRONGEST, 1.0), (exchanging.CHOSEN, own), (exchanging.ALL_DEEP, own),
                            (exchanging.OTHERS, others)):  # fmt: skip
            rows += [(name, part, -1, s, other if part in ("query-other", "keys", "values") else intact)
                     for part in PARTS[1:]]  # fmt: skip
        rows += [(exchanging.RANDOM, part, n, s, random if part == "query-other" else intact)
                 for n in range(20) for part in exchanging.RANDOM_PARTS]  # fmt: skip
    table = pd.DataFrame(rows, columns=["name", "part", "draw", "set", "margin"])
    return table.assign(query=0, label="foo", accuracy=1.0, accuracy_two_way=(table["margin"] > 0).astype(float))


CURVE = pd.DataFrame(
    [(name, n, 2.0 - n, 1.9 - n, 2.1 - n) for name in exchange_page.LINES for n in (0, 1, 2)],
    columns=["name", "n", "mean", "low", "high"],
)


def test_c9_is_the_share_of_the_intact_margin_that_the_class_of_the_query_moves():
    table = planted()
    assert exchanging.choice_share(table, exchanging.CHOSEN)["effect"].tolist() == pytest.approx([1.5] * 3)
    assert exchanging.drawn_shares(table) == pytest.approx([0.1] * 20)
    assert exchanging.beside_others(table)["effect"].tolist() == pytest.approx([1.45] * 3)
    assert exchanging.choice_share(planted(intact=-2.0), exchanging.CHOSEN)["effect"].isna().all()
    alone = table[~table["name"].isin([exchanging.OTHERS, exchanging.RANDOM])]
    assert exchanging.drawn_shares(alone) == []
    assert exchanging.beside_others(alone)["effect"].isna().all()


def shown(table):
    means = exchanging.summary(table)
    found = {"shares": exchanging.mean_shares(table), "random": exchanging.drawn_shares(table)}
    text = call(exchange_page.FOUND.write, make_facts(), {"means": means, "accuracy": exchanging.flips(table), **found})
    given = {"means": means, "curve": CURVE, "heads": HEADS, "sets": table["set"].nunique(), "curve_sets": 2}
    return text, *figure_of(exchange_page.EXCHANGE, make_facts(), given)


def test_the_page_says_what_the_exchange_did():
    text, drawing, caption, alt = shown(planted())
    assert "from 2.00 to **-1.00**" in text
    assert "from 100% to **0%**; within a class, to 2.00 and 100%." in text
    assert "moves **150%** of the intact margin" in text
    assert "random groups 10% to 10%" in text
    assert "(3.1, 2.0)" in caption
    assert "20 random groups" in caption
    assert "3 demonstration sets" in caption
    assert "in-context heads: query of another class -1.00" in alt
    assert [t.get_text() for t in drawing.axes[0].get_yticklabels()] == list(exchange_page.ROWS.values())


def test_curves_of_one_set_are_said_to_be_without_intervals_beside_whiskers_of_more():
    """The sentence stood behind that on whiskers, as if it took it back."""
    means = exchanging.summary(planted())
    given = {"means": means, "curve": CURVE, "heads": HEADS, "sets": 3, "curve_sets": 1}
    _, caption, _ = figure_of(exchange_page.EXCHANGE, make_facts(), given)
    assert (
        "The curves are of one set, so without intervals. Whiskers: 95% intervals over 3 demonstration sets." in caption
    )


def test_the_page_of_a_model_at_chance_or_with_few_heads_says_no_more_than_there_is():
    text, *_ = shown(planted(intact=0.0))
    assert "no margin" in text
    few = planted(sets=1)
    text, _, caption, alt = shown(few[~few["name"].isin([exchanging.OTHERS, exchanging.RANDOM])])
    assert "nan" not in text + caption + alt
    assert "other deep heads together" not in text
    assert "random groups" not in caption + text
    assert "without intervals" in caption


def test_rank_correlation_is_scipys_and_missing_where_nothing_varies():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (2, 5, 9, 3)).astype(float)
    b[2, :, 1] = 7.0
    ours = edges.rank_correlation(a, b)
    for n in range(5):
        for h in range(3):
            if (n, h) == (2, 1):
                assert np.isnan(ours[n, h])
            else:
                assert ours[n, h] == pytest.approx(scipy.stats.spearmanr(a[n, :, h], b[n, :, h]).statistic)


def test_heads_are_compared_with_all_others_and_with_random_groups():
    rows = [(s, 2, h, 1.0 if h < 2 else 0.1 * s) for s in range(4) for h in range(30)]
    table = pd.DataFrame(rows, columns=["set", "layer", "head", "x"])
    made = edges.contrast(table, "x", [(2, 0), (2, 1)])
    assert made.effects["effect"].tolist() == pytest.approx([1.0] * 4)
    assert made.beside["effect"].tolist() == pytest.approx([1 - 0.1 * s for s in range(4)])
    assert made.others == pytest.approx(0.15)
    assert len(made.random) == edges.DRAWS
    assert made.share < 0.02
    usual = edges.contrast(table, "x", [(2, 7), (2, 9)])
    assert usual.share > 0.5
    alone = edges.contrast(table[table["head"] == 0], "x", [(2, 0)])
    assert alone.beside["effect"].isna().all()


def test_edges_of_all_deep_heads(tiny):
    from conftest import make_sets
    from twotowers.chapters.towers.reading import attention_by_class, read_heads

    sets = make_sets(tiny)
    table = edges.edge_effects(tiny, sets)
    assert len(table) == len(sets) * len(deep_heads(tiny))
    classes = attention_by_class(read_heads(tiny, sets, HEADS))
    theirs = (classes["same"] - classes["other"]).groupby([classes[c] for c in ("set", "layer", "head")]).mean()
    ours = table.set_index(["set", "layer", "head"])["attention"]
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, abs=1e-5)
    words = edges.words(table, "agreement", HEADS, edges.contrast(table, "agreement", HEADS))
    text = call(exchange_page.AGREEMENT_BESIDE.write, make_facts(), words)
    assert "2.0 " in text
    assert "nan" not in text
    nothing = {"own": {"2.0": NAN}, "others": NAN, "share": NAN}
    assert "not defined" in call(exchange_page.ATTENTION_BESIDE.write, make_facts(), nothing)

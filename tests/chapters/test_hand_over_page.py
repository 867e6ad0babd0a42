"""The hand-over test on its page: what is drawn and said of given crossings, without a model."""

import warnings

import pandas as pd
import pytest
from test_shallow_page import UNWANTED

from facts import make_facts
from twotowers.chapters.shallow import hand_over_page as page
from twotowers.publishing.publish import call, figure_of
from twotowers.publishing.shown import Shown
from twotowers.tracing.hand_over import PLACES

pytestmark = pytest.mark.usefixtures("light_figures")

NAN = float("nan")
WHOLE = {
    "text": (4.0, 3.5, 4.5, 16, 16),
    "text+separator": (6.5, 6.0, 7.0, 16, 16),
    "label": (9.0, 8.0, 10.0, 16, 16),
    "query": (3.0, 2.5, 3.5, 16, 16),
    "last": (3.0, 2.5, 3.5, 16, 16),
}


def found(**changes):
    rows = WHOLE | {name.replace("text_", "text+"): row for name, row in changes.items()}
    columns = ["place", "mean", "low", "high", "known", "sets"]
    return pd.DataFrame([(place, *rows[place]) for place in PLACES], columns=columns)


def kept(value=0.93, sets=16):
    return pd.DataFrame({"set": range(sets), "effect": value})


def drawn_curve(value=None):
    rows = [
        (place, within, layer, share, share - 0.1, share + 0.1)
        for place in PLACES
        for within in (False, True)
        for layer in (0, 4, 8, 12)
        for share in [value if value is not None else 0.9 if within else layer / 6 - 1]
    ]
    return pd.DataFrame(rows, columns=["place", "within", "layer", "mean", "low", "high"])


def said(claim, crossings, lowest=None, **facts):
    inputs = {"crossings": crossings, "kept": kept() if lowest is None else lowest, "claim": claim}
    return call(page.TEXT_CROSSING.write, make_facts(**{"n_layers": 12, **facts}), inputs)


def test_a_line_a_place_and_the_control_beside_it():
    inputs = {"curve": drawn_curve(), "crossings": found()}
    drawing, caption, alt = figure_of(page.HAND_OVER, make_facts(n_layers=12), inputs)
    lines = {line.get_label(): list(line.get_ydata()) for line in drawing.axes[0].get_lines()}
    for name in page.NAMES.values():
        assert lines[name] == pytest.approx([-1, -1 / 3, 1 / 3, 1])
    assert lines["_label within a class"] == [0.9] * 4
    half = [line for line in drawing.axes[0].get_lines() if line.get_label() == "half the layers"]
    assert list(half[0].get_xdata()) == [6, 6]
    assert caption.endswith("Bands: 95% intervals over 16 demonstration sets.")
    assert alt == (
        "Line chart of the share of the margin by layer, a line for each of five places. They pass zero: text at layer "
        "4.0, text and separator at layer 6.5, labels at layer 9.0, query at layer 3.0, last position at layer 3.0."
    )


def test_text_and_separator_beside_labels():
    assert said("C1", found(text_separator=(8.5, 8.0, 9.0, 16, 16))) == (
        "Where the share passes zero: text and separator, at layer 8.5 (8.0 to 9.0); labels, at layer 9.0 (8.0 to "
        "10.0). Half the layers minus the crossing of text and separator is -2.5 (-3.0 to -2.0): merging ends beyond "
        "the shallow half. Exchanged within a class, at least 93% of the margin stays, at any layer read, in the mean "
        "over sets."
    )


def test_the_query_with_its_mirror_the_last_position():
    assert said("C2", found()) == (
        "Where the share passes zero: query, at layer 3.0 (2.5 to 3.5); last position, at layer 3.0 (2.5 to 3.5); "
        "labels, at layer 9.0 (8.0 to 10.0). Half the layers minus the crossing of query is +3.0 (+2.5 to +3.5): "
        "merging ends in the shallow half. Exchanged within a class, at least 93% of the margin stays, at any layer "
        "read, in the mean over sets."
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((6.0, 5.0, 7.0, 16, 16), "is +0.0 (-1.0 to +1.0): whether merging ends in the shallow half is not decided."),
        ((6.0, 6.0, 7.0, 16, 16), "is +0.0 (-1.0 to +0.0): whether merging ends in the shallow half is not decided."),
        ((5.0, 4.0, 5.9, 16, 16), "is +1.0 (+0.1 to +2.0): merging ends in the shallow half."),
        ((7.0, 6.1, 8.0, 16, 16), "is -1.0 (-2.0 to -0.1): merging ends beyond the shallow half."),
        ((7.0, NAN, NAN, 1, 1), "is -1.0; one demonstration set gives no interval."),
        ((NAN, NAN, NAN, 0, 16), "is not known."),
    ],
)
def test_shallow_or_not_in_words(row, words):
    text = said("C1", found(text_separator=row))
    assert f"Half the layers minus the crossing of text and separator {words}" in text


def test_sets_without_a_crossing_are_counted():
    text = said("C1", found(text_separator=(6.5, 6.0, 7.0, 13, 16), label=(NAN, NAN, NAN, 0, 16)))
    assert "labels, nowhere." in text
    assert (
        "Without a crossing, and left out: text and separator in 3 and labels in 16 of 16 demonstration sets." in text
    )
    one = {place.replace("+", "_"): (NAN, NAN, NAN, 0, 1) for place in PLACES}
    assert "labels in 1 of 1 demonstration set." in said("C1", found(**one))


def test_a_control_that_crosses_or_is_missing_is_said():
    assert "at least -20% of the margin stays" in said("C1", found(), kept(-0.2))
    assert said("C1", found(), kept(NAN)).endswith("What an exchange within a class leaves is not known.")


@pytest.mark.parametrize("n_layers", [1, 12])
@pytest.mark.parametrize("sets", [1, 16])
@pytest.mark.parametrize("value", [None, NAN, 0.0, 1.0])
def test_everything_can_be_kept_and_drawn_again(tmp_path, n_layers, sets, value):
    row = (3.0, *((NAN, NAN) if sets == 1 else (2.5, 3.5)), sets, sets) if value is None else (NAN, NAN, NAN, 0, sets)
    crossings = found(**{place.replace("+", "_"): row for place in PLACES})
    given = {"crossings": crossings, "kept": kept(NAN if value is not None else 0.9, sets)}
    shown = Shown(tmp_path, "shallow", make_facts(n_layers=n_layers, evaluation_sets=sets))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown.add(page.HAND_OVER, {"curve": drawn_curve(value), "crossings": crossings})
        shown.add(page.TEXT_CROSSING, given | {"claim": "C1"})
        shown.add(page.QUERY_CROSSING, given | {"claim": "C2"})
        read = Shown.read(tmp_path, "shallow")
        texts = [read.render(item) for item in (page.HAND_OVER, page.TEXT_CROSSING, page.QUERY_CROSSING)]
    assert [hit for text in texts if (hit := UNWANTED.search(text))] == []
    assert ("From one demonstration set" in texts[0]) == (sets == 1)

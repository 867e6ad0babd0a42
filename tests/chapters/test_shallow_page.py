"""The page on shallow layers: what it says of given results, without a model."""

import re
import warnings

import pandas as pd
import pytest

from facts import make_facts
from twotowers.chapters.shallow import blocking, page, probing
from twotowers.publishing.publish import call, figure_of
from twotowers.publishing.shown import Shown

pytestmark = pytest.mark.usefixtures("light_figures")

UNWANTED = re.compile(
    r"\b(nan|inf|None)\b|-0\.0+\b|-0 ?%|layers (\d+) to \2\b|(?<![\d.])1 (layer|window|demonstration)s\b|layers \d+:"
)
NAN = float("nan")


def cuts_of(accuracy, kinds=blocking.KINDS, sets=2):
    """A table of `block` of two prompts a set from (start, stop, control) -> accuracy, for each kind the same."""
    rows = [
        (kind, *window, i, query, value)
        for kind in kinds
        for window, value in accuracy.items()
        for i in range(sets)
        for query in range(2)
    ]
    return pd.DataFrame(rows, columns=["kind", "start", "stop", "control", "set", "query", "accuracy"])


def slid_over(n_layers, cut, control, intact=0.9):
    """Windows over a model, from one accuracy a window: (start, stop, control) -> accuracy."""
    slid = blocking.windows(n_layers)
    return {(0, 0, False): intact} | {
        (window.start, window.stop, drawn): value
        for drawn, values in ((False, cut), (True, control))
        for window, value in zip(slid, values, strict=True)
    }


def read_of(accuracy, sets=2, labels=("foo", "bar", "foo", "bar")):
    """A table of `probe` from (layer, where) -> accuracy of each demonstration, in every set the same."""
    rows = [
        (layer, where, i, n, label not in labels[:n], value)
        for (layer, where), values in accuracy.items()
        for i in range(sets)
        for n, (label, value) in enumerate(zip(labels, values, strict=True))
    ]
    return pd.DataFrame(rows, columns=["layer", "where", "set", "demonstration", "first", "accuracy"])


WINDOWS = slid_over(6, cut=[0.3, 0.25, 0.5, 0.8, 0.85], control=[0.8, 0.85, 0.9, 0.9, 0.875])
READ = {
    (0, "text"): (1, 1, 1, 0),
    (0, "label"): (0, 0, 1, 0),
    (0, "shuffled"): (0, 0, 1, 1),
    (1, "text"): (1, 1, 1, 1),
    (1, "label"): (1, 1, 1, 0),
    (1, "shuffled"): (0, 1, 0, 0),
    (2, "text"): (1, 1, 1, 1),
    (2, "label"): (1, 0, 1, 1),
    (2, "shuffled"): (0, 0, 0, 1),
}


# Measures


def test_windows_are_fewer_in_deep_models_and_few_are_about_seven():
    assert len(blocking.slide(16)) == 12
    assert [w.start for w in blocking.slide(30)] == list(range(0, 21, 2))
    assert [w.start for w in blocking.slide(30, few=True)] == [0, 4, 8, 12, 16, 20]
    assert blocking.slide(1, few=True) == [range(0, 1)]


@pytest.mark.parametrize(("n_layers", "layers"), [(1, [0]), (6, [0, 1, 2, 3, 4, 5]), (7, [0, 2, 4, 6])])
def test_every_other_layer_of_a_deeper_model_is_read(n_layers, layers):
    assert list(probing.layers_to_read(n_layers)) == layers


def test_places_have_their_number_of_demonstrations():
    places = probing.by_place(read_of(READ))
    assert list(places.columns) == ["layer", "where", "mean", "low", "high", "demonstrations"]
    assert places.loc[(places["layer"] == 1) & (places["where"] == "label"), "mean"].tolist() == [0.75]
    assert (places["demonstrations"] == 8).all()


def test_leads_are_differences_of_two_accuracies():
    table = probing.leads(read_of(READ), 2)
    assert table["layer"].tolist() == [0, 1, 2]
    assert table["mean"].tolist() == [-0.25, 0.5, 0.5]
    assert table["early"].tolist() == [True, True, False]
    assert table["alone"].tolist() == [0.0, 0.5, 0.5]
    assert table["firsts"].tolist() == [4, 4, 4]


# Wording and drawing


def test_blocking_draws_a_panel_a_kind_with_control_and_intact_level():
    curve = blocking.curve(cuts_of(WINDOWS))
    drawing, caption, alt = figure_of(page.BLOCKING, make_facts(n_layers=6), {"curve": curve, "sets": 16})
    assert [ax.get_title() for ax in drawing.axes] == ["text to label", "query to last", "label to last"]
    for ax in drawing.axes:
        drawn = {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}
        assert drawn["these edges cut"] == pytest.approx([0.3, 0.25, 0.5, 0.8, 0.85])
        assert drawn["random edges cut"] == pytest.approx([0.8, 0.85, 0.9, 0.9, 0.875])
        assert drawn["nothing cut"] == pytest.approx([0.9, 0.9])
    assert "with edges cut in a window of 2 layers, by the window's first layer" in caption
    assert caption.endswith("Bands: 95% intervals over 16 demonstration sets.")
    assert alt.startswith(
        "Three line charts, one per kind of edge, of accuracy by first layer of the window, with a line for random "
        "edges and a level for the intact model. Cutting text to label is costliest in layers 1 to 2,"
    )


@pytest.mark.parametrize(
    ("n_layers", "windows", "expected"),
    [
        (
            6,
            WINDOWS,
            "Cutting text to label is costliest in layers 1 to 2, whose centre lies in the middle third: accuracy goes "
            "from 90.0% to 25.0%, with random edges cut to 85.0%.",
        ),
        (
            3,
            slid_over(3, [0.5, 0.9, 0.8], [0.9, 0.8, 0.7]),
            "Cutting text to label is costliest in layer 0, whose centre lies in the first third: accuracy goes from "
            "90.0% to 50.0%, with random edges cut to 90.0%.",
        ),
        (
            3,
            slid_over(3, [0.9, 0.5, 0.5], [0.9, 0.8, 0.7]),
            "Cutting text to label is costliest in layer 1, whose centre lies in the middle third, and as costly in "
            "one other window: accuracy goes from 90.0% to 50.0%, with random edges cut to 80.0%.",
        ),
        (
            3,
            slid_over(3, [0.0, 0.0, 0.0], [0.0, 0.8, 0.7]),
            "Cutting text to label costs the same in every window: accuracy goes from 90.0% to 0.0%, with random edges "
            "cut to 0.0% or more.",
        ),
        (
            3,
            slid_over(3, [0.9, 0.95, 1.0], [0.9, 0.8, 0.7]),
            "Cutting text to label costs no accuracy in any window: intact it is 90.0%, with these edges cut 90.0% or "
            "more.",
        ),
        (
            1,
            slid_over(1, [0.5], [0.75]),
            "Cutting text to label in layer 0, the only window: accuracy goes from 90.0% to 50.0%, with random edges "
            "cut to 75.0%.",
        ),
        (
            1,
            slid_over(1, [1.0], [1.0], intact=1.0),
            "Cutting text to label costs no accuracy in the only window: intact it is 100.0%, with these edges cut "
            "100.0% or more.",
        ),
        (3, slid_over(3, [NAN] * 3, [NAN] * 3), "What cutting text to label costs is not known."),
    ],
)
def test_where_a_cut_costs_most(n_layers, windows, expected):
    curve = blocking.curve(cuts_of(windows, kinds=["text_to_label"], sets=1))
    facts = make_facts(n_layers=n_layers)
    assert call(page.COSTLIEST.write, facts, {"curve": curve}) == expected
    assert call(page.BLOCKING.alt, facts, {"curve": curve}) == (
        "Line chart of accuracy by first layer of the window, with a line for random edges and a level for the intact "
        f"model. {expected}"
    )


def test_the_probe_draws_three_places_and_chance():
    inputs = {"places": probing.by_place(read_of(READ)), "categories": 12}
    drawing, caption, alt = figure_of(page.PROBE, make_facts(), inputs)
    drawn = {line.get_label(): list(line.get_ydata()) for line in drawing.axes[0].get_lines()}
    assert drawn["at the text"] == [0.75, 1.0, 1.0]
    assert drawn["at its label"] == [0.25, 0.75, 0.75]
    assert drawn["at another's label"] == [0.5, 0.25, 0.25]
    assert drawn["one of 12 categories"][0] == pytest.approx(1 / 12)
    assert "another demonstration of the set. 8 demonstrations. Bands: 95% intervals" in caption
    assert alt == (
        "Line chart of probe accuracy by layer with two chance levels. At the text it is highest at layers 1 and 2 "
        "with 100%. At its label it is highest at layers 1 and 2 with 75%. At another's label it is highest at layer 0 "
        "with 50%."
    )


def test_two_categories_have_one_chance_level():
    inputs = {"places": probing.by_place(read_of(READ)), "categories": 2}
    drawing, _, alt = figure_of(page.PROBE, make_facts(), inputs)
    assert not any("categories" in str(line.get_label()) for line in drawing.axes[0].get_lines()[4:])
    assert alt.startswith("Line chart of probe accuracy by layer with one chance level. At the text")


def leads_of(rows):
    return pd.DataFrame(
        rows, columns=["layer", "mean", "low", "high", "early", "alone", "alone_low", "alone_high", "firsts"]
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [(0, 0.0, 0.0, 0.0, True, *[0.0] * 3, 8), (1, 0.2, 0.1, 0.3, True, 0.1, -0.0001, 0.2, 8),
             (2, 0.4, 0.3, 0.5, False, 0.2, 0.1, 0.3, 8)],
            "The label position reads its own text better than another's, with an interval above zero, entering layers "
            "1 and 2. Within the first third the lead is largest entering layer 1: +20.0% (+10.0% to +30.0%). Entering "
            "layer 1, on the 8 demonstrations that are the first of their label, where no earlier one can tell, it is "
            "+10.0% (+0.0% to +20.0%).",
        ),
        (
            [(0, -0.1, -0.2, 0.0, True, NAN, NAN, NAN, 1), (2, 0.1, -0.1, 0.3, False, 0.0, 0.0, 0.0, 1)],
            "The label position reads its own text better than another's, with an interval above zero, entering no "
            "layer that was read. Within the first third there is no lead: entering layer 0 it is -10.0% (-20.0% to "
            "+0.0%). Entering layer 0, on the one demonstration that is the first of its label, where no earlier one "
            "can tell, it is not known.",
        ),
        (
            [(0, 0.0, -0.2, 0.2, True, *[0.0] * 3, 2), (1, 0.0, 0.0, 0.0, True, *[0.0] * 3, 2)],
            "The label position reads its own text better than another's, with an interval above zero, entering no "
            "layer that was read. Within the first third there is no lead: at most it is +0.0% (-20.0% to +20.0%). "
            "Entering layer 0, on the 2 demonstrations that are the first of their label, where no earlier one can "
            "tell, it is +0.0% (+0.0% to +0.0%).",
        ),
        (
            [(0, 0.1, 0.05, 0.2, True, *[0.5] * 3, 2)],
            "The label position reads its own text better than another's, with an interval above zero, entering layer "
            "0. Within the first third the lead was read entering layer 0: +10.0% (+5.0% to +20.0%). Entering layer 0, "
            "on the 2 demonstrations that are the first of their label, where no earlier one can tell, it is +50.0% "
            "(+50.0% to +50.0%).",
        ),
        (
            [(0, NAN, NAN, NAN, True, NAN, NAN, NAN, 2)],
            "The label position reads its own text better than another's, with an interval above zero, entering no "
            "layer that was read. Within the first third the lead is not known.",
        ),
    ],
)  # fmt: skip
def test_the_lead_of_a_text_at_its_own_label(rows, expected):
    assert call(page.LEAD.write, make_facts(), {"leads": leads_of(rows)}) == expected


def test_equal_leads_are_all_named():
    rows = [(n, 0.1, NAN, NAN, True, 0.1, NAN, NAN, 2) for n in range(3)]
    text = call(page.LEAD.write, make_facts(evaluation_sets=1), {"leads": leads_of(rows)})
    assert text.startswith(
        "One demonstration set gives no intervals. Within the first third the lead is largest entering layers 0, 1 and "
        "2: +10.0%. Entering layer 0, on the 2"
    )


def same_everywhere(value, layers):
    return {(layer, where): (value,) * 4 for layer in layers for where in probing.WHERE}


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize(
    ("n_layers", "windows", "read"),
    [
        pytest.param(1, slid_over(1, [0.5], [0.5]), same_everywhere(1, [0]), id="one layer"),
        pytest.param(2, slid_over(2, [1.0] * 2, [1.0] * 2, 1.0), same_everywhere(1, [0, 1]), id="always right"),
        pytest.param(3, slid_over(3, [0.0] * 3, [0.0] * 3, 0.0), same_everywhere(0, range(3)), id="always wrong"),
        pytest.param(3, slid_over(3, [0.5] * 3, [0.5] * 3, 0.5), same_everywhere(0.5, range(3)), id="at chance"),
        pytest.param(3, slid_over(3, [0.8999] * 3, [0.9001] * 3), same_everywhere(0.5, range(3)), id="nearly"),
        pytest.param(6, WINDOWS, READ, id="usual"),
        pytest.param(6, WINDOWS | {(1, 3, False): NAN, (0, 2, True): NAN}, same_everywhere(NAN, [0]), id="missing"),
    ],
)
def test_everything_can_be_kept_and_drawn_again(tmp_path, n_layers, windows, read, sets):
    facts = make_facts(n_layers=n_layers, n_heads=1, evaluation_sets=sets)
    cuts, labels = cuts_of(windows, sets=sets), read_of(read, sets=sets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's, of missing numbers
        curve, places = blocking.curve(cuts), probing.by_place(labels)
        leads = probing.leads(labels, len(blocking.windows(n_layers)[0]))
    given = {
        page.BLOCKING: {"curve": curve, "sets": sets},
        page.COSTLIEST: {"curve": curve},
        page.PROBE: {"places": places, "categories": 2 if n_layers < 3 else 12},
        page.LEAD: {"leads": leads},
    }
    shown, texts = Shown(tmp_path, "shallow", facts), {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for item, inputs in given.items():
            shown.add(item, inputs)
            texts[item] = Shown.read(tmp_path, "shallow").render(item)
    assert all(texts.values())
    assert [found for text in texts.values() if (found := UNWANTED.search(text))] == []
    assert ("From one demonstration set" in texts[page.PROBE]) == (sets == 1)
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        f"invented_shallow-{name}.{ending}"
        for name in ("blocking", "probe")
        for ending in ("svg", "png", "pdf", "csv", "json")
    }

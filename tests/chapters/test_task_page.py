"""The page on the task: what it says of given results, without a model."""

import html
import re
import warnings

import pandas as pd
import pytest

from facts import make_facts
from twotowers.chapters.task import page
from twotowers.chapters.task.accuracy import FULL, TWO_WAY, gate, with_most
from twotowers.publishing.publish import call, figure_of
from twotowers.publishing.shown import Shown

pytestmark = pytest.mark.usefixtures("light_figures")

UNWANTED = re.compile(r"\b(nan|inf)\b|-0(\.0+)?(?![.\d])|\b1 (demonstrations|points)\b")
WIDE = {"mean": 0.8, "low": 0.7, "high": 0.9}


def shots_of(means, two_way=None, spread=0.05):
    """Accuracy by demonstrations, from `{number: mean}` over the full vocabulary and between the labels."""
    rows = [
        (number, measure, mean, max(0.0, mean - spread), min(1.0, mean + spread))
        for measure, values in ((FULL, means), (TWO_WAY, two_way or means))
        for number, mean in values.items()
    ]
    return pd.DataFrame(rows, columns=["shots", "measure", "mean", "low", "high"])


def templates_of(lines, paper):
    """Accuracy by template, each with the means of the gold labels bar and foo."""
    rows = [
        (template, label, mean, mean, mean)
        for template, means in (("lines", lines), ("paper", paper))
        for label, mean in zip(("bar", "foo"), means, strict=True)
    ]
    return pd.DataFrame(rows, columns=["template", "label", "mean", "low", "high"])


def test_the_account_is_the_tasks_own():
    assert call(page.ACCOUNT.write, make_facts(account="Of 12 rows."), {}) == "Of 12 rows."


def test_the_prompt_is_shown_as_it_is():
    text = call(page.PROMPT.write, make_facts(), {"prompt": "apple: foo\nsaw:", "answer": "bar"})
    assert text == "```text\napple: foo\nsaw:\n```\n\nThe right next token is `␣bar`."


@pytest.mark.parametrize("inner", ["```", "a ``````` b", "`", "```\n# no heading\n```"])
def test_no_text_ends_the_fence_of_the_prompt(inner):
    lines = call(page.PROMPT.write, make_facts(), {"prompt": f"{inner}\nsaw:", "answer": "bar"}).splitlines()
    fence = lines[0].removesuffix("text")
    ends = [number for number, line in enumerate(lines) if set(line) == {"`"} and len(line) >= len(fence)]
    assert len(fence) >= 3
    assert ends == [len(lines) - 3]


def test_no_other_line_end_is_left_in_the_prompt():
    text = call(page.PROMPT.write, make_facts(), {"prompt": "a\r\nb\rc\x0bd\u2028e", "answer": "foo"})
    assert text.startswith("```text\na\nb\nc\nd\ne\n```\n")


def test_shots_says_where_accuracy_begins_and_ends():
    shots = shots_of({1: 0.25, 2: 0.5, 8: 0.875}, {1: 0.5, 2: 0.75, 8: 1.0})
    drawing, caption, alt = figure_of(page.SHOTS, make_facts(), {"shots": shots})
    assert caption == (
        "Accuracy by the number of demonstrations of each label: 87.5% over the full vocabulary with 8, 25.0% with "
        "one. The queries are the same at every point. Bands: 95% intervals over 32 demonstration sets."
    )
    assert alt == (
        "Line chart. Full-vocabulary accuracy goes from 25% with one demonstration of each label to 88% with 8; "
        "accuracy between the two labels goes from 50% to 100%. A dotted line marks chance at 50%."
    )
    (ax,) = drawing.axes
    lines = {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}
    assert lines == {FULL: [0.25, 0.5, 0.875], TWO_WAY: [0.5, 0.75, 1.0], "chance between two labels": [0.5, 0.5]}
    assert list(ax.get_lines()[0].get_xdata()) == [1, 2, 8]


def test_one_number_of_demonstrations_goes_nowhere():
    _, caption, alt = figure_of(page.SHOTS, make_facts(shots=1, evaluation_sets=1), {"shots": shots_of({1: 0.5})})
    assert caption == (
        "Accuracy with one demonstration of each label: 50.0% over the full vocabulary. From one demonstration set, "
        "so without intervals."
    )
    assert alt.startswith("Chart with one point a measure, for one demonstration of each label: ")


def test_the_accuracy_that_is_told_is_that_of_most_demonstrations():
    shots = shots_of({4: 0.8, 1: 0.3, 2: 0.5}, {4: 0.9, 1: 0.6, 2: 0.7}).sample(frac=1, random_state=1)
    assert with_most(shots) == pytest.approx({"mean": 0.8, "low": 0.75, "high": 0.85})
    assert with_most(shots, TWO_WAY)["mean"] == 0.9


def test_what_is_handed_on_is_two_way_accuracy_of_each_set_with_most_demonstrations():
    table = pd.DataFrame({"shots": [1, 1, 4, 4, 4], "set": [0, 1, 1, 0, 1], "accuracy": 0.0,
                          "accuracy_two_way": [0.0, 0.0, 1.0, 0.5, 0.0]})  # fmt: skip
    assert gate(table) == {"set": [0, 1], "effect": [0.5, 0.5]}


@pytest.mark.parametrize(
    ("accuracy", "facts", "expected"),
    [
        (WIDE, {}, "is **80.0%** (70.0% to 90.0%): its interval lies above one half, so the chapters"),
        ({"mean": 0.5, "low": 0.4, "high": 0.6}, {}, "its interval includes one half, so the claims"),
        ({"mean": 0.5, "low": 0.5, "high": 0.5}, {}, "its interval includes one half, so the claims"),
        ({"mean": 0.0, "low": 0.0, "high": 0.0}, {}, "**0.0%** (0.0% to 0.0%): its interval lies below one half, so"),
        ({"mean": 1.0, "low": 1.0, "high": 1.0}, {}, "**100.0%** (100.0% to 100.0%): its interval lies above"),
        ({"mean": 0.9, "low": float("nan"), "high": float("nan")}, {}, "**90.0%**: one demonstration set gives no"),
        (dict.fromkeys(WIDE, float("nan")), {}, "is **not known**: it could not be measured, so the claims"),
        (WIDE, {"shots": 1}, "With one demonstration of each label the accuracy"),
        (WIDE, {"shots": 8}, "With 8 demonstrations of each label the accuracy"),
    ],
)
def test_whether_the_model_does_the_task(accuracy, facts, expected):
    text = call(page.CAN.write, make_facts(**facts), {"accuracy": accuracy})
    assert expected in text
    assert not UNWANTED.search(text)


def test_templates_names_every_bar():
    templates = templates_of((0.9, 0.7), (0.8, 0.6))
    drawing, caption, alt = figure_of(page.TEMPLATES, make_facts(), {"templates": templates})
    assert "with 8 demonstrations of each label" in caption
    assert caption.endswith("Whiskers: 95% intervals over 32 demonstration sets.")
    assert alt == (
        "Bar chart of accuracy by template and gold label. lines, gold label bar: 90%; lines, gold label foo: 70%; "
        "paper, gold label bar: 80%; paper, gold label foo: 60%."
    )
    (ax,) = drawing.axes
    bars = {c.get_label(): [bar.get_height() for bar in c] for c in ax.containers if hasattr(c, "patches")}
    assert bars == {"gold label bar": [0.9, 0.8], "gold label foo": [0.7, 0.6]}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((0.75, 0.875), "right on 87.5% of the prompts whose answer is *foo* and on 75.0% of those whose answer is "
         "*bar*, a difference of 12 points."),
        ((0.9, 0.8904), "*foo*, a difference of one point."),
        ((0.9, 0.8999), "*foo*, a difference of less than one point."),
        ((1.0, 1.0), "With it, the model is right on 100.0% of the prompts, whichever the answer."),
        ((0.0, 0.0), "With it, the model is right on 0.0% of the prompts, whichever the answer."),
    ],
)  # fmt: skip
def test_the_taste_for_a_label(lines, expected):
    text = call(page.TASTE.write, make_facts(), {"templates": templates_of(lines, (0.5, 0.25))})
    assert text.endswith(expected)
    assert f"*lines* reaches {sum(lines) / 2:.1%} and *paper* 37.5%. The chapters of this model use *lines*." in text


def test_the_taste_is_that_of_the_models_own_template():
    text = call(page.TASTE.write, make_facts(template="paper"), {"templates": templates_of((0.9, 0.1), (0.5, 0.25))})
    assert "use *paper*. With it, the model is right on 50.0% of the prompts whose answer is *bar*" in text


def test_the_papers_number_stands_beside_ours():
    text = call(page.PAPER.write, make_facts(), {"accuracy": WIDE})
    assert "reports 87.6% accuracy before" in text
    assert text.endswith("This model reaches 80.0% on this task.")


@pytest.mark.parametrize("mean", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("numbers", [(1,), (1, 2, 3), (1, 2, 4, 8)])
@pytest.mark.parametrize("sets", [1, 32])
def test_everything_can_be_kept_and_drawn_again(tmp_path, mean, numbers, sets):
    shots = shots_of(dict.fromkeys(numbers, mean), spread=0 if sets == 1 else 0.05)
    facts = make_facts(shots=numbers[-1], evaluation_sets=sets)
    shown = Shown(tmp_path, "task", facts)
    inputs = {
        page.ACCOUNT: {},
        page.PROMPT: {"prompt": "apple: foo\nsaw:", "answer": "bar"},
        page.SHOTS: {"shots": shots},
        page.CAN: {"accuracy": with_most(shots)},
        page.TEMPLATES: {"templates": templates_of((mean, mean), (mean, mean))},
        page.TASTE: {"templates": templates_of((mean, mean), (mean, mean))},
        page.PAPER: {"accuracy": with_most(shots)},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for item, given in inputs.items():
            shown.add(item, given)
            text = Shown.read(tmp_path, "task").render(item)
            assert text
            assert not UNWANTED.search(text), text
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        f"invented_task-{name}.{ending}"
        for name in ("shots", "templates")
        for ending in ("svg", "png", "pdf", "csv", "json")
    }


def test_what_a_task_says_of_itself_is_no_markup():
    account = "The source is '<script>alert(1)</script>.csv'. 4 '$10 *to* $20 {ref}`x` _y_ [z](w)\r# head'."
    said = call(page.ACCOUNT.write, make_facts(account=account), {})
    assert not set("<>$*`_[]{}()#\r\n") & set(re.sub(r"&#\d+;", "", said))
    assert html.unescape(said) == " ".join(account.split())

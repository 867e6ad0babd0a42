"""What a colour means, that everyone can tell it from others, and that a figure does not hang on a user's set-up."""

import ast
import io
import itertools
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import CSS4_COLORS, to_rgb
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import twotowers
from drawings import FIGURES, draw, texts_of
from twotowers.publishing import style
from twotowers.publishing.dark import dark, with_dark
from twotowers.publishing.style import styled

PACKAGE = Path(twotowers.__file__).parent
OF_LABELS = {"task-templates", "values-logit-minus", "towers-explore", "towers-plane", "imbalance-response"}
# How much red, green and blue (linear) an eye without one kind of cone sees: Machado, Oliveira and Fernandes 2009.
EYES = {
    "all": np.eye(3),
    "no red": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "no green": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "no blue": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}
TOGETHER = [  # colours that mean different things in one picture
    (style.FOO, style.BAR, style.GREY),
    (style.TESTED, style.OTHERS, style.STRONGEST, style.WHOLE, style.RANDOM),
    (style.SAME, style.OTHER),
    (style.ATTENTION, style.MLP),
    (style.TEXT, style.SEPARATOR, style.LABEL, style.QUERY, style.LAST),
    style.MEASURES,
]
HOSTILE = {
    "axes.facecolor": "black", "savefig.facecolor": "red", "text.color": "yellow", "font.size": 30,
    "font.family": ["serif"], "text.parse_math": True, "axes.prop_cycle": mpl.cycler(color="rgb"), "lines.linewidth": 9,
    "savefig.bbox": "tight", "savefig.transparent": True, "svg.fonttype": "path", "axes.labelsize": 40,
    "axes.unicode_minus": False, "errorbar.capsize": 20, "hatch.linewidth": 7, "image.cmap": "jet",
    "axes.formatter.use_locale": True, "text.usetex": True,
    "legend.fontsize": 3, "svg.hashsalt": "other", "pdf.compression": 0, "axes.autolimit_mode": "round_numbers",
}  # fmt: skip


def linear(colour):
    parts = np.array(to_rgb(colour))
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def seen(colour, eye):
    """Lightness and two hues (CIE L*a*b*) as an eye sees them."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(eye @ linear(colour), 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(colour, paper):
    light, less = sorted(([0.2126, 0.7152, 0.0722] @ linear(c) for c in (colour, paper)), reverse=True)
    return (light + 0.05) / (less + 0.05)


@pytest.mark.parametrize("of_page", [lambda colour: colour, dark])
@pytest.mark.parametrize("eye", EYES)
def test_colours_of_one_picture_can_be_told_apart_by_all_on_light_and_on_dark_pages(eye, of_page):
    for group in TOGETHER:
        for one, other in itertools.combinations(map(of_page, group), 2):
            assert np.linalg.norm(seen(one, EYES[eye]) - seen(other, EYES[eye])) > 9, (one, other)
        assert min(contrast(of_page(colour), of_page(style.PAPER)) for colour in group) > 3


def literals(file):
    """Colours that a module names by itself."""
    named = {*CSS4_COLORS, "k", "w", "viridis", "RdBu_r"} - {"tan"}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        values = []
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch("#[0-9a-fA-F]{6}", node.value)
        ):
            yield node.value
        if isinstance(node, ast.keyword) and node.arg and re.search("colou?r|cmap", node.arg):
            values = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
        yield from (value for value in values if value in named or re.fullmatch(r"C\d", str(value)))


def test_only_the_style_names_colours():
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "style.py"]
    assert {file.name: found for file in files if (found := list(literals(file)))} == {}


def test_a_colour_named_elsewhere_would_be_found(tmp_path):
    (tmp_path / "page.py").write_text("ax.plot(color='black', marker='o'); x = '#AA0000'; ax.imshow(cmap='viridis')")
    assert sorted(literals(tmp_path / "page.py")) == ["#AA0000", "black", "viridis"]


def svg_of(drawing):
    text = io.StringIO()
    with styled():
        drawing.savefig(text, format="svg")
    return text.getvalue()


@pytest.mark.parametrize("name", FIGURES)
def test_blue_and_orange_are_labels_and_text_is_text_and_each_colour_has_a_dark_one(name):
    svg = svg_of(draw(name))
    assert {style.FOO in svg, style.BAR in svg} == {name in OF_LABELS}
    assert svg.count("<text") > 3
    both = with_dark(svg)
    for what, colour in set(re.findall(r"\b(fill|stroke): (#\w{6})", svg)):
        assert f'[style*="{what}: {colour}"]{{{what}:{dark(colour)}!' in both
    # A rule does not reach a marker's own colour, which would stay dark; each use of it has one instead.
    markers = dict(re.findall(r'<path id="(m\w+)" d="[^"]*" style="([^"]*)"', both))
    assert not [name for name, look in markers.items() if "#" in look]
    uses = re.findall(r'<use xlink:href="#(m\w+)"[^>]*style="([^"]*)"', both)
    assert all("stroke: " in look for name, look in uses if name in markers)
    assert "#000000" not in svg  # what is left at the default would be black on dark pages, too
    assert "<image" not in svg  # nor does a bitmap change


def look(handle):
    """How a series is drawn, but for its colour."""
    if isinstance(handle, ErrorbarContainer):
        handle = handle[0]
    if isinstance(handle, BarContainer):
        return handle[0].get_hatch()
    if isinstance(handle, PathCollection):
        filled = tuple(handle.get_facecolor()[0]) == tuple(handle.get_edgecolor()[0])
        return len(handle.get_paths()[0].vertices), filled
    return (handle.get_marker(), handle.get_linestyle()) if isinstance(handle, Line2D) else None


@pytest.mark.parametrize("name", FIGURES)
def test_series_of_a_legend_differ_by_more_than_colour(name):
    for ax in draw(name).axes:
        looks = [look(handle) for handle in ax.get_legend_handles_labels()[0]]
        assert len(set(looks)) == len(looks), looks


@pytest.mark.parametrize("width", [style.WIDTH, style.NARROW])
@pytest.mark.parametrize("name", FIGURES)
def test_texts_lie_within_the_picture_apart_from_each_other_and_as_they_are(name, width):
    drawing = draw(name, width)
    texts = texts_of(drawing)
    whole = drawing.bbox
    assert [t for t, b in texts if b.x0 < 0 or b.y0 < 0 or b.x1 > whole.x1 or b.y1 > whole.y1] == []
    assert [t for t, _ in texts if "$" in t or "\\" in t] == []
    touching = [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(texts, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2
    ]
    assert touching == []


@pytest.mark.parametrize("name", FIGURES)
def test_in_a_narrow_place_panels_stand_below_each_other_and_hold_what_they_held(name):
    wide, narrow = draw(name), draw(name, style.NARROW)
    assert narrow.get_figwidth() == style.NARROW
    assert len(narrow.axes) == len(wide.axes)
    panels = [ax for ax in narrow.axes if ax.get_subplotspec() is not None]
    assert [ax.get_subplotspec().rowspan.start for ax in panels] == list(range(len(panels)))
    for one, other in zip(wide.axes, narrow.axes, strict=True):
        assert len(one.get_children()) == len(other.get_children())


def test_a_text_that_is_cut_off_would_be_found():
    figure = Figure(figsize=(1, 1))
    figure.text(0.5, 0.5, "a text that is far too long")
    ((_, box),) = texts_of(figure)
    assert box.x1 > figure.bbox.x1


@pytest.mark.parametrize(
    "name", ["knockout-heads", "towers-transfer", "imbalance-response", "values-words", "claims-forest"]
)
def test_the_settings_of_a_user_change_no_figure(name):
    usual = svg_of_same_ids(name)
    with mpl.rc_context(HOSTILE):
        assert svg_of_same_ids(name) == usual


def svg_of_same_ids(name):
    """A picture as `write_figure` saves it, but for its record."""
    text = io.BytesIO()
    drawing = draw(name)
    with styled(), mpl.rc_context({"svg.hashsalt": "same"}):
        drawing.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()

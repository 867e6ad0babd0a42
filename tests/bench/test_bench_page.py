"""The page of the benchmark is computed, and legible whatever the numbers."""

import io
import itertools
import json
import warnings

import pandas as pd
import pytest
from made_up import WAYS, grown, row
from matplotlib.backends.backend_agg import FigureCanvasAgg

from twotowers.bench import page as bench_page
from twotowers.bench import page as figures_bench
from twotowers.bench.bench import BARE
from twotowers.publishing.record import FIELDS


@pytest.fixture
def result():
    """A result that was made up: what is drawn and said of it does not depend on this machine."""
    agreement = {
        "margin_difference": {"edited weights": 1e-6}, "screen_recall": 1.0, "screen_heads": 2,
        "screen_rank_agreement": 0.85, "worst": [[1, 2]],
    }  # fmt: skip
    facts = {
        "model": "tiny", "dtype": "float32", "device": "a processor", "threads": 2, "prompts": 3, "tokens": 24,
        "packed_tokens": 40, "packages": {"torch": "2", "nnsight": "0.8"}, "date": "2026-01-02T03:04:05+00:00",
        "repeats": 2, "heads": 16, "sampled_heads": 4, "sets": 1, "command": "twotowers bench --model tiny",
        "random": True,
    }  # fmt: skip
    rows = [
        row("ours", 12.0, 1.0, spread=0.0), row("ours, no shared prefix", 60.0, 5.0),
        row("ours, PyTorch's own product", 13.2, 1.1), row("forward", 0.15, 0.0125),
        row("screen", 0.45, 3.0, "forward"), row("locate", 9.0, 1.5, BARE, peak=125), row(BARE, 6.0, 0.5, peak=100),
        row("floor", 8.0, 0.625, spread=0.2),
    ]  # fmt: skip
    return {"facts": facts, "rows": rows, "agreement": agreement, "scaling": grown()}


def test_the_page_shows_every_way_with_its_figures(result, tmp_path):
    assert bench_page.performance(tmp_path).startswith("No benchmark has been run yet")
    bench_page.write(result, tmp_path, "tiny-float32")
    page = bench_page.performance(tmp_path)
    for found in result["rows"]:
        assert f"| {found['way']} | {found['seconds']:.3g} ({found['low']:.3g} to {found['high']:.3g}) |" in page
    assert "random" in page
    assert "Ours takes 1.60 times the floor (1.33 to 2.00)." in page
    assert "heads removed: 5 ms each (floor 3.33 ms)" in page
    assert "at 1.5 times its height in the median" in page
    for name in ("ratio", "scaling"):
        assert f":name: fig-performance-tiny-float32-{name}" in page
        for ending in ("svg", "png", "pdf", "csv", "json"):
            assert (tmp_path / "figures" / f"tiny-float32-{name}.{ending}").stat().st_size
        record = json.loads((tmp_path / "figures" / f"tiny-float32-{name}.json").read_text())
        assert set(FIELDS) <= set(record["provenance"])
    assert json.loads((tmp_path / "tiny-float32.json").read_text())["rows"] == result["rows"]


def test_the_page_says_what_locate_costs_beside_a_bare_forward(result, tmp_path):
    bench_page.write(result, tmp_path, "tiny")
    said = "Locate takes 1.50 times the time of a bare forward (1.35 to 1.65) and 1.25 times its memory."
    assert said in bench_page.performance(tmp_path)
    next(found for found in result["rows"] if found["way"] == BARE)["peak"] = 0  # too quick to be seen
    bench_page.write(result, tmp_path, "tiny")
    assert "bare forward (1.35 to 1.65).\n" in bench_page.performance(tmp_path)


@pytest.mark.parametrize("ratio", [0.0, float("inf"), float("nan")])
def test_the_page_says_nothing_of_what_the_clock_does_not_show(result, tmp_path, ratio):
    """A floor and a bare forward of no time, and one size only, of which there is no slope."""
    kept = [found for found in result["rows"] if found["way"] not in ("floor", "locate")]
    rows = [*kept, row("floor", 0.0, ratio), row("locate", 9.0, ratio, BARE)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bench_page.write(result | {"rows": rows, "scaling": grown(0.0, sizes=(16,))}, tmp_path, "tiny")
        page = bench_page.performance(tmp_path)
    for sentence in ("times the floor", "Locate takes", "Slopes", "in the median"):
        assert sentence not in page


def drawn(figure):
    """The figure's canvas, behind its drawing as a PNG."""
    canvas = FigureCanvasAgg(figure)
    figure.savefig(io.BytesIO(), format="png")
    return canvas


def require_legible(figure, named=False):
    """Two to eight numbers within the limits of every axis (but one of names), none on another; no text is cut off."""
    renderer = drawn(figure).get_renderer()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = axis.get_view_interval()
            ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high and t.label1.get_text()]
            boxes = [tick.label1.get_window_extent(renderer) for tick in ticks]
            assert not [a for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
            assert (named and axis is ax.yaxis) or 2 <= len(ticks) <= 8, [tick.label1.get_text() for tick in ticks]
        for text in ax.texts:
            box = text.get_window_extent(renderer)
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text


RANGES = {
    "narrow": (0.93, 1.1),
    "one decade": (1.0, 10.0),
    "five decades": (1e-3, 1.0, 1e2),
    "ten decades": (1e-5, 1.0, 1e5),
    "equal values": (1.0, 1.0, 1.0),
    "floor 0.013": (0.013,),
    "floor 0.013, peers 20": (0.013, 1.1, 5.3, 20.0),
    "all large": (300.0, 400.0),
    "no ratio": (0.0, float("inf"), float("nan"), 2.0),
    "nothing": (0.0,),
    "no row": (),
}


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("values", RANGES.values(), ids=RANGES)
def test_ratios_of_any_range_are_legible(values, spread):
    rows = [row(way, value, value, spread=spread) for way, value in zip(WAYS, values, strict=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = figures_bench.ratios(pd.DataFrame(rows, columns=list(row("ours", 1.0, 1.0))))
        require_legible(figure, named=True)
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(labels) == sorted(["ours", *(f"{x:.3g}" for x in values if 0 < x < float("inf"))])


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.013, 1.0, 2e4, 1e12, float("nan"), float("inf")])
@pytest.mark.parametrize("sizes", [(1, 2, 4, 8), (16, 1600, 160_000), (10, 10**6, 10**11), (5,), (7, 7), (0,), ()])
def test_scaling_of_any_range_is_legible(seconds, sizes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = pd.DataFrame(grown(seconds, sizes), columns=["against", "x", "seconds", "floor"])
        require_legible(figures_bench.scaling(table))
        assert bench_page._scaling_caption(table).startswith("Seconds of our sweep")
        assert bench_page._scaling_alt(table).startswith("Three panels")

"""A result of the benchmark that was made up: what is drawn and said of it does not depend on this machine."""

from twotowers.bench import page as figures_bench
from twotowers.bench.bench import OURS

WAYS = ("ours", "ours, no shared prefix", "ours, PyTorch's own product", "forward", "screen", "locate", "floor")


def row(way, seconds, ratio, over=OURS, peak=2**20, spread=0.1):
    """A row of a result, whose rounds differ by a share of the median."""
    low, high = 1 - spread, 1 + spread
    return {
        "way": way, "seconds": seconds, "low": low * seconds, "high": high * seconds, "over": over,
        "ratio": ratio, "ratio_low": low * ratio, "ratio_high": high * ratio, "peak": peak,
    }  # fmt: skip


def grown(seconds=0.5, sizes=(16, 32, 64, 128), unit=100):
    """Seconds of ours in proportion to the size, of which two thirds are the floor."""
    return [
        {"against": against, "x": x, "seconds": seconds * x / unit, "floor": seconds * x / unit / 1.5}
        for against in figures_bench.NAMES
        for x in sizes
    ]

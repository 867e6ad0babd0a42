"""The performance page: a result in, its figures and the text about it out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter

from ..errors import writing
from ..publishing.crowd import own_folder, write_whole
from ..publishing.markdown import code, escape, table_text
from ..publishing.plots import panels
from ..publishing.record import Place
from ..publishing.shown import text_alone, write_alone
from ..publishing.style import GREY, INK, MARKERS, RANDOM, TESTED
from .bench import BARE, OURS, tables


def write(result: dict[str, Any], folder: Path, stem: str) -> None:
    """Write `<stem>.json`, and the figures beside it: all of them, or nothing."""
    rows, grown = tables(result)
    facts, compared = result["facts"], _compared(rows)
    with writing("The benchmark in", folder), own_folder(folder, "bench") as new:
        for name, draw, table, caption, alt in (
            ("ratio", ratios, compared, _ratio_caption(rows, facts), _ratio_alt(rows)),
            ("scaling", scaling, grown, _scaling_caption(grown), _scaling_alt(grown)),
        ):
            place = Place("performance.html", f"performance-{stem}-{name}")
            write_alone(
                new / "figures", f"{stem}-{name}", draw, table, caption=caption, alt=alt, facts=facts, place=place
            )
        (folder / "figures").mkdir(exist_ok=True)
        for file in sorted((new / "figures").iterdir()):
            file.replace(folder / "figures" / file.name)
        write_whole(folder / f"{stem}.json", json.dumps(result, indent=1) + "\n")


def performance(folder: Path) -> str:
    """MyST text of all results in a folder; a sentence if there is none."""
    parts = [_section(file) for file in sorted(folder.glob("*.json"))]
    return "\n\n".join(parts) or "No benchmark has been run yet; run one with `twotowers bench`."


def _section(file: Path) -> str:
    result = json.loads(file.read_text(encoding="utf-8"))
    rows, _ = tables(result)
    facts, agreement = result["facts"], result["agreement"]
    packages = facts["packages"]
    lines = [
        f"## {escape(facts['model'])}, {escape(facts['dtype'])}",
        f"Measured on {escape(facts['date'][:10])}: {escape(facts['device'])}, {facts['threads']} threads, PyTorch "
        f"{escape(packages['torch'])}, nnsight {escape(packages['nnsight'])}"
        + (f", TransformerLens {escape(packages['transformer-lens'])}" if "transformer-lens" in packages else "")
        + f". One demonstration set with {facts['prompts']} queries, {facts['tokens']} tokens a prompt, "
        f"{facts['packed_tokens']} packed; {facts['heads']} heads; {facts['repeats']} rounds. "
        f"Repeat it with {code(facts['command'])}.",
        _table(rows),
        _above_floor(rows),
        _locating(rows),
        _agreement(agreement),
    ]
    if facts.get("random"):
        lines.insert(2, "The weights are random: speed and memory only; nothing of it enters a chapter.")
    lines += [text_alone(file.parents[1], f"{file.parent.name}/figures/{file.stem}-{x}") for x in ("ratio", "scaling")]
    return "\n\n".join(line for line in lines if line)


def _table(rows: pd.DataFrame) -> str:
    header = ("way", "seconds (range)", "compared with", "ratio (range)", "memory")
    cells = []
    for row in rows.to_dict("records"):
        itself = row["way"] == row["over"]
        ratio = "" if itself else f"{row['ratio']:.3g} ({row['ratio_low']:.3g} to {row['ratio_high']:.3g})"
        memory = f"{row['peak'] / 2**20:.0f} MiB" if row["peak"] else ""
        seconds = f"{row['seconds']:.3g} ({row['low']:.3g} to {row['high']:.3g})"
        cells.append((escape(row["way"]), seconds, "" if itself else escape(row["over"]), ratio, memory))
    return table_text(header, cells, ("left", "right", "left", "right", "right"))


def _above_floor(rows: pd.DataFrame) -> str:
    told = {
        "floor": "Ours takes {} times the floor ({} to {}).",
        "ours in bfloat16": "In bfloat16 it is {} times as fast ({} to {}).",
    }
    part = rows[rows["way"].isin(told) & _with_ratio(rows)]
    texts = []
    for row in part.sort_values("way").to_dict("records"):  # the floor first
        inverse = (f"{1 / row[name]:.2f}" for name in ("ratio", "ratio_high", "ratio_low"))
        texts.append(told[row["way"]].format(*inverse))
    return " ".join(texts)


def _with_ratio(rows: pd.DataFrame) -> Any:
    """Of which rows something can be said: what took no time that the clock shows has no ratio."""
    return np.logical_and.reduce([positive(rows[name]) for name in ("ratio", "ratio_low", "ratio_high")])


def _locating(rows: pd.DataFrame) -> str:
    found = rows.set_index("way")
    if BARE not in found.index or not _with_ratio(found.loc[["locate"]]).all():
        return ""
    row, bare = found.loc["locate"], found.loc[BARE]
    memory = f" and {row['peak'] / bare['peak']:.2f} times its memory" if bare["peak"] else ""
    return (
        f"Locate takes {row['ratio']:.2f} times the time of a bare forward ({row['ratio_low']:.2f} to "
        f"{row['ratio_high']:.2f}){memory}."
    )


def _agreement(agreement: dict[str, Any]) -> str:
    parts = []
    if differences := agreement["margin_difference"]:
        listed = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
        parts.append(f"Largest difference of a prompt's margin (logits) between ours and: {listed}.")
    parts.append(
        f"The screen's {agreement['screen_heads']} highest heads hold {agreement['screen_recall']:.0%} of the truly "
        f"worst {len(agreement['worst'])}; the rank correlation of estimate and exact loss is "
        f"{agreement['screen_rank_agreement']:.2f}."
    )
    if "bfloat16_worst" in agreement:
        same = {*map(tuple, agreement["worst"])} & {*map(tuple, agreement["bfloat16_worst"])}
        parts.append(
            f"In bfloat16 {len(same)} of the worst {len(agreement['worst'])} heads are the same; the rank correlation "
            f"over all heads is {agreement['bfloat16_rank_agreement']:.3f}, the largest difference of a head's mean "
            f"margin lost {agreement['bfloat16_difference']:.2f} logits."
        )
    return " ".join(parts)


def _compared(rows: pd.DataFrame) -> pd.DataFrame:
    """What the figure shows: other ways than ours to do the same, and the floor."""
    part = rows[(rows["over"] == OURS) & (rows["way"] != OURS)]
    part = part[part["way"].str.contains("a head|floor|bfloat16|own product|no shared")]
    return part.sort_values("ratio", ascending=False, ignore_index=True)


def _ratio_caption(rows: pd.DataFrame, facts: dict[str, Any]) -> str:
    ours = rows.set_index("way").loc[[OURS]].iloc[0]
    return (
        f"Time of a full knock-out sweep ({facts['heads']} heads, {facts['prompts']} prompts) over ours, which takes "
        f"{ours.seconds:.1f} s; median of {facts['repeats']} rounds, lines from the lowest to the highest round. Ways "
        f"that go head by head are timed on {facts['sampled_heads']} random heads a round and scaled up."
    )


def _ratio_alt(rows: pd.DataFrame) -> str:
    compared = _compared(rows)
    drawn = compared[positive(compared["ratio"])]
    listed = "; ".join(f"{row.way}: {row.ratio:.2g}" for row in drawn.itertuples())
    return f"Points with error bars: time over ours on a logarithmic axis. {listed}."


def _scaling_caption(scaling: pd.DataFrame) -> str:
    slopes = [text for against, part in scaling.groupby("against", sort=False) if (text := _slope(str(against), part))]
    said = f" Slopes: {'; '.join(slopes)}." if slopes else ""
    return f"Seconds of our sweep, and the floor of the same work, as it grows.{said}"


def _slope(against: str, part: pd.DataFrame) -> str:
    """What one more costs, from the first point to the last; nothing if these are the same or not finite."""
    ends = part.iloc[[0, -1]]
    numbers = ends[["x", "seconds", "floor"]].to_numpy(float)
    if not np.isfinite(numbers).all() or numbers[0, 0] == numbers[1, 0]:
        return ""
    run, seconds, floor = numbers[1] - numbers[0]
    return f"{NAMES[against]}: {1000 * seconds / run:.3g} ms each (floor {1000 * floor / run:.3g} ms)"


def _scaling_alt(scaling: pd.DataFrame) -> str:
    part = scaling[positive(scaling["floor"]) & positive(scaling["seconds"])]
    text = "Three panels: seconds against heads removed, prompts, and tokens."
    if part.empty:
        return text
    ratio = (part["seconds"] / part["floor"]).median()
    return f"{text} Measured lines rise with the dashed floor, at {ratio:.2g} times its height in the median."


NAMES = {"heads": "heads removed", "prompts": "prompts of the set", "length": "packed tokens"}
MOST_TICKS = 7
LARGEST = 300.0  # decimal logarithm beyond which an axis would overflow


def ratios(table: pd.DataFrame) -> Figure:
    """Time over ours, a point a way, with its spread over repeats; log scale. `way, ratio, ratio_low, ratio_high`.

    A way whose ratio is zero or not finite keeps its line, without a point.
    """
    figure, (ax,) = panels(height=0.45 * max(1, len(table)) + 1.0)
    place = np.arange(len(table))[::-1]
    drawn = positive(table["ratio"])
    part, y = table[drawn], place[drawn]
    ratio = part["ratio"].to_numpy(float)
    low, high = (part[name].where(positive(part[name]), part["ratio"]) for name in ("ratio_low", "ratio_high"))
    spread = np.maximum(0.0, [ratio - low, high - ratio])
    left, right = log_limits([*ratio, *low, *high, 1.0])
    ax.set_xscale("log")
    ax.set_xlim(left, right)
    ax.errorbar(ratio, y, xerr=spread, fmt=MARKERS[0], color=INK, capsize=3)
    for height, value in zip(y, ratio, strict=True):
        ax.annotate(f"{value:.3g}", (value, height), xytext=(0, 6), textcoords="offset points", ha="center")
    _mark_ours(ax, left, right)
    ax.set_yticks(place, list(table["way"]))
    ax.set_ylim(-0.6, max(1, len(table)) - 0.3)
    ax.xaxis.set_major_locator(FixedLocator(log_ticks(left, right)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _number(x)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("time over ours")
    return figure


def positive(values: pd.Series) -> np.ndarray:
    """Which values can stand on a logarithmic axis."""
    numbers = values.to_numpy(float)
    return np.isfinite(numbers) & (numbers > 0)


def log_limits(values: Iterable[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis around positive values, with room for the label of an outermost point."""
    logs = [math.log10(value) for value in values]
    room = max(0.02, 0.1 * (max(logs) - min(logs)))
    return 10 ** max(-LARGEST, min(logs) - room), 10 ** min(LARGEST, max(logs) + room)


def log_ticks(left: float, right: float) -> list[float]:
    """Round numbers within the limits of a logarithmic axis: two at least, and so few that they do not touch."""
    decades = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    fine = _within([float(f"{step}e{decade}") for decade in decades for step in (1, 2, 5)], left, right)
    if len(fine) < 3 and right < 5 * left:  # round numbers at equal distances, which are not too unequal here
        return _within(MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(left, right), left, right)
    if len(fine) <= MOST_TICKS:
        return fine
    every = math.ceil(len(decades) / MOST_TICKS)
    return _within([float(f"1e{decade}") for decade in decades if decade % every == 0], left, right)


def _within(ticks: Iterable[float], left: float, right: float) -> list[float]:
    return [float(tick) for tick in ticks if left <= tick <= right]


def _number(x: float) -> str:
    """A tick's label, short also if it is far from 1: `0.01`, `200`, `1e-5`."""
    if 1e-3 <= x < 1e5:
        return f"{x:g}"
    digits, _, power = f"{x:.0e}".partition("e")
    return f"{digits}e{int(power)}"


def _mark_ours(ax: Axes, left: float, right: float) -> None:
    """A line at 1, named on the side where there is more room."""
    leftwards = math.log(right) < -math.log(left)
    ax.axvline(1, color=GREY, linestyle=":", linewidth=1.3)
    ax.annotate(
        "ours", (1, 0), xycoords=("data", "axes fraction"), xytext=(-4 if leftwards else 4, 4),
        textcoords="offset points", color=GREY, ha="right" if leftwards else "left",
    )  # fmt: skip


def scaling(table: pd.DataFrame) -> Figure:
    """Seconds and their floor against heads, prompts and tokens. `against, x, seconds, floor`."""
    figure, axes = panels(columns=3, height=2.9)
    for ax, against in zip(axes, NAMES, strict=True):
        part = table[table["against"] == against]
        ax.plot(part["x"], part["seconds"], color=TESTED, marker=MARKERS[0], label="measured")
        ax.plot(part["x"], part["floor"], color=RANDOM, marker=MARKERS[1], linestyle="--", label="floor")
        ax.set_xlabel(NAMES[against])
        ax.set_ylim(0, _top(part[["seconds", "floor"]]))
        ax.set_xlim(0, _top(part[["x"]]))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))  # 120k is short enough for a narrow panel
        ax.yaxis.set_major_locator(MaxNLocator(5))
        formatter = ScalarFormatter()
        formatter.set_powerlimits((-3, 5))
        ax.yaxis.set_major_formatter(formatter)
    axes[0].set_ylabel("seconds")
    axes[0].legend(fontsize=9)
    return figure


def _top(values: pd.DataFrame) -> float:
    """The end of an axis from 0: a little above the largest value that is a number, or 1 if none is above 0."""
    numbers = values.to_numpy(float)
    largest = numbers[np.isfinite(numbers)].max(initial=0.0)
    return 1.05 * float(largest) if largest > 0 else 1.0

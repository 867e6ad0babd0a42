"""The `bench` command and the performance page: a result in, its figures and the text about it out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from . import figures_bench
from .bench import BARE, OURS, bench, tables
from .errors import ModelError, UnknownNameError
from .models import load
from .pipeline import project_root
from .publish import figure_text, write_figure
from .quantised import require_method
from .registry import DTYPES
from .shapes import SHAPES, random_model, random_set
from .study import open_study

SETS = 8  # prompt sets of the screen and of locate


def run(
    model: str, shape: str | None, device: str | None, dtype: str, repeats: int, seed: int, quantise: str | None = None
) -> str:
    """Measure, write the result where the book shows it, and return it as a table to print.

    Args:
        quantise: how the random weights of a shape are stored.

    Raises:
        UserError: an unknown model, shape or dtype, or a device that is not there.
    """
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    if device not in (None, "cpu", "cuda"):
        raise UnknownNameError("device", str(device), ("cpu", "cuda"))
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("There is no GPU that PyTorch can use; leave --device out to run on the CPU.")
    if quantise and not shape:
        raise ModelError("The peers of the benchmark multiply plain weights; give --quantise with --shape only.")
    require_method(quantise, None)
    folder = project_root() / "book" / "bench"
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if shape:
        if shape not in SHAPES:
            raise UnknownNameError("shape", shape, SHAPES)
        subject = random_model(shape, DTYPES[dtype], device, quantise)
        sets = [random_set(subject, seed + i) for i in range(1)]
    else:
        study = open_study(model, seed=seed)
        if study.model.quantised:
            raise ModelError("The peers of the benchmark multiply plain weights; give a model that is not quantised.")
        sets = study.sets("selection", n_sets=SETS)
        subject = load(model, dtype=dtype, device_map=None if device == "cpu" else device)
    result = bench(subject, sets, repeats=repeats, seed=seed, peers=shape is None)
    stem = f"{subject.key}-{quantise or dtype}" + ("-random" if shape else "")
    command = _command(subject.name, shape, dtype, device, repeats, seed)
    result["facts"] |= {"command": command + (f" --quantise {quantise}" if quantise else ""), "random": bool(shape)}
    write(result, folder, stem)
    rows, _ = tables(result)
    shown = rows.assign(peak=(rows["peak"] / 2**20).round().astype(int)).rename(columns={"peak": "peak MiB"})
    return (
        f"{shown.to_string(index=False, float_format='%.3g')}\n{json.dumps(result['agreement'])}\n{folder / stem}.json"
    )


def write(result: dict[str, Any], folder: Path, stem: str) -> None:
    """Write `<stem>.json`, and the figures beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, scaling = tables(result)
    facts = result["facts"]
    for name, figure, table, caption, alt in (
        (
            "ratio",
            figures_bench.ratios(_compared(rows)),
            _compared(rows),
            _ratio_caption(rows, facts),
            _ratio_alt(rows),
        ),
        ("scaling", figures_bench.scaling(scaling), scaling, _scaling_caption(scaling), _scaling_alt(scaling)),
    ):
        write_figure(folder / "figures", f"{stem}-{name}", figure, table, caption=caption, alt=alt, facts=facts)
    (folder / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


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
        f"## {facts['model']}, {facts['dtype']}",
        f"Measured on {facts['date'][:10]}: {facts['device']}, {facts['threads']} threads, PyTorch "
        f"{packages['torch']}, nnsight {packages['nnsight']}"
        + (f", TransformerLens {packages['transformer-lens']}" if "transformer-lens" in packages else "")
        + f". One demonstration set with {facts['prompts']} queries, {facts['tokens']} tokens a prompt, "
        f"{facts['packed_tokens']} packed; {facts['heads']} heads; {facts['repeats']} rounds. "
        f"Repeat it with `{facts['command']}`.",
        _table(rows),
        _above_floor(rows),
        _locating(rows),
        _agreement(agreement),
    ]
    if facts.get("random"):
        lines.insert(2, "The weights are random: speed and memory only; nothing of it enters a chapter.")
    for name in ("ratio", "scaling"):
        record = json.loads((file.parent / "figures" / f"{file.stem}-{name}.json").read_text(encoding="utf-8"))
        figure_id = f"{file.stem}-{name}"
        stem = f"bench/figures/{figure_id}"
        lines.append(figure_text(f"performance-{figure_id}", stem, figure_id, record["caption"], record["alt"]))
    return "\n\n".join(line for line in lines if line)


def _table(rows: pd.DataFrame) -> str:
    lines = ["| way | seconds (range) | compared with | ratio (range) | memory |", "|---|--:|---|--:|--:|"]
    for row in rows.to_dict("records"):
        itself = row["way"] == row["over"]
        ratio = "" if itself else f"{row['ratio']:.3g} ({row['ratio_low']:.3g} to {row['ratio_high']:.3g})"
        memory = f"{row['peak'] / 2**20:.0f} MiB" if row["peak"] else ""
        seconds = f"{row['seconds']:.3g} ({row['low']:.3g} to {row['high']:.3g})"
        lines.append(f"| {row['way']} | {seconds} | {'' if itself else row['over']} | {ratio} | {memory} |")
    return "\n".join(lines)


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
    return np.logical_and.reduce([figures_bench.positive(rows[name]) for name in ("ratio", "ratio_low", "ratio_high")])


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
    drawn = compared[figures_bench.positive(compared["ratio"])]
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
    return f"{figures_bench.NAMES[against]}: {1000 * seconds / run:.3g} ms each (floor {1000 * floor / run:.3g} ms)"


def _scaling_alt(scaling: pd.DataFrame) -> str:
    part = scaling[figures_bench.positive(scaling["floor"]) & figures_bench.positive(scaling["seconds"])]
    text = "Three panels: seconds against heads removed, prompts, and tokens."
    if part.empty:
        return text
    ratio = (part["seconds"] / part["floor"]).median()
    return f"{text} Measured lines rise with the dashed floor, at {ratio:.2g} times its height in the median."


def _command(name: str, shape: str | None, dtype: str, device: str, repeats: int, seed: int) -> str:
    subject = f"--shape {shape}" if shape else f"--model {name}"
    command = f"twotowers bench {subject} --device {device} --repeats {repeats}"
    command += f" --dtype {dtype}" if dtype != "float32" else ""
    return command + (f" --seed {seed}" if seed else "")

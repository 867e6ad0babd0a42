"""What the figures of the chapter show, for those who cannot see them."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ...publishing.wording import counted
from .metric import SCORES
from .reading import CLASSES


def attention_alt(means: pd.DataFrame) -> str:
    return _rows_alt(means, {CLASSES["same"]: "{:z.1%} to the same class", CLASSES["other"]: "{:z.1%} to another"})


def metric_alt(areas: pd.DataFrame) -> str:
    return _rows_alt(areas, {name: f"{{:z.2f}} for {name}" for name in SCORES.values()}, ", a dotted line at one half")


def plane_alt(points: pd.DataFrame) -> str:
    (_, first), *others = points.groupby(["layer", "head"], sort=False)
    queries, keys = (int((first["kind"] == kind).sum()) for kind in ("query", "key"))
    shown = f"Scatter of {counted(queries, 'query', 'queries')} and {counted(keys, 'demonstration')}"
    centres = points[points["kind"] == "key"].groupby(["layer", "head", "label"])[["x", "y"]].mean().reset_index()
    places = [
        f"Head {r.layer}.{r.head}: the {r.label} keys are centred at ({r.x:z.1f}, {r.y:z.1f})."
        for r in centres.itertuples()
    ]
    return " ".join([f"{shown} per panel." if others else f"{shown}.", *places])


def transfer_alt(example: pd.DataFrame, correlations: pd.DataFrame) -> str:
    weight, rise = example["weight"], example["log_increase"]
    means = ", ".join(f"{r.name} {r.mean:z.2f}" for r in correlations.itertuples(index=False)) or "none is defined"
    return (
        f"Left: a scatter of weights from {weight.min():.4f} to {weight.max():.2f} and increases from "
        f"{rise.min():z.2f} to {rise.max():z.2f} nats. Right: rank correlations: {means}."
    )


def swap_alt(signed: pd.DataFrame) -> str:
    changes = [f"{r.name}: {r.measure} {r.mean:+z.0%}." for r in signed.itertuples(index=False)]
    return " ".join(["Pairs of bars.", *(changes or ["No change is defined."])])


def _rows_alt(table: pd.DataFrame, measures: Mapping[str, str], beside: str = "") -> str:
    """Each row's means in words; `measures` gives a measure's format."""
    rows = []
    for name, part in table.dropna(subset="mean").groupby("name", sort=False):
        means = part.set_index("measure")["mean"]
        cells = [form.format(means[measure]) for measure, form in measures.items() if measure in means]
        rows.append(f"{name}: {', '.join(cells)}.")
    return " ".join([f"Points with whiskers, a row for each in-context head and group{beside}.", *rows])

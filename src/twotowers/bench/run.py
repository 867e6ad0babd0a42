"""The `bench` command: what is measured, and where its result goes."""

from __future__ import annotations

import json
import shlex

import torch

from ..errors import ModelError, UnknownNameError
from ..models.model import load
from ..models.quantised import require_method
from ..models.registry import DTYPES
from ..publishing.run_folder import project_root
from ..study import open_study
from .bench import bench, tables
from .page import write
from .shapes import SHAPES, random_model, random_set

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
    result["facts"] |= {"seed": seed, "quantised": quantise}
    if shape:
        result["facts"] |= {"revision": None, "weights_sha256": None}
    write(result, folder, stem)
    rows, _ = tables(result)
    shown = rows.assign(peak=(rows["peak"] / 2**20).round().astype(int)).rename(columns={"peak": "peak MiB"})
    return (
        f"{shown.to_string(index=False, float_format='%.3g')}\n{json.dumps(result['agreement'])}\n{folder / stem}.json"
    )


def _command(name: str, shape: str | None, dtype: str, device: str, repeats: int, seed: int) -> str:
    subject = f"--shape {shape}" if shape else f"--model {shlex.quote(name)}"
    command = f"twotowers bench {subject} --device {device} --repeats {repeats}"
    command += f" --dtype {dtype}" if dtype != "float32" else ""
    return command + (f" --seed {seed}" if seed else "")

"""What exactly produced a figure."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import subprocess
from pathlib import Path
from typing import Any

from ..models.model import Model
from ..models.registry import REGISTRY
from ..study import Study

PACKAGES = ("twotowers", "torch", "nnsight", "transformers", "numpy", "pandas", "scipy", "matplotlib")


def provenance(study: Study) -> dict[str, Any]:
    """What exactly produced a figure of this study."""
    command = f"twotowers run --model {study.model.name} --task {study.task.name} --scale {study.scale.name}"
    command += _how_loaded(study.model)
    return study.model.provenance() | {
        "task": study.task.name,
        "task_sha256": study.task.digest,
        "task_source": dict(study.task.facts),
        "shots": study.scale.shots,
        "template": study.model.template,
        "scale": study.scale.name,
        "seed": study.seed,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "command": command + (f" --seed {study.seed}" if study.seed else ""),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@functools.cache
def _git_commit() -> str | None:
    """The commit of the package's checkout, with `-dirty` if tracked files differ; None outside a checkout."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=here, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def _how_loaded(model: Model) -> str:
    """The options of the command that say how the model was loaded, where that is not the default."""
    usual = REGISTRY[model.name].dtype if model.name in REGISTRY else "float32"
    dtype = str(model.dtype).removeprefix("torch.")
    options = [f"--dtype {dtype}"] if dtype != usual else []
    options += [f"--device-map {model.device_map}"] if isinstance(model.device_map, str) else []
    options += [f"--quantise {model.quantise}"] if model.quantise else []
    options += ["--remote"] if model.remote else []
    return "".join(f" {option}" for option in options)

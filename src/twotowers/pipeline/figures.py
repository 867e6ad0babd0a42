"""Find a run and a figure of it by what a reader knows: a model, and the figure's id, anchor or file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import UnknownNameError, UserError
from ..models.loading import Loading
from ..publishing.citing import FORMATS
from ..publishing.crowd import own_folder
from ..publishing.record import told_of_figure
from ..publishing.run_folder import RunFolder, figure_ids, figure_stem, project_root, runs_of
from ..toy import page as toy

DEFAULT = "smollm2-135m"  # the run that is meant where no model is named, if there is more than one


class WhichRunError(UserError):
    """There is no run, or several are meant."""


class RunNameError(UserError):
    """A run's folder has a name that is no address, or not that with which it was made."""


def cite(figure: str, *, model: str | None = None, form: str = "bibtex") -> str:
    """The citation of a figure, in one of `citing.FORMATS`.

    Args:
        figure: its id, as `towers-exchange`; its anchor or the name of a file of it will do, too.
        model: of a run, or the run's name; left out, what the figure's name says, the only run or the default one.

    Raises:
        UserError: no such figure, run or format, or a record that is damaged.
    """
    if form not in FORMATS:
        raise UnknownNameError("format", form, FORMATS)
    root = project_root()
    alone = {} if model else _alone(root)
    name = Path(figure).stem.removeprefix("fig-").removeprefix("performance-") if alone else figure
    if name in alone:
        made = json.loads(alone[name].read_text(encoding="utf-8"))
    elif name == toy.FIGURE:
        made = _of_toy(root)
    else:
        made = _of_run(find_run(root, model, figure), figure, alone)
    return FORMATS[form][1](made["provenance"])


def find_run(root: Path, model: str | None = None, figure: str = "") -> RunFolder:
    """The run of a model, or the one of this name.

    Args:
        figure: what a user has named; the run may be in it.

    Raises:
        WhichRunError: there is none, or there are several.
        UnknownNameError: no run is of this model.
    """
    runs = runs_of(root)
    if not runs:
        raise WhichRunError("There is no run here; run a model first with: twotowers run")
    if model is None:
        named = [run for run in runs if _names(figure, run) and figure_id(run, figure) in figures_of(run)]
        return _only(named or runs, "--model")
    name = Path(model).name
    found = [run for run in runs if run.name == name] or [run for run in runs if _model(run) in (model, name)]
    if not found:
        raise UnknownNameError("run of a model", model, [run.name for run in runs])
    return _only(found, "--model and the run's name")


def command_of(run: RunFolder) -> str:
    """The command that makes a run, or brings it up to date; of a folder of the user's only its name is known."""
    facts = run.record_or_empty()["run"]
    usual = {"model": "MODEL", "task": "words", "scale": "book"}
    command = "twotowers run " + " ".join(f"--{name} {shlex.quote(facts.get(name, usual[name]))}" for name in usual)
    names = {field.name for field in fields(Loading)}
    command += Loading(**{name: way for name, way in facts.get("loading", {}).items() if name in names}).options()
    return command + (f" --seed {facts['seed']}" if facts.get("seed") else "")


def figures_of(run: RunFolder) -> dict[str, str]:
    """The figures of a run that is complete or not, each with its chapter, in the order of chapters."""
    chapters: Mapping[str, Any] = run.record()["chapters"]
    return {figure: chapter for chapter, made in chapters.items() for figure in figure_ids(run.name, made["files"])}


def require_own_name(run: RunFolder) -> None:
    """Refuse a folder that was renamed, or copied under another name: its files and anchors have that of its run.

    Raises:
        RunNameError: it was.
    """
    for figure in figures_of(run):
        made_as, behind, _ = figure.partition("_")
        if behind:
            raise RunNameError(
                f"The folder {run.name} holds the run {made_as}, whose name is in its pages and files; give it that "
                f"name again, or take it out of book/runs."
            )


def figure_id(run: RunFolder, figure: str) -> str:
    """The id of a figure of this run, of which the anchor or a file may have been named."""
    name = figure.removeprefix(f"fig-{run.name}-")
    return name if name != figure else Path(figure).stem.removeprefix(f"{run.name}_")


def _names(figure: str, run: RunFolder) -> bool:
    """Whether an anchor or file of this run is named, not just an id."""
    return figure.startswith(f"fig-{run.name}-") or Path(figure).stem.startswith(f"{run.name}_")


def _of_run(run: RunFolder, figure: str, others: Mapping[str, Any]) -> dict[str, Any]:
    name, known = figure_id(run, figure), figures_of(run)
    if name not in known:
        raise UnknownNameError("figure", name, [*known, *others], f" (of the run {run.name})")
    file = f"{figure_stem(run.name, name)}.json"
    return told_of_figure(run.read(file, run.digest_in_record(file)), f"{run.name}/{file}")


def _alone(root: Path) -> dict[str, Path]:
    """The records of figures that belong to no run."""
    return {file.stem: file for file in sorted((root / "book" / "bench" / "figures").glob("*.json"))}


def _of_toy(root: Path) -> dict[str, Any]:
    with own_folder(root / "_build", "toy") as folder:
        toy.page(folder)
        return dict(json.loads((folder / "figures" / f"{toy.FIGURE}.json").read_text(encoding="utf-8")))


def _only(runs: list[RunFolder], how: str) -> RunFolder:
    if len(runs) == 1:
        return runs[0]
    for run in runs:
        if run.name == DEFAULT:
            return run
    raise WhichRunError(f"Several runs may be meant; name one with {how}: {', '.join(run.name for run in runs)}")


def _model(run: RunFolder) -> str:
    return str(run.record()["run"].get("model", ""))

"""Run chapters through papermill, each into the model's run folder, and only when something has changed.

A chapter is executed in a temporary folder beside its destination and moved there when it is complete, so an
interrupted run leaves what was finished before, and nothing half-written.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from . import errors
from .check import require
from .errors import ChapterError, RunFolderError, UnknownNameError, UserError
from .registry import REGISTRY
from .study import Study, find_scale, open_study
from .tasks import load_task

CHAPTERS = ("task", "locate", "knockout", "shallow", "values", "towers", "imbalance", "order", "claims")
# What a chapter reads of the run folder: heads.json is written by the knock-out chapter, claims by most.
READS = dict.fromkeys(("values", "towers", "imbalance", "order"), "heads.json") | {"claims": "claims/*.json"}
ENDINGS = ("svg", "png", "csv", "json")  # the files of a figure
OUTSIDE = {"cli.py", "pipeline.py", "site.py"}  # rooms that no result depends on


@dataclass(frozen=True)
class Outcome:
    """One line of the summary at the end of a run."""

    model: str
    chapter: str
    state: str
    seconds: float
    figures: int


def project_root() -> Path:
    """The checkout that holds the book: around the working folder, else the one this package is installed from.

    Raises:
        RunFolderError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[2]):
        if (folder / "book" / "chapters").is_dir() and (folder / "_config.yml").is_file():
            return folder
    raise RunFolderError("There is no book here; run the command inside a clone of Two Towers.")


def chapters_run(key: str) -> int:
    """How many chapters of a model have been run in this checkout; 0 outside of one."""
    try:
        folder = project_root() / "book" / "runs" / key
    except RunFolderError:
        return 0
    return sum((folder / f"{chapter}.ipynb").is_file() for chapter in CHAPTERS)


def run(
    model: str,
    *,
    chapters: Sequence[str] = CHAPTERS,
    task: str = "words",
    scale: str = "book",
    seed: int = 0,
    force: bool = False,
) -> list[Outcome]:
    """Bring the chapters of one model up to date and return what was done.

    Everything that can be known without weights is checked first: names, task, labels, prompts, run folder.

    Raises:
        UserError: something asked for is not possible; nothing has been written.
        ChapterError: a chapter stopped with an error that is ours.
    """
    for name in chapters:
        if name not in CHAPTERS:
            raise UnknownNameError("chapter", name, CHAPTERS)
    model, task, study = prepare(model, task, scale, seed)
    root = project_root()
    folder = root / "book" / "runs" / study.model.key
    try:
        _require_writable(folder)
        record = _read_record(folder)
        names = _with_needs(chapters, folder)
        if force or not all(_up_to_date(folder, record, name, _digest(root, name, study, folder)) for name in names):
            _check(study, folder, record)
    except BaseException:
        with contextlib.suppress(OSError):  # a model that cannot be run leaves no empty folder
            folder.rmdir()
            folder.parent.rmdir()
        raise
    parameters = {"model": model, "task": task, "scale": scale, "seed": seed}
    done = []
    for number, name in enumerate(names, start=1):
        begun = time.monotonic()
        digest = _digest(root, name, study, folder)  # now: it covers what earlier chapters have just written
        stale = force or not _up_to_date(folder, record, name, digest)
        if stale:
            print(f"[{number}/{len(names)}] {study.model.key}: {name}", file=sys.stderr, flush=True)
            figures = _execute(root, folder, name, parameters)
            seconds = time.monotonic() - begun
            record["chapters"][name] = {
                "digest": digest,
                "seconds": round(seconds, 1),
                "figures": figures,
                "scale": scale,
                "task": study.task.name,
                "seed": seed,
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            }
            _write_record(folder, record)
        entry = record["chapters"][name]
        state = "run" if stale else "up to date"
        done.append(Outcome(study.model.key, name, state, entry["seconds"], len(entry["figures"])))
    return done


def prepare(model: str, task: str, scale: str, seed: int) -> tuple[str, str, Study]:
    """Model and task as a chapter may name them from its own folder, and their study; loads no weights.

    Raises:
        UserError: names, labels, lengths or lists that are not possible.
    """
    find_scale(scale)
    task = str(Path(task).resolve()) if Path(task).is_file() else task
    load_task(task)  # before a model is looked for, which may take longer
    model = str(Path(model).resolve()) if model not in REGISTRY and Path(model).is_dir() else model
    study = open_study(model, task, scale, seed)
    _ = study.selection, study.evaluation
    return model, task, study


def _with_needs(chapters: Sequence[str], folder: Path) -> list[str]:
    """The chapters in the order of the book, with the knock-out chapter if one needs its heads and lacks them."""
    needed = any(READS.get(name) == "heads.json" for name in chapters) and not (folder / "heads.json").is_file()
    return [name for name in CHAPTERS if name in chapters or (name == "knockout" and needed)]


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b" ")
        for left in folder.glob(".tmp-*"):  # of a run that was killed
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()
    except OSError as error:
        raise _folder_error(folder, error) from error


def _folder_error(folder: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"The run folder {folder} cannot be written ({error.strerror}); free space there or make it writable."
    )


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {}
    return {"model": {}, "check": {}, "chapters": {}} | record


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    temporary = folder / ".tmp-run.json"
    try:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        temporary.replace(folder / "run.json")
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise _folder_error(folder, error) from error


def _digest(root: Path, chapter: str, study: Study, folder: Path) -> str:
    """What decides whether a chapter is up to date: its text, parameters, model, data, our code, and what it reads."""
    package = Path(__file__).parent
    read = sorted(folder.glob(READS[chapter])) if chapter in READS else []
    sources = [_source(root, chapter), *sorted(package.glob("*.py")), *read]
    code = [hashlib.sha256(f.read_bytes()).hexdigest() for f in sources if f.name not in OUTSIDE]
    facts = [code, study.model.provenance(), study.task.digest, repr(study.scale), study.seed]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _source(root: Path, chapter: str) -> Path:
    return root / "book" / "chapters" / f"{chapter}.md"


def _up_to_date(folder: Path, record: dict[str, Any], chapter: str, digest: str) -> bool:
    entry = record["chapters"].get(chapter, {})
    figures = [folder / "figures" / f"{f}.{ending}" for f in entry.get("figures", ()) for ending in ENDINGS]
    files = [folder / f"{chapter}.ipynb", *figures]
    return entry.get("digest") == digest and all(file.is_file() for file in files)


def _check(study: Study, folder: Path, record: dict[str, Any]) -> None:
    """Measure the identities on this model, once for these weights and this code; refuse one that fails."""
    package = Path(__file__).parent
    rooms = ("architecture", "families", "trace", "interventions", "prompts", "project", "check", "models")
    code = "".join(hashlib.sha256((package / f"{room}.py").read_bytes()).hexdigest() for room in rooms)
    facts = study.model.provenance()
    digest = hashlib.sha256((json.dumps(facts, sort_keys=True) + code).encode()).hexdigest()
    if record["check"].get("digest") == digest:
        return
    print(f"{study.model.key}: checking the identities", file=sys.stderr, flush=True)
    table = require(study.model)
    record["model"] = facts
    record["check"] = {"digest": digest, "identities": json.loads(table.to_json(orient="records"))}
    _write_record(folder, record)
    study.model.forget_weights()  # the chapters load their own
    gc.collect()


def _execute(root: Path, folder: Path, chapter: str, parameters: Mapping[str, Any]) -> list[str]:
    """Execute one chapter in a temporary folder, move its files into place, and return its figure ids."""
    temporary = Path(tempfile.mkdtemp(prefix=f".tmp-{chapter}-", dir=folder))
    environment = {
        "TWOTOWERS_RUN": str(temporary),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin make a busy machine many times slower
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        notebook = jupytext.read(_source(root, chapter))
        executed = papermill.execute_notebook(
            notebook,
            None,
            parameters,
            kernel_name="python3",
            cwd=str(temporary),
            progress_bar={"desc": chapter, "leave": False, "file": sys.stderr},
            stderr_file=sys.stderr,
            extra_arguments=["--IPKernelApp.log_level=50"],  # no word of the kernel about its sockets
            start_timeout=300,
            execution_timeout=1800 if parameters["scale"] == "smoke" else None,
        )
        nbformat.write(_clean(executed, parameters), temporary / f"{chapter}.ipynb")
        return _move(temporary, folder, chapter)
    except PapermillExecutionError as error:
        raise _explained(chapter, error) from error
    except DeadKernelError as error:
        raise ChapterError(
            f"The kernel of chapter '{chapter}' died, most likely for lack of memory; use a smaller scale or model."
        ) from error
    except OSError as error:
        raise _folder_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _move(temporary: Path, folder: Path, chapter: str) -> list[str]:
    """Move figures, claims and heads, and last the chapter that shows them."""
    notebook, written = temporary / f"{chapter}.ipynb", []
    for file in sorted(temporary.rglob("*")):
        if file.is_file() and file != notebook:
            target = folder / file.relative_to(temporary)
            target.parent.mkdir(exist_ok=True)
            file.replace(target)
            written.append(target)
    notebook.replace(folder / notebook.name)
    return sorted({file.stem for file in written if file.parent.name == "figures"})


def _clean(notebook: Any, parameters: Mapping[str, Any]) -> Any:
    """The executed notebook as it is published: without progress bars, timings, local paths and execution counts."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        tags = [tag for tag in cell.metadata.get("tags", []) if tag != "injected-parameters"]
        if "injected-parameters" in cell.metadata.get("tags", []):
            tags.append("remove-cell")
            cell.source = "\n".join(f"{name} = {_published(value)!r}" for name, value in parameters.items())
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = None
    return notebook


def _published(value: Any) -> Any:
    """A parameter without a local path: of a folder or file only its name."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _explained(chapter: str, error: PapermillExecutionError) -> Exception:
    """A user's mistake that only showed inside the kernel, or ours, in one sentence each."""
    known = getattr(errors, error.ename, None)
    if isinstance(known, type) and issubclass(known, UserError):
        return UserError(error.evalue)
    if error.ename == "OSError":
        return RunFolderError(f"Chapter '{chapter}' could not write its files ({error.evalue}); free space there.")
    return ChapterError(f"Chapter '{chapter}' stopped with {error.ename}: {error.evalue}")

"""The folder of a run: its names, reading, writing and locks."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from ..errors import HeadError, RunFolderError
from ..study import Study
from ..tracing.heads import Head


def claim_path(name: str) -> Path:
    return run_folder() / "claims" / f"{name}.json"


def write_claim(name: str, record: dict[str, object]) -> None:
    claim_path(name).parent.mkdir(parents=True, exist_ok=True)
    claim_path(name).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_claim(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_selected(serving: Mapping[str, Sequence[Head]]) -> None:
    """Keep the in-context heads of each label in the run folder, for the chapters after this one."""
    every = sorted({head for heads in serving.values() for head in heads})
    record = {label: [list(head) for head in heads] for label, heads in serving.items()}
    run_folder().mkdir(parents=True, exist_ok=True)
    (run_folder() / "heads.json").write_text(json.dumps(record | {"all": every}) + "\n", encoding="utf-8")


def read_selected(study: Study) -> dict[str, list[Head]]:
    """The in-context heads that the knock-out chapter selected: a list for each label, and `all` of them.

    Raises:
        HeadError: the knock-out chapter has not been run for this model.
    """
    for folder in (run_folder().parent, run_folder()):
        if (folder / "heads.json").is_file():
            record = json.loads((folder / "heads.json").read_text(encoding="utf-8"))
            return {name: [(int(layer), int(head)) for layer, head in heads] for name, heads in record.items()}
    raise HeadError(f"The in-context heads of {study.model.name} are not selected yet; run the chapter knockout first.")


LEFT_AFTER = 7 * 24 * 3600.0  # seconds after which another machine's temporary folder counts as left behind


def project_root() -> Path:
    """The checkout that holds the book: around the working folder, else the one this package is installed from.

    Raises:
        RunFolderError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[3]):
        if (folder / "book" / "chapters").is_dir() and (folder / "_config.yml").is_file():
            return folder
    raise RunFolderError("There is no book here; run the command inside a clone of Two Towers.")


def require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b" ")
        for left in folder.glob(".tmp-*"):
            if not _in_use(left):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)
    except OSError as error:
        raise folder_error(folder, error) from error


def own_prefix() -> str:
    """How the names of temporary things of this process begin."""
    return f".tmp-{socket.gethostname()}-{os.getpid()}-"


def _in_use(temporary: Path) -> bool:
    """Whether a temporary file or folder belongs to a run that still goes on, perhaps on another machine."""
    if not temporary.name.startswith(f".tmp-{socket.gethostname()}-"):
        return time.time() - temporary.stat().st_mtime < LEFT_AFTER and temporary.name.count("-") > 2
    number = temporary.name.removeprefix(f".tmp-{socket.gethostname()}-").split("-")[0]
    return number.isdecimal() and psutil.pid_exists(int(number))


def folder_error(folder: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"The run folder {folder} cannot be written ({error.strerror}); free space there or make it writable."
    )


def read_record(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {}
    return {"model": {}, "check": {}, "chapters": {}} | record


def update_record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Read the record, change it and write it; other chapters, here or on other machines, wait for their turn."""
    temporary = folder / f"{own_prefix()}run.json"
    try:
        with FileLock(folder.parent / f".{folder.name}.lock"):
            record = read_record(folder)
            change(record)
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            temporary.replace(folder / "run.json")
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise folder_error(folder, error) from error


def move(temporary: Path, folder: Path, chapter: str) -> list[str]:
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


def run_folder() -> Path:
    """Where a chapter's files go, named by TWOTOWERS_RUN; without the pipeline, a hidden folder beside the notebook."""
    return Path(os.environ.get("TWOTOWERS_RUN") or ".twotowers-run")

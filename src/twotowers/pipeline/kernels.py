"""Execute a chapter in a kernel of its own, through papermill, and clean what is published of it.

Several chapters may be executed side by side, in threads: nothing here changes the process's environment or folder.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from .. import errors
from ..errors import ChapterError, RunFolderError, UserError
from ..publishing.crowd import remove
from .machine import peak_memory
from .texts import notebook_of

logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it would log, we say in one sentence


class Kernels:
    """Starts the kernels of one run, so that all of them can be ended at once.

    Attributes:
        peaks: the most memory that the kernel of each workplace has held, in bytes, once it was asked to end.
    """

    def __init__(self) -> None:
        self.peaks: dict[Path, int | None] = {}
        self.live: list[AsyncKernelManager] = []
        self.ended = False

    def manager(self, variables: Mapping[str, str], folder: Path) -> type[AsyncKernelManager]:
        """A class of kernels of this Python with environment variables of their own, as nbclient asks for one.

        Args:
            folder: where a kernel's connection file lies: with the chapter's other temporary files, so that a run that
                is killed leaves it nowhere else.
        """
        kernels = self

        class ChapterKernel(AsyncKernelManager):
            environment: ClassVar[dict[str, str]] = dict(variables)

            @property
            def kernel_spec(self) -> KernelSpec:  # not one that the user has registered under the same name
                command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
                return KernelSpec(argv=command, display_name="Python 3", language="python")

            def __init__(self, **options: Any) -> None:
                super().__init__(**options)
                self.connection_file = str(folder / "kernel.json")

            async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
                if kernels.ended:
                    raise DeadKernelError("Kernel was not started")
                await super()._async_start_kernel(env={**os.environ, **self.environment}, **options)
                kernels.live.append(self)

            async def shutdown_kernel(self, *arguments: Any, **options: Any) -> None:  # type: ignore[override]
                if process := getattr(self.provisioner, "process", None):
                    kernels.peaks[folder.parent] = peak_memory(process.pid)
                await super()._async_shutdown_kernel(*arguments, **options)

        return ChapterKernel

    def end(self) -> None:
        """Kill every kernel; the chapters in them stop with a `ChapterError`."""
        self.ended = True
        for kernel in self.live:
            process = getattr(kernel.provisioner, "process", None)
            if process is not None:
                process.kill()


def execute(
    source: Path,
    parameters: Mapping[str, Any],
    folder: Path,
    kernels: Kernels,
    stream: Any,
    *,
    threads: int | None = None,
    labels: int = 2,
) -> None:
    """Execute the chapter at `source` in `folder`, where it leaves its files, and write it there, cleaned.

    Args:
        threads: of the kernel's arithmetic; by default as many as PyTorch likes.
        labels: of a prompt.

    Raises:
        UserError: a mistake of the user's that showed only in the kernel.
        ChapterError: the chapter stopped or took too long, or its kernel died.
    """
    chapter = source.stem
    connection = folder / ".kernel"
    connection.mkdir()
    variables = {
        "TOKENIZERS_PARALLELISM": "false",
        "IPYTHONDIR": str(connection),  # no profile at home: neither made there, nor read, as it may change results
        # transformers' progress bars would rather be widgets; in a book nobody could see them.
        "PYTHONWARNINGS": ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), "ignore:IProgress not found"))),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin make a busy machine many times slower
        # Activations are large and short-lived: glibc would give each back to the system and have it cleared
        # again. With these it keeps them up to a size; without one the heap grows by a half, and nothing is faster.
        "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the largest that glibc takes
        "MALLOC_TRIM_THRESHOLD_": str(2**28),
    }
    if threads is not None and "OMP_NUM_THREADS" not in os.environ:
        variables["OMP_NUM_THREADS"] = str(threads)
    try:
        executed = papermill.execute_notebook(
            notebook_of(source, labels),
            None,
            dict(parameters),
            kernel_name="python3",
            kernel_manager_class=kernels.manager(variables, connection),
            resources={"metadata": {"path": str(folder)}},
            progress_bar=False,
            stderr_file=stream,
            extra_arguments=["--IPKernelApp.log_level=50"],  # no word of the kernel about its sockets
            start_timeout=300,
            iopub_timeout=3600,  # of a cell that is done, whose output a busy machine may be slow to hand over
            execution_timeout=1800 if parameters["scale"] == "smoke" else None,
        )
    except PapermillExecutionError as error:
        raise _explained(chapter, error) from error
    except CellTimeoutError as error:
        raise ChapterError(
            f"Chapter '{chapter}' was given up because a cell of it took too long; run the same command again when the "
            f"machine is less busy."
        ) from error
    except DeadKernelError as error:
        raise ChapterError(
            f"The kernel of chapter '{chapter}' died, most likely for lack of memory; use a smaller scale or model, or "
            f"--jobs 1."
        ) from error
    remove(connection)
    nbformat.write(_clean(executed, parameters), folder / f"{chapter}.ipynb")


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
            cell.source = "\n".join(f"{name} = {_published(name, value)!r}" for name, value in parameters.items())
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = None
    return notebook


def _published(name: str, value: Any) -> Any:
    """A parameter as a reader may have it: of a folder or file only its name, and nothing of the run's own places."""
    if name in ("folder", "reads"):
        return type(value)()
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _explained(chapter: str, error: PapermillExecutionError) -> Exception:
    """A user's mistake that only showed inside the kernel, or ours, in one sentence each."""
    known = getattr(errors, error.ename, None)
    if isinstance(known, type) and issubclass(known, UserError):
        return UserError(error.evalue)
    if error.ename in ("MemoryError", "OutOfMemoryError") or any(words in error.evalue for words in errors.NO_MEMORY):
        return errors.MemoryLimitError(
            f"There is too little memory for chapter '{chapter}'; use a smaller scale or model, a smaller dtype, or "
            f"--jobs 1."
        )
    if error.ename in ("OSError", "PermissionError"):
        return RunFolderError(f"Chapter '{chapter}' could not write its files ({error.evalue}); free space there.")
    return ChapterError(f"Chapter '{chapter}' stopped with {error.ename}: {error.evalue}")

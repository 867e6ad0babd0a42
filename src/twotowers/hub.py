"""What comes from the hub: how long it is waited for, where it is kept here, and the library that reads data sets."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from .errors import TaskError

HUB_TIMEOUT = 5.0  # seconds until the hub counts as out of reach


def cache_folder() -> Path:
    """Where converted weights, digests and samples are kept; `TWOTOWERS_CACHE` moves it."""
    return Path(os.environ.get("TWOTOWERS_CACHE") or platformdirs.user_cache_path("twotowers"))


def first_line(error: BaseException) -> str:
    """Another library's error in one line, to stand in a sentence of ours; the next, too, if it has the reason."""
    if isinstance(error, KeyError):
        return f"unknown or missing: {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".")


def datasets_library(purpose: str) -> Any:
    """The module `datasets`, imported only when it is needed: it takes a second.

    Raises:
        TaskError: it is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise TaskError(
            f"{purpose} needs the package datasets; run: python -m pip install -c constraints.txt -e '.[sentences]'"
        ) from None
    return datasets


@contextlib.contextmanager
def quiet(datasets: Any) -> Iterator[None]:
    """Without progress bars, warnings and download counters; a lost connection is told soon, not after minutes."""
    settings = {"HF_UPDATE_DOWNLOAD_COUNTS": False, "STREAMING_READ_MAX_RETRIES": 2, "STREAMING_OPEN_MAX_RETRIES": 2}
    before = {name: getattr(datasets.config, name) for name in settings}
    level, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(logging.CRITICAL)  # its errors are told in a sentence of ours
    datasets.disable_progress_bars()
    for name, value in settings.items():
        setattr(datasets.config, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(datasets.config, name, value)
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()

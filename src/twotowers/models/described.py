"""The network that a configuration describes, without weights; transformers without its reports."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM

from ..errors import ModelError, out_of_memory
from ..hub import first_line


def described(folder: Path, config: Any, dtype: torch.dtype | None = None) -> nn.Module:
    """The network of a configuration, whose weights take no memory.

    Args:
        dtype: of its weights, unless it is the configuration's own.

    Raises:
        ModelError: transformers can build none of it, though each setting is of a right kind.
    """
    if sys.flags.optimize > 1:
        raise ModelError(
            "Python has dropped its docstrings, of which transformers makes models; unset PYTHONOPTIMIZE, or leave out "
            "-OO."
        )
    try:
        with quiet_transformers(), torch.device("meta"):
            how = {"attn_implementation": "eager"} | ({} if dtype is None else {"dtype": dtype})
            network: nn.Module = AutoModelForCausalLM.from_config(config, **how)
            return network
    except Exception as error:  # whatever a setting that cannot be makes a module raise
        if out_of_memory(error):
            raise
        raise ModelError(
            f"No model can be made of the configuration in {folder} ({first_line(error)}); mend its config.json, or "
            f"take the original one."
        ) from error


def require_running(folder: Path, network: Any) -> None:
    """Refuse a network that loads but that transformers itself cannot run, as it is, over one token.

    Raises:
        ModelError: with what it stops at.
    """
    device = network.get_input_embeddings().weight.device
    token = torch.zeros(1, 1, dtype=torch.long, device="cpu" if device.type == "meta" else device)
    try:
        with quiet_transformers(), torch.no_grad():
            network(token)
    except Exception as error:  # whatever a setting that cannot be makes a module raise
        if out_of_memory(error):
            raise
        raise ModelError(
            f"The model in {folder} loads, but transformers cannot run it ({first_line(error)}); mend its config.json, "
            f"or take the original one."
        ) from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without the report of missing tensors, since we say it in one sentence, and what bitsandbytes could do faster."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()

"""What the process around a call has set, on which no result may depend.

A notebook may have set torch's default dtype or device, autocast or inference mode, for its own work; other threads may
use the same model. Every public function that takes a model is `undisturbed`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import ParamSpec, TypeVar

import torch
from nnsight.intervention.interleaver import Mediator

from ..errors import ModelError
from .packed import look_again

P = ParamSpec("P")
R = TypeVar("R")
DEVICES = ("cpu", "cuda", "mps", "xpu")  # whose autocast is switched off
_turn = threading.RLock()  # nnsight runs one trace at a time


def undisturbed(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose results do not depend on what is set around it; threads take turns.

    Raises:
        ModelError: by the function, where it is called in the body of a trace.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with _turn, own_settings():
            return function(*args, **kwargs)

    return call


@contextmanager
def own_settings() -> Iterator[None]:
    """Torch as it is without settings of others: they stand again behind it."""
    _require_no_trace()
    look_again()
    with ExitStack() as settings:
        if torch.is_inference_mode_enabled():
            settings.enter_context(torch.inference_mode(False))
        for device in filter(torch.is_autocast_enabled, DEVICES):
            settings.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":  # a context of its own slows every call of torch
            settings.enter_context(torch.device("cpu"))
        if (dtype := torch.get_default_dtype()) != torch.float32:
            torch.set_default_dtype(torch.float32)
            settings.callback(torch.set_default_dtype, dtype)
        yield


def _require_no_trace() -> None:
    with suppress(ValueError):
        Mediator.current("a trace")
        raise ModelError("A trace is running, in whose body no other can run; call this outside of `with ...trace`.")

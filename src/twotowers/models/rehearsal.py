"""A rehearsal of a server, without one: a trace is read where this package is not installed, and run here."""

from __future__ import annotations

import io
import linecache
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import zstandard
from cloudpickle.cloudpickle import subimport
from nnsight import TransformersModel
from nnsight.intervention.serialization import CustomCloudUnpickler
from nnsight.ndif import pull_env
from nnsight.schema.request import RequestModel
from nnsight.tracing.backend import Backend
from nnsight.tracing.util import push

from .server import Traffic


class Rehearsal(Backend):
    """As `Server`, without one: a trace is serialised, read without this package, and what was read runs here.

    This is stricter than nnsight's `remote="local"`, which reads the request but then runs the original, and which
    finds every installed package again.
    """

    def __init__(self, nn: TransformersModel, traffic: Traffic) -> None:
        self._nn, self._traffic = nn, traffic

    def __call__(self, tracer: Any) -> None:
        pull_env()
        blob = RequestModel.serialize(tracer, compress=True)
        with _kept_source(tracer.info.frame.f_code.co_filename):
            restored = RequestModel.deserialize(
                blob, self._nn._remoteable_persistent_objects(), compress=True, unpickler=WithoutUs
            )
        frame = restored.info.frame
        before = dict(frame.f_locals)
        restored.execute(restored.info.code)
        saved = {name: value for name, value in frame.f_locals.items() if value is not before.get(name)}
        answer = io.BytesIO()
        torch.save(saved, answer)
        self._traffic.count(len(blob), len(zstandard.ZstdCompressor().compress(answer.getvalue())))
        answer.seek(0)
        push(tracer.info.frame, torch.load(answer, weights_only=False))


@contextmanager
def _kept_source(file: str) -> Iterator[None]:
    """Reading a request leaves the source of its body under the file's name; the file's own is put back."""
    own = linecache.cache.get(file)
    try:
        yield
    finally:
        linecache.cache.pop(file, None)
        if own is not None:
            linecache.cache[file] = own


class WithoutUs(CustomCloudUnpickler):
    """Reads a request where this package is not installed.

    Raises:
        ModuleNotFoundError: the request needs it.
    """

    def find_class(self, module: str, name: str) -> Any:
        _refuse_ours(module)
        found = super().find_class(module, name)
        return _import_others if found is subimport else found


def _import_others(module: str) -> Any:
    _refuse_ours(module)
    return subimport(module)


def _refuse_ours(module: str) -> None:
    if module.partition(".")[0] == "twotowers":
        raise ModuleNotFoundError(f"a request needs {module}, which a server does not have")

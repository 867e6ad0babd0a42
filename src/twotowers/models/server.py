"""Running traces on a server that has the model (NDIF): what is asked of it first, and what goes there and back.

nnsight sends the source of a trace's body, and the values that it uses, to a server that does not have this package.
A body may therefore use torch, nnsight, tensors, numbers, lists and lambdas (which travel by their source), but no
function or class of ours. `Rehearsal` enforces that without a server.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import re
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nnsight
import torch
from nnsight import CONFIG, TransformersModel
from nnsight.intervention.backends.display import StatusDisplay
from nnsight.intervention.backends.remote import RemoteBackend, RemoteError
from nnsight.tracing.backend import Backend
from torch import Tensor

from ..errors import ServerError
from .architecture import submodule

NDIF = "https://api.ndif.us"
TIMEOUT = 10.0  # seconds until a server counts as out of reach
NETWORK = {"httpx", "httpcore", "websocket", "socket", "ssl"}  # packages whose errors mean a lost connection


@dataclass
class Traffic:
    """Bytes sent to a server and received from it, compressed as they travel, in a number of requests.

    Attributes:
        log: a file that takes a line for each request, for another process to read with `noted`.
    """

    sent: int = 0
    received: int = 0
    requests: int = 0
    log: Path | None = None

    def count(self, sent: int, received: int) -> None:
        self.sent, self.received, self.requests = self.sent + sent, self.received + received, self.requests + 1
        if self.log is not None:
            with contextlib.suppress(OSError), self.log.open("a", encoding="ascii") as log:
                log.write(f"{sent} {received}\n")

    @classmethod
    def noted(cls, log: Path) -> Traffic:
        """The sum of what a process has noted; nothing if it had nothing to note."""
        total = cls()
        if not log.is_file():
            return total
        for line in log.read_text(encoding="ascii").splitlines():
            sent, received = map(int, line.split())
            total = cls(total.sent + sent, total.received + received, total.requests + 1)
        return total

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.sent + other.sent, self.received + other.received, self.requests + other.requests)

    def __str__(self) -> str:
        plural = "" if self.requests == 1 else "s"
        return f"sent {_size(self.sent)}, received {_size(self.received)} in {self.requests} request{plural}"


def _size(n: int) -> str:
    return f"{n / 2**20:.1f} MiB" if n >= 2**20 else f"{n / 2**10:.1f} KiB"


# Before anything runs


def host() -> str:
    """The server's address without the scheme, as a message or a provenance names it."""
    return str(CONFIG.API.HOST).partition("://")[2].rstrip("/")


def require_key() -> None:
    """NDIF wants a key; a server of one's own says itself whether it does.

    Raises:
        ServerError: there is none.
    """
    if not CONFIG.API.APIKEY and CONFIG.API.HOST == NDIF:
        raise ServerError(_no_key("has no key of yours"))


def find_deployment(repo: str, revision: str | None) -> str:
    """The server's own name for a hub model that it runs, once the versions of both sides are known to fit.

    Raises:
        ServerError: the server cannot be reached, lacks the model, or is of another version.
    """
    _require_version()
    running = [
        entry
        for entry in _ask("status").get("deployments", {}).values()
        if entry.get("application_state", "RUNNING") == "RUNNING" and entry.get("model_key")
    ]
    for entry in running:
        same = str(entry.get("repo_id")).lower() == repo.lower() and entry.get("task") in (None, "text-generation")
        if same and (entry.get("revision") or "main") == (revision or "main"):
            return str(entry["model_key"])
    served = sorted({str(entry.get("repo_id")) for entry in running})
    named = f" at revision {revision}" if revision else ""
    raise ServerError(f"{host()} does not serve {repo}{named} now; it serves: {', '.join(served) or 'no model'}.")


def _require_version() -> None:
    """nnsight's requests, and what a layer of transformers returns, change with the version."""
    theirs = _ask("env").get("packages", {})
    for package, parts in (("nnsight", 2), ("transformers", 1)):
        ours, other = importlib.metadata.version(package), str(theirs.get(package, ""))
        if other and other.split(".")[:parts] != ours.split(".")[:parts]:
            raise ServerError(_other_version(f"{package} {other}, and here is {ours}", f"{package}=={other}"))


def _ask(path: str) -> dict[str, Any]:
    request = urllib.request.Request(f"{CONFIG.API.HOST}/{path}", headers={"ndif-api-key": CONFIG.API.APIKEY or ""})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            told = json.load(answer)
    except urllib.error.HTTPError as error:
        raise _refused(f"{error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        raise _out_of_reach(error) from None
    return told if isinstance(told, dict) else {}


def _stopped(message: str) -> Exception:
    """Why a request has failed, in one sentence; lack of memory there is what lack of memory is here."""
    last = (message.strip().splitlines() or ["no reason given"])[-1].strip().rstrip(".")
    if "out of memory" in message.lower():
        return torch.OutOfMemoryError(last)
    if message.startswith("Failed to send request"):
        return _refused(last.partition(": ")[2])
    return ServerError(f"{host()} stopped a request: {last}.")


def _refused(reason: str) -> ServerError:
    """Why a server does not take a request, from its own words."""
    if re.search(r"api.?key|unauthori[sz]ed|forbidden|\b40[13]\b", reason, re.IGNORECASE):
        return ServerError(_no_key(f"refuses the key ({reason})"))
    if re.search(r"version", reason, re.IGNORECASE):
        return ServerError(_other_version(f"another version ({reason})", "the server's version"))
    return ServerError(f"{host()} refuses a request: {reason}.")


def _no_key(trouble: str) -> str:
    return f"{host()} {trouble}; get one at login.ndif.us and set NDIF_API_KEY to it, or run: nnsight login"


def _other_version(difference: str, wanted: str) -> str:
    return f"{host()} runs {difference}; install {wanted} here, or run the model on this machine."


def _out_of_reach(error: BaseException) -> ServerError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return ServerError(
        f"{host()} cannot be reached ({reason}); look at the network and at NDIF_HOST, and run it again."
    )


# The model, as far as it is here


def meta_model(folder: Path, tokenizer: Any) -> TransformersModel:
    """The nnsight model without weights, with eager attention, for traces that run on a server."""
    model = TransformersModel(str(folder), task="text-generation", tokenizer=tokenizer, attn_implementation="eager")
    model.repo_id, model.args = None, ()  # they travel, and a local folder is nobody else's business
    return model


def read_tensors(nn: TransformersModel, backend: Backend | None, path: str, names: list[str]) -> list[Tensor]:
    """Parameters and buffers of one module, by a trace that stops before the model runs."""
    module = submodule(nn, path)
    with torch.no_grad(), nn.trace({"input_ids": torch.zeros(1, 1, dtype=torch.long)}, backend=backend) as tracer:
        tensors = nnsight.save([getattr(module, name).detach().cpu() for name in names])
        tracer.stop()
    return tensors


# What runs a trace


class Server(RemoteBackend):
    """nnsight's remote backend, which counts bytes, prints nothing, and says in one sentence what went wrong."""

    def __init__(self, nn: TransformersModel, deployed: str, traffic: Traffic) -> None:
        super().__init__(deployed, env=nn._remoteable_get_env())
        self.display = StatusDisplay(enabled=False)
        self._traffic, self._sent, self._received = traffic, 0, 0

    def __call__(self, tracer: Any = None) -> Any:
        try:
            result = super().__call__(tracer)
        except RemoteError as error:
            raise _stopped(str(error)) from None
        except Exception as error:
            if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in NETWORK:
                raise _out_of_reach(error) from None
            raise
        self._traffic.count(self._sent, self._received)
        return result

    def _serialize(self, tracer: Any) -> bytes:
        blob = super()._serialize(tracer)
        self._sent = len(blob)
        return blob

    def finalize(self, content: bytes) -> Any:
        self._received = len(content)
        return super().finalize(content)

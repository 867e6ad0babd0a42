"""Models: opening one, and loading its weights here, or naming those of a server.

`open_model` reads configuration and tokenizer only; weights load when `Model.nn` is first used, so that labels
and prompts are checked before minutes are spent on weights.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from nnsight import TransformersModel
from nnsight.tracing.backend import Backend
from transformers import AutoModelForCausalLM, GenerationConfig

from ..arguments import require_flag, require_kind
from ..errors import FamilyError, MemoryLimitError, ModelError, UnknownNameError, out_of_memory
from ..hub import first_line
from . import parallel
from .architecture import Architecture, submodule
from .described import described, quiet_transformers, require_running
from .families import family_of
from .family import Family, context_length
from .files import find_source, sidecars
from .folder import read_folder
from .memory import free_memory, give_back_memory, own_memory
from .packed import pack_linears
from .parts import Parts
from .quantised import dequantise_linears, method_of, require_method, settings_for, version
from .registry import DTYPES, REGISTRY
from .rehearsal import Rehearsal
from .server import Server, Traffic, find_deployment, host, meta_model, read_tensors, require_key
from .surroundings import undisturbed
from .weights import misfit, renaming, require_fitting, unloadable, weight_bytes

Remote = bool | Literal["local"]


@dataclass
class Model:
    """A model to interpret: name, tokenizer, and weights once `nn` is used.

    Attributes:
        kind: "registry", "folder" or "hub": what the model was found by.
        name: the registry key or hub id that was asked for, or a local folder's name without its path, which is
            published nowhere; `key` is the same, fit for a file's name.
        folder: where configuration, tokenizer and weights lie.
        revision: the hub's commit, if the model is from the hub.
        digest: SHA-256 over the weight files, or of the GGUF file they were converted from.
        dtype: of the weights; for a model on a server of what is sent to it.
        remote: True for a model on a server, of which no weights are here, `deployed` is its name there; "local"
            for a rehearsal, in which traces are serialised as for a server and run here.
        quantise: how the matrices of the blocks are quantised while they load, by bitsandbytes: "nf4", "int8" or not.
        tensor_parallel: the matrices are split over the processes that torchrun has started.
        traffic: what was sent to the server and received from it.
        parts: of long sweeps of this model, which an interrupted command has left.
    """

    kind: str
    name: str
    folder: Path
    revision: str | None
    tokenizer: Any
    config: Any
    dtype: torch.dtype
    device_map: str | dict[str, Any] | None
    template: str
    _digest: Callable[[], str] = field(repr=False)
    _fetch: Callable[[], object] = field(repr=False, default=lambda: None)
    remote: Remote = False
    deployed: str = ""
    quantise: str | None = None
    tensor_parallel: bool = False
    traffic: Traffic = field(default_factory=Traffic, compare=False)
    parts: Parts = field(default_factory=Parts, compare=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        raise ModelError(f"A model cannot be copied with its traces; load {self.name} again.")

    @property
    def key(self) -> str:
        return "".join(c if c.isalnum() or c in "-._" else "-" for c in self.name).strip("-.").lower() or "model"

    @functools.cached_property
    def digest(self) -> str:
        self._fetch()
        return self._digest()

    @functools.cached_property
    def identity(self) -> str:
        """A digest that two models share only if they are the same: of weights, or of what names them on a server."""
        if self.remote is True:
            return hashlib.sha256(f"{self.name}@{self.revision}".encode()).hexdigest()
        return self.digest

    def facts(self) -> dict[str, str]:
        """Everything of this model that decides a number, by names that a reader understands; loads no weights."""
        dtype = "as served" if self.remote is True else str(self.dtype).removeprefix("torch.")
        facts = {"the weights": self.identity, "the template": self.template, "the dtype": dtype}
        if self.quantised:
            facts["the quantisation"] = f"{self.quantised} {version()}"
        return facts | sidecars(self.folder)

    @property
    def family(self) -> Family:
        return family_of(self.config)

    @property
    def quantised(self) -> str | None:
        """How the matrices of the blocks are stored, "nf4", "fp4" or "int8"; None if they are not quantised."""
        return self.quantise or method_of(self.config)

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weights take once they are loaded."""
        return weight_bytes(self.folder, self.dtype, self.quantise)

    @property
    def context_length(self) -> int:
        """Tokens that a prompt may have, see `context_length`."""
        return context_length(self.family, self.config)

    @property
    def pad_id(self) -> int:
        """A token to fill up with; any token of the model would do, since nothing attends to it."""
        token = getattr(self.tokenizer, "pad_token_id", None) or 0
        return token if token < self.config.vocab_size else 0  # some tokenizers add one that the model lacks

    @functools.cached_property
    def nn(self) -> TransformersModel:
        """The nnsight model, with eager attention, so that attention weights can be read.

        Raises:
            ModelError: weights that are missing, truncated, or of another shape than the configuration says, or that
                transformers itself cannot run by it.
        """
        if self.remote is True:
            with quiet_transformers():
                return meta_model(self.folder, self.tokenizer)
        self._fetch()
        self._require_memory()
        device_map = self.device_map or ("cuda" if torch.cuda.is_available() else "cpu" if self.quantised else None)
        how: dict[str, Any] = {"generation_config": GenerationConfig()}  # nothing is generated: that file is not read
        how |= {"quantization_config": settings_for(self.quantise)} if self.quantise else {}
        how |= parallel.options() if self.tensor_parallel else {"device_map": device_map}
        config = copy.deepcopy(self.config)
        config._attn_implementation = "eager"  # it may name another, which is not installed here
        require_fitting(self.folder, described(self.folder, config, self.dtype))
        try:
            with quiet_transformers():
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    self.folder,
                    config=config,
                    dtype=self.dtype,
                    key_mapping=renaming(self.folder),
                    attn_implementation="eager",
                    local_files_only=True,
                    ignore_mismatched_sizes=True,  # they are reported below
                    output_loading_info=True,
                    **how,
                )
        except Exception as error:  # a damaged file may raise anything
            if out_of_memory(error):
                raise
            raise ModelError(unloadable(self.folder, first_line(error))) from error
        network, report = loaded
        if problem := misfit(self.folder, report, network):
            raise ModelError(problem)
        if self.quantised:
            dequantise_linears(network, self.dtype)
        if not self.tensor_parallel:
            require_running(self.folder, network)
            pack_linears(network)
        if self.family.prepare is not None:
            self.family.prepare(network)
        return TransformersModel(network.eval(), task="text-generation", tokenizer=self.tokenizer)

    def _require_memory(self) -> None:
        """Refuse before loading what cannot fit, instead of being killed while loading."""
        if self.tensor_parallel or self.device_map not in (None, "cpu", "cuda"):
            return  # split, or spread by accelerate, which may also put layers on the disk
        needed = self.weight_bytes
        there = own_memory() if self.device_map == "cpu" else free_memory()
        if needed > there:
            advice = "use a machine with more memory"
            if not self.quantised:
                advice = f'quantise it with quantise="nf4", or {advice}'
            if self.dtype == torch.float32:
                advice = 'load it with dtype="bfloat16", or ' + advice
            if torch.cuda.is_available():
                advice = 'spread it with device_map="auto", or ' + advice
            raise MemoryLimitError(
                f"{self.name} needs {needed / 2**30:.1f} GiB for its weights but {there / 2**30:.1f} GiB are free; "
                f"{advice}."
            )

    def backend(self) -> Backend | None:
        """What runs a trace: None for nnsight's own way in this process, a server, or the rehearsal of one."""
        if self.remote is True:
            return Server(self.nn, self.deployed, self.traffic)
        return Rehearsal(self.nn, self.traffic) if self.remote else None

    @functools.cached_property
    def arch(self) -> Architecture:
        if not self.remote:
            return Architecture(self.nn._module)
        network = described(self.folder, self.config)
        return Architecture(network, lambda path, names: read_tensors(self.nn, self.backend(), path, names))

    @property
    def device(self) -> torch.device:
        """Where tensors go to: the model's device; a server moves them there itself."""
        if self.remote is True:
            return torch.device("cpu")
        return submodule(self.nn._module, self.arch.like).weight.device

    def forget_weights(self) -> None:
        """Drop the loaded weights, and give their memory back; they load again with the next use of `nn`."""
        for name in ("nn", "arch"):
            self.__dict__.pop(name, None)
        give_back_memory()

    def provenance(self) -> dict[str, Any]:
        """What identifies this model in a figure's provenance; loads no weights.

        Of a server's weights neither digest nor dtype is known, and the revision is the hub's at that time.
        """
        facts = {"model": self.name, "family": self.config.model_type, "revision": self.revision}
        if self.remote is True:
            return facts | {"weights_sha256": None, "dtype": "as served", "device": f"server {host()}"}
        if self.quantised:
            facts["quantised"] = f"{self.quantised}, by bitsandbytes {version()}"
        return facts | {
            "weights_sha256": self.digest,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        }


@undisturbed
def load(
    name: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device_map: str | dict[str, Any] | None = None,
    revision: str | None = None,
    remote: Remote = False,
    quantise: str | None = None,
    tensor_parallel: bool = False,
) -> Model:
    """Load a model by registry key, local folder (Hugging Face layout) or hub id `owner/name`.

    Args:
        dtype: float32 unless the registry says otherwise.
        device_map: as in transformers; by default the GPU if there is one.
        revision: a commit, branch or tag of the hub.
        remote: True runs every trace on a server (NDIF) that has the model; only configuration and tokenizer are
            here. "local" rehearses that: traces are serialised as for a server, and run here.
        quantise: "nf4" or "int8" stores the matrices of the blocks in 4 or 8 bits (bitsandbytes) and multiplies in
            `dtype`; weights that are quantised so already load as they are.
        tensor_parallel: splits the matrices over the processes of `torchrun --nproc-per-node N SCRIPT`, all of which
            must make the same calls; what they return is whole in each.

    Raises:
        ModelError, FamilyError, UnknownNameError, ServerError: with what to do about it.
    """
    model = open_model(
        name,
        dtype=dtype,
        device_map=device_map,
        revision=revision,
        remote=remote,
        quantise=quantise,
        tensor_parallel=tensor_parallel,
    )
    _ = model.nn
    return model


def open_model(
    name: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device_map: str | dict[str, Any] | None = None,
    revision: str | None = None,
    remote: Remote = False,
    quantise: str | None = None,
    tensor_parallel: bool = False,
) -> Model:
    """As `load`, but reads configuration and tokenizer only; the weights come with the first use of `nn`."""
    require_kind("dtype", dtype, (str, torch.dtype), "a name such as 'bfloat16'")
    require_kind("device_map", device_map, (str, dict), "a word such as 'auto', or a device for each part")
    require_kind("quantise", quantise, str, "'nf4' or 'int8'")
    require_flag("tensor_parallel", tensor_parallel)
    require_kind("remote", remote, (str, bool), "True, or 'local'")
    entry = REGISTRY.get(str(name))
    if not (isinstance(remote, bool) or remote == "local"):
        raise UnknownNameError("way to run remotely", remote, ("local",), hint=" (or give True, or False)")
    if device_map and "meta" in (device_map.values() if isinstance(device_map, dict) else (device_map,)):
        raise ModelError("The device meta holds no weights; leave device_map out, or name devices that do.")
    if remote is True:
        require_key()
    if remote is True and quantise:
        raise ModelError("A server has its weights in its own way; leave the wish to quantise them out.")
    require_method(quantise, None)
    found = find_source(str(name), revision)
    deployed = ""
    if remote is True:
        if found.repo is None:
            raise ModelError(f"{found.name} is not from the hub, and a server runs no other model; give its hub id.")
        deployed = find_deployment(found.repo, revision)
    found.require_revision(revision)
    config, tokenizer = read_folder(found.folder, weights=found.fetch is None and remote is not True)
    if remote is not True:
        require_method(quantise, method_of(config))
    if remote and not family_of(config).on_servers:
        raise FamilyError(f"Models of the family {config.model_type} cannot be read on a server; load the model here.")
    if tensor_parallel:
        if remote or device_map or quantise or method_of(config):
            raise ModelError("A model is split as it is: without a server, device_map and quantised weights.")
        parallel.require(config)
    asked = dtype if dtype is not None else entry.dtype if entry and remote is not True else "float32"
    if asked not in (*DTYPES, *DTYPES.values(), torch.float64):
        raise UnknownNameError("dtype", asked, DTYPES)
    return Model(
        kind=found.kind,
        name=found.name,
        folder=found.folder,
        revision=found.revision,
        tokenizer=tokenizer,
        config=config,
        dtype=DTYPES[asked] if isinstance(asked, str) else asked,
        device_map=device_map,
        template=entry.template if entry else "lines",
        _digest=found.digest,
        _fetch=found.fetch or (lambda: None),
        remote=remote,
        deployed=deployed,
        quantise=quantise,
        tensor_parallel=tensor_parallel,
    )

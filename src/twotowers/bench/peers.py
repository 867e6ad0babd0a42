"""What people would use otherwise, for the benchmark: one forward per head over a padded batch of separate prompts.

This is the one module outside `tracing` that opens an nnsight trace, because it shows how others do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from nnsight import TransformersModel
from torch import Tensor

from ..errors import UserError
from ..models.architecture import Architecture, submodule
from ..prompts.sets import PromptSet


class NoPeerError(UserError):
    """The packages that the benchmark compares with are not installed."""


@dataclass(frozen=True)
class Padded:
    """The prompts of one set, each by itself, padded on the right; what is padded is never read."""

    input_ids: Int[Tensor, "N S"]
    last: Int[Tensor, " N"]

    @classmethod
    def of(cls, s: PromptSet, device: torch.device) -> Padded:
        ids = torch.zeros(len(s.prompts), max(len(prompt.ids) for prompt in s.prompts), dtype=torch.long)
        for row, prompt in enumerate(s.prompts):
            ids[row, : len(prompt.ids)] = torch.tensor(prompt.ids)
        return cls(ids.to(device), torch.tensor([prompt.last for prompt in s.prompts]).to(device))

    def read(self, logits: Float[Tensor, "N S V"]) -> Float[Tensor, "N V"]:
        return logits[torch.arange(len(self.last), device=logits.device), self.last]


class NnsightPeer:
    """A trace per head, as nnsight's tutorials do it: the head's slice of z is set to zero in place."""

    def __init__(self, network: Any, tokenizer: Any) -> None:
        self.arch = Architecture(network)
        self.nn = TransformersModel(network, task="text-generation", tokenizer=tokenizer)

    def without(self, padded: Padded, layer: int, head: int) -> Float[Tensor, "N V"]:
        family, size = self.arch.family, self.arch.d_head
        with torch.no_grad(), self.nn.trace(padded.input_ids):
            attention = submodule(submodule(self.nn, family.blocks)[layer], family.attention)
            submodule(attention, family.out_proj).input[:, :, head * size : (head + 1) * size] = 0
            logits = submodule(self.nn, family.unembed).output[torch.arange(len(padded.last)), padded.last].save()
        return logits


class BridgePeer:
    """`run_with_hooks` per head, as TransformerLens does it.

    Raises:
        NoPeerError: TransformerLens is not installed.
    """

    def __init__(self, network: Any, tokenizer: Any, name: str) -> None:
        try:
            from transformer_lens.model_bridge import TransformerBridge
        except ImportError:
            raise NoPeerError(
                "TransformerLens is not installed; run: python -m pip install -c constraints.txt -e '.[bench]'"
            ) from None
        self.bridge: Any = TransformerBridge.boot_transformers(name, hf_model=network, tokenizer=tokenizer)

    def without(self, padded: Padded, layer: int, head: int) -> Float[Tensor, "N V"]:
        def zero(z: Tensor, hook: Any) -> Tensor:
            z[:, :, head] = 0
            return z

        hooks: Any = [(f"blocks.{layer}.attn.hook_z", zero)]
        with torch.no_grad():
            return padded.read(self.bridge.run_with_hooks(padded.input_ids, fwd_hooks=hooks))

"""Models whose matrices are split over several processes (tensor parallelism), each of which runs the same script.

transformers splits the weights and nnsight hands whole activations to a trace. What neither puts together, attention
weights and the matrices themselves, is gathered here; every process must ask for the same things in the same order.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ModelError

TRIED = ("llama", "mistral", "qwen2", "qwen3", "gpt_neox")


def require(config: Any) -> None:
    """Refuse what cannot be split.

    Raises:
        ModelError: a start without torchrun, a family without a plan, and what does not fit each other:
            heads and processes, or packages.
    """
    size = os.environ.get("WORLD_SIZE", "")
    if not size.isdecimal() or int(size) < 1:
        raise ModelError("A model is split over processes; start them with: torchrun --nproc-per-node N YOUR_SCRIPT")
    if config.model_type not in TRIED or not getattr(config, "base_model_tp_plan", None):
        raise ModelError(
            f"Splitting has not been tried with the family {config.model_type}; spread it with device_map='auto'."
        )
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    if heads % int(size):
        raise ModelError(
            f"{heads} key-value heads cannot be shared evenly by {size} processes; start a number of them that divides "
            f"{heads}."
        )
    if not hasattr(importlib.import_module("transformers.distributed.tensor_parallel"), "_get_parameter_plan"):
        nnsight, transformers = (importlib.metadata.version(name) for name in ("nnsight", "transformers"))
        raise ModelError(
            f"nnsight {nnsight} cannot split a model with transformers {transformers}; take those of constraints.txt."
        )


def options() -> dict[str, Any]:
    """What transformers is told to split a model while it loads."""
    from transformers.distributed import DistributedConfig

    return {"distributed_config": DistributedConfig(tp_plan="auto")}


def whole(weight: Tensor) -> Tensor:
    """A weight put together from its parts; one that is not split as it is."""
    gather = getattr(weight, "full_tensor", None)  # of a DTensor, whose module takes seconds to import
    return weight if gather is None else gather()


def all_heads(weights: Tensor) -> Tensor:
    """Attention weights [B, H, Q, K] of all heads, from those of each process."""
    parts = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, weights.contiguous())
    return torch.cat(parts, dim=1)


def first() -> bool:
    """Whether this is the process that speaks; the only one is."""
    return os.environ.get("RANK", "0") == "0"

"""Which labels' logits a margin compares.

Of two labels it is the gold one's minus the other's. Of more it is the gold one's minus the *mean* of all others, which
is linear, so that it is still the sum of what the parts of a model write into it. Where something is exchanged between
classes, each prompt has a *target*, the label that its answer should move to, and its margin is the gold label's logit
minus the target's: so it turns round, from the intact margin to minus the intact one, whatever the number of labels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UnknownNameError
from ..prompts.sets import PromptSet

NEXT = "next"  # the target that follows the gold label in the order of labels, the first behind the last


def targets(s: PromptSet, towards: str = NEXT) -> Int[Tensor, " N"]:
    """The label that each prompt of a set is to move to: the next one, or a label by its name.

    Prompts whose answer is the chosen label itself have the next one as their target.

    Raises:
        UnknownNameError: neither `next` nor a label of the set.
    """
    if towards not in (NEXT, *s.labels):
        raise UnknownNameError("label to move to", towards, (NEXT, *s.labels))
    if towards == NEXT:
        return following(s)
    chosen = s.labels.index(towards)
    return torch.where(torch.tensor(s.gold) == chosen, following(s), chosen)


def following(s: PromptSet, steps: int = 1) -> Int[Tensor, " N"]:
    """The label so many steps behind the gold one of each prompt, in a circle."""
    return (torch.tensor(s.gold) + steps) % len(s.labels)


def others_of(gold: Int[Tensor, " N"], k: int) -> Int[Tensor, "N k1"]:
    """The other labels of each prompt, from the one that follows the gold one on, in a circle."""
    return (gold[:, None] + torch.arange(1, k)) % k


def differences(labels: Float[Tensor, "N k"], gold: Int[Tensor, " N"]) -> Float[Tensor, "N k1"]:
    """The gold label's logit minus that of each of `others_of`."""
    return labels.gather(1, gold[:, None]) - labels.gather(1, others_of(gold, labels.shape[1]))


def margin_against(
    apart: Float[Tensor, "*any N k1"], gold: Int[Tensor, " N"], target: Int[Tensor, " N"] | None = None
) -> Float[Tensor, "*any N"]:
    """The margin of `differences`: against the mean of all other labels, or against each prompt's target."""
    if target is None:
        return apart.mean(-1)
    place = (target - gold - 1) % (apart.shape[-1] + 1)
    return apart[..., torch.arange(len(gold)), place]


def mean_of_others(gold: Int[Tensor, " N"], k: int) -> Float[Tensor, "N k"]:
    """What each label's logit counts in the margin against the mean of all other labels."""
    own = torch.nn.functional.one_hot(gold, k)
    return own - (1.0 - own) / (k - 1)


def one_other(gold: Int[Tensor, " N"], target: Int[Tensor, " N"], k: int) -> Float[Tensor, "N k"]:
    """What each label's logit counts in the margin against the target."""
    return (torch.nn.functional.one_hot(gold, k) - torch.nn.functional.one_hot(target, k)).float()

"""What is fixed before a claim is measured, as data with a digest: claims, effects, smallest effects, and the rule."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

from ..paper import CLAIMS
from ..statistics import ALPHA, CHANCE, FEWEST

FIXED = ("effect", "smallest", "unit", "control", "needs")  # of a claim
RULE: dict[str, Any] = {
    "unit": "demonstration set",
    "alpha": ALPHA,
    "fewest sets": FEWEST,
    "chance": CHANCE,
    "interval": "t over sets; where all sets are the same, mean -+ (1 - alpha^(1/sets)) in the unit of the effect",
    "standard error": "the larger of the usual one and one clustered by shared category",
    "random groups": "(1 + groups that do as well) / (1 + groups) is at most alpha",
    "control": "above zero by its own one-sided t test at alpha, and there in every set that has an effect",
    "supported": "interval above zero, and every control passed",
    "negligible": "supported, but the mean is below the smallest effect of interest",
    "contradicted": "interval below zero, and not within the smallest effect of interest",
    "absent": "interval within the smallest effect of interest, and not supported",
    "folds": "every other selection set; each half chooses its heads, for claims on in-context heads but C5",
    "unstable": "folds of both signs, unless the effect is absent and each fold within the smallest effect",
    "nothing to cure": "the mean before is below the smallest effect of interest",
    "not testable": "too few sets, or the interval of two-way accuracy is not above chance",
    "many claims": "Holm's step-down on the two-sided p of the interval, over all claims of the ledger",
}


def specification() -> dict[str, Any]:
    """By what every verdict is made: of each claim what is measured and what it has to pass, and the rule."""
    claims = {name: {field: getattr(claim, field) for field in FIXED} for name, claim in CLAIMS.items()}
    return {"claims": claims, "rule": RULE}


@functools.cache
def specification_digest() -> str:
    """SHA-256 of `specification`: another effect, control, smallest effect or rule has another."""
    return hashlib.sha256(json.dumps(specification(), sort_keys=True).encode()).hexdigest()


def short_digest() -> str:
    """Its beginning, as pages show it."""
    return specification_digest()[:12]

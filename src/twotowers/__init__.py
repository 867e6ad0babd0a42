"""Two Towers: how language models learn in context, re-run on any model.

>>> import twotowers
>>> model = twotowers.load("smollm2-135m")
>>> sets = [twotowers.prompt_set(model, [("apple", "foo"), ("saw", "bar")], [("pear", "foo")])]
>>> twotowers.locate(model, sets).heads
>>> twotowers.knockout(model, sets, heads=[(23, 1), (23, 7)])

Every name loads the wing that it lives in when it is first used, so that a command that only prints help need not wait
for PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chapters.imbalance.response import imbalance
    from .chapters.knockout.knockout import knockout
    from .chapters.knockout.scores import head_scores, in_context_heads
    from .chapters.knockout.screen import screen, verify
    from .chapters.locate.locate import Located, locate
    from .chapters.order.order import order
    from .chapters.shallow.blocking import block
    from .chapters.towers.metric import towers
    from .chapters.values.words import read_words
    from .errors import UserError
    from .models.model import Model, load
    from .prompts.sets import PromptSet, prompt_set
    from .publishing.ledger import ledger
    from .statistics import Verdict, holm, judge
    from .tracing.balancing import balance_attention
    from .tracing.check import check
    from .tracing.exchange import exchange
    from .tracing.hand_over import hand_over

__version__ = "0.1.0"
_PLACES = {
    "Located": "chapters.locate.locate",
    "Model": "models.model",
    "PromptSet": "prompts.sets",
    "UserError": "errors",
    "Verdict": "statistics",
    "balance_attention": "tracing.balancing",
    "block": "chapters.shallow.blocking",
    "check": "tracing.check",
    "exchange": "tracing.exchange",
    "hand_over": "tracing.hand_over",
    "head_scores": "chapters.knockout.scores",
    "holm": "statistics",
    "imbalance": "chapters.imbalance.response",
    "in_context_heads": "chapters.knockout.scores",
    "judge": "statistics",
    "knockout": "chapters.knockout.knockout",
    "ledger": "publishing.ledger",
    "load": "models.model",
    "locate": "chapters.locate.locate",
    "order": "chapters.order.order",
    "prompt_set": "prompts.sets",
    "read_words": "chapters.values.words",
    "screen": "chapters.knockout.screen",
    "towers": "chapters.towers.metric",
    "verify": "chapters.knockout.screen",
}
__all__ = [
    "Located",
    "Model",
    "PromptSet",
    "UserError",
    "Verdict",
    "balance_attention",
    "block",
    "check",
    "exchange",
    "hand_over",
    "head_scores",
    "holm",
    "imbalance",
    "in_context_heads",
    "judge",
    "knockout",
    "ledger",
    "load",
    "locate",
    "order",
    "prompt_set",
    "read_words",
    "screen",
    "towers",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

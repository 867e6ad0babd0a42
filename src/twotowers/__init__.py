"""Two Towers: how language models learn in context, re-run on any model.

>>> import twotowers
>>> model = twotowers.load("smollm2-135m")
>>> sets = [twotowers.prompt_set(model, [("apple", "foo"), ("saw", "bar")], [("pear", "foo")])]
>>> twotowers.locate(model, sets).heads
>>> twotowers.knockout(model, sets, heads=[(23, 1), (23, 7)])
"""

from .check import check
from .claims import ledger
from .errors import UserError
from .imbalance import imbalance
from .knockout import knockout
from .locate import Located, locate
from .models import Model, load
from .order import order
from .prompts import PromptSet, prompt_set
from .screen import screen, verify
from .shallow import block
from .towers import towers
from .words import read_words

__version__ = "0.1.0"
__all__ = [
    "Located",
    "Model",
    "PromptSet",
    "UserError",
    "block",
    "check",
    "imbalance",
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

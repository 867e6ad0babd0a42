"""Every public function that takes a model, and the same numbers from plain transformers.

A case gives from a model, and from the same network as plain transformers has it, numbers of equal names and shapes.
Names that begin with "decided" are of counts, ranks and words, which rounding may tip: they count in float32 only.
"""

from __future__ import annotations

from collections.abc import Callable

import silent_changing
import silent_heads
import silent_reading
from plain import Plain
from silent_numbers import Numbers, Sets
from twotowers.models.model import Model

CASES: dict[str, tuple[Callable[[Model, Sets], Numbers], Callable[[Plain, Sets], Numbers]]] = {
    "prompt_set": (silent_reading.ours_prompts, silent_reading.theirs_prompts),
    "capture": (silent_reading.ours_capture, silent_reading.theirs_capture),
    "check": (silent_reading.ours_check, silent_reading.theirs_check),
    "locate": (silent_reading.ours_locate, silent_reading.theirs_locate),
    "knockout": (silent_heads.ours_knockout, silent_heads.theirs_knockout),
    "screen": (silent_heads.ours_screen, silent_heads.theirs_screen),
    "verify": (silent_heads.ours_verify, silent_heads.theirs_verify),
    "exchange": (silent_changing.ours_exchange, silent_changing.theirs_exchange),
    "head_scores": (silent_heads.ours_scores, silent_heads.theirs_scores),
    "hand_over": (silent_changing.ours_hand_over, silent_changing.theirs_hand_over),
    "block": (silent_changing.ours_block, silent_changing.theirs_block),
    "balance_attention": (silent_changing.ours_balance, silent_changing.theirs_balance),
    "towers": (silent_reading.ours_towers, silent_reading.theirs_towers),
    "imbalance": (silent_reading.ours_imbalance, silent_reading.theirs_imbalance),
    "order": (silent_reading.ours_order, silent_reading.theirs_order),
    "read_words": (silent_reading.ours_words, silent_reading.theirs_words),
}

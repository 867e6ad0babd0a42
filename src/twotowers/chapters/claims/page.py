"""What the ledger of claims shows."""

from __future__ import annotations

import pandas as pd

from ...publishing.ledger import NOT_RUN, markdown
from ...publishing.publish import Text
from ...publishing.wording import joined
from ...statistics import (
    ABSENT,
    CONTRADICTED,
    INCONCLUSIVE,
    NEGLIGIBLE,
    NOTHING_TO_CURE,
    SUPPORTED,
    UNSTABLE,
    UNTESTABLE,
)

OTHERS = (CONTRADICTED, ABSENT, NEGLIGIBLE, UNSTABLE, NOTHING_TO_CURE, INCONCLUSIVE, UNTESTABLE, NOT_RUN)
TABLE = Text("claims-table", write=markdown)


def _counts(table: pd.DataFrame) -> str:
    """How many claims got which verdict; of those that are not supported each by name."""
    found = {name: list(table.loc[table["verdict"] == name, "claim"]) for name in (SUPPORTED, *OTHERS)}
    held = len(found[SUPPORTED])
    others = [f"{len(found[name])} {name} ({', '.join(found[name])})" for name in OTHERS if found[name]]
    said = f"Of {len(table)} claims, {held} {'is' if held == 1 else 'are'} supported on this model"
    return f"{said}; the others: {joined(others)}." if others else f"{said}."


COUNTS = Text("claims-counts", write=_counts)

"""What the ledger of claims shows."""

from __future__ import annotations

import pandas as pd

from ...publishing.ledger import NOT_RUN, markdown
from ...publishing.publish import Text
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

TABLE = Text("claims-table", write=markdown)


def _counts(table: pd.DataFrame) -> str:
    """How many claims got which verdict; those are named that need a second look."""

    def number(verdict: str, *, one: str = "", many: str = "") -> str:
        found = int((table["verdict"] == verdict).sum())
        verb = one if found == 1 else many
        return f"{found} {verb}".rstrip()

    def named(verdict: str) -> str:
        claims = ", ".join(table.loc[table["verdict"] == verdict, "claim"])
        return f"{verdict} ({claims})" if claims else verdict

    seldom = [NEGLIGIBLE, UNSTABLE, NOTHING_TO_CURE]
    others = [name for name in seldom if (table["verdict"] == name).any()]
    listed = ", ".join(f"{number(name)} {named(name)}" for name in (CONTRADICTED, ABSENT, *others))
    return (
        f"Of {len(table)} claims, {number(SUPPORTED, one='is', many='are')} supported on this model, {listed} and "
        f"{number(INCONCLUSIVE)} {named(INCONCLUSIVE)}; {number(UNTESTABLE)} could not be tested and "
        f"{number(NOT_RUN, one='has', many='have')} not been run."
    )


COUNTS = Text("claims-counts", write=_counts)

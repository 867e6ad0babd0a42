"""The chapters, in the order of the book, and what each needs of others."""

from __future__ import annotations

CHAPTERS = ("task", "locate", "knockout", "shallow", "values", "towers", "imbalance", "order", "claims")
# What a chapter reads of the run folder: heads.json is written by the knock-out chapter, claims by most.
READS = dict.fromkeys(("values", "towers", "imbalance", "order"), "heads.json") | {"claims": "claims/*.json"}
NEEDS = {"claims": CHAPTERS[:-1]} | {name: ("knockout",) for name, file in READS.items() if file == "heads.json"}

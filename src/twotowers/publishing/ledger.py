"""The ledger: the paper's claims as tests, each with an effect, its 95 % interval and a computed verdict.

A chapter measures an effect, signed so that the paper predicts a positive mean, and calls `record_claim`. The claims
chapter and the atlas only read what was recorded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UnknownNameError
from ..paper import CLAIMS, Claim
from ..statistics import Estimate, estimate
from ..study import Study
from .run_folder import claim_path, read_claim, run_folder, write_claim

SUPPORTED, CONTRADICTED, INCONCLUSIVE, UNTESTABLE = "supported", "contradicted", "inconclusive", "not testable"


@dataclass(frozen=True)
class Verdict:
    """A claim's effect on one model."""

    claim: str
    estimate: Estimate
    verdict: str

    @property
    def sentence(self) -> str:
        """The verdict in words, for a page."""
        claim = CLAIMS[self.claim]
        number = _number(self.estimate, claim)
        paper = f" The paper: {claim.paper}." if claim.paper else ""
        return f"**{self.claim}: {self.verdict}.** {claim.sentence} Effect ({claim.effect}): {number}.{paper}"


def judge(claim: str, effects: pd.DataFrame, *, seed: int = 0) -> Verdict:
    """Verdict from effects, a row per demonstration set or per prompt (`set, effect`); a missing effect is left out.

    *Supported* if the 95 % interval over demonstration sets lies above zero, *contradicted* if below, else
    *inconclusive*; *not testable* if fewer than two sets have an effect.

    Raises:
        UnknownNameError: no such claim.
    """
    if claim not in CLAIMS:
        raise UnknownNameError("claim", claim, CLAIMS)
    effects = effects.dropna(subset="effect")
    if effects["set"].nunique() < 2:
        nothing = float("nan")
        return Verdict(claim, Estimate(nothing, nothing, nothing), UNTESTABLE)
    per_set = effects.groupby("set")["effect"].mean()
    measured = estimate(per_set, list(per_set.index), seed=seed)
    if measured.low > 0:
        return Verdict(claim, measured, SUPPORTED)
    return Verdict(claim, measured, CONTRADICTED if measured.high < 0 else INCONCLUSIVE)


def record_claim(study: Study, claim: str, effects: pd.DataFrame) -> Verdict:
    """Judge a claim and keep the verdict in the run folder; a model that does not do the task gets *not testable*."""
    verdict = judge(claim, effects, seed=study.seed)
    accuracy = read_claim(run_folder().parent / "claims" / "accuracy.json") or read_claim(claim_path("accuracy"))
    if accuracy is not None and accuracy["low"] <= 0.5:
        verdict = dataclasses.replace(verdict, verdict=UNTESTABLE)
    write_claim(claim, dataclasses.asdict(verdict))
    return verdict


def record_accuracy(measured: Estimate) -> None:
    """Keep the intact model's accuracy, which decides whether any claim can be tested on it."""
    write_claim("accuracy", dataclasses.asdict(measured))


def ledger(folder: Path) -> pd.DataFrame:
    """All claims with what a run folder holds of them: `claim, sentence, mean, low, high, verdict, paper`.

    A claim that no chapter has recorded has the verdict "not run".
    """
    rows = []
    for name, claim in CLAIMS.items():
        found = read_claim(folder / "claims" / f"{name}.json")
        numbers = found["estimate"] if found else {"mean": None, "low": None, "high": None}
        verdict = found["verdict"] if found else "not run"
        rows.append({"claim": name, "sentence": claim.sentence, **numbers, "verdict": verdict, "paper": claim.paper})
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """A ledger as a Markdown table."""
    rows = [
        f"| {r.claim!s} | {r.sentence!s} | {_effect(r)} | **{r.verdict!s}** | {str(r.paper) or 'not known'} |"
        for r in table.itertuples()
    ]
    return "\n".join(["| | claim | effect (95% interval) | verdict | the paper |", "|---|---|---|---|---|", *rows])


def atlas(folders: Mapping[str, Path]) -> str:
    """Claims by models as a Markdown table, from run folders by model."""
    ledgers = {model: ledger(folder).itertuples() for model, folder in folders.items()}
    header = ["| claim |" + "".join(f" {model} |" for model in ledgers), "|---|" + "---|" * len(ledgers)]
    rows = [
        f"| {claim}: {text.sentence} |" + "".join(f" **{r.verdict}** {_effect(r)} |" for r in cells)
        for (claim, text), *cells in zip(CLAIMS.items(), *ledgers.values(), strict=True)
    ]
    return "\n".join([*header, *rows])


def _effect(row: Any) -> str:
    """Mean and interval in the unit of the claim; nothing if there is no number."""
    if row.mean is None or pd.isna(row.mean):
        return ""
    return _number(Estimate(row.mean, row.low, row.high), CLAIMS[row.claim])


def _number(effect: Estimate, claim: Claim) -> str:
    """Mean and interval in the unit of the claim, with more digits, up to six, where an effect would look like zero."""
    first, unit, scale = (1, "%", 100) if claim.percent else (3, "f", 1)
    values = [scale * float(x) for x in (effect.mean, effect.low, effect.high) if x != 0]
    digits = next((n for n in range(first, 6) if all(round(x, n) for x in values)), 6)
    return format(effect, f"+.{digits}{unit}")

"""The ledger: the paper's claims as tests, each with an effect, its 95 % interval and a computed verdict.

A chapter measures an effect, signed so that the paper predicts a positive mean, and keeps it for every demonstration
set. Verdicts are made when they are read, so they hang on nothing but effects and the model's accuracy: a model that
does not do the task gets *not testable*.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import DamagedRunError, UnknownNameError
from ..paper import CLAIMS, Claim
from ..statistics import Estimate, estimate, per_set
from .markdown import table_text
from .publish import Text
from .results import read_table
from .run_folder import RunFolder, effects_file, handed_file

SUPPORTED, CONTRADICTED, INCONCLUSIVE, UNTESTABLE = "supported", "contradicted", "inconclusive", "not testable"
NOT_RUN = "not run"
CHANCE = 0.5  # of two labels: a model whose accuracy may be that does not do the task


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
        paper = f" The paper: {claim.paper}." if claim.paper else ""
        effect = f" Effect ({claim.effect}): {number(self.estimate, claim)}." if self.estimate.known else ""
        return f"**{self.claim}: {self.verdict}.** {claim.sentence}{effect}{paper}"


def judge(claim: str, effects: pd.DataFrame, *, accuracy: Estimate | None = None, seed: int = 0) -> Verdict:
    """Verdict from effects, a row per demonstration set or per prompt (`set, effect`); a missing effect is left out.

    *Supported* if the 95 % interval over demonstration sets lies above zero, *contradicted* if below, else
    *inconclusive*; *not testable* if fewer than two sets have an effect, or if the model may be at chance.

    Args:
        accuracy: of the intact model on the task; without it the model is taken to do it.

    Raises:
        UnknownNameError: no such claim.
    """
    if claim not in CLAIMS:
        raise UnknownNameError("claim", claim, CLAIMS)
    means = per_set(effects)
    if len(means) < 2:
        return Verdict(claim, Estimate.unknown(), UNTESTABLE)
    measured = estimate(means["effect"], means["set"], seed=seed)
    if accuracy is not None and not accuracy.low > CHANCE:
        return Verdict(claim, measured, UNTESTABLE)
    if measured.low > 0:
        return Verdict(claim, measured, SUPPORTED)
    return Verdict(claim, measured, CONTRADICTED if measured.high < 0 else INCONCLUSIVE)


def _sentence(claim: str, effects: pd.DataFrame, accuracy: Mapping[str, float], seed: int) -> str:
    return judge(claim, effects, accuracy=Estimate(**accuracy), seed=seed).sentence


def claim_text(claim: str) -> Text:
    """The sentence of a claim's verdict, of `claim`, `effects`, `accuracy` and `seed`."""
    return Text(f"claim-{claim}", _sentence)


def ledger(folder: str | Path) -> pd.DataFrame:
    """All claims with what a run folder holds of them: `claim, sentence, mean, low, high, verdict, paper`.

    A claim whose chapter has not been run has the verdict "not run".

    Raises:
        DamagedRunError: what is there is not what the run has made.
    """
    run = RunFolder(Path(folder))
    files = [handed_file("accuracy"), *map(effects_file, CLAIMS)]
    digests = {file: digest for file in files if (digest := run.digest_in_record(file))}
    return read_ledger(run, digests, seed=int(run.record()["run"].get("seed", 0)))


def read_ledger(run: RunFolder, digests: Mapping[str, str], *, seed: int) -> pd.DataFrame:
    """As `ledger`, of those files of effects, and of accuracy, that are named with their digests."""
    rows, gate = [], handed_file("accuracy")
    for name, claim in CLAIMS.items():
        file, verdict = effects_file(name), Verdict(name, Estimate.unknown(), NOT_RUN)
        if file in digests:
            accuracy = Estimate(**json.loads(run.read(gate, digests.get(gate)))["value"])
            verdict = judge(name, _effects(run, file, digests[file]), accuracy=accuracy, seed=seed)
        numbers = {"mean": verdict.estimate.mean, "low": verdict.estimate.low, "high": verdict.estimate.high}
        rows.append(
            {"claim": name, "sentence": claim.sentence, **numbers, "verdict": verdict.verdict, "paper": claim.paper}
        )
    return pd.DataFrame(rows)


def _effects(run: RunFolder, file: str, digest: str) -> pd.DataFrame:
    run.read(file, digest)
    try:
        return read_table(run.path / file, {"set": "int", "effect": "float"})
    except ValueError as error:
        raise DamagedRunError(f"{run.name}/{file} holds no effects; run the model again to make it.") from error


def markdown(table: pd.DataFrame) -> str:
    """A ledger as a Markdown table."""
    rows = [
        (r.claim, r.sentence, _effect(r), f"**{r.verdict}**", str(r.paper) or "not known") for r in table.itertuples()
    ]
    return table_text(["", "claim", "effect (95% interval)", "verdict", "the paper"], rows)


def atlas(ledgers: Mapping[str, pd.DataFrame]) -> str:
    """Claims by runs as a Markdown table, from the ledgers by the runs' titles."""
    columns = [[f"**{r.verdict}** {_effect(r)}" for r in table.itertuples()] for table in ledgers.values()]
    names = [f"{claim}: {text.sentence}" for claim, text in CLAIMS.items()]
    return table_text(["claim", *ledgers], list(zip(names, *columns, strict=True)))


def _effect(row: Any) -> str:
    """Mean and interval in the unit of the claim; nothing if there is no number."""
    mean, low, high = (getattr(row, name) for name in ("mean", "low", "high"))
    return "" if pd.isna(mean) else number(Estimate(mean, low, high), CLAIMS[row.claim])


def number(effect: Estimate, claim: Claim) -> str:
    """Mean and interval in the unit of the claim, with more digits, up to six, where an effect would look like zero."""
    first, unit, scale = (1, "%", 100) if claim.percent else (3, "f", 1)
    values = [scale * float(x) for x in (effect.mean, effect.low, effect.high) if x != 0]
    digits = next((n for n in range(first, 6) if all(round(x, n) for x in values)), 6)
    return format(effect, f"+.{digits}{unit}")

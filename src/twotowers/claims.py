"""The ledger: the paper's claims as tests, each with an effect, its 95 % interval and a computed verdict.

A chapter measures an effect, signed so that the paper predicts a positive mean, and calls `record_claim`. The claims
chapter and the atlas only read what was recorded.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import UnknownNameError
from .statistics import Estimate, estimate
from .study import Study, run_folder

SUPPORTED, CONTRADICTED, INCONCLUSIVE, UNTESTABLE = "supported", "contradicted", "inconclusive", "not testable"


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        sentence: the paper's statement in our words.
        effect: what is measured; its mean is positive if the claim is right.
        percent: whether the effect is printed in percent.
        paper: the paper's number, with its source, if one is known.
    """

    sentence: str
    effect: str
    percent: bool = False
    paper: str = ""


CLAIMS: dict[str, Claim] = {
    "C1": Claim(
        "Demonstrations merge into their labels in shallow layers.",
        "accuracy lost by cutting text to label in the first third of layers, minus that in the last third",
        percent=True,
    ),
    "C2": Claim(
        "The query merges into the last position in shallow layers.",
        "accuracy lost by cutting query to last position in the first third, minus the same in the last third",
        percent=True,
    ),
    "C3": Claim(
        "Deep attention raises the answer most.",
        "log-probability increase of attention in the deep half minus the shallow half, layer 0 apart (nats)",
    ),
    "C4": Claim(
        "A few heads carry the task.",
        "accuracy lost without the top 1 % of heads, minus that without random heads of the same layers",
        percent=True,
        paper="87.6 % to 24.4 % after zeroing about 1 % of heads (abstract of version 3)",
    ),
    "C5": Claim(
        "A label's heads serve that label and not the other.",
        "accuracy lost on prompts of the heads' own label, minus that on prompts of the other label",
        percent=True,
        paper="accuracy falls on the own label and rises on the other (summaries of version 3)",
    ),
    "C6": Claim(
        "Values carry the labels.",
        "logit minus of in-context heads' values at foo positions, minus that at bar positions (logits)",
        paper="weighted: +0.26 to +0.32 at foo positions, -0.11 to -0.20 at bar positions (summaries of version 3)",
    ),
    "C7": Claim(
        "In-context heads attend more to labels of the query's class.",
        "attention to same-class label positions minus that to others",
        percent=True,
    ),
    "C8": Claim(
        "The weight sets how much label information moves.",
        "rank correlation of attention weight and log-probability increase over label positions",
    ),
    "C9": Claim(
        "Query and key measure similarity.",
        "AUC of q.k for 'same class' minus AUC of the cosine of the same residuals",
    ),
    "C10": Claim(
        "Swapped labels change attention more than values.",
        "relative change of attention minus relative change of values when all labels are swapped",
        paper="attention -21.8 % to -43.0 % and +86.0 % to +237.8 %, values far less (summaries of version 3)",
    ),
    "C11": Claim(
        "A label that is shown more often is predicted more often.",
        "slope of P(foo) between the two labels on the share of foo demonstrations",
    ),
    "C12": Claim(
        "A label that stands near the end is predicted more often.",
        "slope of the prediction of foo on how much nearer its demonstrations stand",
    ),
    "C13": Claim(
        "Adding weighted minority values steadies accuracy.",
        "fluctuation of accuracy when a demonstration is dropped, before minus after the mitigation",
        percent=True,
        paper="fluctuation -22 % (abstract of version 3)",
    ),
    "C14": Claim(
        "Removing position in the in-context heads steadies accuracy.",
        "standard deviation of accuracy over orders, before minus after the mitigation",
        percent=True,
        paper="standard deviation -17 % (abstract of version 3)",
    ),
}


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
    accuracy = _read(run_folder().parent / "claims" / "accuracy.json") or _read(_path("accuracy"))
    if accuracy is not None and accuracy["low"] <= 0.5:
        verdict = dataclasses.replace(verdict, verdict=UNTESTABLE)
    _write(claim, dataclasses.asdict(verdict))
    return verdict


def record_accuracy(measured: Estimate) -> None:
    """Keep the intact model's accuracy, which decides whether any claim can be tested on it."""
    _write("accuracy", dataclasses.asdict(measured))


def ledger(folder: Path) -> pd.DataFrame:
    """All claims with what a run folder holds of them: `claim, sentence, mean, low, high, verdict, paper`.

    A claim that no chapter has recorded has the verdict "not run".
    """
    rows = []
    for name, claim in CLAIMS.items():
        found = _read(folder / "claims" / f"{name}.json")
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


def _path(name: str) -> Path:
    return run_folder() / "claims" / f"{name}.json"


def _write(name: str, record: dict[str, object]) -> None:
    _path(name).parent.mkdir(parents=True, exist_ok=True)
    _path(name).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

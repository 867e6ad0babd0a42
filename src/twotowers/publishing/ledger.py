"""The ledger: the paper's claims as tests, each with an effect, its 95 % interval and a computed verdict.

A chapter measures an effect, signed so that the paper predicts a positive mean, and keeps it for every demonstration
set with what controls it. Verdicts are made when they are read: `statistics.judge` makes that of one claim, and
`statistics.holm` those of a ledger.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..arguments import brief
from ..errors import RunFolderError
from ..paper import CLAIMS, Claim
from ..statistics import DECIDED, Estimate, Verdict, holm
from .evidence import Evidence, read_evidence
from .markdown import escape, stacked, stacking, table_text
from .publish import Facts, Text
from .run_folder import RunFolder, effects_file
from .specification import short_digest

NOT_RUN = "not run"
PAPER = "[The paper:]{.on-phone} "  # where the cells of a table stand below each other, they have no heads
_NAN = float("nan")
_NOTHING = Verdict(NOT_RUN, _NAN, _NAN, _NAN, _NAN)


def sentence(evidence: Mapping[str, Any]) -> str:
    """A claim's verdict by itself, in words, for the page of its chapter."""
    kept = Evidence.of(evidence)
    claim, verdict = CLAIMS[kept.claim], kept.verdict
    alone = " by itself; the ledger corrects for the number of claims" if verdict.verdict in DECIDED else ""
    parts = [f"**{kept.claim}: {verdict.verdict}**{alone}. {claim.sentence}"]
    if verdict.estimate.known:
        effect = f"{number(verdict.estimate, claim)} {claim.unit}, over {verdict.sets} sets"
        parts.append(f"Effect ({claim.effect}): {effect}; smallest effect of interest {plain(claim.smallest, claim)}.")
    if verdict.reason:
        parts.append(f"{verdict.reason[0].upper()}{verdict.reason[1:]}.")
    if passed := _passed(verdict, claim):
        parts.append(f"Control ({claim.control}): {passed}.")
    if claim.paper:
        parts.append(f"The paper: {claim.paper}.")
    return " ".join([*parts, _specified()])


def claim_text(claim: str) -> Text:
    """The sentence of a claim's verdict, of its `evidence`."""
    return Text(f"claim-{claim}", sentence)


def _needs_two(facts: Facts, claims: Sequence[str]) -> str:
    named = " and ".join(claims)
    shown = ", ".join(map(escape, facts.labels))
    return (
        f"This chapter asks for one of two labels. Here a prompt has {len(facts.labels)} ({shown}), so nothing is "
        f"measured, and {named} {'is' if len(claims) == 1 else 'are'} not testable; run a task that shows two classes."
    )


NEEDS_TWO = Text("needs-two-labels", write=_needs_two)  # of a chapter whose question has no meaning with more


def ledger(folder: str | Path) -> pd.DataFrame:
    """All claims with what a run folder holds of them, by Holm over all that it holds.

    A claim whose chapter has not been run has the verdict "not run".

    Returns:
        `claim, sentence, mean, low, high, p, verdict, reason, seed, paper`; p is that of the claim by itself.

    Raises:
        DamagedRunError: what is there is not what the run has made.
    """
    if not isinstance(folder, str | Path) or not os.path.isdir(folder) or not str(folder):
        raise RunFolderError(f"There is no run folder {brief(folder)}; give one, such as book/runs/smollm2-135m.")
    run = RunFolder(Path(folder))
    run.record()  # one that cannot be read is not one without claims
    return read_ledger(run, _recorded(run))


def verdicts_of(run: RunFolder) -> dict[str, Verdict]:
    """The verdicts of `ledger` with all that they rest on, by claim; of claims that were measured only.

    Raises:
        DamagedRunError: what is there is not what the run has made.
    """
    return holm({name: evidence.verdict for name, evidence in _held(run, _recorded(run)).items()})


def _recorded(run: RunFolder) -> dict[str, str]:
    return {file: digest for file in map(effects_file, CLAIMS) if (digest := run.digest_in_record(file))}


def _held(run: RunFolder, digests: Mapping[str, str]) -> dict[str, Evidence]:
    return {
        name: read_evidence(run, name, digests[effects_file(name)]) for name in CLAIMS if effects_file(name) in digests
    }


def read_ledger(run: RunFolder, digests: Mapping[str, str]) -> pd.DataFrame:
    """As `ledger`, of those files of claims that are named with their digests."""
    held, rows = _held(run, digests), []
    verdicts = holm({name: evidence.verdict for name, evidence in held.items()})
    for name, claim in CLAIMS.items():
        made = verdicts.get(name, _NOTHING)
        row = {"claim": name, "sentence": claim.sentence, "mean": made.mean, "low": made.low, "high": made.high}
        row |= {"p": made.p, "verdict": made.verdict, "reason": made.reason}
        rows.append(row | {"seed": str(held[name].seed) if name in held else "", "paper": claim.paper})
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame, links: Mapping[str, str] | None = None) -> str:
    """A ledger as a Markdown table, and what it was made by.

    Args:
        links: an anchor of what shows it, for every claim that has one.
    """
    rows = [
        (
            badge(str(r.verdict)),
            _claim(str(r.claim), links),
            _effect(r),
            r.reason,
            PAPER + (str(r.paper) or "not known"),
        )
        for r in table.itertuples()
    ]
    head = ["verdict", "claim", "effect, positive as the paper says (95% interval)", "why", "the paper"]
    return f"{stacked(table_text(head, rows))}\n\n{seeds(table)} {_specified()}".strip()


def seeds(table: pd.DataFrame) -> str:
    """Over how many seeds a ledger was made, in words."""
    found = sorted({int(seed) for seed in table["seed"] if seed})
    if not found:
        return "No claim has been measured."
    number = "one seed" if len(found) == 1 else f"{len(found)} seeds"
    return f"Made over {number} ({', '.join(map(str, found))})."


def by_seed(table: pd.DataFrame) -> str:
    """How verdicts and effects fell with other seeds, as a Markdown table; nothing of a single seed.

    Args:
        table: `seed, claim, verdict, mean`, a row for each seed and claim.
    """
    found = sorted(set(table["seed"]))
    if len(found) < 2:
        return ""
    rows = []
    for name, part in table.groupby("claim", sort=False):
        own = part.set_index("seed")
        cells = dict.fromkeys(found, "not known")
        for seed, verdict, mean in zip(own.index, own["verdict"], own["mean"], strict=True):
            cells[seed] = f"{verdict} ({mean:+z.3g})" if np.isfinite(mean) else verdict
        rows.append([str(name), *cells.values()])
    return stacking(["claim", *(f"seed {s}" for s in found)], rows)


def atlas(ledgers: Mapping[str, pd.DataFrame], links: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Claims by runs as a Markdown table, from the ledgers by the runs' titles, and what they were made by.

    Args:
        links: for each title as in `markdown`.
    """
    columns = [
        [f"[{title}]{{.on-phone}} {_cell(r, (links or {}).get(title))}" for r in table.itertuples()]
        for title, table in ledgers.items()
    ]
    names = [f"{name}: {claim.sentence}" for name, claim in CLAIMS.items()]
    made = [f"{title}: {seeds(table)}" for title, table in ledgers.items()]
    table = stacked(table_text(["claim", *ledgers], list(zip(names, *columns, strict=True))))
    return "\n\n".join([table, *made, _specified()])


def badge(verdict: str) -> str:
    """A verdict as a word that the style sheet gives a mark and a colour."""
    name = "".join(c if c.isalpha() else "-" for c in verdict.rpartition(", ")[2])
    return f"[{verdict}]{{.verdict .verdict-{name}}}"


def _specified() -> str:
    return f"Specification `{short_digest()}`."


def _passed(verdict: Verdict, claim: Claim) -> str:
    """What the controls of a verdict gave, in words; nothing if there were none."""
    parts = []
    if verdict.control is not None and verdict.control.known:
        parts.append(number(verdict.control, claim))
    if verdict.random_p is not None:
        parts.append(f"random groups that do as well, these heads counted, are {verdict.random_p:.1%}")
    return "; ".join(parts)


def _claim(name: str, links: Mapping[str, str] | None) -> str:
    said = f"{name}: {CLAIMS[name].sentence}"
    return f"[{said}](#{links[name]})" if links and name in links else said


def _cell(row: Any, links: Mapping[str, str] | None) -> str:
    """Verdict, effect and why, in the order of their weight."""
    parts = [badge(row.verdict), _effect(row) + (f": {row.reason}" if row.reason else "")]
    parts += [f"[shown here](#{links[row.claim]})"] if links and row.claim in links else []
    return " ".join(filter(None, parts))


def _effect(row: Any) -> str:
    """Mean and interval with the unit of the claim; nothing if there is no interval."""
    effect, claim = Estimate(row.mean, row.low, row.high), CLAIMS[row.claim]
    return f"{number(effect, claim)} {claim.unit}" if effect.known else ""


def number(effect: Estimate, claim: Claim) -> str:
    """Mean and interval in the unit of the claim, with more digits, up to six, where an effect would look like zero."""
    first, unit, scale = (1, "%", 100) if claim.percent else (3, "f", 1)
    values = [scale * float(x) for x in (effect.mean, effect.low, effect.high) if x != 0]
    digits = next((n for n in range(first, 6) if all(round(x, n) for x in values)), 6)
    return format(effect, f"+z.{digits}{unit}")


def plain(value: float, claim: Claim) -> str:
    """A number in the unit of the claim, without a sign."""
    return f"{value:.3g}" if not claim.percent else f"{100 * value:.3g}%"

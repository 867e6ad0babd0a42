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
from .evidence import Evidence, Judged, read_evidence
from .markdown import escape, stacked, stacking, table_text
from .publish import Facts, Text
from .run_folder import RunFolder, effects_file
from .specification import short_digest
from .wording import groups_as_good, said

NOT_RUN = "not run"
FEW = 0.001  # a share that would look like none
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
        effect = f"{measured(verdict.estimate, claim)}, over {verdict.sets} sets"
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
            "; ".join(filter(None, [_effect(r), str(r.reason)])),
            PAPER + (str(r.paper) or "not known"),
        )
        for r in table.itertuples()
    ]
    head = ["verdict", "claim", "effect, positive as the paper says (95% interval)", "the paper"]
    return f"{stacked(table_text(head, rows))}\n\n{seeds(table)} {_specified()}".strip()


def seeds(table: pd.DataFrame) -> str:
    """With which seeds a ledger was made, in words."""
    found = sorted({int(seed) for seed in table["seed"] if seed})
    if not found:
        return "No claim has been measured."
    return f"Made with {'seed' if len(found) == 1 else 'seeds'} {', '.join(map(str, found))}."


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
            shown = format(float(mean), "+z.1%" if CLAIMS[str(name)].percent else "+z.2f")
            cells[seed] = f"{verdict} ({shown})" if np.isfinite(mean) else verdict
        rows.append([str(name), *cells.values()])
    return stacking(["claim", *(f"seed {s}" for s in found)], rows)


def atlas(ledgers: Mapping[str, pd.DataFrame], links: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Claims by runs as a Markdown table, from the ledgers by the runs' titles, and what they were made by.

    Args:
        links: for each title as in `markdown`.
    """
    columns = [
        [f"[{title}]{{.on-phone}} {_cell(r, title, (links or {}).get(title))}" for r in table.itertuples()]
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
        parts.append(random_groups(verdict, verdict.random_p))
    return "; ".join(parts)


def random_groups(verdict: Verdict, share: float) -> str:
    """How many random groups do as well; of a verdict that does not know how many there were, their share."""
    if isinstance(verdict, Judged) and verdict.groups:
        return groups_as_good(verdict.as_good, verdict.groups)
    part = f"{share:.1%}" if share >= FEW else f"less than {FEW:.1%}"
    return f"{part} of random groups, these heads counted, do as well"


def _claim(name: str, links: Mapping[str, str] | None) -> str:
    told = f"{name}: {CLAIMS[name].sentence}"
    return f"[{told}](#{links[name]})" if links and name in links else told


def _cell(row: Any, title: str, links: Mapping[str, str] | None) -> str:
    """Verdict, effect and why, in the order of their weight, and the way to what shows them, which says where to."""
    said = [": ".join(filter(None, (_effect(row), row.reason)))]
    said += [f"[see {row.claim} in {title}](#{links[row.claim]})"] if links and row.claim in links else []
    return " ".join(filter(None, (badge(row.verdict), "; ".join(filter(None, said)))))


def _effect(row: Any) -> str:
    """Mean and interval with the unit of the claim; nothing if there is no interval."""
    effect, claim = Estimate(row.mean, row.low, row.high), CLAIMS[row.claim]
    return measured(effect, claim) if effect.known else ""


def measured(effect: Estimate, claim: Claim) -> str:
    """Mean and interval with the unit of the claim."""
    small = nothing(effect, claim)
    return f"less than {small} {claim.unit} either way" if small else f"{number(effect, claim)} {claim.unit}"


def number(effect: Estimate, claim: Claim) -> str:
    """Mean and interval in the unit of the claim, with up to two more digits where a bound that has a sign would look
    like zero; of an effect that is nothing, only that it is."""
    if small := nothing(effect, claim):
        return f"less than {small} either way"
    first, unit, scale = (1, "%", 100) if claim.percent else (3, "f", 1)
    nearest = scale * min(abs(effect.low), abs(effect.high)) if effect.low * effect.high > 0 else 1.0
    digits = next((n for n in range(first, first + 3) if round(nearest, n)), first)
    return said(effect, f"+z.{digits}{unit}")


def nothing(effect: Estimate, claim: Claim) -> str:
    """A hundredth of what would matter, if all of an interval is smaller; else nothing."""
    small = claim.smallest / 100
    largest = max(abs(effect.low), abs(effect.high), abs(effect.mean))
    return plain(small, claim) if effect.known and largest < small else ""


def plain(value: float, claim: Claim) -> str:
    """A number in the unit of the claim, without a sign."""
    return f"{value:.3g}" if not claim.percent else f"{100 * value:.3g}%"

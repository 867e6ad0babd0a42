"""The ledger's page: what it says of given verdicts, without a run."""

import re
import warnings

import pandas as pd
import pytest

from facts import make_facts
from twotowers.chapters.claims import page
from twotowers.paper import CLAIMS
from twotowers.publishing.publish import call
from twotowers.publishing.shown import Shown

ALL = len(CLAIMS)
MANY = {**dict.fromkeys(CLAIMS, "supported"), "C2": "contradicted", "C9": "contradicted", "C4": "inconclusive",
        "C6": "absent", "C11": "not testable", "C12": "not testable", "C13": "not run",
        "C14": "nothing to cure"}  # fmt: skip
COUNTS = {
    "many": (MANY, f"Of {ALL} claims, {ALL - 8} are supported on this model; the others: 2 contradicted (C2, C9), "
             "1 absent (C6), 1 nothing to cure (C14), 1 inconclusive (C4), 2 not testable (C11, C12) and 1 not run "
             "(C13)."),
    "one is": (dict.fromkeys(CLAIMS, "absent") | {"C3": "supported"}, f"Of {ALL} claims, 1 is supported on this "
               f"model; the others: {ALL - 1} absent ({', '.join(name for name in CLAIMS if name != 'C3')})."),
    "all": (dict.fromkeys(CLAIMS, "supported"), f"Of {ALL} claims, {ALL} are supported on this model."),
}  # fmt: skip


def ledger_of(verdicts, mean=0.25, spread=0.125):
    unknown = float("nan")
    rows = []
    for claim, verdict in verdicts.items():
        numbers = [unknown] * 3 if verdict == "not run" else [mean, mean - spread, mean + spread]
        rows.append((claim, CLAIMS[claim].sentence, *numbers, verdict, "why", "3", CLAIMS[claim].paper))
    names = ["claim", "sentence", "mean", "low", "high", "verdict", "reason", "seed", "paper"]
    return pd.DataFrame(rows, columns=names)


@pytest.mark.parametrize(("verdicts", "expected"), COUNTS.values(), ids=COUNTS)
def test_verdicts_are_counted_and_those_to_look_at_are_named(verdicts, expected):
    assert call(page.COUNTS.write, make_facts(), {"table": ledger_of(verdicts)}) == expected


def test_the_table_has_a_row_for_each_claim():
    lines = call(page.TABLE.write, make_facts(), {"table": ledger_of(MANY)}).splitlines()
    assert len(lines) == 1 + 2 + len(CLAIMS) + 1 + 2
    assert lines[-1].startswith("Made with seed 3. Specification `")
    third, fourth, last = (next(line for line in lines if f"| {c}: " in line) for c in ("C3", "C4", "C13"))
    assert third.startswith("| [supported]{")
    assert third.endswith("| +25.0% (+12.5% to +37.5%) of the intact margin; why | [The paper:]{.on-phone} not known |")
    assert fourth.startswith("| [inconclusive]{")
    assert "| +25.0% (+12.5% to +37.5%) of accuracy; why | [The paper:]{.on-phone} 87.6% to 24.4%" in fourth
    assert last.startswith("| [not run]{")
    assert "| why | [The paper:]{.on-phone} fluctuation -22%" in last


@pytest.mark.parametrize("verdicts", [MANY, dict.fromkeys(CLAIMS, "not run"), dict.fromkeys(CLAIMS, "not testable")])
@pytest.mark.parametrize(("mean", "spread"), [(0.25, 0.125), (0.0, 0.0), (-0.0001, 0.0), (1.0, 0.0)])
def test_everything_can_be_kept_and_written_again(tmp_path, verdicts, mean, spread):
    shown = Shown(tmp_path, "claims", make_facts())
    table = ledger_of(verdicts, mean, spread)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for item in (page.TABLE, page.COUNTS):
            shown.add(item, {"table": table})
            text = Shown.read(tmp_path, "claims").render(item)
            assert text == call(item.write, make_facts(), {"table": table})
            assert not re.search(r"\b(nan|inf)\b|-0(\.0+)?(?![.\d])|\b1 (are|have)\b", text), text

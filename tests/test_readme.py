"""What the README says of the default model is what is expected of it."""

import json
import re
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
EXPECTED = ROOT / "book" / "expected" / "smollm2-135m"
SEED = 0


def effect(ledger, claim):
    """A share of the margin, with its interval."""
    row = ledger.loc[claim]
    return f"{row['mean']:.0%} ({row['low']:.0%} to {row['high']:.0%})"


def listed(parts):
    return ", ".join(parts[:-1]) + f" and {parts[-1]}"


def test_the_result_is_not_typed():
    table = pd.read_csv(EXPECTED / "ledger.csv")
    ledger = table[table["seed"] == SEED].set_index("claim")
    heads = json.loads((EXPECTED / "heads.json").read_text())[str(SEED)]["all"]
    supported = int((ledger["verdict"] == "supported").sum())
    said = (
        f"In the default model, SmolLM2-135M, the queries of {len(heads)} of its 270 heads, exchanged between the "
        f"classes at the last position, take {effect(ledger, 'C9')} of the answer's margin, and their values "
        f"{effect(ledger, 'C6')}; of {len(ledger)} claims {supported} are supported. "
    )
    others = table[table["seed"] != SEED]
    means = [f"{mean:.0%}" for mean in others[others["claim"] == "C9"]["mean"]]
    counts = [str((part["verdict"] == "supported").sum()) for _, part in others.groupby("seed")]
    said += f"With other seeds it is {listed(means)} (C9), and {listed(counts)} claims are supported."
    assert said in " ".join((ROOT / "README.md").read_text().replace("*", "").split())


def test_the_central_figure_is_there():
    shown = "book/expected/smollm2-135m/towers-exchange.svg"
    assert f"]({shown})" in (ROOT / "README.md").read_text()
    assert "<svg" in (ROOT / shown).read_text()


def test_every_link_leads_to_a_file():
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []

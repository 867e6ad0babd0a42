"""Nothing is silently wrong: each public function on each family once; `python tests/silent.py` tries all ways."""

from dataclasses import replace
from functools import partial

import pytest
import torch

import twotowers
from plain import Plain
from silent import CRASHED, EQUAL, FAMILIES, REFUSED, WAYS, WRONG, Way, load, outcome, save, sets_for, sort, table
from silent_cases import CASES
from twotowers.models import families
from twotowers.tracing import check

ELSEWHERE = {"check", "verify"}  # of every family in `test_families`; a screen and a knock-out


@pytest.mark.parametrize("family", FAMILIES)
def test_every_function_answers_as_plain_transformers(family, tmp_path):
    rows = list(sort(family, ["float32"], [case for case in CASES if case not in ELSEWHERE], tmp_path, most=1))
    assert [row for row in rows if row[3] != EQUAL] == []


@pytest.mark.parametrize("way", [way for way in WAYS if way != "float32"])
def test_every_way_to_run_is_equal_or_refused_by_name(way, tmp_path):
    (row,) = sort("llama-gqa", [way], ["balance_attention"], tmp_path, most=1)
    assert row[3] == (REFUSED if WAYS[way].switch else EQUAL), row


def test_another_attention_is_refused_in_one_sentence(tmp_path):
    """flex_attention would end the process, and sdpa gives no weights."""
    model = load(save(FAMILIES["qwen3"], tmp_path / "tiny"), Way(switch="sdpa"))
    with pytest.raises(twotowers.UserError, match=r"of tiny was switched to sdpa, .*set_attn_implementation"):
        twotowers.knockout(model, sets_for(model, Way()), heads=[])
    model.nn._module.set_attn_implementation("eager")
    assert len(twotowers.knockout(model, sets_for(model, Way()), heads=[])) == 1


def test_what_is_silently_wrong_is_called_so(tmp_path, monkeypatch):
    """Logits that Cohere scales behind our reading: far beyond rounding, and no word of it."""
    monkeypatch.setitem(families.FAMILIES, "cohere", replace(families.FAMILIES["cohere"], prepare=None))
    rows = list(sort("cohere", ["float32"], ["prompt_set", "capture", "exchange"], tmp_path))
    assert [row[3] for row in rows] == [EQUAL, WRONG, WRONG]
    assert "logits by" in rows[1][4]
    assert "1 silently wrong" in table(rows)


@pytest.mark.parametrize(("family", "kind"), [("mixtral", REFUSED), ("mistral", WRONG)])
def test_an_identity_that_rounding_breaks_is_a_refusal_where_experts_are_chosen_alone(
    family, kind, tmp_path, monkeypatch
):
    monkeypatch.setitem(check.TOLERANCE, torch.bfloat16, 1e-9)
    (row,) = sort(family, ["bfloat16"], ["check"], tmp_path)
    assert row[3] == kind
    assert ("a rounding may send a token to other experts" in row[4]) == (kind == REFUSED)


def test_what_stops_without_a_name_is_called_so():
    def stop():
        raise KeyError("x")

    assert outcome(stop, dict)[0] == CRASHED


def test_what_is_changed_moves_the_answers(tmp_path):
    """Two ways agree easily where nothing happens."""
    plain = Plain(save(FAMILIES["llama-gqa"], tmp_path / "tiny"))
    model = load(tmp_path / "tiny", Way())
    sets = sets_for(model, Way())
    intact = CASES["exchange"][1](plain, sets)["none margin"]
    for case in ("exchange", "hand_over", "block", "balance_attention"):
        for name, found in partial(CASES[case][1], plain, sets)().items():
            if name.endswith("margin") and name not in UNMOVED:
                assert abs(found - intact).max() > 1e-4, name


# Nothing behind the last layer but the last position matters, and its token is the same in all prompts.
UNMOVED = {"none margin", *(f"{place} False 4 margin" for place in ("text", "text+separator", "label", "query"))}
UNMOVED |= {f"last {within} 0 margin" for within in (False, True)}

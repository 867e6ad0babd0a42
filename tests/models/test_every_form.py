"""Some forms of all families, each equal or refused by name; `python tests/every_form.py` tries every one."""

from dataclasses import replace

import pytest

from every_form import CRASHED, EQUAL, NONE, REFUSED, WRONG, forms, sort
from silent import FAMILIES as CONFIGS
from twotowers.models import families

FIRST = {config.model_type: family for family, config in reversed(CONFIGS.items())}  # of several forms the first
SOME = [(family, name, value) for family in FIRST.values() for name, value in forms(family)][::37]


@pytest.mark.parametrize(("family", "name", "value"), SOME)
def test_a_form_is_equal_or_refused_by_name(family, name, value, tmp_path):
    kind, note = sort(family, name, value, tmp_path)
    assert kind in (EQUAL, REFUSED, NONE), note


def test_a_form_that_is_read_wrongly_is_called_so(tmp_path, monkeypatch):
    monkeypatch.setitem(families.FAMILIES, "qwen3", replace(families.FAMILIES["qwen3"], query_norm=None))
    kind, note = sort("qwen3", "attention_bias", True, tmp_path)
    assert kind in (WRONG, CRASHED)
    assert note


@pytest.mark.parametrize(
    ("family", "name", "value"),
    [("mixtral", "num_local_experts", 1), ("helium", "head_dim", 24), ("olmo3", "sliding_window", None)],
)
def test_what_transformers_cannot_run_is_refused_by_name(family, name, value, tmp_path):
    """It stopped within an analysis, with an error of another library, or gave numbers that nothing can confirm."""
    kind, note = sort(family, name, value, tmp_path)
    assert kind == NONE
    assert "loads, but transformers cannot run it (" in note

"""The model that comes with the package does its task on pairs it was never trained on; its training data say why."""

import json
import re
from importlib import resources

import pandas as pd
import pytest

import twotowers
from twotowers.models.model import REGISTRY
from twotowers.publishing.record import FIELDS
from twotowers.study import open_study
from twotowers.toy import page as toy_page
from twotowers.toy.data import held_out
from twotowers.tracing.check import check
from twotowers.tracing.outcomes import outcomes


@pytest.fixture(scope="module")
def model():
    return twotowers.load("toy-gpt2")


def test_it_answers_held_out_pairs_in_the_packages_own_prompts(toy_words):
    study = open_study("toy-gpt2")
    number = dict(zip(toy_words.names, range(len(toy_words.names)), strict=True))
    group = {text: number[c] for c, halves in study.task.texts.items() for half in halves.values() for text in half}
    held = held_out(toy_words)
    sets = [s for s in study.sets("evaluation", n_sets=96) if held[tuple({group[t] for t, _ in s.queries})]]
    assert len(sets) >= 15
    assert outcomes(study.model, sets, [[]])["accuracy"].mean() >= 0.9


def test_identities_hold_on_it(model):
    assert check(model)["holds"].all()


def test_registry_counts_its_weights(model):
    assert REGISTRY["toy-gpt2"].parameters == model.nn._module.num_parameters() <= 3_000_000
    assert (
        len({model.arch.model.get_input_embeddings().weight.data_ptr(), model.nn._module.lm_head.weight.data_ptr()})
        == 2
    )


def test_the_page_takes_its_numbers_from_the_record(tmp_path):
    text = toy_page.page(tmp_path / "_toy")
    record = json.loads((resources.files("twotowers") / "toy" / "toy-gpt2" / "training.json").read_text())
    assert f"{record['parameters']:,} parameters" in text
    assert record["command"] in text
    assert ":name: fig-toy-training" in text
    files = {file.suffix: file for file in (tmp_path / "_toy" / "figures").iterdir()}
    assert set(files) == {".svg", ".png", ".pdf", ".csv", ".json"}
    made = json.loads(files[".json"].read_text())["provenance"]
    assert set(FIELDS) <= set(made)
    assert made["weights_sha256"] == open_study(toy_page.NAME).model.digest


@pytest.mark.parametrize("chapters", [["task"], ["shallow"], ["task", "knockout"], ["shallow", "knockout"]])
def test_the_page_leads_only_to_chapters_that_are_there(chapters):
    """With one chapter of the toy's run alone, the site was not built."""
    text = toy_page._links(chapters)
    assert re.findall(r"<runs/toy-gpt2/(\w+)>", text) == [name for name in chapters if name != "task"]
    assert text[0].isupper()
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("at_last", "at_query", "part"), [(0.6, 0.1, "where the paper's analyses look"), (0.1, 0.6, "before")]
)
def test_the_page_says_where_the_comparison_stands(at_last, at_query, part):
    curve = pd.DataFrame({"match_last": [0.0, at_last], "match_query": [0.0, at_query], "hand_on": [0.0, 0.9]})
    text = toy_page._reading(curve)
    assert part in text
    assert "0.60" in text

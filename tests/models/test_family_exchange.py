"""In every family margins alone are those of the answers of an exchange, which `test_silent` has from plain hooks."""

import pytest

import twotowers
from conftest import make_sets
from family_configs import CONFIGS, save
from twotowers.tracing.exchange import exchanges


@pytest.fixture(scope="module")
def models(tiny_models, tmp_path_factory):
    made = tmp_path_factory.mktemp("families")
    return {**tiny_models, **{name: twotowers.load(save(own, made / name)) for name, own in CONFIGS.items()}}


@pytest.fixture(params=["gpt2", "llama-mha", "llama-gqa", *CONFIGS])
def model(request, models):
    return models[request.param]


def test_margins_alone_are_those_of_the_answers(model):
    """Where the unembedding has a bias, too."""
    sets, choices = make_sets(model), [([], "none"), ([(1, 3)], "values"), ([(0, 2), (2, 0)], "query-other")]
    table = exchanges(model, sets, choices)
    assert "accuracy" not in table
    for number, (heads, part) in enumerate(choices):
        whole, own = twotowers.exchange(model, sets, heads, part), table[table["group"] == number]
        for column in ("set", "query", "accuracy_two_way", "margin"):
            assert own[column].to_numpy() == pytest.approx(whole[column].to_numpy(), abs=1e-4)

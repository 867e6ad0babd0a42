"""The default model does the task, and its most harmful heads, chosen on other words, carry it."""

import numpy as np
import pytest

from twotowers.chapters.knockout.screen import verify
from twotowers.chapters.knockout.serving import named_groups
from twotowers.statistics import estimate
from twotowers.study import Scale, Study, open_study
from twotowers.tracing.heads import pairs, random_heads

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def study():
    book = open_study("smollm2-135m")
    small = Scale("test", selection_sets=2, evaluation_sets=16, shots=8, queries=8, draws=3)
    return Study(book.model, book.task, small, seed=0)


@pytest.fixture(scope="module")
def effects(study):
    """Outcomes on the evaluation half of the top 1 % of heads of the selection half, and of random heads.

    The top is that of an exact sweep over the tenth of all heads that a screen takes to be the most harmful.
    """
    arch = study.model.arch
    top = pairs(verify(study.model, study.selection, share=0.1), round(0.01 * arch.n_layers * arch.n_heads))
    rng = np.random.default_rng(0)
    groups = {"intact": [], "top": top} | {
        f"random {i}": random_heads(top, arch.n_heads, rng) for i in range(study.scale.draws)
    }
    table = named_groups(study.model, study.evaluation, groups)
    print({name: round(part["accuracy"].mean(), 3) for name, part in table.groupby("name")}, top)
    return table


def test_the_model_answers_at_least_80_percent_over_the_full_vocabulary(effects):
    assert effects[effects["name"] == "intact"]["accuracy"].mean() >= 0.8


def test_the_top_heads_cost_at_least_10_points_more_than_random_ones(effects):
    means = effects.groupby("name")["accuracy"].mean()
    control = means[means.index.str.startswith("random")].mean()
    assert control - means["top"] >= 0.10
    wide = effects.pivot(index=["set", "query"], columns="name", values="accuracy")
    gap = wide.filter(like="random").mean(axis=1) - wide["top"]
    assert estimate(gap, gap.index.get_level_values("set")).low > 0


def test_halves_share_no_word(study):
    selection, evaluation = (
        {text for s in sets for text, _ in (*s.demonstrations, *s.queries)}
        for sets in (study.selection, study.evaluation)
    )
    assert not selection & evaluation

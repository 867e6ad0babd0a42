"""Controls: which groups stand beside the in-context heads, and what is told of planted effects."""

import pandas as pd
import pytest

from twotowers.statistics import judge
from twotowers.tracing.controls import (
    GROUPS,
    INTACT,
    OTHERS,
    control_groups,
    is_random,
    more_than_others,
    number_drawn,
    random_effects,
    removed,
)
from twotowers.tracing.heads import CHOSEN, deep_heads, random_groups


def planted(sets=10, **left):
    """An effect of 1 in every set, and what each group leaves of it."""
    return pd.DataFrame(
        [(heads, s, effect + 0.001 * s) for heads, effect in {INTACT: 1.0, **left}.items() for s in range(sets)],
        columns=["heads", "set", "effect"],
    )


def test_random_groups_are_as_many_other_deep_heads(tiny_gpt2):
    heads = [(2, 0), (3, 1)]
    groups = control_groups(tiny_gpt2, heads)
    assert groups[CHOSEN] == heads
    assert groups[OTHERS] == deep_heads(tiny_gpt2, heads)
    drawn = [group for name, group in groups.items() if is_random(pd.Series([name])).item()]
    assert len(drawn) == number_drawn(groups) == 15 <= GROUPS  # pairs of six
    assert all(len(set(group)) == 2 and set(group) <= set(groups[OTHERS]) for group in drawn)
    assert len({tuple(group) for group in drawn}) == len(drawn)
    more = random_groups([(layer, head) for layer in range(8) for head in range(8)], 2, GROUPS)
    assert len({tuple(group) for group in more}) == GROUPS >= 20
    assert groups == control_groups(tiny_gpt2, heads)


def test_without_other_deep_heads_nothing_passes(tiny_gpt2):
    heads = deep_heads(tiny_gpt2)
    assert list(control_groups(tiny_gpt2, heads)) == [CHOSEN]
    alone = planted(**{CHOSEN: 0.1})
    verdict = judge(removed(alone), 0.05, random=random_effects(alone), control=more_than_others(alone))
    assert verdict.verdict == "inconclusive"
    assert "there are no random groups to compare with;" in verdict.reason
    assert "control has no effect in 10 of 10 sets" in verdict.reason


def test_planted_effects_are_told_from_chance():
    random = {f"random {i}": 0.9 + 0.001 * i for i in range(20)}
    effects = planted(**{CHOSEN: 0.2, OTHERS: 0.7}, **random)
    assert removed(effects)["effect"].to_numpy() == pytest.approx(0.8)
    assert more_than_others(effects)["effect"].to_numpy() == pytest.approx(0.5)
    assert random_effects(effects) == pytest.approx([0.1 - 0.001 * i for i in range(20)])
    assert list(removed(effects)["set"]) == list(range(10))
    good = judge(removed(effects), 0.05, random=random_effects(effects), control=more_than_others(effects))
    assert good.verdict == "supported"
    poor = planted(**{CHOSEN: 0.2, OTHERS: 0.1}, **random)
    assert judge(removed(poor), 0.05, control=more_than_others(poor)).verdict == "inconclusive"
    better = planted(**{CHOSEN: 0.95}, **random)
    assert judge(removed(better), 0.05, random=random_effects(better)).verdict == "inconclusive"

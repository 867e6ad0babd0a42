"""The swap of labels: identities on every family, and models planted so that its claim is true or false."""

import numpy as np
import pandas as pd
import pytest

import twotowers
from conftest import DEMONSTRATIONS, QUERIES, make_sets
from planted import synthetic
from twotowers.chapters.towers.reading import read_heads
from twotowers.chapters.towers.swap import at_own_label, directed_changes, relative_changes, swap, swap_effects
from twotowers.paper import CLAIMS
from twotowers.prompts.variants import swapped
from twotowers.statistics import judge

HEADS = [(1, 0), (3, 2)]


def test_swapping_twice_gives_the_original(tiny, two_sets):
    for s in two_sets:
        assert swapped(s) != s
        assert swapped(swapped(s)) == s


def test_a_swapped_set_is_the_set_of_the_swapped_demonstrations(tiny):
    other = {"foo": "bar", "bar": "foo"}
    demonstrations, queries = ([(text, other[label]) for text, label in pairs] for pairs in (DEMONSTRATIONS, QUERIES))
    expected = twotowers.prompt_set(tiny, demonstrations, queries)
    assert swapped(make_sets(tiny)[0]) == expected


# planted truth: the swap


def exchanged(attention, value):
    """Tables before and after a swap of one head, from functions of (label, same class); texts stay where they are."""
    before = synthetic(lambda same, noise: noise, sets=8)
    names = {"foo": "bar", "bar": "foo"}
    after = before.assign(label=before["label"].map(names), gold=before["gold"].map(names))
    first, second = (
        t.assign(weight=attention(t["label"], t["same"]), value=value(t["label"], t["same"])) for t in (before, after)
    )
    return first, second


def constant(label, same):
    return pd.Series(0.7, index=label.index)


def foo_head(label, same):
    """Attends to foo labels, and among them to those of the right class."""
    return (label == "foo") * (0.05 + 0.15 * same)


def test_a_model_whose_towers_choose_and_whose_values_copy_supports_the_swap_claim():
    """Attention to a label's positions moves with the class that carries it; a foo position hands over foo either way.

    Foo positions are of the right class where the answer is foo. After the swap the answer is bar, and they are not.
    """
    before, after = exchanged(foo_head, constant)
    changes = swap(before, after)
    own = at_own_label(changes, {"foo": [(3, 1)]})
    assert set(own["label"]) == {"foo"}
    effects = swap_effects(own)
    assert judge(effects, CLAIMS["C10"].smallest).verdict == "supported"
    signed = relative_changes(own, ["gold"]).groupby("gold")["attention_signed"].mean()
    assert signed["foo"] == pytest.approx(0.05 / 0.2 - 1)  # falls, as the paper has it for foo-heads
    assert signed["bar"] == pytest.approx(0.2 / 0.05 - 1)
    assert relative_changes(own)["value"].to_numpy() == pytest.approx(0)


def test_a_model_whose_values_change_and_whose_attention_does_not_contradicts_it():
    before, after = exchanged(constant, lambda label, same: 1.0 + 2.0 * same)
    effects = swap_effects(swap(before, after))
    assert (effects["effect"] < 0).all()
    assert judge(effects, CLAIMS["C10"].smallest).verdict == "contradicted"


def test_a_model_in_which_nothing_changes_decides_nothing():
    effects = swap_effects(swap(*exchanged(constant, constant)))
    assert effects["effect"].to_numpy() == pytest.approx(0)
    assert judge(effects, CLAIMS["C10"].smallest).verdict == "inconclusive"


def test_only_attention_that_follows_the_class_is_directed():
    """A head that looks at fixed positions changes a lot seen from a label, but alike for both answers."""
    followed = directed_changes(swap(*exchanged(foo_head, constant)))["effect"]
    assert (followed > 0.5).all()
    before, after = exchanged(constant, constant)
    assert directed_changes(swap(before, after))["effect"].to_numpy() == pytest.approx(0)
    order = before["set"] * 100 + before["demonstration"]
    fixed = order.map(pd.Series(np.random.default_rng(0).random(order.max() + 1)))
    before = before.assign(label=np.where(before["demonstration"] % 2, "foo", "bar"), weight=fixed)
    after = before.assign(label=np.where(before["demonstration"] % 2, "bar", "foo"))
    blind = swap(before, after)
    assert relative_changes(blind)["attention"].mean() > 0.1
    assert directed_changes(blind)["effect"].to_numpy() == pytest.approx(0)
    avoided = directed_changes(swap(*exchanged(lambda label, same: 1.0 - 0.9 * same, constant)))["effect"]
    assert (avoided < 0).all()


def test_a_value_that_starts_at_nothing_has_no_relative_change():
    effects = swap_effects(swap(*exchanged(constant, lambda label, same: 0.0 * same)))
    assert effects["effect"].isna().all()


def test_at_the_same_demonstrations_a_copied_label_turns_around():
    """A position's value follows its label: towards the label of before, it changes sign, and nothing else does."""
    before, after = exchanged(constant, constant)
    relative = relative_changes(swap(before, after, same_demonstrations=True))
    assert relative["value"].to_numpy() == pytest.approx(2)
    assert relative["attention"].to_numpy() == pytest.approx(0)


def test_tables_that_do_not_belong_together_are_refused():
    before, after = exchanged(constant, constant)
    with pytest.raises(ValueError, match="same heads on the same prompts"):
        swap(before, before)
    with pytest.raises(ValueError, match="same heads on the same prompts"):
        swap(before, after.iloc[::-1].reset_index(drop=True))


def test_a_swap_is_measured_on_every_family(tiny, two_sets):
    before, after = (read_heads(tiny, sets, HEADS) for sets in (two_sets, [swapped(s) for s in two_sets]))
    changes = swap(before, after)
    own = before.query("layer == 1 and head == 0 and set == 0 and label == 'foo' and gold == 'bar'")
    other = after.query("layer == 1 and head == 0 and set == 0 and label == 'foo' and gold == 'foo'")
    row = changes.query("layer == 1 and head == 0 and set == 0 and label == 'foo' and gold == 'bar'").iloc[0]
    assert row["attention_before"] == pytest.approx(own["weight"].mean())
    assert row["attention_after"] == pytest.approx(other["weight"].mean())
    assert row["value_after"] == pytest.approx(other["value"].mean())
    assert swap_effects(changes)["effect"].abs().max() > 1e-3

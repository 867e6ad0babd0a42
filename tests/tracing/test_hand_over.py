"""The hand-over test: what it exchanges at the first and at the last layer are other prompts, which can be asked."""

import itertools

import numpy as np
import pytest
import torch

import twotowers
from conftest import DEMONSTRATIONS, make_sets, message
from twotowers.prompts.tasks import load_task
from twotowers.prompts.variants import swapped
from twotowers.tracing import hand_over
from twotowers.tracing.exchange import query_donors
from twotowers.tracing.hand_over import PLACES
from twotowers.tracing.outcomes import outcomes


def margins(table):
    return table.sort_values(["set", "query"])["margin"].to_numpy()


@pytest.fixture
def even(tiny):
    """One set whose texts have one token each, so that exchanging them gives a real prompt."""
    words = [word for halves in load_task("words").texts.values() for half in halves.values() for word in half]
    words = itertools.islice((word for word in words if one_token(tiny, word)), 6)
    pairs = [(word, ("foo", "bar")[i % 2]) for i, word in enumerate(words)]
    return twotowers.prompt_set(tiny, pairs[:4], pairs[4:])


def one_token(model, word):
    """Whether a word is one token at the beginning and further on."""
    s = twotowers.prompt_set(model, [(word, "foo"), (word, "bar")], [(word, "foo")])
    return all(end - start == 1 for start, end in (*s.prompts[0].demonstrations, s.prompts[0].query))


def plain(model, ids):
    with torch.no_grad():
        return model.arch.model(torch.tensor([ids])).logits[0, -1]


def margin(s, query, logits):
    gold = s.gold[query]
    return float(logits[s.label_ids[gold]] - logits[s.label_ids[1 - gold]])


def test_labels_exchanged_at_the_bottom_are_the_prompt_with_swapped_labels(tiny, two_sets):
    ours = twotowers.hand_over(tiny, two_sets, "label", [0])
    theirs = outcomes(tiny, [swapped(s) for s in two_sets], [[]])
    assert margins(ours) == pytest.approx(-margins(theirs), abs=1e-4)


def test_the_last_position_at_the_top_answers_as_its_donor(tiny, two_sets):
    layers = tiny.arch.n_layers
    ours = twotowers.hand_over(tiny, two_sets, "last", [layers])
    intact = outcomes(tiny, two_sets, [[]])
    for row in ours.itertuples():
        donor = int(query_donors(two_sets[row.set], other=True)[row.query])
        own = intact[(intact["set"] == row.set) & (intact["query"] == donor)]["margin"].item()
        assert row.margin == pytest.approx(-own, abs=1e-4)
    for place in PLACES[:-1]:
        there = twotowers.hand_over(tiny, two_sets, place, [layers])
        assert margins(there) == pytest.approx(margins(intact), abs=1e-4)


@pytest.mark.parametrize("texts", [("dog ele", "nine ele"), ("dog ele", "nine dog"), ("ele", "nine")])
def test_a_last_position_that_is_also_the_texts_end_is_not_the_querys(tiny, texts):
    """As in `The film ended.:`, where many tokenizers join the two marks: the answer was exchanged with it."""
    queries = [(text, label) for text, label in zip(texts, ("foo", "bar"), strict=True)]
    s = twotowers.prompt_set(tiny, DEMONSTRATIONS, queries, template="{text}ven {label}")
    assert tiny.tokenizer.convert_ids_to_tokens(s.prompts[0].ids[-1]).endswith("eleven")
    assert s.prompts[0].query[1] == s.prompts[0].last
    table = twotowers.hand_over(tiny, s, "query", [tiny.arch.n_layers])
    assert margins(table) == pytest.approx(margins(outcomes(tiny, [s], [[]])), abs=1e-4)


@pytest.mark.parametrize("place", ["text", "text+separator"])
@pytest.mark.parametrize("within", [False, True])
def test_texts_exchanged_at_the_bottom_are_another_prompt(even, tiny, place, within):
    if tiny.config.model_type == "gpt2":
        pytest.skip("a position is part of what enters layer 0")
    ids, (a, b, c, d) = list(even.prompts[0].ids), [start for start, _ in even.prompts[0].demonstrations]
    labels = [label for _, label in even.demonstrations]
    assert labels == ["foo", "bar", "foo", "bar"]
    other = {a: b, b: a, c: d, d: c} if not within else {a: c, c: a, b: d, d: b}
    new = [ids[other.get(i, i)] for i in range(len(ids))]
    ours = twotowers.hand_over(tiny, even, place, [0], within=within)
    assert ours["margin"][0] == pytest.approx(margin(even, 0, plain(tiny, new)), abs=1e-4)


def test_queries_exchanged_at_the_bottom_are_each_others_prompt(tiny, even):
    ours = twotowers.hand_over(tiny, even, "query", [0])
    intact = margins(outcomes(tiny, even, [[]]))
    assert margins(ours) == pytest.approx(-intact[::-1], abs=1e-4)


def test_between_the_layers_it_is_what_a_hook_of_plain_torch_does(tiny, two_sets):
    """The residual entering layer 2 at label positions, taken from the swapped prompt, one prompt at a time."""
    ours, s, found = twotowers.hand_over(tiny, two_sets, "label", [2]), two_sets[1], []
    block = tiny.arch.model.get_submodule(tiny.family.blocks)[2]
    for query in range(len(s.prompts)):
        places = list(s.prompts[query].label_positions)
        states = []
        handle = block.register_forward_pre_hook(lambda _m, args, states=states: states.append(args[0].clone()))
        plain(tiny, swapped(s).prompts[query].ids)
        handle.remove()

        def put(_module, args, states=states, places=places):
            args[0][:, places] = states[0][:, places]
            return args

        handle = block.register_forward_pre_hook(put)
        found.append(margin(s, query, plain(tiny, s.prompts[query].ids)))
        handle.remove()
    assert margins(ours[ours["set"] == 1]) == pytest.approx(np.array(found), abs=1e-4)


def test_every_layer_by_default_and_a_row_a_prompt(tiny_gpt2):
    sets = make_sets(tiny_gpt2)
    table = twotowers.hand_over(tiny_gpt2, sets, "last")
    assert list(table.columns) == ["place", "layer", "set", "query", "label", "accuracy", "accuracy_two_way", "margin"]
    assert sorted(set(table["layer"])) == list(range(tiny_gpt2.arch.n_layers + 1))
    assert len(table) == 6 * (tiny_gpt2.arch.n_layers + 1)


def test_a_server_gives_the_same(tiny_folders):
    here, there = (twotowers.load(tiny_folders["llama-gqa"], remote=remote) for remote in (False, "local"))
    for place in ("text+separator", "last"):
        ours, theirs = (twotowers.hand_over(m, make_sets(m), place, [1, 3]) for m in (here, there))
        assert margins(ours) == pytest.approx(margins(theirs), abs=1e-4)


def test_refused_in_one_sentence(tiny_gpt2):
    sets = make_sets(tiny_gpt2)
    assert "text" in message(twotowers.UserError, lambda: twotowers.hand_over(tiny_gpt2, sets, "texts"))
    assert (
        message(twotowers.UserError, lambda: twotowers.hand_over(tiny_gpt2, sets, "last", [9]))
        == "A layer is 9; give a whole number from 0 to 4."
    )


@pytest.mark.parametrize("place", hand_over.BEHIND)
def test_what_follows_the_demonstrations_may_run_alone(tiny, two_sets, place, monkeypatch):
    alone = twotowers.hand_over(tiny, two_sets, place)
    monkeypatch.setattr(hand_over, "BEHIND", ())
    whole = twotowers.hand_over(tiny, two_sets, place)
    assert margins(alone) == pytest.approx(margins(whole), abs=1e-4)
    assert alone.groupby("layer")["margin"].mean().nunique() > 1

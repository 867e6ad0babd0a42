"""Packing: a branch sees the prefix and itself, positions continue, and every prompt is found again."""

import pytest
import torch

from conftest import DEMONSTRATIONS, QUERIES
from twotowers.prompts.packing import pack
from twotowers.prompts.sets import prompt_set

# Packing


@pytest.fixture
def packed(tiny_gpt2):
    """Three sets of different lengths, so that two rows are padded."""
    sets = [
        prompt_set(tiny_gpt2, DEMONSTRATIONS, QUERIES),
        prompt_set(tiny_gpt2, DEMONSTRATIONS[:2], QUERIES[:2], template="{text} : {label}", separator=" "),
        prompt_set(tiny_gpt2, DEMONSTRATIONS[:3], QUERIES[2:]),
    ]
    return sets, pack(sets, pad_id=9)


def owners(s, length):
    """Of each packed token: -1 for the prefix, the query's number for its branch, None for padding."""
    branches = [i for i, prompt in enumerate(s.prompts) for _ in prompt.ids[s.shared :]]
    own = [-1] * s.shared + branches
    return own + [None] * (length - len(own))


def test_a_token_sees_the_prefix_and_its_own_branch_so_far_and_nothing_else(packed):
    sets, batch = packed
    length = batch.input_ids.shape[1]
    for row, s in enumerate(sets):
        own = owners(s, length)
        for i in range(length):
            for j in range(length):
                sees = j <= i and own[j] in (-1, own[i])
                padding = own[i] is None or own[j] is None  # it sees itself, for its softmax needs something
                assert batch.allowed[row, i, j] == (i == j if padding else sees), (row, i, j)


def test_positions_continue_from_the_prefix(packed):
    sets, batch = packed
    for row, s in enumerate(sets):
        expected = list(range(s.shared))
        for prompt in s.prompts:
            expected += range(s.shared, len(prompt.ids))
        assert batch.position_ids[row, : s.packed_length].tolist() == expected


def test_index_leads_from_each_prompt_to_its_packed_tokens(packed):
    sets, batch = packed
    prompts = [(row, prompt) for row, s in enumerate(sets) for prompt in s.prompts]
    for n, (row, prompt) in enumerate(prompts):
        index = batch.index[n, : len(prompt.ids)]
        assert batch.row[n] == row
        assert tuple(batch.input_ids[row, index].tolist()) == prompt.ids
        assert batch.position_ids[row, index].tolist() == list(range(len(prompt.ids)))
        assert index[-1] == batch.last[n]
        assert (batch.index[n, len(prompt.ids) :] == -1).all()


def test_padding_is_the_padding_token(packed):
    sets, batch = packed
    assert sum(s.packed_length < batch.input_ids.shape[1] for s in sets) == 2
    for row, s in enumerate(sets):
        assert (batch.input_ids[row, s.packed_length :] == 9).all()


def test_labels_and_gold_follow_the_prompts(packed):
    sets, batch = packed
    chosen = batch.label_ids.gather(1, batch.gold[:, None]).squeeze(1).tolist()
    ids = dict(zip(sets[0].labels, sets[0].label_ids, strict=True))
    assert chosen == [ids[label] for s in sets for _, label in s.queries]


def test_repeating_a_row_repeats_its_prompts(packed):
    one = pack(packed[0][:1])
    three = one.repeat(3)
    assert three.row.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for name in ("last", "gold", "label_ids", "index"):
        assert torch.equal(getattr(three, name), torch.cat([getattr(one, name)] * 3))
    for name in ("input_ids", "position_ids", "allowed"):
        assert all(torch.equal(row, getattr(one, name)[0]) for row in getattr(three, name))
    with pytest.raises(ValueError, match="one row"):
        packed[1].repeat(2)

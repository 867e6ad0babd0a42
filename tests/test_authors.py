"""The authors' public values, for weights that are on this machine already; skipped, and said so, where they are not.

Prompt "Tim Duncan plays the sport of", answer " basketball"; values from the authors' notebooks.
"""

import pytest
import torch

import twotowers
from twotowers.errors import UserError
from twotowers.prompts.packing import pack
from twotowers.prompts.sets import Prompt, PromptSet
from twotowers.tracing.capture import capture
from twotowers.tracing.projection import increases

TEXT, ANSWER = "Tim Duncan plays the sport of", " basketball"
VALUES = {  # sums over attention and MLP layers, then heads by (layer, head)
    "gpt2-large": (5.59, 4.41, {(21, 19): 0.698, (28, 18): 0.426, (23, 13): 0.310, (27, 15): 0.271, (19, 0): 0.255}),
    "llama-7b": (6.08, 3.93, {(23, 12): 0.978, (21, 0): 0.865}),
}


@pytest.mark.parametrize("key", list(VALUES))
def test_log_increases_are_the_authors(key):
    try:
        model = twotowers.load(key, dtype="float32" if key == "gpt2-large" else None)
    except UserError as error:
        pytest.skip(f"{key} is not on this machine: {error}")
    ids = tuple(model.tokenizer(TEXT)["input_ids"])
    answer = model.tokenizer(TEXT + ANSWER)["input_ids"][len(ids)]
    prompt = Prompt(ids, ((0, 1),), (0,), (1, len(ids)))
    batch = pack([PromptSet(((TEXT, "a"),), ((TEXT, "a"),), ("a", "b"), (answer, answer), (prompt,), len(ids) - 1)])
    layers, heads = increases(model.arch, capture(model, batch), torch.tensor([answer]))
    attention, mlp, by_head = VALUES[key]
    tolerance = 0.01 if model.dtype == torch.float32 else 0.1
    assert float(layers[:, 0].sum()) == pytest.approx(attention, abs=tolerance)
    assert float(layers[:, 1].sum()) == pytest.approx(mlp, abs=tolerance)
    for (layer, head), value in by_head.items():
        assert float(heads[layer, head]) == pytest.approx(value, abs=tolerance)

"""Values and what heads write of them, against each other and against the forward itself, in every family."""

import torch

from twotowers.prompts.packing import pack
from twotowers.tracing.capture import capture
from twotowers.tracing.labels import label_positions, position_kinds, values_at_labels
from twotowers.tracing.projection import label_direction, project, prompt_values, values_minus, written

LAYER, HEADS = 2, [1, 0]


def close(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def read(model, sets):
    batch = pack(sets)
    return batch, capture(model, batch, pattern=True, inputs=True)


def test_over_all_positions_heads_write_z_times_w_o(tiny, two_sets):
    batch, seen = read(tiny, two_sets)
    weights = seen.pattern[LAYER][:, HEADS]
    both = written(tiny.arch, seen, batch, LAYER, HEADS, weights)
    expected = [seen.z[LAYER, :, head] @ tiny.arch.w_o(LAYER)[head] for head in HEADS]
    close(both, sum(expected))
    for i, head in enumerate(HEADS):
        close(written(tiny.arch, seen, batch, LAYER, [head], weights[:, [i]]), expected[i])


def test_the_labels_part_and_the_rest_of_what_is_written_add_up(tiny, two_sets):
    batch, seen = read(tiny, two_sets)
    kinds, weights = position_kinds(two_sets, batch), seen.pattern[LAYER][:, HEADS]
    parts = [written(tiny.arch, seen, batch, LAYER, HEADS, weights * (kinds == k)[:, None]) for k in (0, 1, 2)]
    close(sum(parts), written(tiny.arch, seen, batch, LAYER, HEADS, weights))
    assert all(part.abs().max() > 1e-4 for part in parts)


def test_logit_minus_of_values_sums_to_that_of_what_is_written(tiny, two_sets):
    batch, seen = read(tiny, two_sets)
    weights = seen.pattern[LAYER][:, HEADS]
    minus = values_minus(tiny.arch, seen, batch, LAYER, HEADS, label_direction(tiny.arch, seen, batch))
    logits = project(tiny.arch, written(tiny.arch, seen, batch, LAYER, HEADS, weights), seen.resid_pre[-1])
    labels = logits.gather(1, batch.label_ids)
    close((minus * weights).sum((1, 2)), labels[:, 1] - labels[:, 0])


def test_values_at_labels_are_those_of_their_positions(tiny, two_sets):
    batch, seen = read(tiny, two_sets)
    frame = label_positions(two_sets)
    found = values_at_labels(tiny.arch, seen, batch, frame, LAYER, HEADS)
    every = prompt_values(tiny.arch, seen, batch, LAYER, HEADS)
    for value, row in zip(found, frame.itertuples(), strict=True):
        close(value, every[row.prompt, row.position])
    assert len(found) == sum(len(prompt.label_positions) for s in two_sets for prompt in s.prompts)

"""Run by torchrun in `test_parallel`: how far a model that is split over processes is from the same model in one."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed

import twotowers
from twotowers.chapters.towers.reading import read_heads
from twotowers.cli import main
from twotowers.models.parallel import first
from twotowers.prompts.packing import pack
from twotowers.tracing.ablation import attributions
from twotowers.tracing.capture import capture
from twotowers.tracing.cutting import cut
from twotowers.tracing.position_free import without_position

DEMONSTRATIONS = [("cat", "foo"), ("seven", "bar"), ("two", "bar"), ("elephant", "foo"), ("nine", "bar")]
QUERIES = [("dog", "foo"), ("eleven", "bar"), ("grandmother", "foo")]


def numbers(table):
    return torch.tensor(table.select_dtypes("number").to_numpy()).double()


def differences(folder):
    split, plain = twotowers.load(folder, tensor_parallel=True), twotowers.load(folder)
    s = twotowers.prompt_set(plain, DEMONSTRATIONS, QUERIES)
    batch = pack([s])
    edges = torch.zeros_like(batch.allowed)
    edges[batch.row, batch.last, 3] = True
    ways = {
        "knockout": lambda m: numbers(twotowers.knockout(m, [s])),
        "locate": lambda m: numbers(twotowers.locate(m, [s]).heads),
        "screen": lambda m: attributions(m, batch),
        "pattern": lambda m: capture(m, batch, pattern=True).pattern,
        "cut": lambda m: cut(m, batch, edges, range(1, 3)).labels,
        "flattened": lambda m: without_position(m, batch, [(1, 0), (1, 3), (2, 1)], 0.5)[0].labels,
        "towers": lambda m: numbers(read_heads(m, [s], [(1, 0), (2, 3)])),
    }
    found = {}
    for name, way in ways.items():
        ours, expected = way(split), way(plain)
        found[name] = float((ours - expected).abs().max() / expected.abs().max())
    table = twotowers.check(split)
    found |= dict(zip(table["identity"][:-1], table["residual"][:-1], strict=True))
    parts = sum(p.to_local().numel() for p in split.nn._module.parameters() if hasattr(p, "to_local"))
    whole = sum(p.numel() for p in split.nn._module.parameters() if hasattr(p, "to_local"))
    return found | {"share": parts / whole, "holds": bool(table["holds"].all())}


if __name__ == "__main__":
    found = {Path(folder).name: differences(folder) for folder in sys.argv[2:]}
    if first():
        Path(sys.argv[1]).write_text(json.dumps(found))
    assert main(["check", sys.argv[3], "--tensor-parallel"]) == 0  # in the same processes: to start them takes long
    torch.distributed.destroy_process_group()

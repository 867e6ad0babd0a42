"""The benchmark: knock-out of every head, ours beside what people would use otherwise, in one run.

Every repeat times each way once, in turn, so that a busy machine disturbs all of them. A ratio is formed within a
repeat; what is published is its median and its spread over repeats.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from ..chapters.knockout.knockout import rank_heads, sweep
from ..chapters.knockout.screen import highest, recall, screen
from ..chapters.locate.locate import locate
from ..models.model import Model, load
from ..models.packed import plain_linears
from ..prompts.packing import pack
from ..prompts.sets import PromptSet
from ..prompts.variants import alone, shortened
from ..publishing.provenance import PACKAGES, git_commit, revision_of
from ..statistics import rank_agreement
from ..tracing.capture import answers
from ..tracing.check import edited
from ..tracing.heads import Head, every_head, pairs
from ..tracing.outcomes import outcomes
from .floor import floor_seconds, rates, work
from .measure import Timed, peak_alone, processor, timed
from .peers import BridgePeer, NnsightPeer, NoPeerError, Padded

HEADS = 4  # heads a repeat that a peer is timed on; a full sweep is as many times longer as there are heads
OURS = "ours"
BARE = "transformers, bare forward"
SCALING_HEADS = 48


def bench(
    model: Model, sets: Sequence[PromptSet], *, repeats: int = 5, seed: int = 0, peers: bool = True
) -> dict[str, Any]:
    """Measure everything that the performance page shows.

    Args:
        sets: prompt sets; sweep and screen are timed on the first, locate on all; agreement is over all.
        peers: whether nnsight and TransformerLens are timed too.

    Returns:
        `facts`, `rows` (a record per way: `way, seconds, low, high, ratio, ratio_low, ratio_high, peak`; ratios are
        to ours, or as the way's name says), `agreement` and `scaling` (records `against, x, seconds, floor`).
    """
    s, n_prompts = sets[0], len(sets[0].prompts)
    alone_peak = {}
    if peers and model.device.type == "cpu":  # first, while the least of memory is taken
        for name, prepare in (("locate", _job_of_locate), (BARE, _job_of_bare)):
            alone_peak[name] = peak_alone(prepare, model.folder, model.dtype, sets)
    heads = every_head(model)
    rng = np.random.default_rng([seed, 7])
    ways: dict[str, Callable[[list[Head]], Any]] = {
        OURS: lambda _: outcomes(model, [s], [[head] for head in heads]),
        "ours, no shared prefix": lambda _: outcomes(model, [alone(s)], [[head] for head in heads]),
        "forward": lambda _: answers(model, pack([s], model.pad_id)),
        "screen": lambda _: screen(model, [s]),
        "locate": lambda _: locate(model, sets),
    }
    scale = {"ours, no shared prefix": float(n_prompts)}
    if model.dtype == torch.float32 and model.device.type == "cpu":
        ways["ours, PyTorch's own product"] = lambda _: _plainly(model, s, heads)
    differences: dict[str, float] = {}
    half = None
    if peers:
        padded, others = Padded.of(s, model.device), _peers(model)
        for name, peer in others.items():
            ways[name] = functools.partial(_head_by_head, peer, padded)
            scale[name] = len(heads) / HEADS
        bare = _bare(others["nnsight, a trace a head"].arch.model, sets)
        ways[BARE] = lambda _: bare()
        drawn = [heads[i] for i in rng.choice(len(heads), HEADS, replace=False)]
        for name, peer in others.items():
            differences[name] = _difference(model, s, drawn, [peer.without(padded, *head) for head in drawn])
        differences["edited weights"] = _against_edited(model, s, drawn)
        if model.dtype == torch.float32:
            half = _in_bfloat16(model)
            ways["ours in bfloat16"] = lambda _: outcomes(half, [s], [[head] for head in heads])
    rows = work(model.arch, [layer for layer, _ in heads], s.packed_length, n_prompts)
    timings: dict[str, list[Timed]] = {name: [] for name in ways}
    floors: list[float] = []
    with tqdm(total=repeats * len(ways), desc="bench", unit="way", leave=False) as bar:
        for repeat in range(repeats):
            floors.append(floor_seconds(rows, rates(list(_weights(rows, model)), model.dtype, model.device)))
            drawn = [heads[i] for i in rng.choice(len(heads), HEADS, replace=False)]
            order = rng.permutation(len(ways))
            for name in [list(ways)[i] for i in order]:
                if repeat == 0:
                    _warm(ways[name], name, drawn)
                took = timed(functools.partial(ways[name], drawn), model.device)
                timings[name].append(replace(took, seconds=took.seconds * scale.get(name, 1.0)))
                bar.update()
    peak = {name: max(t.peak for t in took) for name, took in timings.items()} | alone_peak
    result: dict[str, Any] = {
        "facts": facts(model, s) | {"repeats": repeats, "heads": len(heads), "sampled_heads": HEADS, "sets": len(sets)},
        "rows": _rows(timings, floors, peak),
        "agreement": {"margin_difference": differences, **_agreement(model, half, sets)},
        "scaling": scaling(model, s, rows, rng),
    }
    return result


def scaling(
    model: Model, s: PromptSet, rows: dict[tuple[int, int], float], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Seconds of ours against the number of heads, of prompts and of tokens, beside the floor of the same work."""
    rate = rates(list(_weights(rows, model)), model.dtype, model.device)
    heads = every_head(model)
    some = [heads[i] for i in rng.choice(len(heads), min(SCALING_HEADS, len(heads)), replace=False)]
    jobs: list[tuple[str, int, PromptSet, list[Head]]] = []
    for n in sorted({len(heads) // 16, len(heads) // 8, len(heads) // 4, len(heads) // 2}):
        jobs.append(("heads", n, s, [heads[i] for i in rng.choice(len(heads), n, replace=False)]))
    for n in sorted({1, len(s.prompts) // 4, len(s.prompts) // 2, len(s.prompts)} - {0}):
        part = replace(s, queries=s.queries[:n], prompts=s.prompts[:n])
        jobs.append(("prompts", n, part, some))
    for share in (4, 2, 1):
        part = shortened(s, share)
        jobs.append(("length", part.packed_length, part, some))
    table = []
    for against, x, part, chosen in tqdm(jobs, desc="scaling", leave=False):
        job = functools.partial(outcomes, model, [part], [[head] for head in chosen])
        seconds = min(timed(job, model.device).seconds for _ in range(2))
        needed = work(model.arch, [layer for layer, _ in chosen], part.packed_length, len(part.prompts))
        table.append({"against": against, "x": x, "seconds": seconds, "floor": floor_seconds(needed, rate)})
    return table


def facts(model: Model, s: PromptSet) -> dict[str, Any]:
    """What was measured, and on what."""
    names = (*PACKAGES, "transformer-lens")
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    device = torch.cuda.get_device_name() if model.device.type == "cuda" else processor()
    return {
        "model": model.name,
        "family": model.config.model_type,
        "revision": revision_of(model),
        "weights_sha256": model.digest,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device,
        "threads": torch.get_num_threads(),
        "prompts": len(s.prompts),
        "tokens": len(s.prompts[0].ids),
        "packed_tokens": s.packed_length,
        "packages": versions,
        "git_commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _peers(model: Model) -> dict[str, Any]:
    """The peers, each on a network of its own, loaded as its users would, with nothing of ours in it."""
    network = _fresh(model.folder, model.dtype, model.device)
    found: dict[str, Any] = {"nnsight, a trace a head": NnsightPeer(network, model.tokenizer)}
    try:
        found["TransformerLens, hooks a head"] = BridgePeer(
            _fresh(model.folder, model.dtype, model.device), model.tokenizer, model.name
        )
    except NoPeerError as error:
        print(error, file=sys.stderr)
    return found


def _head_by_head(peer: Any, padded: Padded, heads: Sequence[Head]) -> None:
    for head in heads:
        peer.without(padded, *head)


def _fresh(folder: Path, dtype: torch.dtype, device: torch.device | str = "cpu") -> Any:
    network: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, attn_implementation="eager"
    )
    return network.to(device).eval()


def _bare(network: Any, sets: Sequence[PromptSet]) -> Callable[[], None]:
    batches = [Padded.of(s, network.device) for s in sets]

    def forward() -> None:
        with torch.no_grad():
            for padded in batches:
                network(padded.input_ids, use_cache=False)

    return forward


def _job_of_locate(folder: Path, dtype: torch.dtype, sets: Sequence[PromptSet]) -> Callable[[], Any]:
    return functools.partial(locate, load(folder, dtype=dtype, device_map="cpu"), sets)


def _job_of_bare(folder: Path, dtype: torch.dtype, sets: Sequence[PromptSet]) -> Callable[[], Any]:
    return _bare(_fresh(folder, dtype), sets)


def _in_bfloat16(model: Model) -> Model:
    return load(model.folder, dtype=torch.bfloat16, device_map=model.device_map)


def _plainly(model: Model, s: PromptSet, heads: Sequence[Head]) -> None:
    with plain_linears():
        outcomes(model, [s], [[head] for head in heads])


def _weights(rows: dict[tuple[int, int], float], model: Model) -> Iterator[tuple[int, int]]:
    """The shapes of `work` that are weights."""
    for n_in, n_out in rows:
        if model.arch.d_model in (n_in, n_out):
            yield n_in, n_out


def _margins(s: PromptSet, logits: torch.Tensor) -> torch.Tensor:
    gold = torch.tensor(s.gold)
    labels = logits[:, list(s.label_ids)].float().cpu()
    rows = torch.arange(len(gold))
    return labels[rows, gold] - labels[rows, 1 - gold]


def _difference(model: Model, s: PromptSet, heads: Sequence[Head], logits: Sequence[torch.Tensor]) -> float:
    """The largest difference of margins between ours and a peer's logits."""
    table = outcomes(model, [s], [[head] for head in heads])
    ours = torch.tensor(table["margin"].to_numpy()).reshape(len(heads), -1)
    return float((ours - torch.stack([_margins(s, x) for x in logits])).abs().max())


def _against_edited(model: Model, s: PromptSet, heads: Sequence[Head]) -> float:
    """As `_difference`, against the model with the head's slice of W_O set to zero."""
    table = outcomes(model, [s], [[head] for head in heads])
    ours = torch.tensor(table["margin"].to_numpy()).reshape(len(heads), -1)
    differences, batch = [], pack([s], model.pad_id)
    for row, head in zip(ours, heads, strict=True):
        with edited(model, *head):
            labels = answers(model, batch).labels
        gold = torch.tensor(s.gold)
        margin = labels.gather(1, gold[:, None]) - labels.gather(1, 1 - gold[:, None])
        differences.append((row - margin.squeeze(1)).abs().max())
    return float(torch.stack(differences).max())


def _agreement(model: Model, half: Model | None, sets: Sequence[PromptSet]) -> dict[str, Any]:
    """How well the screen and bfloat16 agree with the exact float32 sweep of the same sets."""
    ranked = rank_heads(sweep(model, sets))
    screened = screen(model, sets)
    both = ranked.merge(screened, on=["layer", "head"], suffixes=("", "_estimate"))
    found: dict[str, Any] = {
        "screen_recall": recall(screened, ranked),
        "screen_heads": len(highest(screened)),
        "screen_rank_agreement": rank_agreement(both["margin_drop"], both["margin_drop_estimate"]),
        "worst": pairs(ranked, max(1, round(0.01 * len(ranked)))),
    }
    if half is not None:
        coarse = rank_heads(sweep(half, sets))
        both = ranked.merge(coarse, on=["layer", "head"], suffixes=("", "_coarse"))
        found["bfloat16_worst"] = pairs(coarse, len(found["worst"]))
        found["bfloat16_rank_agreement"] = rank_agreement(both["margin_drop"], both["margin_drop_coarse"])
        found["bfloat16_difference"] = float((both["margin_drop"] - both["margin_drop_coarse"]).abs().max(skipna=False))
    return found


def _warm(way: Callable[[list[Head]], Any], name: str, drawn: list[Head]) -> None:
    """A first call is slower; the long sweeps need none."""
    if not name.startswith("ours"):
        way(drawn[:1])


def _rows(timings: dict[str, list[Timed]], floors: list[float], peak: dict[str, int]) -> list[dict[str, Any]]:
    """A record per way; what each is compared with stands in `over`."""
    seconds = {name: np.array([t.seconds for t in took]) for name, took in timings.items()}
    seconds["floor"] = np.array(floors)
    over = {"screen": "forward", "locate": BARE, "floor": OURS}
    rows = []
    for name, values in seconds.items():
        other = over.get(name, OURS)
        other = other if other in seconds else OURS
        ratios = values / seconds[other]
        rows.append(
            {
                "way": name,
                "seconds": float(np.median(values)), "low": float(values.min()), "high": float(values.max()),
                "over": other,
                "ratio": float(np.median(ratios)), "ratio_low": float(ratios.min()), "ratio_high": float(ratios.max()),
                "peak": int(peak.get(name, 0)),
            }
        )  # fmt: skip
    unshared = "ours, no shared prefix"
    for name in [name for name in timings if "a head" in name]:
        ratios = seconds[name] / seconds[unshared]
        rows.append(
            {
                "way": name, "seconds": float(np.median(seconds[name])),
                "low": float(seconds[name].min()), "high": float(seconds[name].max()), "over": unshared,
                "ratio": float(np.median(ratios)), "ratio_low": float(ratios.min()), "ratio_high": float(ratios.max()),
                "peak": int(peak[name]),
            }
        )  # fmt: skip
    return rows


def tables(result: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows and the scaling of a result as tables."""
    return pd.DataFrame(result["rows"]), pd.DataFrame(result["scaling"])

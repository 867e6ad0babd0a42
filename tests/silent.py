"""Is anything silently wrong? Every public function, on every family, in every way that it may be run, is sorted.

    python tests/silent.py [FAMILY ...] > silent.md
    python tests/silent.py --identities [FAMILY ...] > families.md

Each outcome is one of `KINDS`; equal means: to plain transformers with hooks (`plain`), prompt by prompt. `make test`
takes each function and family once (`tests/models/test_silent.py`). With `--identities`, the table of families: how far
each identity of the check is from holding in float32, and which analyses give what plain transformers does.
"""

from __future__ import annotations

import copy
import functools
import json
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

import twotowers
from conftest import make_sets, tiny_config, tiny_tokenizer
from family_configs import CONFIGS, network_of
from odd_configs import ODD
from plain import Plain
from silent_cases import CASES, Numbers, Sets
from twotowers.models.model import Model

EQUAL, DEGRADED, REFUSED, WRONG, CRASHED = KINDS = (
    "equal",
    "degraded, said so",
    "refused by name",
    "silently wrong",
    "stopped without a name",
)
TOLERANCE = 1e-4  # of the largest number beside it, in float32
# In bfloat16 ours may be so many times as far from the truth, the same weights in float32, as plain transformers in
# bfloat16 is: one for its own rounding, one for ours, and as much again since both are one draw of such errors. Where
# the other is right by luck, a step of bfloat16, relative to the largest number, counts instead of its error.
FACTOR, STEP = 4.0, 2**-8
EXPERTS = [  # what configurations call those that a token goes to, and those that there are
    *(("num_experts_per_tok", there) for there in ("num_experts", "num_local_experts", "n_routed_experts")),
    ("topk_group", "n_group"),
    ("moe_k", "moe_num_experts"),
]


@dataclass(frozen=True)
class Way:
    """How a function is run.

    Attributes:
        options: of `twotowers.load`.
        asks: what the folder's configuration says of attention; `switch` is what the loaded network is changed to.
        turned: sets and queries in the opposite order; `apart`: prompts of a set share no prefix.
    """

    options: tuple[tuple[str, object], ...] = ()
    asks: str | None = None
    switch: str | None = None
    turned: bool = False
    apart: bool = False

    @property
    def rounded(self) -> bool:
        return ("dtype", "bfloat16") in self.options


WAYS = {
    "float32": Way(),
    "bfloat16": Way(options=(("dtype", "bfloat16"),)),
    "turned round": Way(turned=True),
    "not packed": Way(apart=True),
    "folder asks for sdpa": Way(asks="sdpa"),
    "folder asks for flash_attention_2": Way(asks="flash_attention_2"),
    "switched to sdpa": Way(switch="sdpa"),
    "switched to flex_attention": Way(switch="flex_attention"),
    "as on a server": Way(options=(("remote", "local"),)),
}
FAMILIES = {family: tiny_config(family) for family in ("gpt2", "llama-mha", "llama-gqa")} | CONFIGS


def save(config: object, folder: Path, way: Way = Way()) -> Path:
    """A tiny random model in a folder."""
    network_of(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    if way.asks:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"attn_implementation": way.asks}))
    return folder


def load(folder: Path, way: Way) -> Model:
    model = twotowers.load(folder, **dict(way.options))
    if way.switch:
        try:
            model.nn._module.set_attn_implementation(way.switch)
        except ValueError as error:
            raise twotowers.UserError(f"transformers says: {str(error).split('. ')[0]}.") from None
    return model


def sets_for(model: Model, way: Way) -> Sets:
    sets = tuple(make_sets(model))
    return (
        tuple(replace(s, queries=s.queries[::-1], prompts=s.prompts[::-1]) for s in sets[::-1]) if way.turned else sets
    )


def outcome(
    ours: Callable[[], Numbers], truth: Callable[[], Numbers], rounded: Callable[[], Numbers] | None = None
) -> tuple[str, str]:
    """Which of `KINDS` it is, and what is to be said of it.

    Args:
        truth: what plain transformers gives in float32.
        rounded: for what is rounded, what it gives in bfloat16.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = ours()
        except twotowers.UserError as error:
            return REFUSED, str(error)
        except Exception as error:
            return CRASHED, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    of_ours = [str(w.message) for w in said if issubclass(w.category, UserWarning) and "twotowers" in w.filename]
    different = differences(found, truth(), rounded and rounded())
    if of_ours:
        return DEGRADED, of_ours[0]
    return (WRONG, different) if different else (EQUAL, "")


def differences(found: Numbers, expected: Numbers, rounded: Numbers | None) -> str:
    """Names and sizes of what differs by more than the tolerance."""
    if set(found) != set(expected):
        return f"other names: {', '.join(sorted(set(found) ^ set(expected)))}"
    told = []
    for name, own in found.items():
        other = expected[name]
        if own.shape != other.shape:
            told.append(f"{name} has the shape {own.shape} and not {other.shape}")
            continue
        if rounded is not None and name.startswith("decided"):
            continue
        by, allowed = (furthest(own, other), TOLERANCE * max(1.0, size(other)))
        if rounded is not None and (error := furthest(rounded[name], other)):  # none in what is no measurement
            allowed = FACTOR * max(error, STEP * size(other))
        if not by <= allowed:  # also where it is nan
            told.append(f"{name} by {by:.1e} (allowed {allowed:.0e})")
    return ", ".join(told)


def size(x: np.ndarray) -> float:
    return float(np.abs(x).max(initial=0))


def furthest(a: np.ndarray, b: np.ndarray) -> float:
    return size(a - b)


def with_all_experts(config: object) -> object:
    """A configuration whose tokens go to every expert: a rounding that chooses another one is no error of size."""
    changed = copy.deepcopy(config)
    for chosen, there in EXPERTS:
        if hasattr(changed, chosen) and hasattr(changed, there):
            setattr(changed, chosen, getattr(changed, there))
    return changed


ANALYSES = {
    "knock-out": "knockout", "cut": "block", "exchange": "exchange", "scores": "head_scores", "screen": "screen",
    "hand-over": "hand_over",
}  # fmt: skip
Row = tuple[str, str, str, str, str]  # family, way, function, kind of outcome, and what is to be said of it


def sort(
    family: str, ways: Sequence[str], cases: Sequence[str], scratch: Path, *, most: int | None = None
) -> Iterator[Row]:
    """Every outcome of a family.

    Args:
        most: prompt sets; all of them, of different lengths and templates, if it is left out.
    """
    given_config = (FAMILIES | ODD)[family]
    configs = {False: given_config, True: with_all_experts(given_config)}
    expect = functools.cache(lambda case, plain, sets: CASES[case][1](plain, sets))
    beside = functools.cache(lambda rounded: save(configs[rounded], scratch / f"plain-{rounded}"))
    plain = functools.cache(lambda rounded, dtype: Plain(beside(rounded), rounded=rounded, dtype=dtype))
    for name in ways:
        way = WAYS[name]
        config = configs[way.rounded]
        try:
            model = load(save(config, scratch / name / "tiny", way), way)
        except twotowers.UserError as error:
            yield from ((family, name, case, REFUSED, str(error)) for case in cases)
            continue
        sets = sets_for(model, way)[:most]
        given = tuple(replace(s, shared=0) for s in sets) if way.apart else sets
        for case in cases:
            ours = partial(CASES[case][0], model, given)
            truth, rounded = (
                partial(expect, case, plain(way.rounded, dtype), sets) for dtype in (torch.float32, torch.bfloat16)
            )
            yield family, name, case, *outcome(ours, truth, rounded if way.rounded else None)


def table(rows: Sequence[Row]) -> str:
    """A row a function, a column a way, counts of families in the cells; then everything that is not equal."""
    ways = list(dict.fromkeys(way for _, way, *_ in rows))
    counts = Counter((case, way, kind) for _, way, case, kind, _ in rows)
    lines = [f"| function | {' | '.join(ways)} |", f"|---|{'---|' * len(ways)}"]
    for case in dict.fromkeys(case for _, _, case, *_ in rows):
        cells = [", ".join(f"{n} {kind}" for kind in KINDS if (n := counts[case, way, kind])) for way in ways]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    lines.append("")
    told: dict[tuple[str, str, str], set[str]] = {}
    for family, way, case, kind, note in rows:
        if kind != EQUAL:
            named = f"{family}: {case}" if kind in (WRONG, CRASHED) else case
            told.setdefault((kind, way, note), set()).add(named)
    lines += [f"- {kind}, {way} ({', '.join(sorted(own))}): {note}" for (kind, way, note), own in told.items()]
    lines += ["", *(f"{kind}: {sum(row[3] == kind for row in rows)}" for kind in KINDS)]
    return "\n".join(lines)


def identities(families: Sequence[str]) -> Iterator[str]:
    """The table of families, line by line: residuals of the check in float32, and what is said of each analysis."""
    for n, family in enumerate(families):
        with tempfile.TemporaryDirectory() as scratch:
            measured = twotowers.check(load(save(FAMILIES[family], Path(scratch) / "tiny"), Way()))
            kinds = [row[3] for row in sort(family, ["float32"], list(ANALYSES.values()), Path(scratch))]
        if not n:
            yield f"| family | {' | '.join([*measured['identity'], *ANALYSES])} |"
            yield "|---" * (1 + len(measured) + len(ANALYSES)) + "|"
        yield f"| {family} | {' | '.join([*(f'{residual:.1e}' for residual in measured['residual']), *kinds])} |"


def main(families: Sequence[str]) -> int:
    torch.set_num_threads(1)
    if families[:1] == ["--identities"]:
        for line in identities(families[1:] or list(FAMILIES)):
            print(line, flush=True)
        return 0
    rows = []
    for family in families or [*FAMILIES, *ODD]:
        ways = list(WAYS)[: 1 if family in ODD else None]
        with tempfile.TemporaryDirectory() as scratch:
            for row in sort(family, ways, list(CASES), Path(scratch)):
                rows.append(row)
                if row[3] in (WRONG, CRASHED):
                    print(*row, sep=" | ", file=sys.stderr, flush=True)
        print(family, file=sys.stderr, flush=True)
    print(table(rows))
    return int(any(row[3] in (WRONG, CRASHED) for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

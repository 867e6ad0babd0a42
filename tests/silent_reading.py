"""Functions that read, and the same numbers from plain transformers: a pair of functions a case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

import twotowers
from conftest import DEMONSTRATIONS, QUERIES
from plain import Plain, Read
from plain_changes import every_prompt
from silent_numbers import HEADS, Numbers, Sets, numbers, ordered
from twotowers.chapters.towers.reading import read_heads
from twotowers.models.family import has_experts
from twotowers.models.model import Model
from twotowers.prompts.packing import pack
from twotowers.prompts.sets import PromptSet
from twotowers.tracing.capture import capture
from twotowers.tracing.check import require

# What prompts are


def ours_prompts(model: Model, sets: Sets) -> Numbers:
    made = twotowers.prompt_set(model, DEMONSTRATIONS, QUERIES)
    ids = [i for p in made.prompts for i in p.ids]
    return numbers(ids=ids, labels=[p.ids[i] for p in made.prompts for i in p.label_positions], answers=made.label_ids)


def theirs_prompts(plain: Plain, sets: Sets) -> Numbers:
    shown = "\n".join(f"{text}: {label}" for text, label in DEMONSTRATIONS)
    ids = [i for text, _ in QUERIES for i in plain.ids(f"{shown}\n{text}:")]
    token = {label: plain.ids(f"a: {label}")[-1] for label in ("bar", "foo")}
    labels = [token[label] for _ in QUERIES for _, label in DEMONSTRATIONS]
    return numbers(ids=ids, labels=labels, answers=[token["bar"], token["foo"]])


# Reading: z, residuals, patterns and the logit lens


def ours_capture(model: Model, sets: Sets) -> Numbers:
    found = capture(model, pack(sets, model.pad_id), pattern=True, logits=True)
    ends = [len(p.ids) for _, _, _, p in every_prompt(sets)]
    pattern = [found.pattern[:, n, :, :end].flatten() for n, end in enumerate(ends)]
    return numbers(
        z=found.z, residuals=found.resid_pre, attention=found.attn_out, logits=found.logits, patterns=torch.cat(pattern)
    )


def theirs_capture(plain: Plain, sets: Sets) -> Numbers:
    reads = [plain.read(p.ids) for _, _, _, p in every_prompt(sets)]
    return numbers(
        z=torch.stack([r.z[:, -1] for r in reads], 1),
        residuals=torch.stack([r.resid[:, -1] for r in reads], 1),
        attention=torch.stack([r.attention[:, -1] for r in reads], 1),
        logits=torch.stack([r.logits[-1] for r in reads]),
        patterns=torch.cat([r.pattern[:, :, -1].flatten() for r in reads]),
    )


def log_probability(plain: Plain, read: Read, v: torch.Tensor, token: int) -> torch.Tensor:
    return plain.capped(plain.projected(read, v)).log_softmax(-1)[..., token]


def ours_locate(model: Model, sets: Sets) -> Numbers:
    found = twotowers.locate(model, sets)
    direct = found.direct
    return numbers(
        layers=found.layer_increase, heads=found.head_increase, embedding=direct.embedding,
        attention=direct.attention, mlp=direct.mlp, direct=direct.heads, margin=direct.margin,
    )  # fmt: skip


def theirs_locate(plain: Plain, sets: Sets) -> Numbers:
    found: dict[str, list] = {}
    for _, query, s, prompt in every_prompt(sets):
        read, gold = plain.read(prompt.ids), s.label_ids[s.gold[query]]
        other = s.label_ids[1 - s.gold[query]]
        resid, added = read.resid[:, -1], read.attention[:, -1]
        parts = torch.stack(
            [torch.stack([plain.written(read, i, h, read.z[i, -1, h]) for h in range(plain.n_heads)])
             for i in range(plain.n_layers)]
        )  # fmt: skip
        entering, between = (log_probability(plain, read, v, gold) for v in (resid, resid[:-1] + added))
        with_heads = log_probability(plain, read, resid[:-1, None] + parts, gold)

        def towards(v: torch.Tensor, read: Read = read, gold: int = gold, other: int = other) -> torch.Tensor:
            logits = plain.projected(read, v)
            return logits[..., gold] - logits[..., other]

        columns = {
            "layers": torch.stack([between - entering[:-1], entering[1:] - between], 1),
            "heads": with_heads - entering[:-1, None],
            "embedding": towards(resid[0]),
            "attention": towards(added),
            "mlp": towards(resid[1:] - resid[:-1] - added),
            "direct": towards(parts),
            # where logits are capped, parts add up to what they are before that
            "margin": read.logits[-1][gold] - read.logits[-1][other] if plain.cap is None else towards(resid[-1]),
        }
        for name, column in columns.items():
            found.setdefault(name, []).append(column)
    return numbers(**{name: torch.stack(columns, -1) for name, columns in found.items()})


# Towers, imbalance, order, words


def ours_towers(model: Model, sets: Sets) -> Numbers:
    table = ordered(twotowers.towers(model, sets, HEADS).sort_values(["layer", "head"], kind="stable"))
    read = read_heads(model, sets, HEADS).sort_values(["set", "query", "layer", "head", "demonstration"])
    return numbers(
        weight=read["weight"], cosine=read["cosine"], value=read["value"],
        decided=table[["auc", "auc_unrotated", "auc_cosine"]],
    )  # fmt: skip


def theirs_towers(plain: Plain, sets: Sets) -> Numbers:
    weights, cosines, values, areas = [], [], [], []
    for _, query, s, prompt in every_prompt(sets):
        read, places = plain.read(prompt.ids), list(prompt.label_positions)
        same = np.array([label == s.queries[query][1] for _, label in s.demonstrations])
        for layer, head in sorted(HEADS):
            weight = read.pattern[layer, head, -1, places]
            unrotated = read.key[layer, places, head] @ read.query[layer, -1, head]
            cosine = torch.cosine_similarity(read.resid[layer, places], read.resid[layer, -1:], dim=-1)
            written = plain.projected(read, plain.written(read, layer, head, read.value[layer, places, head]))
            own = torch.tensor([s.label_ids[s.labels.index(label)] for _, label in s.demonstrations])
            other = torch.tensor([s.label_ids[1 - s.labels.index(label)] for _, label in s.demonstrations])
            rows = torch.arange(len(places))
            weights.append(weight)
            cosines.append(cosine)
            values.append(written[rows, own] - written[rows, other])
            areas.append([area(x.numpy(), same) for x in (weight, unrotated, cosine)])
    return numbers(weight=torch.cat(weights), cosine=torch.cat(cosines), value=torch.cat(values), decided=areas)


def area(scores: np.ndarray, same: np.ndarray) -> float:
    """The share of pairs in which a position of the same class has the higher score."""
    return float((scores[same][:, None] > scores[~same][None]).mean())


def ours_imbalance(model: Model, sets: Sets) -> Numbers:
    table = ordered(twotowers.imbalance(model, {0.5: sets}, HEADS))
    names = ["p_foo", "p_gold", "logit_difference", "attention_foo", "attention_bar", "values_foo", "values_bar"]
    return numbers(**{name: table[name] for name in names}, decided=table["accuracy"])


def theirs_imbalance(plain: Plain, sets: Sets) -> Numbers:
    rows = []
    for _, query, s, prompt in every_prompt(sets):
        read = plain.read(prompt.ids)
        logits, (bar, foo) = read.logits[-1], s.label_ids
        difference = float(logits[foo] - logits[bar])
        row = {
            "p_foo": float(logits.softmax(-1)[foo]),
            "p_gold": 1 / (1 + np.exp(-difference if s.gold[query] else difference)),
            "logit_difference": difference,
            "decided": float(int(logits.argmax()) == s.label_ids[s.gold[query]]),
        }
        for label in ("foo", "bar"):
            places = [p for p, (_, own) in zip(prompt.label_positions, s.demonstrations, strict=True) if own == label]
            attention, value = 0.0, 0.0
            for layer, head in HEADS:
                weight = read.pattern[layer, head, -1, places]
                attention += float(weight.sum())
                written = plain.projected(
                    read, plain.written(read, layer, head, weight @ read.value[layer, places, head])
                )
                value += float(written[foo] - written[bar])
            row |= {f"attention_{label}": attention, f"values_{label}": value}
        rows.append(row)
    return numbers(**pd.DataFrame(rows).to_dict("list"))


ORDERS = [(0, 1, 2), (2, 0, 1)]


def ours_order(model: Model, sets: Sets) -> Numbers:
    table = twotowers.order(model, _threes(model, sets), HEADS, ORDERS).sort_values(["set", "order", "query"])
    names = ["margin", "logit_minus", "p_foo", "attention_foo", "attention_bar", "recency"]
    return numbers(**{name: table[name] for name in names}, decided=table["accuracy"])


def _threes(model: Model, sets: Sets) -> list[PromptSet]:
    return [twotowers.prompt_set(model, s.demonstrations[:3], s.queries) for s in sets]


def theirs_order(plain: Plain, sets: Sets) -> Numbers:
    rows = []
    for s in sets:
        for way in ORDERS:
            shown = [s.demonstrations[i] for i in way]
            lines = [f"{text}: {label}" for text, label in shown]
            for text, gold in s.queries:
                read = plain.read(plain.ids("\n".join([*lines, f"{text}:"])))
                ends = [len(plain.ids("\n".join(lines[: i + 1]))) - 1 for i in range(3)]
                logits, (bar, foo) = read.logits[-1], s.label_ids
                minus = float(logits[foo] - logits[bar])
                row = {"margin": minus if gold == "foo" else -minus, "logit_minus": minus}
                row["p_foo"] = 1 / (1 + np.exp(-minus))
                for label in ("foo", "bar"):
                    places = [end for end, (_, own) in zip(ends, shown, strict=True) if own == label]
                    row[f"attention_{label}"] = float(
                        np.mean([float(read.pattern[i, h, -1, places].sum()) for i, h in HEADS])
                    )
                own = [i for i, (_, label) in enumerate(shown) if label == "foo"]
                rest = [i for i, (_, label) in enumerate(shown) if label != "foo"]
                row["recency"] = float(np.mean(own) - np.mean(rest)) if own and rest else 0.0
                row["decided"] = float(int(logits.argmax()) == (foo if gold == "foo" else bar))
                rows.append(row)
    return numbers(**pd.DataFrame(rows).to_dict("list"))


TOP = 3


def ours_words(model: Model, sets: Sets) -> Numbers:
    """Words as the sums of the numbers of their letters, since what is compared are numbers."""
    table = twotowers.read_words(model, sets[0], HEADS[:2], top=TOP, top_key=TOP)
    values = table[table["part"] == "value"]
    return numbers(weight=values["weight"], decided=[code(words) for words in table["words"]])


def code(words: Sequence[str]) -> float:
    return float(sum((i + 1) * sum(map(ord, word)) for i, word in enumerate(words)))


def visible(text: str) -> str:
    text = text.replace(" ", "␣").replace("\n", "⏎").replace("\r", "").replace("\t", "⇥")
    return "".join(c if c.isprintable() else "\ufffd" for c in text) or "∅"


def theirs_words(plain: Plain, sets: Sets) -> Numbers:
    read, weights, codes = plain.read(sets[0].prompts[0].ids), [], []
    shown = len(plain.tokenizer)

    def words(v: torch.Tensor) -> float:
        if not bool(v.any()):
            return 0.0
        best = plain.projected(read, v)[:shown].topk(TOP).indices
        return code([visible(plain.tokenizer.decode([int(i)])) for i in best])

    for layer, head in HEADS[:2]:
        for i in range(read.resid.shape[1]):
            weight = read.pattern[layer, head, -1, i]
            weights.append(float(weight))
            value = plain.written(read, layer, head, weight * read.value[layer, i, head])
            codes += [words(value), words(read.attention[:layer, i].sum(0)), words(read.resid[layer, i])]
    return numbers(weight=weights, decided=codes)


def ours_check(model: Model, sets: Sets) -> Numbers:
    """Whether each identity holds; where a rounding may choose other experts, a refusal if one doesn't."""
    rounded_choice = model.dtype == torch.bfloat16 and has_experts(model.config)
    return numbers(holds=(require if rounded_choice else twotowers.check)(model)["holds"])


def theirs_check(plain: Plain, sets: Sets) -> Numbers:
    return numbers(holds=np.ones(11))

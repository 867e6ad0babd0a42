"""Models whose heads are set by hand, so that what each of them does is known.

A residual is a sum of *features*, orthonormal directions, beside a constant one that is so much larger than all others
that norms do nothing but scale by a number. Two shallow heads hand the class of a text on, from the text to the colon
and from the colon to the label. What answers is planted in the deep half, in one of these ways:

| kind | what answers | what else is planted |
|---|---|---|
| `towers` | `CHOICE` attends to labels of the query's class and writes their label | `BIAS`, and `IGNORED`, which \
does as `CHOICE` does where nobody reads it |
| `nearest` | `COPY` reads the last label, `BESIDE` its class; an MLP compares that with the query's | |
| `table` | `COPY` attends to all labels alike and reads which class has which; an MLP looks the query up | |
| `three` | as `towers`, for three labels: `CHOICE` alone | |
| `bias` | `BIAS` writes one label, always | |
| `ignored` | nothing: `IGNORED` writes what nobody reads | |
| `nothing` | nothing | |

All other heads are random and weak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from twotowers.models.model import open_model
from twotowers.prompts.task_labels import TaskLabels
from twotowers.prompts.tasks import load_task
from twotowers.study import Scale, Study
from twotowers.toy.data import make_tokenizer, read_words

LAYERS, HEADS, WIDTH, POSITIONS = 8, 8, 128, 128
SIZE = {"gpt2": 16, "llama": 32}  # of a head
TO_COLON, TO_LABEL = (0, 3), (1, 5)  # hand the class on
CHOICE = COPY = (5, 1)
BESIDE, BIAS, IGNORED = (3, 2), (5, 4), (6, 2)
ANSWERS = 6  # the layer whose MLP does, in the kinds that need one
SPACES = {
    "constant": 1, "text": 12, "colon": 12, "merged": 12, "bound": 12, "read": 12, "label": 1, "is_label": 1,
    "position": 16, "time": 1, "copied": 1, "answer": 1, "unread": 1, "word": 40,
}  # fmt: skip
LARGE, CLEAR, NAMED = 12.0, 10.0, 1.2  # the constant feature; labels above other tokens; a label, in logits
SHARP, NEW, BACK = 4.0, 7.0, 28.0  # scores: of the same class; of the last place above the first; of the place before
AWAY = 12.0  # a score that labels have above all else
TURNS = 10.0 ** (-0.5 * torch.arange(16))  # of a rotary head's pairs, radians a place: the base is 1e8
SMALL = Scale("small", selection_sets=2, evaluation_sets=10, shots=4, queries=4, draws=3)
SLOW = 10  # pairs from here on do not turn noticeably


LABELS = TaskLabels().names
THREE = ("foo", "bar", "baz")


def basis() -> dict[str, Tensor]:
    """Orthonormal rows [n, WIDTH] of every space, each of mean zero: a LayerNorm has nothing to centre."""
    drawn = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn[:, 0] = 1
    rows = torch.linalg.qr(drawn)[0].T[1:].float()
    return dict(zip(SPACES, rows[: sum(SPACES.values())].split(list(SPACES.values())), strict=True))


class Planted:
    """Weights of every head, in the orientation of the formulas, before they become those of a family."""

    def __init__(self, family: str) -> None:
        self.family, self.size, self.of = family, SIZE[family], basis()
        draw = torch.Generator().manual_seed(2)
        shape = (LAYERS, HEADS, WIDTH, self.size)
        seen = torch.eye(WIDTH) - self.of["constant"].T @ self.of["constant"]  # random heads see what differs
        self.q, self.k, self.v = (seen @ torch.randn(shape, generator=draw) * s for s in (0.3, 0.3, 0.1))
        self.o = torch.randn(LAYERS, HEADS, self.size, WIDTH, generator=draw) * 0.005
        self.units: dict[int, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in range(LAYERS)}
        self.classes = list(range(12)) if family == "gpt2" else [*range(SLOW, 16), *range(16 + SLOW, 32)]
        self.labels: tuple[str, ...] = LABELS
        self.flag = 12 if family == "gpt2" else SLOW - 1

    def head(self, where: tuple[int, int], **parts: Sequence[tuple[str, Sequence[int], float]]) -> None:
        """Plant one head: for `q, k, v, o` which spaces meet which of its dimensions, one to one, and how strongly."""
        for name in "qkvo":
            matrix = torch.zeros(WIDTH, self.size)
            for space, dimensions, strength in parts.get(name, ()):
                matrix[:, list(dimensions)] += strength * self.of[space].T
            getattr(self, name)[where] = matrix.T if name == "o" else matrix
        self.q[where] *= math.sqrt(self.size)  # what scores are divided by

    @property
    def one(self) -> tuple[str, list[int], float]:
        """A query or value that is the same everywhere."""
        return ("constant", [self.flag], 1 / LARGE)

    def at_distance(self, where: tuple[int, int], distance: int, source: str, target: str) -> None:
        """A head that reads so many places back, and hands a feature on."""
        carried = range(SPACES[source])
        self.head(where, v=[(source, carried, 1.0)], o=[(target, carried, 1.0)])
        turns = _embedded_turns() if self.family == "gpt2" else TURNS[:4]
        n, by = len(turns), distance * turns
        strength = BACK * math.sqrt(self.size)
        if self.family == "gpt2":  # k = (cos, sin) of the place; q the same, turned back
            cos, sin = self.of["position"].split(n)
            self.k[where] = torch.cat([cos, sin]).T
            along, across = by.cos()[:, None], by.sin()[:, None]
            turned = [along * cos + across * sin, along * sin - across * cos]
            self.q[where] = strength * torch.cat(turned).T
        else:  # the family turns both by their places
            self.k[where][:, :n] = self.of["constant"].T / LARGE
            self.q[where][:, :n] = strength * by.cos() * self.of["constant"].T / LARGE
            self.q[where][:, 16 : 16 + n] = -strength * by.sin() * self.of["constant"].T / LARGE

    def choosing(self, where: tuple[int, int], target: str, sharp: float = SHARP) -> None:
        """A head whose query and key compare classes, later labels a little ahead, and whose value is the label."""
        key = [("merged", self.classes, 1.0), ("is_label", [self.flag], AWAY)]
        query = [("colon", self.classes, sharp), self.one]
        if self.family == "gpt2":
            key.append(("time", [self.flag], NEW))
        else:  # the third pair turns by a tenth of a radian a place, and half a circle in a prompt
            key.append(("is_label", [2], 1.0))
            query.append(("constant", [2], NEW / 2 / LARGE))
        if len(self.labels) == 2:
            self.head(where, q=query, k=key, v=[("label", [0], 1.0)], o=[(target, [0], 1.0)])
        else:  # a direction for each label
            each = range(SPACES["bound"])
            self.head(where, q=query, k=key, v=[("bound", each, 1.0)], o=[("read", each, 1.0)])

    def biased(self, where: tuple[int, int]) -> None:
        """A head that writes the second label, whatever it sees."""
        self.head(where, v=[self.one], o=[("answer", [self.flag], 0.2)])

    def unit(self, layer: int, terms: Sequence[tuple[str, int, float]], above: float, *writes: tuple[str, int, float]):
        """A unit of an MLP: 1 where the sum of some features is half above a threshold, 0 where it is half below."""
        sharp = 16.0
        read = sum(weight * self.of[space][i] for space, i, weight in terms) - above * self.of["constant"][0] / LARGE
        written = sum(weight * self.of[space][i] for space, i, weight in writes)
        self.units[layer].append((sharp * read, written / (sharp / 2)))

    def network(self) -> GPT2LMHeadModel | LlamaForCausalLM:
        return (_gpt2 if self.family == "gpt2" else _llama)(self)

    def scale(self) -> float:
        """A norm's weight, with which it does nothing to a usual residual."""
        return math.sqrt((LARGE**2 + (11 if self.family == "gpt2" else 3)) / WIDTH)


def planted(kind: str, family: str = "gpt2") -> Planted:
    """One of the models of the table above."""
    made = Planted(family)
    made.at_distance(TO_COLON, 1, "text", "colon")
    made.at_distance(TO_LABEL, 1, "colon", "merged")
    if kind == "three":
        made.labels = THREE
    if kind in ("towers", "three"):
        made.choosing(CHOICE, "answer")
    if kind in ("towers", "ignored"):
        made.choosing(IGNORED, "unread", 0.75 * SHARP)
    if kind in ("towers", "bias"):
        made.biased(BIAS)
    if kind == "nearest":
        _nearest(made)
    if kind == "table":
        _table(made)
    return made


def _nearest(made: Planted) -> None:
    made.at_distance(COPY, 3, "label", "copied")
    made.at_distance(BESIDE, 3, "merged", "read")
    for i in range(12):
        for sign in (1.0, -1.0):
            label, own = ("copied", 0, sign), ("colon", i, 1.0)
            made.unit(ANSWERS, [own, ("read", i, 1.0), label], 2.5, ("answer", 0, sign))
            made.unit(ANSWERS, [own, ("read", i, -1.0), label], 1.5, ("answer", 0, -sign))


def _table(made: Planted) -> None:
    key = [("is_label", [made.flag], AWAY)]
    made.head(COPY, q=[made.one], k=key, v=[("bound", made.classes, 1.0)], o=[("read", made.classes, 2.0)])
    for i in range(12):
        for sign in (1.0, -1.0):
            made.unit(2, [("merged", i, 1.0), ("label", 0, sign)], 1.5, ("bound", i, sign))
            made.unit(ANSWERS, [("colon", i, 1.0), ("read", i, sign)], 1.5, ("answer", 0, sign))


def planted_study(kind: str, family: str, folder: Path) -> Study:
    """A planted model, saved in a folder with the toy's tokenizer, a token for every word; and a small study of it."""
    planted(kind, family).network().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    if kind == "three":
        return Study(open_model(str(folder)), load_task("words:classes=3"), replace(SMALL, queries=6), seed=0)
    return Study(open_model(str(folder)), load_task("words"), SMALL, seed=0)


class Studies:
    """`planted_study` by kind and family, each made when it is first asked for."""

    def __init__(self, make_folder: Callable[[str], Path]) -> None:
        self.made: dict[tuple[str, str], Study] = {}
        self.make_folder = make_folder

    def __call__(self, kind: str, family: str = "gpt2") -> Study:
        if (kind, family) not in self.made:
            self.made[kind, family] = planted_study(kind, family, self.make_folder(f"{kind}-{family}"))
        return self.made[kind, family]


# From features to the weights of a family


def _embedded_turns() -> Tensor:
    return 2.0 ** -torch.arange(8)


def _embeddings(made: Planted) -> tuple[Tensor, Tensor]:
    """Of tokens, and from residuals to logits: [V, WIDTH] each."""
    tokenizer, of = make_tokenizer(), made.of
    words, labels = read_words(tokenizer), tokenizer.convert_tokens_to_ids(list(made.labels))
    draw = torch.Generator().manual_seed(3)
    own = torch.randn(len(tokenizer), SPACES["word"], generator=draw) / math.sqrt(SPACES["word"])
    tokens = LARGE * of["constant"] + own @ of["word"]
    for i, ids in enumerate(words.ids[: words.n_book]):
        tokens[torch.tensor(ids[ids >= 0])] += of["text"][i]
    logits = torch.zeros(len(tokenizer), WIDTH)
    if len(labels) > 2:
        for i, label in enumerate(labels):
            tokens[label] += of["bound"][i] + of["is_label"][0]
            logits[label] = 2 * NAMED * of["read"][i] + CLEAR / LARGE * of["constant"][0]
        return tokens, logits
    for label, sign in zip(labels, np.where(np.array(LABELS) == max(LABELS), 1.0, -1.0), strict=True):
        tokens[label] += sign * of["label"][0] + of["is_label"][0]
        logits[label] = sign * NAMED * of["answer"][0] + CLEAR / LARGE * of["constant"][0]
    return tokens, logits


def _joined(x: Tensor) -> Tensor:
    """Heads side by side: [H, WIDTH, size] to [WIDTH, H * size]."""
    return x.transpose(0, 1).flatten(1)


def _gpt2(made: Planted) -> GPT2LMHeadModel:
    tokens, logits = _embeddings(made)
    inner = max(8, *map(len, made.units.values()))
    config = GPT2Config(
        vocab_size=len(tokens), n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=inner,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    network, places = GPT2LMHeadModel(config), torch.arange(POSITIONS)
    angles = places[:, None] * _embedded_turns()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_(made.scale() if "ln_" in name and name.endswith("weight") else 0.0)
        body = network.transformer
        body.wte.weight.copy_(tokens)
        body.wpe.weight.copy_(torch.cat([angles.cos(), angles.sin()], 1) @ made.of["position"])
        body.wpe.weight.add_(places[:, None] / 32 * made.of["time"])
        network.lm_head.weight.copy_(logits)
        for i, block in enumerate(body.h):
            block.attn.c_attn.weight.copy_(torch.cat([_joined(x[i]) for x in (made.q, made.k, made.v)], 1))
            block.attn.c_proj.weight.copy_(made.o[i].flatten(0, 1))
            for j, (read, written) in enumerate(made.units[i]):
                block.mlp.c_fc.weight[:, j], block.mlp.c_proj.weight[j] = read, written
    return network


def _llama(made: Planted) -> LlamaForCausalLM:
    tokens, logits = _embeddings(made)
    inner = max(8, *map(len, made.units.values()))
    config = LlamaConfig(
        vocab_size=len(tokens), max_position_embeddings=POSITIONS, hidden_size=WIDTH, intermediate_size=inner,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=HEADS, head_dim=made.size,
        rope_theta=1e8, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    network = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_(made.scale() if "norm" in name else 0.0)
        network.model.embed_tokens.weight.copy_(tokens)
        network.lm_head.weight.copy_(logits)
        for i, block in enumerate(network.model.layers):
            for name, x in zip(("q_proj", "k_proj", "v_proj"), (made.q, made.k, made.v), strict=True):
                getattr(block.self_attn, name).weight.copy_(_joined(x[i]).T)
            block.self_attn.o_proj.weight.copy_(made.o[i].flatten(0, 1).T)
            block.mlp.up_proj.weight.copy_(made.of["constant"] / LARGE)
            for j, (read, written) in enumerate(made.units[i]):
                block.mlp.gate_proj.weight[j], block.mlp.down_proj.weight[:, j] = read, written
    return network

"""Reading a head in words: what it takes from each position, and what queries and keys hold, as likely tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ...arguments import require_whole
from ...errors import PromptError
from ...models.architecture import Architecture
from ...models.model import Model
from ...models.surroundings import undisturbed
from ...prompts.encoding import require_embedded, require_reader, require_text
from ...prompts.packing import Batch
from ...prompts.sets import PromptSet, as_sets
from ...tracing.capture import Capture, capture
from ...tracing.heads import Head, Heads, as_heads, deep_heads
from ...tracing.projection import increases, project, values_of


@undisturbed
def read_words(
    model: Model,
    prompt: str | PromptSet,
    heads: Heads | None = None,
    *,
    query: int = 0,
    top: int = 10,
    top_key: int = 20,
) -> pd.DataFrame:
    """Read heads in words, position by position: the paper's Table 1 for any prompt.

    Each vector is projected onto the vocabulary with the norm's scale frozen at the last position (method page,
    equation eq-projection), and its most likely tokens are listed:
    `value` pattern * vo; `key` what attention has written into the residual entering the layer, the key matrix not
    applied; `query` the same at the last position; `layer input` the whole residual entering the layer.

    Args:
        prompt: any text, or a prompt set, of which query number `query` is read.
        heads: (layer, head) pairs; without them, the three deep heads that most raise the model's own answer.
        top: tokens of values and layer inputs, `top_key` of keys and queries.

    Returns:
        a row per head, position and part: `layer, head, position, token, weight` (attention), `part`, and `words`, a
        tuple of tokens, most likely first ("␣" is a leading space); empty where the vector is zero.

    Raises:
        HeadError: a head that the model does not have.
        PromptError: an empty text, or one longer than the model's context.
    """
    require_reader(model)
    if isinstance(prompt, PromptSet):
        as_sets(model, prompt)
    for name, number in (("top", top), ("top_key", top_key)):
        require_whole(name, number, 1, model.config.vocab_size)
    require_whole("query", query, 0, len(prompt.prompts) - 1 if isinstance(prompt, PromptSet) else None)
    batch = _one_prompt(model, prompt.prompts[query].ids if isinstance(prompt, PromptSet) else _encode(model, prompt))
    captured = capture(model, batch, pattern=True, inputs=True, written=True)
    assert captured.pattern is not None
    if heads is None:
        heads = _raising(model, captured)
    heads = as_heads(model, heads)
    tokens = readable(model, batch.input_ids[0].tolist())
    final = captured.resid_pre[-1].expand(len(tokens), -1)
    rows = []
    for layer, head in heads:
        vectors = word_vectors(model.arch, captured, layer, head)
        words = {
            part: top_words(model, project(model.arch, v, final), top_key if part == "key" else top)
            for part, v in vectors.items()
        }
        for p, token in enumerate(tokens):
            weight = float(captured.pattern[layer, 0, head, p])
            for part in vectors:
                name = "query" if part == "key" and p == len(tokens) - 1 else part
                read = words[part][p] if bool(vectors[part][p].any()) else ()
                rows.append((layer, head, p, token, weight, name, read))
    return pd.DataFrame(rows, columns=["layer", "head", "position", "token", "weight", "part", "words"])


def word_vectors(arch: Architecture, captured: Capture, layer: int, head: int) -> dict[str, Float[Tensor, "S d"]]:
    """The vectors that `read_words` projects, for a capture of one prompt: `value`, `key` and `layer input`."""
    assert captured.pattern is not None
    assert captured.inputs is not None
    assert captured.written is not None
    values = captured.scaled(layer, values_of(arch, captured, layer, [head])[:, :, 0])[0]
    vo = values @ arch.w_o(layer)[head]
    return {
        "value": captured.pattern[layer, 0, head, :, None] * vo,
        "key": captured.written[:layer, 0].sum(0),
        "layer input": captured.inputs[layer, 0],
    }


def top_words(model: Model, logits: Float[Tensor, "S V"], k: int) -> list[tuple[str, ...]]:
    """The k most likely tokens of each row, most likely first; the unembedding may have rows that are no tokens."""
    best = logits[:, : len(model.tokenizer)].topk(k).indices
    return [tuple(readable(model, row)) for row in best.tolist()]


def readable(model: Model, ids: Sequence[int]) -> list[str]:
    """Each token as text without whitespace or control characters: "␣" is a space, "⏎" a line break."""
    pieces = model.tokenizer.convert_ids_to_tokens(list(ids))
    texts = model.tokenizer.batch_decode([[i] for i in ids])
    return [_visible(text, piece) for text, piece in zip(texts, pieces, strict=True)]


def _visible(text: str, piece: str | None) -> str:
    """A decoder may drop the leading space of a token that stands alone; the vocabulary's own piece still has it."""
    if piece and piece[0] in "▁Ġ" and not text[:1].isspace():
        text = f" {text}"
    text = re.sub(" {4,}", "   …", text).replace(" ", "␣").replace("\r", "").replace("\n", "⏎").replace("\t", "⇥")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text) or "∅"


def labels_read(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The values of `read_words` at positions that hold a label, with `hit`: the label is among the words."""
    rows = table[(table["part"] == "value") & table["token"].str.strip("␣").isin(labels)]
    hits = [
        token.strip("␣") in [word.strip("␣").lower() for word in words]
        for token, words in zip(rows["token"], rows["words"], strict=True)
    ]
    return rows.assign(hit=np.array(hits, dtype=bool))


def joined(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `read_words` with the words in one text, a space between them: no token has a space in it."""
    return table.assign(words=table["words"].str.join(" "))


def first_head(selected: Mapping[str, Sequence[Head]], label: str) -> Head:
    """The first head that serves a label; where none does, the first in-context head."""
    return [*selected.get(label, ()), *selected["all"]][0]


def _raising(model: Model, captured: Capture) -> list[Head]:
    """The three deep heads that most raise the log-probability of the token that the model would answer."""
    _, rise = increases(model.arch, captured, captured.answers.best)
    return sorted(deep_heads(model), key=lambda head: -float(rise[head[0], head[1], 0]))[:3]


def _encode(model: Model, text: str) -> list[int]:
    require_text(text, "prompt")
    if not text.strip():
        raise PromptError("The prompt to read is empty; give a text such as 'apple : foo saw : bar pear :'.")
    ids = model.tokenizer(text.rstrip())["input_ids"]  # a label brings its own leading space
    if not ids:
        raise PromptError(f"The tokenizer of {model.name} keeps nothing of '{text.strip()}'; use words that it knows.")
    require_embedded(model, ids)
    return ids


def _one_prompt(model: Model, ids: Sequence[int]) -> Batch:
    """A batch of one prompt of any tokens, without labels."""
    n = len(ids)
    if n > model.context_length:
        raise PromptError(
            f"The prompt has {n} tokens but {model.name} reads at most {model.context_length}; shorten it."
        )
    return Batch(
        input_ids=torch.tensor([list(ids)]),
        position_ids=torch.arange(n)[None],
        allowed=torch.ones(1, n, n, dtype=torch.bool).tril(),
        row=torch.tensor([0]),
        last=torch.tensor([n - 1]),
        label_ids=torch.zeros(1, 2, dtype=torch.long),
        gold=torch.tensor([0]),
        index=torch.arange(n)[None],
    )

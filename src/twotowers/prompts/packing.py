"""Packing: prompt sets as rows of one batch, exactly as if each prompt were alone.

Each row is the shared prefix followed by one branch per query. A branch attends to the prefix and to itself and its
positions continue from the prefix, so the packed forward equals one forward per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .sets import PromptSet


@dataclass(frozen=True)
class Batch:
    """Prompt sets packed as rows. B rows of T tokens hold N prompts.

    Attributes:
        input_ids, position_ids: what the model reads.
        allowed: True where a token (second axis) may attend to another (third axis): to those of the batch, behind
            those that the model remembers from an earlier forward (`lasts`, `tail`).
        row, last: for each prompt its row and the packed index of its last token.
        label_ids: for each prompt the tokens of its k labels, `gold` the index of the right one.
        index: packed index of every token of each prompt, padded with -1.
        remembered: positions of the tokens that the model remembers, if it does.
    """

    input_ids: Int[Tensor, "B T"]
    position_ids: Int[Tensor, "B T"]
    allowed: Bool[Tensor, "B T K"]
    row: Int[Tensor, " N"]
    last: Int[Tensor, " N"]
    label_ids: Int[Tensor, "N k"]
    gold: Int[Tensor, " N"]
    index: Int[Tensor, "N S"]
    remembered: Int[Tensor, "B M"] | None = None

    @property
    def key_positions(self) -> Int[Tensor, "B K"]:
        """Position in its prompt of every token that may be attended to, as in `allowed`."""
        if self.remembered is None:
            return self.position_ids
        return torch.cat([self.remembered, self.position_ids], dim=1)

    def repeat(self, rows: int) -> Batch:
        """The same packed row `rows` times (for one set only): prompts are ordered row by row."""
        if len(self.input_ids) != 1:
            raise ValueError("only a batch of one row can be repeated")
        n = len(self.row)
        return Batch(
            input_ids=self.input_ids.expand(rows, -1),
            position_ids=self.position_ids.expand(rows, -1),
            allowed=self.allowed.expand(rows, -1, -1),
            row=torch.arange(rows).repeat_interleave(n),
            last=self.last.repeat(rows),
            label_ids=self.label_ids.repeat(rows, 1),
            gold=self.gold.repeat(rows),
            index=self.index.repeat(rows, 1),
        )

    @property
    def even(self) -> bool:
        """Whether every row holds as many prompts, in order, so that their last positions form a batch (`lasts`)."""
        n, rows = len(self.row), len(self.input_ids)
        return n % rows == 0 and torch.equal(self.row, torch.arange(rows).repeat_interleave(n // rows))

    def lasts(self, copies: int = 1) -> Batch:
        """The last positions alone, a column a prompt, for a forward that remembers keys and values of this batch.

        Each of them sees what it saw before, but itself in its new place, behind the T remembered tokens.

        Args:
            copies: how many times all of them stand there, copy by copy (of a batch of one row only).
        """
        rows, length = self.input_ids.shape
        if copies > 1 and rows != 1:
            raise ValueError("only the last positions of one row can be copied")
        n = len(self.row) // rows * copies  # columns of a row
        row, last, own = self.row.repeat(copies), self.last.repeat(copies), self.index.repeat(copies, 1)
        seen = self.allowed[row, last].clone()
        seen[torch.arange(len(seen)), last] = False
        column = torch.arange(n).repeat(rows)
        return Batch(
            input_ids=self.input_ids[row, last].reshape(rows, n),
            position_ids=self.position_ids[row, last].reshape(rows, n),
            allowed=torch.cat([seen.reshape(rows, n, -1), torch.eye(n, dtype=torch.bool).expand(rows, -1, -1)], dim=2),
            row=row,
            last=column,
            label_ids=self.label_ids.repeat(copies, 1),
            gold=self.gold.repeat(copies),
            index=torch.where(own == last[:, None], length + column[:, None], own),
            remembered=self.position_ids,
        )

    def tail(self, first: int) -> Batch:
        """The positions from `first` on, of a batch of one row, for a forward that remembers keys and values of it.

        They see the remembered ones before them, and each other in their new places, behind all T remembered tokens.
        """
        if len(self.input_ids) != 1:
            raise ValueError("only one row has a tail")
        length = self.input_ids.shape[1]
        seen = self.allowed[:, first:].clone()
        seen[..., first:] = False
        return Batch(
            input_ids=self.input_ids[:, first:],
            position_ids=self.position_ids[:, first:],
            allowed=torch.cat([seen, self.allowed[:, first:, first:]], dim=2),
            row=self.row,
            last=self.last - first,
            label_ids=self.label_ids,
            gold=self.gold,
            index=torch.where(self.index >= first, self.index + length - first, self.index),
            remembered=self.position_ids,
        )


def pack(sets: Sequence[PromptSet], pad_id: int = 0) -> Batch:
    """Lay prompt sets out as rows of one batch, padded on the right; a padding token sees only itself."""
    length = max(s.packed_length for s in sets)
    width = max(len(prompt.ids) for s in sets for prompt in s.prompts)
    input_ids = torch.full((len(sets), length), pad_id)
    position_ids = torch.zeros((len(sets), length), dtype=torch.long)
    allowed = torch.eye(length, dtype=torch.bool).repeat(len(sets), 1, 1)
    rows, lasts, indices = [], [], []
    for row, s in enumerate(sets):
        end = s.shared
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        input_ids[row, :end] = torch.tensor(s.prompts[0].ids[:end], dtype=torch.long)
        position_ids[row, :end] = torch.arange(end)
        allowed[row, :end, :end] = causal[:end, :end]
        for prompt in s.prompts:
            start, end = end, end + len(prompt.ids) - s.shared
            input_ids[row, start:end] = torch.tensor(prompt.ids[s.shared :])
            position_ids[row, start:end] = torch.arange(s.shared, len(prompt.ids))
            allowed[row, start:end, : s.shared] = True
            allowed[row, start:end, start:end] = causal[start:end, start:end]
            rows.append(row)
            lasts.append(end - 1)
            index = torch.full((width,), -1)
            index[: len(prompt.ids)] = torch.cat([torch.arange(s.shared), torch.arange(start, end)])
            indices.append(index)
    return Batch(
        input_ids=input_ids,
        position_ids=position_ids,
        allowed=allowed,
        row=torch.tensor(rows),
        last=torch.tensor(lasts),
        label_ids=torch.tensor([s.label_ids for s in sets for _ in s.prompts]),
        gold=torch.tensor([gold for s in sets for gold in s.gold]),
        index=torch.stack(indices),
    )

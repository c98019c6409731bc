"""Draft trees: continuations proposed to a model, which verifies them all in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from runnel.lineage import Lineage
from runnel.state import PendingState


class DraftTree:
    """Continuations of the rows of a batch, as one flat list of N nodes.

    tokens: (N,) int64. parents: (N,) the node before each, which must stand earlier in the list and in the same row;
    -1 at a row's roots. rows: (N,) the row of the batch that each node continues. Rows may have different numbers of
    nodes, or none.
    """

    def __init__(self, tokens: Sequence[int] | Tensor, parents: Sequence[int] | Tensor, rows: Sequence[int] | Tensor):
        self.tokens, self.parents, self.rows = [torch.as_tensor(x, dtype=torch.long) for x in (tokens, parents, rows)]
        shapes = {tuple(x.shape) for x in (self.tokens, self.parents, self.rows)}
        if len(shapes) != 1 or self.tokens.dim() != 1:
            raise ValueError(f"tokens, parents and rows must be flat lists of one length; got shapes {sorted(shapes)}")
        rows_of = self.rows.tolist()
        for node, parent in enumerate(self.parents.tolist()):
            if not -1 <= parent < node:
                raise ValueError(f"parent of node {node} must be -1 or an earlier node; got {parent}")
            if parent >= 0 and rows_of[parent] != rows_of[node]:
                raise ValueError(f"node {node} of row {rows_of[node]} has its parent {parent} in row {rows_of[parent]}")

    def __len__(self) -> int:
        return self.tokens.numel()

    def layout(self, batch_size: int) -> TreeLayout:
        """The tree as padded rows. ValueError when it names a row that the batch does not have."""
        taken = [0] * batch_size
        columns = []
        for node, row in enumerate(self.rows.tolist()):
            if not 0 <= row < batch_size:
                raise ValueError(f"node {node} continues row {row}; the state has {batch_size} rows")
            columns.append(taken[row])
            taken[row] += 1
        return TreeLayout(self, torch.tensor(columns, dtype=torch.long), batch_size, max(taken))


@dataclass(frozen=True, eq=False)
class TreeLayout:
    """A draft tree as padded rows: `columns` says where each flat node stands in its row."""

    tree: DraftTree
    columns: Int[Tensor, "N"]
    batch_size: int
    width: int

    def padded(self, values: Int[Tensor, "N"], fill: int) -> Int[Tensor, "B T"]:
        """Flat values as padded rows."""
        out = torch.full((self.batch_size, self.width), fill, dtype=values.dtype)
        out[self.tree.rows, self.columns] = values
        return out

    def lineage(self) -> Lineage:
        parents = self.tree.parents
        local = torch.where(parents >= 0, self.columns[parents.clamp(min=0)], -1)
        ragged = len(self.tree) < self.batch_size * self.width
        return Lineage.tree(self.padded(local, -1), self.padded(torch.ones_like(parents), 0).bool() if ragged else None)


@dataclass(frozen=True, eq=False)
class Verification:
    """What a model says of a draft tree.

    logits: after each node. hidden: the vectors that the head saw. pending: for `State.commit`.
    """

    logits: Float[Tensor, "N V"]
    hidden: Float[Tensor, "N D"]
    pending: PendingState

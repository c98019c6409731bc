"""Attention of a slice, some queries at a time: of the square of scores and its mask nothing is kept."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from runnel.ops.attend import Call, of_columns, weighted

QUERIES = 256
"""In a piece."""


def in_pieces(call: Call, q: Float[Tensor, "B R H K"], columns: slice) -> Float[Tensor, "B R H V"]:
    """The same as `of_columns`. A piece reads no keys after its last query."""
    begins = range(columns.start, columns.stop, QUERIES)
    pieces = list(zip(q.split(QUERIES, dim=1), begins, strict=True))
    if call.is_fresh and call.lineage.is_plain and call.cap is None and not call.sinks:
        return torch.cat(_of_plain(call, pieces, columns.stop), dim=1)
    return torch.cat(_computed_again(call, pieces), dim=1)


def _of_plain(call: Call, pieces: list[tuple[Tensor, int]], end: int) -> list[Tensor]:
    """All pieces look at the same mask, each from where it begins: only the distance to a key counts.

    It has the rows of a whole piece always, so that what is kept grows with the length and nothing else.
    """
    hidden = torch.full((QUERIES, end + QUERIES), -torch.inf, dtype=call.q.dtype, device=call.q.device)
    mask, found = hidden.triu(end + 1), []
    if call.window is not None:
        mask = mask + hidden.tril(end - call.window)
    for queries, begin in pieces:
        stop = begin + queries.shape[1]
        first = 0 if call.window is None else max(0, begin + 1 - call.window)
        seen = mask[None, : queries.shape[1], end - begin + first : end - begin + stop]
        found.append(weighted(queries, call.k[:, first:stop], call.v[:, first:stop], seen, None))
    return found


def _computed_again(call: Call, pieces: list[tuple[Tensor, int]]) -> list[Tensor]:
    """A piece's mask is there while it is read, forward and once more backward."""

    def one(queries: Tensor, k: Tensor, v: Tensor, begin: int) -> Tensor:
        return of_columns(replace(call, k=k, v=v), queries, slice(begin, begin + queries.shape[1]))

    return [
        checkpoint(one, queries, call.k, call.v, begin, use_reentrant=False, preserve_rng_state=False)
        for queries, begin in pieces
    ]

"""Attention of a slice, some queries at a time: of the square of scores and its mask nothing is kept."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from runnel.ops.attend import Call, of_columns

QUERIES = 512
"""In a piece. Its mask is so many rows long, and is there while it is read, forward and once more backward."""


def in_pieces(call: Call, q: Float[Tensor, "B R H K"], columns: slice) -> Float[Tensor, "B R H V"]:
    """The same as `of_columns`. A piece reads no keys after its last query."""

    def one(queries: Tensor, k: Tensor, v: Tensor, begin: int) -> Tensor:
        return of_columns(replace(call, k=k, v=v), queries, slice(begin, begin + queries.shape[1]))

    begins = range(columns.start, columns.stop, QUERIES)
    found = [
        checkpoint(one, queries, call.k, call.v, begin, use_reentrant=False, preserve_rng_state=False)
        for begin, queries in zip(begins, q.split(QUERIES, dim=1), strict=True)
    ]
    return torch.cat(found, dim=1)

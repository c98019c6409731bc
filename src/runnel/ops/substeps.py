"""Substeps: a scan that takes several steps within every token, and is read after the last of them.

Every token becomes `n` tokens in a row; its children follow the last of them. So any scan serves, on any Lineage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import FROM_STATE, Lineage
from runnel.ops.recording import primitive
from runnel.state import Memory, Pending

Scan = Callable[..., tuple[Tensor, Memory]]


def refine(lineage: Lineage, count: int) -> Lineage:
    """The lineage of tokens of `count` substeps each."""
    first = torch.arange(count, device=lineage.start.device) == 0
    reset, valid, parents, prefix = lineage.reset, lineage.valid, lineage.parents, lineage.prefix
    if parents is not None:
        before = torch.arange(-1, lineage.length * count - 1, device=parents.device).unflatten(0, (-1, count))
        last = torch.where(parents == FROM_STATE, FROM_STATE, parents * count + count - 1)
        parents = torch.where(first, last[..., None], before).flatten(1)
    return replace(
        lineage,
        start=lineage.start * count,
        length=lineage.length * count,
        reset=None if reset is None else (reset[..., None] & first).flatten(1),
        valid=None if valid is None else valid.repeat_interleave(count, 1),
        parents=parents,
        prefix=None if prefix is None else prefix.repeat_interleave(count, 1),
    )


@primitive
def substeps(
    scan: Scan, tokens: tuple[Float[Tensor, "B T n ..."], ...], memory: Memory, lineage: Lineage
) -> tuple[Float[Tensor, "B T ..."], Memory]:
    """scan(*tokens, memory, lineage) over all substeps: its outputs after the last of every token, and its memory."""
    y, after = _all(scan, tokens, memory, lineage)
    return y[:, :, -1], after


@primitive
def every_substep(
    scan: Scan, tokens: tuple[Float[Tensor, "B T n ..."], ...], memory: Memory, lineage: Lineage
) -> tuple[Float[Tensor, "B T n ..."], Memory]:
    """The same, with the outputs after every substep: a token that is read several times reads in its last ones."""
    return _all(scan, tokens, memory, lineage)


def _all(scan: Scan, tokens: tuple[Tensor, ...], memory: Memory, lineage: Lineage) -> tuple[Tensor, Memory]:
    count = tokens[0].shape[2]
    y, after = scan(*[x.flatten(1, 2) for x in tokens], memory, refine(lineage, count))
    return y.unflatten(1, (-1, count)), _of_tokens(after, count) if isinstance(after, Pending) else after


def _of_tokens(pending: Pending, count: int) -> Pending:
    """A record of a token is the records of its substeps."""

    def advance(memory: Memory, lineage: Lineage, *records: Tensor) -> Memory:
        return pending.advance(memory, refine(lineage, count), *[record.flatten(1, 2) for record in records])

    records = tuple(record.unflatten(1, (-1, count)) for record in pending.records)
    return Pending(advance, pending.memory, records)

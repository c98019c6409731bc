"""Softmax attention over an append-only memory, with grouped heads, a sliding window and attention sinks.

Every key and value carries its position; a query sees the memory and its own ancestors, within the window.
Rows of different lengths are padded on the left of the memory (position -1): the newest entries are always last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from runnel.lineage import Lineage
from runnel.ops.recording import primitive
from runnel.state import Memory, Pending


class KeyValues(NamedTuple):
    """k (B, S, H, K); v (B, S, H, V); positions (B, S) int64, -1 where a row has nothing."""

    k: Tensor
    v: Tensor
    positions: Tensor

    @classmethod
    def empty(cls, batch_size: int, heads: int, width: int, like: Tensor, value_width: int | None = None) -> KeyValues:
        """value_width: V where it is not K."""
        shapes = [(batch_size, 0, heads, size) for size in (width, value_width or width)]
        k, v = [
            torch.zeros(shape, dtype=like.dtype, device=like.device) for shape in shapes
        ]  # never cut as weights are
        return cls(k, v, torch.zeros(batch_size, 0, dtype=torch.long, device=like.device))

    @classmethod
    def cat(cls, memories: Sequence[KeyValues]) -> KeyValues:
        """Rows of several memories, padded on the left to the longest."""
        longest = max(m.positions.shape[1] for m in memories)
        spare = [longest - m.positions.shape[1] for m in memories]
        k, v = [
            torch.cat([pad(m[i], (0, 0, 0, 0, s, 0)) for m, s in zip(memories, spare, strict=True)]) for i in (0, 1)
        ]
        positions = [pad(m.positions, (s, 0), value=-1) for m, s in zip(memories, spare, strict=True)]
        return cls(k, v, torch.cat(positions))

    def take(self, rows: Tensor) -> KeyValues:
        """Rows by index, without padding that none of them needs."""
        spare = int((self.positions.index_select(0, rows) < 0).all(0).sum())
        return KeyValues(*[x[:, spare:].index_select(0, rows) for x in self])


def reference(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T G K"],
    v: Float[Tensor, "B T G V"],
    window: int | None = None,
    sinks: int = 0,
    cap: float | None = None,
) -> Float[Tensor, "B T H V"]:
    """The literal loop over fresh rows; H a multiple of G."""
    group = q.shape[2] // k.shape[2]
    y = v.new_zeros(*q.shape[:3], v.shape[-1])
    for t in range(q.shape[1]):
        seen = [j for j in range(t + 1) if window is None or t - j < window or j < sinks]
        for h in range(q.shape[2]):
            scores = (k[:, seen, h // group] * q[:, t, None, h]).sum(-1) / math.sqrt(q.shape[-1])
            scores = scores if cap is None else cap * (scores / cap).tanh()
            y[:, t, h] = (scores.softmax(-1)[..., None] * v[:, seen, h // group]).sum(1)
    return y


@primitive
def attend(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T G K"],
    v: Float[Tensor, "B T G V"],
    memory: KeyValues,
    lineage: Lineage,
    window: int | None = None,
    sinks: int = 0,
    cap: float | None = None,
) -> tuple[Float[Tensor, "B T H V"], Memory]:
    """A query at position p sees ancestors at positions above p - window (all of them when window is None) and the
    first `sinks` positions. H is a multiple of G. Scores s become cap * tanh(s / cap) where a cap is given.

    Returns the outputs and the grown memory (pending after a tree).
    """
    if lineage.part is not None:
        return lineage.part.exchange.attend(q, k, v, memory, lineage, window, sinks, cap)
    grow = partial(append, window=window, sinks=sinks)
    y = _attention(q, k, v, memory, lineage, window, sinks, cap)
    if lineage.is_tree:
        return y, Pending(grow, memory, (k, v), _gather if window is None else None)
    return y, grow(memory, lineage, k, v)


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    memory: KeyValues,
    lineage: Lineage,
    window: int | None,
    sinks: int,
    cap: float | None,
) -> Tensor:
    fresh = memory.positions.shape[1] == 0
    causal = cap is None and fresh and lineage.is_plain and (window is None or lineage.length <= window)
    mask = None if causal else _visible(memory.positions, lineage, window, sinks)
    keys, values = (k, v) if fresh else (torch.cat([memory.k, k], dim=1), torch.cat([memory.v, v], dim=1))
    return weighted(q, keys, values, mask, cap)


def weighted(
    q: Float[Tensor, "B T H K"],
    keys: Float[Tensor, "B S G K"],
    values: Float[Tensor, "B S G V"],
    mask: Bool[Tensor, "B T S"] | None,
    cap: float | None,
) -> Float[Tensor, "B T H V"]:
    """The means of the values that a query sees: where the mask is true, or (None) causally, where T = S."""
    if cap is not None:
        assert mask is not None
        return _capped(q, keys, values, mask[:, None], cap)
    seen = None if mask is None else mask[:, None]
    y = scaled_dot_product_attention(
        q.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), seen, is_causal=mask is None, enable_gqa=True
    )
    return y.transpose(1, 2)


def _capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, cap: float) -> Tensor:
    """mask: (B, 1, T, S). The queries of a group are rows of one product, so that keys are not repeated."""
    groups, length = k.shape[2], q.shape[1]
    rows = q.unflatten(2, (groups, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3)  # (B, G, R T, K)
    scores = (rows @ k.permute(0, 2, 3, 1)).unflatten(2, (-1, length)) / math.sqrt(q.shape[-1])
    law = (cap * (scores / cap).tanh()).masked_fill(~mask[:, :, None], -math.inf).softmax(-1)
    y = (law.flatten(2, 3) @ v.transpose(1, 2)).unflatten(2, (-1, length))  # (B, G, R, T, V)
    return y.permute(0, 3, 1, 2, 4).flatten(2, 3)


def _visible(held: Tensor, lineage: Lineage, window: int | None, sinks: int) -> Tensor:
    """(B, T, S + T) bool: what each token may look at, the memory first. held: (B, S) positions in memory."""
    return _within(held, lineage, window, sinks, lineage.ancestors, slice(None))


def visible_to(held: Tensor, lineage: Lineage, window: int | None, sinks: int, rows: slice) -> Tensor:
    """The same for some tokens of a chain."""
    return _within(held, lineage, window, sinks, lineage.reach(rows, slice(None)), rows)


def _within(held: Tensor, lineage: Lineage, window: int | None, sinks: int, reach: Tensor, rows: slice) -> Tensor:
    own = lineage.positions
    from_memory = lineage.from_state[:, rows, None] & (held >= 0)[:, None, :]
    visible = torch.cat([from_memory, reach.expand(own.shape[0], -1, -1)], dim=2)
    if window is None:
        return visible
    position = torch.cat([held, own], dim=1)[:, None, :]
    return visible & ((own[:, rows, None] - position < window) | (position < sinks))


def append(memory: KeyValues, lineage: Lineage, k: Tensor, v: Tensor, window: int | None, sinks: int) -> KeyValues:
    """The memory after a chain, without what no later token can see."""
    positions = torch.cat([memory.positions, lineage.positions], dim=1)
    grown = KeyValues(torch.cat([memory.k, k], dim=1), torch.cat([memory.v, v], dim=1), positions)
    if lineage.is_plain and (window is None or sinks == 0):
        size = positions.shape[1]
        first = 0 if window is None else max(0, size - (window - 1))
        return grown if first == 0 else KeyValues(*[x[:, first:] for x in grown])
    return _compact(grown, _wanted(memory.positions, positions, lineage, window, sinks))


def _wanted(held: Tensor, positions: Tensor, lineage: Lineage, window: int | None, sinks: int) -> Tensor:
    """(B, S + T) bool: entries that a token after the chain can still see."""
    lasting = lineage.segment == lineage.segment[:, -1:]
    if lineage.valid is not None:
        lasting = lasting & lineage.valid
    wanted = torch.cat([(held >= 0) & lineage.from_state[:, -1:], lasting], dim=1)
    if window is None:
        return wanted
    return wanted & ((lineage.end[:, None] - positions < window) | (positions < sinks))


def _gather(memory: KeyValues, lineage: Lineage, k: Tensor, v: Tensor) -> KeyValues:
    """The memory after all nodes of a tree, each where it stands in its branch."""
    own = lineage.positions if lineage.valid is None else torch.where(lineage.valid, lineage.positions, -1)
    positions = torch.cat([memory.positions, own], dim=1)
    grown = KeyValues(torch.cat([memory.k, k], dim=1), torch.cat([memory.v, v], dim=1), positions)
    return _compact(grown, positions >= 0)


def _compact(memory: KeyValues, wanted: Tensor) -> KeyValues:
    """Keep the wanted entries of every row, in order, padded on the left."""
    size = int(wanted.sum(1).max())
    order = wanted.int().argsort(dim=1, stable=True)[:, wanted.shape[1] - size :]
    rows = torch.arange(wanted.shape[0], device=wanted.device)[:, None]
    kept = wanted[rows, order]
    k, v = [torch.where(kept[..., None, None], x[rows, order], 0) for x in memory[:2]]
    return KeyValues(k, v, torch.where(kept, memory.positions[rows, order], -1))

"""Softmax attention over an append-only memory, with grouped heads, a sliding window and attention sinks.

Every key and value carries its position; a query sees the memory and its own ancestors, within the window.
Rows of different lengths are padded on the left of the memory (position -1): the newest entries are always last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
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


@dataclass(frozen=True)
class Call:
    """What `attend` was asked for."""

    q: Tensor
    k: Tensor
    v: Tensor
    memory: KeyValues
    lineage: Lineage
    window: int | None
    sinks: int
    cap: float | None

    @property
    def is_fresh(self) -> bool:
        """Nothing is in memory."""
        return self.memory.positions.shape[1] == 0


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
    call = Call(q, k, v, memory, lineage, window, sinks, cap)
    if lineage.part is not None:
        return lineage.part.exchange.attend(call)
    return _attention(call), remember(k, v, memory, lineage, window, sinks)


def remember(
    k: Float[Tensor, "B T G K"],
    v: Float[Tensor, "B T G V"] | Int[Tensor, "B T G V"],
    memory: KeyValues,
    lineage: Lineage,
    window: int | None = None,
    sinks: int = 0,
) -> Memory:
    """The memory grown by the tokens of a call (pending after a tree), without what no later token can see."""
    grow = partial(append, window=window, sinks=sinks)
    if lineage.is_tree:
        return Pending(grow, memory, (k, v), _gather if window is None else None)
    return grow(memory, lineage, k, v)


def _attention(call: Call) -> Tensor:
    lineage, window = call.lineage, call.window
    if call.is_fresh and lineage.documents is not None:
        return _apart(call, lineage.documents)
    if call.is_fresh and lineage.is_plain and call.cap is None and (window is None or lineage.length <= window):
        return weighted(call.q, call.k, call.v, None, None)
    return of_columns(call, call.q, slice(0, lineage.length))


def of_columns(call: Call, q: Float[Tensor, "B R H K"], columns: slice) -> Float[Tensor, "B R H V"]:
    """The part of a call's outputs at some columns, of which q are the queries. Keys after the last are not read."""
    k, v = call.k[:, : columns.stop], call.v[:, : columns.stop]
    if not call.is_fresh:
        k, v = torch.cat([call.memory.k, k], dim=1), torch.cat([call.memory.v, v], dim=1)
    return weighted(q, k, v, _visible(call, columns), call.cap)


def _apart(call: Call, documents: Int[Tensor, "N 3"]) -> Tensor:
    """Packed rows: documents of about one length side by side (up to a power of two), and none beside another."""
    rows, begins, ends = documents.unbind(1)
    width = call.lineage.length
    size = (2 ** torch.frexp((ends - begins - 1).double()).exponent).clamp(max=width)
    q, k, v = [x.flatten(0, 1) for x in (call.q, call.k, call.v)]
    at, y = call.lineage.positions.flatten(), call.v.new_zeros(*call.q.shape[:3], call.v.shape[-1]).flatten(0, 1)
    for length in size.unique().tolist():
        chosen = size == length
        columns = begins[chosen, None] + torch.arange(length, device=at.device)
        inside = columns < ends[chosen, None]
        places = rows[chosen, None] * width + columns.clamp(max=width - 1)  # those outside come last: they are not seen
        asked, keys, values = [x.index_select(0, places.flatten()).unflatten(0, places.shape) for x in (q, k, v)]
        found = weighted(asked, keys, values, _band(at[places], call), call.cap)
        y = y.index_copy(0, places[inside], found[inside])
    return y.unflatten(0, call.q.shape[:2])


def weighted(
    q: Float[Tensor, "B T H K"],
    keys: Float[Tensor, "B S G K"],
    values: Float[Tensor, "B S G V"],
    mask: Bool[Tensor, "#B T S"] | Float[Tensor, "#B T S"] | None,
    cap: float | None,
) -> Float[Tensor, "B T H V"]:
    """The means of the values that a query sees: where the mask is true (or 0, and not -inf), or (None) causally, where
    T = S.
    """
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


def _visible(call: Call, rows: slice) -> Tensor:
    """(B, R, S + C) bool: what the tokens of some columns may look at: the memory, then the columns up to the last."""
    lineage, held, columns = call.lineage, call.memory.positions, slice(0, rows.stop)
    own = lineage.positions
    reach = lineage.ancestors if rows == slice(0, lineage.length) else lineage.reach(rows, columns)
    from_memory = lineage.from_state[:, rows, None] & (held >= 0)[:, None, :]
    visible = torch.cat([from_memory, reach.expand(own.shape[0], -1, -1)], dim=2)
    if call.window is None:
        return visible
    return visible & _near(own[:, rows], torch.cat([held, own[:, columns]], dim=1), call.window, call.sinks)


def _band(positions: Tensor, call: Call) -> Tensor | None:
    """(N, L, L) bool: what the tokens of documents look at, of which these are the positions; None: all before them."""
    length = positions.shape[1]
    if call.cap is None and (call.window is None or length <= call.window):
        return None
    before = torch.ones(length, length, dtype=torch.bool, device=positions.device).tril()[None]
    return before if call.window is None else before & _near(positions, positions, call.window, call.sinks)


def _near(rows: Tensor, columns: Tensor, window: int, sinks: int) -> Tensor:
    """(B, R, C) bool: within the window, or a sink."""
    return (rows[:, :, None] - columns[:, None] < window) | (columns[:, None] < sinks)


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

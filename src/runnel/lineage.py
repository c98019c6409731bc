"""Lineage: who precedes whom among the tokens of one call.

A mixer never asks whether it sees a training batch, one token, a packed row or a draft tree: it hands the
Lineage to its primitives. Four kinds, one value:

| kind | made by | parent of a token |
|---|---|---|
| sequence | `Lineage.sequence(B, T)` | the token before it |
| padded | `Lineage.padded(valid)` | the valid token before it; padding has no children and changes nothing |
| packed | `Lineage.packed(segments)` | the token before it in its segment; a new segment starts from the zero state |
| tree | `Lineage.tree(parents, valid)` | given |

The first three are *chains*: a call returns the state after the last token of each row. A tree has no last token: the
returned state is pending until `State.commit` is told which paths were accepted.

A chain may be cut into slices that several processes read side by side (`Lineage.cut`). A slice's call takes the state
before all of them and returns the state after all of them; what lies between, primitives ask of its `Exchange`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor

FROM_STATE = -1
"""Parent of a token that follows the incoming state directly."""
FROM_ZERO = -2
"""Parent of a token that starts afresh from the zero state."""


class Exchange(Protocol):
    """How the slices of one call, each on a process of its own, tell each other what came before (`runnel.layouts`).

    pieces: how many equal ones it makes of a slice.
    """

    pieces: int

    def states(self, after: Callable[..., Tensor], memory: Tensor, *summary: Tensor) -> tuple[Tensor, Tensor]:
        """The memory before this slice, and the one after the last slice.

        memory: before the first slice. after(memory, *summary): the memory after a slice, given that before it.
        """

    def attend(self, call: Any) -> tuple[Tensor, Any]:
        """What a call of `ops.attend` returns: attention of this slice's queries to the keys of all slices."""


@dataclass(frozen=True)
class Part:
    """Which slice of a longer call this one is: columns [index T, (index + 1) T) of the whole."""

    whole: Lineage
    index: int
    count: int
    exchange: Exchange


@dataclass(frozen=True)
class Lineage:
    """Parents of the tokens of one call of B rows and T columns. Make one with the constructors below.

    start: tokens that each row had seen before this call (the model fills it in from the state).
    reset: true where a chain starts afresh from the zero state.
    valid: false where a column is padding.
    parents: set only for a tree, a parent's column being left of its children's.
    prefix: true at the columns of a prompt that mixers with a non-causal form may read as a whole.
    part: set where the call is a slice of a longer one.
    """

    start: Int[Tensor, "B"]
    length: int
    reset: Bool[Tensor, "B T"] | None = None
    valid: Bool[Tensor, "B T"] | None = None
    parents: Int[Tensor, "B T"] | None = None
    prefix: Bool[Tensor, "B T"] | None = None
    part: Part | None = None

    # ---- constructors -------------------------------------------------------------------------------------------

    @staticmethod
    def sequence(batch_size: int, length: int, device: torch.device | str | None = None) -> Lineage:
        """Every token's parent is the one before it."""
        return Lineage(torch.zeros(batch_size, dtype=torch.long, device=device), length)

    @staticmethod
    def padded(valid: Bool[Tensor, "B T"]) -> Lineage:
        """Rows padded on the left, on the right or anywhere. valid: false at padding."""
        _require(valid, "valid", torch.bool)
        return Lineage(_zeros(valid), valid.shape[1], valid=valid)

    @staticmethod
    def packed(segments: Int[Tensor, "B T"]) -> Lineage:
        """Several documents in a row. segments: constant inside a document; negative marks padding.

        The first document of a row continues the incoming state; every later one starts from the zero state. The state
        that the call returns is that of the row's last document.
        """
        _require(segments, "segments", torch.long)
        valid = segments >= 0
        carried = _last_valid(segments, valid)
        reset = torch.zeros_like(valid)
        reset[:, 1:] = valid[:, 1:] & (carried[:, :-1] >= 0) & (segments[:, 1:] != carried[:, :-1])
        return Lineage(_zeros(segments), segments.shape[1], reset=reset, valid=None if bool(valid.all()) else valid)

    @staticmethod
    def tree(parents: Int[Tensor, "B T"], valid: Bool[Tensor, "B T"] | None = None) -> Lineage:
        """A draft tree. parents: each the column of the parent (left of the node) or -1 for a root."""
        _require(parents, "parents", torch.long)
        columns = torch.arange(parents.shape[1], device=parents.device)
        if bool(((parents >= columns) | (parents < FROM_STATE)).any()):
            raise ValueError("parents must lie left of their children, or be -1 for a root")
        return Lineage(_zeros(parents), parents.shape[1], valid=valid, parents=parents)

    def at(self, start: Int[Tensor, "B"]) -> Lineage:
        """The same lineage for rows that have already seen `start` tokens (before the first slice of several)."""
        if self.part is not None:
            return self.part.whole.at(start).cut(self.part.index, self.part.count, self.part.exchange)
        return replace(self, start=start)

    def cut(self, index: int, count: int, exchange: Exchange) -> Lineage:
        """Slice `index` of `count` equal ones of a chain."""
        if self.is_tree or self.prefix is not None:
            raise ValueError("only a chain without a prefix can be cut into slices")
        if self.length % count:
            raise ValueError(f"rows must be a multiple of {count} tokens long, to be cut so; got {self.length}")
        size = self.length // count
        begun = self.columns(0, index * size).end if index else self.start
        mine = self.columns(index * size, (index + 1) * size)
        return replace(mine, start=begun, part=Part(self, index, count, exchange))

    def with_prefix(self, lengths: Int[Tensor, "B"]) -> Lineage:
        """The same chain, the first `lengths` tokens of each row being a prompt that is there as a whole.

        Mixers with a prefix form let every token of the row read all of it; others take no notice.
        """
        if self.is_tree or self.reset is not None:
            raise ValueError("a prefix needs a sequence or padded rows; got a tree or packed documents")
        valid = self._valid()
        held = valid.sum(1)
        if lengths.shape != held.shape or bool(((lengths < 0) | (lengths > held)).any()):
            raise ValueError(
                f"prefix lengths must be one per row, at most its {held.tolist()} tokens; got {lengths.tolist()}"
            )
        return replace(self, prefix=valid & (valid.cumsum(1) <= lengths[:, None]))

    def columns(self, begin: int, end: int) -> Lineage:
        """Some columns of a chain, for a call that goes on from the state after those before; start is as it was."""
        assert not self.is_tree and self.part is None
        reset, valid = [None if x is None else x[:, begin:end] for x in (self.reset, self.valid)]
        return replace(self, length=end - begin, reset=reset, valid=valid)

    def to(self, device: torch.device | str) -> Lineage:
        """The same lineage on another device."""
        if self.part is not None:
            return self.part.whole.to(device).cut(self.part.index, self.part.count, self.part.exchange)
        masks = (self.reset, self.valid, self.parents, self.prefix)
        reset, valid, parents, prefix = [None if x is None else x.to(device) for x in masks]
        return replace(self, start=self.start.to(device), reset=reset, valid=valid, parents=parents, prefix=prefix)

    # ---- what primitives ask ------------------------------------------------------------------------------------

    @property
    def is_tree(self) -> bool:
        return self.parents is not None

    @property
    def is_plain(self) -> bool:
        """An ordinary sequence: nothing to mask."""
        return self.parents is None and self.reset is None and self.valid is None

    @property
    def is_step(self) -> bool:
        """One token after the incoming state, and no more."""
        return self.is_plain and self.length == 1 and self.part is None

    @cached_property
    def chain(self) -> Lineage | None:
        """The same tokens as a chain: itself, or a tree in which nothing branches and every node follows the one before
        it; None for a tree that branches. Outputs and states along it are those of the tree.
        """
        if self.parents is None:
            return self
        ahead = torch.arange(-1, self.length - 1, device=self.start.device)
        follows = self.parents == ahead
        if bool(follows.all()):
            return replace(self, parents=None)
        unbranched = self.valid is not None and bool((follows | ~self.valid).all())
        return replace(self, parents=None) if unbranched else None

    @property
    def batch_size(self) -> int:
        return self.start.shape[0]

    @cached_property
    def segment(self) -> Int[Tensor, "B T"]:
        """How many resets happened up to and at this column of a chain."""
        assert not self.is_tree
        if self.reset is None:
            return torch.zeros(self.batch_size, self.length, dtype=torch.long, device=self.start.device)
        return self.reset.cumsum(1)

    @cached_property
    def ancestors(self) -> Bool[Tensor, "B T T"]:
        """Column j is an ancestor of column t, or t itself. Never true for padding j != t."""
        eye = torch.eye(self.length, dtype=torch.bool, device=self.start.device)
        if self.parents is None:
            seen = torch.ones_like(eye).tril() & (self.segment[:, :, None] == self.segment[:, None, :])
            return seen if self.valid is None else (seen & self.valid[:, None, :]) | eye
        return self.chain.ancestors if self.chain is not None else _closure(self.parents) | eye

    def reach(self, rows: slice, columns: slice) -> Bool[Tensor, "B R C"]:
        """A block of a chain's `ancestors`, without the rest of it."""
        at = torch.arange(self.length, device=self.start.device)
        seen = (at[rows, None] >= at[columns]) & (self.segment[:, rows, None] == self.segment[:, None, columns])
        return seen if self.valid is None else (seen & self.valid[:, None, columns]) | (at[rows, None] == at[columns])

    @cached_property
    def documents(self) -> Int[Tensor, "N 3"] | None:
        """Row, first column and end of every document of packed rows. None for other rows, and where padding parts a
        document.
        """
        if self.reset is None or self.part is not None:
            return None
        valid, edge = self._valid(), torch.zeros_like(self.reset[:, :1])
        begins = valid & (self.reset | ~torch.cat([edge, valid[:, :-1]], dim=1))
        ends = valid & torch.cat([begins[:, 1:] | ~valid[:, 1:], ~edge], dim=1)
        parted = begins & ~self.reset & (valid.cumsum(1) > 1)
        if bool(parted.any()):
            return None
        return torch.cat([begins.nonzero(), ends.nonzero()[:, 1:] + 1], dim=1)

    @cached_property
    def from_state(self) -> Bool[Tensor, "B T"]:
        """The token's path begins at the incoming state (no reset on it)."""
        if self.is_tree:
            return torch.ones_like(self.start)[:, None].expand(-1, self.length).bool()
        return self.segment == 0

    @cached_property
    def positions(self) -> Int[Tensor, "B T"]:
        """How many tokens precede this one in its document. Arbitrary (but in range) at padding."""
        if self.is_plain and self.length == 1:
            return self.start[:, None]
        if self.is_plain:
            return self.start[:, None] + torch.arange(self.length, device=self.start.device)
        if self.is_tree:
            return self.chain.positions if self.chain is not None else self.start[:, None] + self.ancestors.sum(-1) - 1
        valid = self._valid()
        before = valid.cumsum(1) - valid.long()
        if self.reset is not None:
            before = before - torch.where(self.reset, before, 0).cummax(1).values
        return before + self.start[:, None] * self.from_state

    @cached_property
    def end(self) -> Int[Tensor, "B"]:
        """Tokens seen by each row after a chain (after all its slices), since its last reset."""
        assert not self.is_tree
        if self.part is not None:
            return self.part.whole.end
        valid = self._valid()
        in_last = self.segment == self.segment[:, -1:]
        return (valid & in_last).sum(1) + self.start * self.from_state[:, -1]

    @cached_property
    def parent_columns(self) -> Int[Tensor, "B T"]:
        """The parent's column, `FROM_STATE` or `FROM_ZERO`. Arbitrary (but in range) at padding."""
        if self.parents is not None:
            return self.parents
        columns = torch.arange(self.length, device=self.start.device).expand(self.batch_size, -1)
        last = torch.where(self._valid(), columns, -1).cummax(1).values
        parent = torch.cat([torch.full_like(last[:, :1], FROM_STATE), last[:, :-1]], dim=1)
        return parent if self.reset is None else torch.where(self.reset, FROM_ZERO, parent)

    @cached_property
    def levels(self) -> list[tuple[Int[Tensor, "M"], Int[Tensor, "M"]]]:
        """A tree's nodes by depth: for each depth the (rows, columns) of its nodes, padding left out."""
        depth = self.ancestors.sum(-1) - 1
        depth = depth if self.valid is None else depth.masked_fill(~self.valid, -1)
        deepest = int(depth.max()) if depth.numel() else -1
        return [(where[0], where[1]) for d in range(deepest + 1) if (where := (depth == d).nonzero(as_tuple=True))]

    def taps(self, width: int) -> Int[Tensor, "B T {width}"]:
        """For width >= 2, the token itself and its width-1 nearest ancestors, nearest first.

        Indices point into the concatenation of a tail (the width-1 tokens before the call, oldest first), the T tokens
        of the call, and one zero row at the end for ancestors that do not exist.
        """
        parent = self._extended_parents(width)
        taps = [torch.arange(self.length, device=parent.device).expand(self.batch_size, -1) + width - 1]
        for _ in range(width - 1):
            taps.append(parent.gather(1, taps[-1]))
        return torch.stack(taps, dim=-1)

    def last_taps(self, width: int) -> Int[Tensor, "B {width}-1"]:
        """The tail after a chain, oldest first, indexed as in `taps`."""
        assert not self.is_tree
        parent = self._extended_parents(width)
        columns = torch.arange(self.length, device=parent.device).expand(self.batch_size, -1)
        newest = torch.where(self._valid(), columns, -1).amax(1, keepdim=True) + width - 1  # -1: the tail's newest
        tail = [newest]
        for _ in range(width - 2):
            tail.append(parent.gather(1, tail[-1]))
        return torch.cat(tail[::-1], dim=1)

    # ---- helpers ------------------------------------------------------------------------------------------------

    def _valid(self) -> Tensor:
        if self.valid is not None:
            return self.valid
        return torch.ones(self.batch_size, self.length, dtype=torch.bool, device=self.start.device)

    def _extended_parents(self, width: int) -> Tensor:
        """Parents over what `taps` describes: tail slots, tokens, and the zero row (its own parent)."""
        tail, zero = width - 1, width - 1 + self.length
        columns = self.parent_columns
        tokens = columns + tail  # FROM_STATE lands on the newest tail slot
        tokens = torch.where(columns == FROM_ZERO, zero, tokens)
        slots = torch.arange(-1, tail - 1, device=columns.device).remainder(zero + 1)  # slot 0's parent is the zero row
        slots = slots.expand(self.batch_size, -1)
        return torch.cat([slots, tokens, torch.full_like(columns[:, :1], zero)], dim=1)


def _require(tensor: Tensor, name: str, dtype: torch.dtype) -> None:
    if tensor.dim() != 2 or tensor.dtype != dtype:
        raise ValueError(f"{name} must be (B, T) {dtype}; got {tuple(tensor.shape)} {tensor.dtype}")


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros(like.shape[0], dtype=torch.long, device=like.device)


def _last_valid(values: Tensor, valid: Tensor) -> Tensor:
    """(B, T): the value at the nearest valid column at or before each column; -1 where there is none."""
    columns = torch.arange(values.shape[1], device=values.device).expand_as(values)
    last = torch.where(valid, columns, -1).cummax(1).values
    return torch.where(last >= 0, values.gather(1, last.clamp(min=0)), -1)


def _closure(parents: Tensor) -> Tensor:
    """(B, T, T) bool strict ancestors of a forest, by repeated squaring."""
    columns = torch.arange(parents.shape[1], device=parents.device)
    reach = (parents[:, :, None] == columns).float()
    steps = 1
    while steps < parents.shape[1]:
        reach = ((reach + reach @ reach) > 0).float()
        steps *= 2
    return reach > 0

"""A segment: consecutive layers as one native program, and the tensors that it borrows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from runnel.lineage import FROM_STATE, Lineage
from runnel.native.packed import PackedMatrix
from runnel.packing.builder import KINDS, Spec
from runnel.packing.memory import Attends, Columns, Form, Held, Stretch
from runnel.state import Memory

ATTEND = KINDS.index("attend")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Nodes:
    """The tokens of one call, parents before children. parents: numbers of nodes, or as in a Lineage.

    columns: where each stands in its row of (B, T). lineage: of the rows; None where nothing asks for it.
    """

    rows: Int64[Tensor, "N"]
    parents: Int64[Tensor, "N"]
    positions: Int64[Tensor, "N"]
    columns: Int64[Tensor, "N"]
    batch_size: int
    length: int
    lineage: Lineage | None = None

    @property
    def count(self) -> int:
        return self.rows.numel()

    @cached_property
    def addresses(self) -> list[int]:
        return [t.data_ptr() for t in (self.rows, self.parents, self.positions, self.columns)]

    @cached_property
    def are_chains(self) -> bool:
        """No two nodes follow the same one, and no two begin one row."""
        before = [p if p >= 0 else ~row for row, p in zip(self.rows.tolist(), self.parents.tolist(), strict=True)]
        return len(set(before)) == len(before)


def nodes_of_chain(lineage: Lineage) -> Nodes:
    """The valid columns of a chain, row by row."""
    batch, length = lineage.batch_size, lineage.length
    if lineage.is_plain:
        rows, parents, columns = _plain(batch, length)
        return Nodes(rows, parents, lineage.positions.flatten().contiguous(), columns, batch, length, lineage)
    valid = torch.ones(batch, length, dtype=torch.bool) if lineage.valid is None else lineage.valid
    number = (valid.flatten().cumsum(0) - 1).view(batch, length)
    rows, columns = valid.nonzero(as_tuple=True)
    above = lineage.parent_columns[rows, columns]
    parents = torch.where(above >= 0, number[rows, above.clamp(min=0)], above)
    return Nodes(rows, parents, lineage.positions[rows, columns], columns, batch, length, lineage)


MOST_KEPT = 64
"""Nodes of the chains that are made once."""
_chains: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}


def _plain(batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, parents and columns of plain sequences; those of short ones are made once."""
    made = _chains.get((batch, length))
    if made is None:
        columns = torch.arange(length).repeat(batch)
        rows = torch.arange(batch).repeat_interleave(length)
        made = rows, torch.where(columns == 0, FROM_STATE, torch.arange(batch * length) - 1), columns
        if batch * length <= MOST_KEPT:
            _chains[batch, length] = made
    return made


class _Arena(threading.local):
    """Room for the vectors of one call, kept from call to call by each thread."""

    room = torch.empty(0)
    zeros = torch.zeros(0, dtype=torch.long)

    def take(self, numbers: int) -> Tensor:
        if self.room.numel() < numbers:
            self.room = torch.empty(numbers)
        return self.room

    def no_nodes(self, count: int) -> list[int]:
        """The addresses of rows, parents, positions and columns that are all zero."""
        if self.zeros.numel() < count:
            self.zeros = torch.zeros(count, dtype=torch.long)
        return [self.zeros.data_ptr()] * 4


@dataclass(frozen=True, eq=False)
class Verified:
    """What a tree leaves behind: the arena with what a commit reads.

    after: where the tree is a chain per row, the plain leaves after all of it.
    """

    arena: Tensor
    nodes: int
    after: tuple[Tensor, list[int]] | None


@dataclass(eq=False)
class Segment:
    """layers: which layers of the model it is made of. form: of their memories."""

    spec: Spec
    layers: range
    constants: list[Tensor]
    matrices: list[PackedMatrix]
    form: Form
    arena: _Arena = field(default_factory=_Arena)
    seconds: Float64[Tensor, "operations"] | None = None
    """Where it is given, what every operation takes is added to it."""

    @cached_property
    def program(self) -> Any:
        return self.spec.program(self.constants, self.matrices)

    @cached_property
    def width(self) -> int:
        return self.spec.sizes[self.spec.output]

    @property
    def _clock(self) -> int:
        return 0 if self.seconds is None else self.seconds.data_ptr()

    def of_each(self, x: Float32[Tensor, "N D"]) -> Tensor:
        """The outputs of vectors that have nothing to do with each other; for a segment without memories."""
        count = x.shape[0]
        arena, y = self.arena.take(count * self.spec.totals[0]), torch.empty(count, self.width)
        self.program.run(
            count, 1, self.arena.no_nodes(count), [], [], [], arena.data_ptr(), x.data_ptr(), y.data_ptr(),
            torch.get_num_threads(), self._clock,
        )  # fmt: skip
        return y

    def run(self, x: Float32[Tensor, "N D"], held: Held, nodes: Nodes) -> tuple[Tensor, list[Memory], Held]:
        """The outputs of a chain, and the memories of the segment's layers after it."""
        arena = self.arena.take(nodes.count * self.spec.totals[0])
        y = torch.empty(nodes.count, self.width)

        def call(after: list[int], columns: list[Columns]) -> None:
            self.program.run(
                nodes.count, nodes.batch_size, nodes.addresses, held.addresses, after, columns, arena.data_ptr(),
                x.data_ptr(), y.data_ptr(), torch.get_num_threads(), self._clock,
            )  # fmt: skip

        return y, *self._after(held, nodes, call)

    def verify(self, x: Float32[Tensor, "N D"], held: Held, nodes: Nodes) -> tuple[Tensor, Verified]:
        """The outputs of a tree."""
        arena = torch.empty(nodes.count * self.spec.totals[1])
        y = torch.empty(nodes.count, self.width)
        columns = self._ordered([(stretch, stretch.columns(0)) for stretch in held.stretches])
        after = self.form.room(nodes.batch_size) if self.form.offsets[-1] and nodes.are_chains else None
        self.program.verify(
            nodes.count, nodes.batch_size, nodes.addresses, held.addresses, [] if after is None else after[1], columns,
            arena.data_ptr(), x.data_ptr(), y.data_ptr(), torch.get_num_threads(), self._clock,
        )  # fmt: skip
        return y, Verified(arena, nodes.count, after)

    def commit(
        self, verified: Verified, held: Held, nodes: Nodes, where: Int64[Tensor, "N"]
    ) -> tuple[list[Memory], Held]:
        """The memories after a path per row. nodes: those of the paths; where: their numbers in the tree."""
        made = verified.after if nodes.count == verified.nodes else None  # all of it is accepted

        def call(after: list[int], columns: list[Columns]) -> None:
            if made is not None and not columns:
                return
            self.program.commit(
                nodes.count, nodes.batch_size, nodes.addresses, held.addresses, [] if made else after, columns,
                verified.arena.data_ptr(), where.data_ptr(), verified.nodes, torch.get_num_threads(), self._clock,
            )  # fmt: skip

        return self._after(held, nodes, call, made)

    def _after(
        self, held: Held, nodes: Nodes, call: Callable[[list[int], list[Columns]], None],
        made: tuple[Tensor, list[int]] | None = None,
    ) -> tuple[list[Memory], Held]:  # fmt: skip
        """Make room for the memories after a call, call, and give them. made: the plain leaves, if they are there."""
        flat, addresses = made or self.form.room(nodes.batch_size)
        if not self.form.attends:
            call(addresses, [])
            return self.form.memories(flat, nodes.batch_size, []), Held(addresses, flat, [])
        assert nodes.lineage is not None
        if all(stretch.attends.can_grow(nodes.lineage) for stretch in held.stretches):
            grown = [stretch.grown(nodes.lineage) for stretch in held.stretches]
            call(addresses, self._ordered([(base, base.columns(base.end)) for base, _ in grown]))
            stretches = [after for _, after in grown]
            key_values = self._ordered([(stretch, stretch.key_values()) for stretch in stretches])
            return self.form.memories(flat, nodes.batch_size, key_values), Held(addresses, flat, stretches)
        return self._apart(held, nodes, nodes.lineage, call, flat, addresses)

    def _apart(
        self, held: Held, nodes: Nodes, lineage: Lineage, call: Callable[[list[int], list[Columns]], None],
        flat: Tensor, addresses: list[int],
    ) -> tuple[list[Memory], Held]:  # fmt: skip
        """As `_after`, for rows that are padded or reset, or whose attention has sinks."""
        columns, fresh = [], []
        for stretch in held.stretches:
            shape, sizes = (nodes.batch_size, nodes.length, stretch.attends.groups), stretch.attends
            made = [(torch.zeros(*shape, sizes.width), torch.zeros(*shape, sizes.values)) for _ in sizes.members]
            fresh.append((stretch, made))
            given = zip(stretch.columns(0), made, strict=True)
            columns.append(
                (stretch, [(*c[:7], k.data_ptr(), v.data_ptr(), k.stride(0), v.stride(0)) for c, (k, v) in given])
            )
        call(addresses, self._ordered(columns))
        memories = self.form.memories(flat, nodes.batch_size, self.form.appended(held, self._ordered(fresh), lineage))
        return memories, self.form.hold(memories)

    def _ordered(self, found: Sequence[tuple[Stretch, Sequence[T]]]) -> list[T]:
        """Things of groups of memories, in the order of the program's memories."""
        if len(found) == 1:
            return list(found[0][1])
        by_member = {m: thing for s, things in found for m, thing in zip(s.attends.members, things, strict=True)}
        return [by_member[member] for member in sorted(by_member)]


def form_of(spec: Spec, zero: Sequence[Memory]) -> Form:
    """zero: the memories of a fresh row of the segment's layers."""
    alike: dict[tuple[int, int, int, int, int], list[int]] = {}
    for _, _, _, ints, _, _ in (op for op in spec.operations if op[0] == ATTEND):
        number, groups, width, window, sinks, values = ints
        alike.setdefault((groups, width, values, window, sinks), []).append(number)
    attends = [
        Attends(tuple(members), groups, width, values, None if window < 0 else window, sinks)
        for (groups, width, values, window, sinks), members in alike.items()
    ]
    return Form(list(zero), attends)

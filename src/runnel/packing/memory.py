"""Memories as the kernels read and write them: addresses instead of tensors, and keys and values that grow in place.

A state is an immutable value, and stays one: a buffer of keys and values is only ever written beyond what any state of
it can see. Who continues the newest of its states writes into the same buffer; who continues an older one, copies.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch._utils import _unflatten_dense_tensors

from runnel.lineage import Lineage
from runnel.ops.attend import KeyValues, append
from runnel.packing.record import leaves_of, with_leaves
from runnel.state import Memory

FLOAT = 4
"""Bytes of a number."""
LEAST_ROOM = 64
"""Tokens that a new buffer of keys and values has room for, at least."""

Columns = tuple[int, ...]
"""keys, values, positions, held, k_row, v_row, position_row, new_k, new_v, new_k_row, new_v_row: as `KeyValues` in
cpp/program.h."""


@dataclass(frozen=True)
class Attends:
    """Memories of attention of one shape. members: their numbers in the program. width, values: of a key and a value.

    window: None for all tokens.
    """

    members: tuple[int, ...]
    groups: int
    width: int
    values: int
    window: int | None
    sinks: int

    def can_grow(self, lineage: Lineage) -> bool:
        """The memory after the call is the memory before it and the call's tokens, but for a beginning."""
        return lineage.is_plain and (self.window is None or self.sinks == 0)


class _Buffer:
    """Keys and values of a group of memories (A, B, capacity, G, K or V) and their positions (B, capacity)."""

    def __init__(self, attends: Attends, batch: int, capacity: int) -> None:
        sizes = len(attends.members), batch, capacity, attends.groups
        self.k, self.v = torch.empty(*sizes, attends.width), torch.empty(*sizes, attends.values)
        self.positions = torch.empty(batch, capacity, dtype=torch.long)
        self.capacity, self.used = capacity, 0
        self.rows = self.k.stride(1), self.v.stride(1)
        self.tokens = FLOAT * self.k.stride(2), FLOAT * self.v.stride(2)  # bytes
        first, apart = (self.k.data_ptr(), self.v.data_ptr()), (FLOAT * self.k.stride(0), FLOAT * self.v.stride(0))
        self.members = [[at + n * size for at, size in zip(first, apart, strict=True)] for n in range(sizes[0])]
        self._lock = threading.Lock()

    def claim(self, end: int, count: int) -> bool:
        """Room for `count` tokens after the first `end`, unless another state has taken it."""
        with self._lock:
            if self.used != end or end + count > self.capacity:
                return False
            self.used = end + count
            return True


@dataclass(frozen=True, eq=False)
class Stretch:
    """The tokens [start, end) of a buffer: what a state sees of it."""

    attends: Attends
    buffer: _Buffer
    start: int
    end: int

    def columns(self, new: int) -> list[Columns]:
        """For the kernels, new tokens being written from column `new` on."""
        buffer, held, (k_token, v_token) = self.buffer, self.end - self.start, self.buffer.tokens
        position, rows = buffer.positions.data_ptr() + 8 * self.start, buffer.rows
        k_old, v_old, k_new, v_new = self.start * k_token, self.start * v_token, new * k_token, new * v_token
        return [
            (k + k_old, v + v_old, position, held, *rows, buffer.capacity, k + k_new, v + v_new, *rows)
            for k, v in buffer.members
        ]

    def key_values(self) -> list[KeyValues]:
        """As a state holds them."""
        positions = self.buffer.positions[:, self.start : self.end]
        ends = [x[:, :, self.start : self.end].unbind(0) for x in (self.buffer.k, self.buffer.v)]
        return [KeyValues(k, v, positions) for k, v in zip(*ends, strict=True)]

    def grown(self, lineage: Lineage) -> tuple[Stretch, Stretch]:
        """This stretch, in a buffer that has room for a call's tokens, and the stretch after the call."""
        count, window = lineage.length, self.attends.window
        base = self
        if not self.buffer.claim(self.end, count):
            base = self._copied(count)
            base.buffer.claim(base.end, count)
        base.buffer.positions[:, base.end : base.end + count] = lineage.positions
        end = base.end + count
        start = base.start if window is None else max(base.start, end - (window - 1))
        return base, replace(base, start=start, end=end)

    def _copied(self, count: int) -> Stretch:
        held = self.end - self.start
        buffer = _Buffer(self.attends, self.buffer.positions.shape[0], max(LEAST_ROOM, 2 * (held + count)))
        buffer.k[:, :, :held] = self.buffer.k[:, :, self.start : self.end]
        buffer.v[:, :, :held] = self.buffer.v[:, :, self.start : self.end]
        buffer.positions[:, :held] = self.buffer.positions[:, self.start : self.end]
        buffer.used = held
        return Stretch(self.attends, buffer, 0, held)


def gathered(attends: Attends, memories: Sequence[KeyValues]) -> Stretch:
    """Memories from elsewhere in a buffer of their own; they must agree in their positions."""
    batch, held = memories[0].positions.shape
    buffer = _Buffer(attends, batch, max(LEAST_ROOM, 2 * held))
    for member, memory in enumerate(memories):
        buffer.k[member, :, :held], buffer.v[member, :, :held] = memory.k, memory.v
    buffer.positions[:, :held] = memories[0].positions
    buffer.used = held
    return Stretch(attends, buffer, 0, held)


@dataclass(frozen=True, eq=False)
class Held:
    """What a segment's layers remember. addresses: of the plain leaves, which `alive` keeps."""

    addresses: list[int]
    alive: Any
    stretches: list[Stretch]


class Memories(tuple[Memory, ...]):
    """The memories of a model's layers. held: the same as the kernels know them, by the first layer of a segment."""

    held: dict[int, Held]


@dataclass(eq=False)
class Form:
    """How the memories of a segment's layers are made of leaves. zero: the memories of one fresh row."""

    zero: list[Memory]
    attends: list[Attends]
    _examples: dict[int, list[Tensor]] = field(default_factory=dict)

    @cached_property
    def leaves(self) -> list[Any]:
        return [leaf for memory in self.zero for leaf in leaves_of(memory)]

    @cached_property
    def offsets(self) -> list[int]:
        """Where each plain leaf of one row begins, and their total."""
        sizes = [leaf.numel() for leaf in self.leaves if isinstance(leaf, Tensor)]
        return [0, *torch.tensor(sizes, dtype=torch.long).cumsum(0).tolist()]

    def hold(self, memories: Sequence[Memory]) -> Held:
        """Memories of any origin."""
        leaves = [leaf for memory in memories for leaf in leaves_of(memory)]
        plain = [leaf.contiguous() for leaf in leaves if isinstance(leaf, Tensor)]
        grown = [leaf for leaf in leaves if isinstance(leaf, KeyValues)]
        stretches = [gathered(attends, [grown[m] for m in attends.members]) for attends in self.attends]
        return Held([leaf.data_ptr() for leaf in plain], plain, stretches)

    def room(self, batch: int) -> tuple[Tensor, list[int]]:
        """Room for the plain leaves, and where each begins."""
        flat = torch.empty(batch * self.offsets[-1])
        start = flat.data_ptr()
        return flat, [start + FLOAT * batch * offset for offset in self.offsets[:-1]]

    def memories(self, flat: Tensor, batch: int, key_values: Sequence[KeyValues]) -> list[Memory]:
        """The memories that consist of plain leaves in `flat` and of keys and values."""
        examples = self._examples.get(batch)
        if examples is None:
            shapes = [leaf.shape[1:] for leaf in self.leaves if isinstance(leaf, Tensor)]
            examples = self._examples[batch] = [torch.empty(batch, *shape, device="meta") for shape in shapes]
        plain, grown = iter(_unflatten_dense_tensors(flat, examples)), iter(key_values)
        return [make(plain, grown) for make in self._makers]

    @cached_property
    def _makers(self) -> list[Callable[[Iterator[Tensor], Iterator[KeyValues]], Memory]]:
        """For each layer what takes its memory from all plain leaves and all keys and values."""
        return [_maker(memory) for memory in self.zero]

    def appended(self, held: Held, fresh: Sequence[tuple[Tensor, Tensor]], lineage: Lineage) -> list[KeyValues]:
        """Keys and values after any chain; fresh: those of the call, (B, T, G, K), by the number of the memory."""
        made: dict[int, KeyValues] = {}
        for stretch in held.stretches:
            attends = stretch.attends
            for member, memory in zip(attends.members, stretch.key_values(), strict=True):
                made[member] = append(memory, lineage, *fresh[member], attends.window, attends.sinks)
        return [made[member] for member in sorted(made)]


def _maker(memory: Memory) -> Callable[[Iterator[Tensor], Iterator[KeyValues]], Memory]:
    if (
        hasattr(memory, "_make")
        and not isinstance(memory, KeyValues)
        and all(isinstance(child, Tensor | KeyValues) for child in memory)
    ):
        kind, plainly = type(memory), [isinstance(child, Tensor) for child in memory]
        return lambda plain, grown: kind._make([next(plain if own else grown) for own in plainly])
    plainly = [isinstance(leaf, Tensor) for leaf in leaves_of(memory)]
    return lambda plain, grown: with_leaves(memory, [next(plain if own else grown) for own in plainly])

"""State: everything that a model remembers, as a plain immutable value.

A state is a tree of tensors, batch first, plus how many tokens each row has seen. Computing never changes a state that
you hold: rolling back is keeping the old value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runnel.lineage import Lineage
from runnel.storage import read_tensors, write_tensors

Memory = Any
"""A tree of tensors: a tensor, or a (named) tuple of memories. Every tensor is batch first."""


def leaves(memory: Memory) -> list[Tensor]:
    """The tensors of a memory, in a fixed order."""
    if isinstance(memory, Tensor):
        return [memory]
    return [leaf for child in memory for leaf in leaves(child)]


def rebuild(memory: Memory, children: Sequence[Memory]) -> Memory:
    """A memory of the same kind as `memory` with other children."""
    return type(memory)(*children) if hasattr(memory, "_fields") else tuple(children)


def map_memory(function: Callable[..., Any], memory: Memory, *others: Memory) -> Memory:
    """Apply `function` to every tensor (or Pending) of memories of one structure."""
    if isinstance(memory, Tensor | Pending):
        return function(memory, *others)
    return rebuild(memory, [map_memory(function, *children) for children in zip(memory, *others, strict=True)])


def cat_memory(memories: Sequence[Memory]) -> Memory:
    """Concatenate memories along the batch; a memory whose size depends on the text brings its own `cat`."""
    first = memories[0]
    if isinstance(first, Tensor):
        return torch.cat(list(memories))
    if hasattr(first, "cat"):
        return first.cat(memories)
    return rebuild(first, [cat_memory(children) for children in zip(*memories, strict=True)])


def take_memory(memory: Memory, rows: Tensor) -> Memory:
    """Rows of a memory by index; a memory whose size depends on the text brings its own `take`."""
    if isinstance(memory, Tensor):
        return memory.index_select(0, rows)
    if hasattr(memory, "take"):
        return memory.take(rows)
    return rebuild(memory, [take_memory(child, rows) for child in memory])


@dataclass(frozen=True, eq=False)
class Pending:
    """What a primitive leaves behind after a tree: the memory before it and one small record per node.

    advance(memory, lineage, *records) -> memory runs a chain of records through the memory.
    records: each (B, T, ...), T being the columns of the tree.
    merge(memory, lineage, *records) -> memory takes in all nodes of the tree, whose lineage it is given, where the
    order of branches leaves no trace; None where it would.
    """

    advance: Callable[..., Memory]
    memory: Memory
    records: tuple[Tensor, ...]
    merge: Callable[..., Memory] | None = None

    def commit(self, columns: Tensor, lineage: Lineage) -> Memory:
        """The memory after one path per row. columns: (B, P) int64; lineage: the paths as padded rows."""
        rows = torch.arange(columns.shape[0], device=columns.device)[:, None]
        return self.advance(self.memory, lineage, *[record[rows, columns] for record in self.records])

    def merged(self, lineage: Lineage) -> Memory:
        """The memory after all branches of a tree, side by side."""
        if self.merge is None:
            raise ValueError("a memory that keeps the order of what it read cannot take in branches side by side")
        return self.merge(self.memory, lineage, *self.records)


@dataclass(frozen=True, eq=False)
class PendingState:
    """A state whose last call was a draft tree: `State.commit` turns it and the accepted paths into a state.

    base: the state that the tree was verified against.
    columns: (N,) int64, the column of each flat node; row_of: (N,) its row; parent_of: (N,) its flat parent or -1.
    """

    base: State
    layers: Memory
    columns: Tensor
    row_of: Tensor
    parent_of: Tensor

    def merged(self, lineage: Lineage) -> State:
        """The state after all branches of the tree, side by side: what follows stands after the longest of them.

        lineage: the tree's. ValueError when a memory keeps the order of what it read.
        """
        depth = lineage.positions + 1 - lineage.start[:, None]
        longest = (depth if lineage.valid is None else torch.where(lineage.valid, depth, 0)).amax(1)
        return self.base._with(map_memory(lambda p: p.merged(lineage), self.layers), self.base.lengths + longest)

    def committed(self, paths: Sequence[Sequence[int]]) -> State:
        """The state after the paths, which `State.commit` has checked."""
        longest = max(len(path) for path in paths)
        if longest == 0:
            return self.base
        lengths = self.base.lengths
        nodes = torch.tensor([[*path, *[0] * (longest - len(path))] for path in paths], device=lengths.device)
        columns = self.columns[nodes]
        if all(len(path) == longest for path in paths):
            lineage, after = Lineage(lengths, longest), lengths + longest
        else:
            taken = torch.tensor([len(path) for path in paths], device=lengths.device)
            valid = torch.arange(longest, device=lengths.device) < taken[:, None]
            columns = torch.where(valid, columns, 0)
            lineage, after = Lineage.padded(valid).at(lengths), lengths + taken
        return self.base._with(map_memory(lambda p: p.commit(columns, lineage), self.layers), after)


@dataclass(frozen=True, eq=False)
class State:
    """What a model remembers of each row of a batch.

    layers: a tree of tensors, batch first. lengths: (B,) int64, tokens seen by each row.
    identify: gives the fingerprint of the model that the state belongs to (weights and semantics).
    """

    layers: Memory
    lengths: Tensor
    identify: Callable[[], str] = field(repr=False)

    @property
    def batch_size(self) -> int:
        return self.lengths.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes held by the tensors of the state, the lengths included."""
        return sum(leaf.numel() * leaf.element_size() for leaf in [*leaves(self.layers), self.lengths])

    def fork(self, rows: Sequence[int] | Tensor) -> State:
        """Rows by index, in any order and any number of times: `state.fork([0, 0, 1])`."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.lengths.device)
        if index.dim() != 1 or index.numel() == 0:
            raise ValueError(f"rows must be a list of at least one row index; got shape {tuple(index.shape)}")
        if int(index.min()) < 0 or int(index.max()) >= self.batch_size:
            raise ValueError(f"rows must lie in [0, {self.batch_size}); got {index.tolist()}")
        return self._with(take_memory(self.layers, index), self.lengths[index])

    gather = fork

    @staticmethod
    def cat(states: Sequence[State]) -> State:
        """The rows of several states of one model, one after the other."""
        if not states:
            raise ValueError("cat needs at least one state")
        makers = {state.identify for state in states}
        if len(makers) > 1 and len({identify() for identify in makers}) > 1:
            raise ValueError("cat needs states of one model; got states of different models")
        return states[0]._with(cat_memory([s.layers for s in states]), torch.cat([s.lengths for s in states]))

    def detach(self) -> State:
        """The same values, cut from the gradient graph."""
        return self._with(map_memory(Tensor.detach, self.layers), self.lengths)

    def commit(self, pending: PendingState, paths: Sequence[Sequence[int]]) -> State:
        """The state after one accepted path per row of a verified tree.

        paths: for each row the flat indices of accepted nodes, root first; [] leaves the row as it is.
        """
        if pending.base is not self:
            raise ValueError("pending belongs to another state: commit to the state that was given to verify")
        if len(paths) != self.batch_size:
            raise ValueError(f"paths must have one list per row ({self.batch_size}); got {len(paths)}")
        _check_paths(pending, paths)
        return pending.committed(paths)

    def save(self, path: str | Path, notes: Mapping[str, str] | None = None) -> None:
        """Write the state to one file (safetensors), atomically. notes: further strings for the file's header."""
        tensors = {f"leaf.{i}": leaf for i, leaf in enumerate(leaves(self.layers))}
        meta = {**(notes or {}), "format": "runnel.state", "version": "1", "model": self.identify()}
        write_tensors(Path(path), {**tensors, "lengths": self.lengths}, meta)

    @staticmethod
    def load(path: str | Path, model: Any) -> State:
        """Read a state saved by a model with the same weights and the same semantics as `model`."""
        tensors, meta = read_tensors(Path(path))
        if meta.get("format") != "runnel.state":
            raise ValueError(f"{path} is not a Runnel state file")
        if meta.get("model") != model.fingerprint():
            raise ValueError(
                f"{path} belongs to another model: its fingerprint is {meta.get('model')}, "
                f"this model's is {model.fingerprint()}"
            )
        lengths = tensors.pop("lengths", None)
        empty = model.init_state(batch_size=1)
        expected = leaves(empty.layers)
        if lengths is None or set(tensors) != {f"leaf.{i}" for i in range(len(expected))}:
            raise ValueError(f"{path} is damaged: its tensors are not those of a state of this model")
        # Copied: in a file they may lie at any address, and products of unaligned rows differ in their last bits.
        ordered = iter([tensors[f"leaf.{i}"].to(leaf.device, copy=True) for i, leaf in enumerate(expected)])
        layers = map_memory(lambda _: next(ordered), empty.layers)
        return State(layers, lengths.to(empty.lengths.device), model.fingerprint)

    def _with(self, layers: Memory, lengths: Tensor) -> State:
        return State(layers, lengths, self.identify)


Place = tuple[State, int]
"""A row of a state of several rows."""


def gathered(places: Sequence[Place]) -> State:
    """The state whose rows are these places, of states of one model; no copy where it is one of them."""
    states = list({id(state): state for state, _ in places}.values())
    whole = states[0] if len(states) == 1 else State.cat(states)
    sizes = [state.batch_size for state in states]
    first = {id(state): sum(sizes[:i]) for i, state in enumerate(states)}
    rows = [first[id(state)] + row for state, row in places]
    return whole if rows == list(range(whole.batch_size)) else whole.fork(rows)


def _check_paths(pending: PendingState, paths: Sequence[Sequence[int]]) -> None:
    count = pending.columns.numel()
    row_of, parent_of = pending.row_of.tolist(), pending.parent_of.tolist()
    for row, path in enumerate(paths):
        previous = -1
        for node in path:
            if not 0 <= node < count:
                raise ValueError(f"path of row {row} names node {node}; the tree has {count} nodes")
            if row_of[node] != row:
                raise ValueError(f"path of row {row} names node {node}, which belongs to row {row_of[node]}")
            if parent_of[node] != previous:
                raise ValueError(
                    f"path of row {row} is broken at node {node}: its parent is {parent_of[node]}, not {previous}"
                )
            previous = node

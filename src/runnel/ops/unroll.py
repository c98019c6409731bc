"""Unroll: any step function along a Lineage, for cells that no parallel form fits.

A chain is a loop over time. A tree is walked level by level, all nodes of one depth (over all rows) in one step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Shaped
from torch import Tensor

from runnel.lineage import Lineage
from runnel.ops.precision import widen
from runnel.state import Memory, Pending, map_memory

Step = Callable[[tuple[Tensor, ...], Memory], tuple[Tensor, Memory]]
"""step(inputs of one token, each (M, ...), memory of M rows) -> (output (M, ...), new memory)."""


def reference(
    step: Step, inputs: tuple[Shaped[Tensor, "B T ..."], ...], memory: Memory
) -> tuple[Shaped[Tensor, "B T ..."], Memory]:
    """The literal loop over an ordinary sequence."""
    outputs = []
    for t in range(inputs[0].shape[1]):
        y, memory = step(tuple(x[:, t] for x in inputs), memory)
        outputs.append(y)
    return torch.stack(outputs, dim=1), memory


def unroll(
    step: Step, inputs: tuple[Shaped[Tensor, "B T ..."], ...], memory: Memory, lineage: Lineage
) -> tuple[Shaped[Tensor, "B T ..."], Memory]:
    """Outputs of `step` along the lineage, and the memory after it (pending after a tree).

    Runs outside autocast, in at least float32.
    """
    if lineage.part is not None:
        raise ValueError("a nonlinear cell reads token after token: its rows cannot be cut over processes (sequence=1)")
    inputs = tuple(widen(x) for x in inputs)
    with torch.autocast(inputs[0].device.type, enabled=False):
        if lineage.is_tree:

            def advance(memory: Memory, lineage: Lineage, *records: Tensor) -> Memory:
                return unroll(step, records, memory, lineage)[1]

            return walk_tree(step, inputs, memory, lineage), Pending(advance, memory, inputs)
        return _along(step, inputs, memory, lineage)


def _along(step: Step, inputs: tuple[Tensor, ...], memory: Memory, lineage: Lineage) -> tuple[Tensor, Memory]:
    """The loop over a chain."""
    if lineage.is_plain:
        return reference(step, inputs, memory)
    return _masked(step, inputs, memory, lineage)


def _masked(step: Step, inputs: tuple[Tensor, ...], memory: Memory, lineage: Lineage) -> tuple[Tensor, Memory]:
    """The loop with padding (the memory stays) and resets (the memory is zero before the step)."""
    outputs = []
    for t in range(lineage.length):
        if lineage.reset is not None:
            memory = map_memory(lambda m, kept=~lineage.reset[:, t]: _where(kept, m, 0), memory)
        y, after = step(tuple(x[:, t] for x in inputs), memory)
        if lineage.valid is not None:
            valid = lineage.valid[:, t]
            after = map_memory(lambda new, old, v=valid: _where(v, new, old), after, memory)
        memory = after
        outputs.append(y)
    return torch.stack(outputs, dim=1), memory


def walk_tree(step: Step, inputs: tuple[Tensor, ...], memory: Memory, lineage: Lineage) -> Tensor:
    """Outputs (B, T, ...) of `step` on every node of a tree, anything at padding."""
    if lineage.chain is not None:
        return _along(step, inputs, memory, lineage.chain)[0]
    outputs: Tensor | None = None
    node = torch.full((lineage.batch_size, lineage.length), -1, device=inputs[0].device)  # each node's row in `known`
    known: Memory | None = None
    count = 0
    for depth, (rows, columns) in enumerate(lineage.levels):
        if depth == 0:
            parents = map_memory(lambda m, r=rows: m[r], memory)
        else:
            above = node[rows, lineage.parent_columns[rows, columns]]
            parents = map_memory(lambda m, i=above: m[i], known)
        y, after = step(tuple(x[rows, columns] for x in inputs), parents)
        node[rows, columns] = torch.arange(count, count + rows.numel(), device=node.device)
        count += rows.numel()
        known = after if known is None else map_memory(lambda a, b: torch.cat([a, b]), known, after)
        if outputs is None:
            outputs = y.new_zeros(lineage.batch_size, lineage.length, *y.shape[1:])
        outputs = outputs.index_put((rows, columns), y)
    assert outputs is not None, "a tree of no nodes never reaches a primitive"
    return outputs


def _where(mask: Tensor, x: Tensor, y: Tensor | int) -> Tensor:
    return torch.where(mask.reshape(-1, *[1] * (x.dim() - 1)), x, y)

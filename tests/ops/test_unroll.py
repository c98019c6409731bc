"""Unroll: any step along chains and trees, with a memory of several tensors."""

from typing import NamedTuple

import torch

from runnel.lineage import Lineage
from runnel.ops.unroll import reference, unroll

from .support import PARENTS, PATHS, close, normal


class Pair(NamedTuple):
    h: torch.Tensor
    c: torch.Tensor


def step(inputs, memory):
    x, gate = inputs
    c = (memory.c * gate.sigmoid() + x).tanh()
    return c * memory.h.cos(), Pair(memory.h + c, c)


def start(rows: int = 2) -> Pair:
    return Pair(normal(rows, 3, seed=5), normal(rows, 3, seed=6))


def test_tree_equals_paths():
    x, gate, memory = normal(2, 9, 3), normal(2, 9, 3, seed=1), start()
    y, pending = unroll(step, (x, gate), memory, Lineage.tree(torch.tensor(PARENTS).expand(2, -1)))
    for path in PATHS:
        expected, last = reference(step, (x[:, path], gate[:, path]), memory)
        close(y[:, path[-1]], expected[:, -1])
        committed = pending.commit(torch.tensor(path).expand(2, -1), Lineage.sequence(2, len(path)))
        close(committed.h, last.h)
        close(committed.c, last.c)


def test_packed_and_padded_rows():
    x, gate, memory = normal(1, 7, 3), normal(1, 7, 3, seed=1), start(1)
    y, last = unroll(step, (x, gate), memory, Lineage.packed(torch.tensor([[0, 0, -1, 1, 1, 1, -1]])))
    close(y[:, :2], reference(step, (x[:, :2], gate[:, :2]), memory)[0])
    expected, end = reference(step, (x[:, 3:6], gate[:, 3:6]), Pair(*[torch.zeros_like(m) for m in memory]))
    close(y[:, 3:6], expected)
    close(last.h, end.h)

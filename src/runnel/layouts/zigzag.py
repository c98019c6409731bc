"""Zigzag slices: every process attends with an early and a late piece of the queries, so that all have as much to do.

Paper: "The Llama 3 Herd of Models" (2024, 2407.21783), section 3.3.2, context parallelism.

    2 S pieces; process i takes the pieces i and 2 S - 1 - i              (1)
    K, V = AllGather(K_s, V_s)                                            (2)
    o_p = softmax(Q_p K_{<= p}^T) V_{<= p}   for each of its pieces p      (3)

| code | paper |
|---|---|
| count | S, the context-parallel size (CP) |
| home | pieces 2 i and 2 i + 1: the slice that a process holds |

Piece p reads p + 1 pieces of keys, so each process reads 2 S + 1 of them. Of slices in order the first process would
read 3, the last 4 S - 1. Deviates: slices stay in order, since recurrent layers go from one to the next, and pass their
states as in LASP-2. Only queries move, and what they found moves back: forward and backward together 4 (T / S) D
numbers more.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from runnel import layouts
from runnel.layouts import After
from runnel.layouts._pieces import in_pieces
from runnel.ops.attend import Call, KeyValues, append

PAPERS = {"The Llama 3 Herd of Models": "2407.21783"}


class Exchange(layouts.Exchange):
    pieces = 2

    def states(self, after: After, memory: Tensor, *summary: Tensor) -> tuple[Tensor, Tensor]:
        return layouts.fold_all(after, memory, summary, self)

    def attend(self, call: Call) -> tuple[Tensor, KeyValues]:
        if call.lineage.length % 2:
            raise ValueError(f"zigzag halves slices, which must have an even length; got {call.lineage.length}")
        whole, half = self.whole(call), call.lineage.length // 2
        moved = _Move.apply(torch.stack(call.q.split(half, dim=1)), self, False)
        found = [
            in_pieces(whole, q, slice(piece * half, (piece + 1) * half))
            for q, piece in zip(moved, taken(self.index, self.count), strict=True)
        ]
        y = _Move.apply(torch.stack(found), self, True)
        memory = append(call.memory, whole.lineage, whole.k, whole.v, call.window, call.sinks)
        return torch.cat(list(y), dim=1), memory


def taken(index: int, count: int) -> tuple[int, int]:
    """Eq. (1)."""
    return index, 2 * count - 1 - index


class _Move(torch.autograd.Function):
    """x (2, ...): the pieces of home go to those who take them, or (back) those taken go home."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, exchange: Exchange, back: bool) -> Tensor:
        ctx.exchange, ctx.back = exchange, back
        return _moved(x, exchange, back)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _moved(grad, ctx.exchange, not ctx.back), None, None


def _moved(x: Tensor, exchange: Exchange, back: bool) -> Tensor:
    index, count = exchange.index, exchange.count
    takers = [min(piece, 2 * count - 1 - piece) for piece in (2 * index, 2 * index + 1)]
    order = sorted((0, 1), key=takers.__getitem__)  # a message for every process, in the order of processes
    to = [takers.count(other) for other in range(count)]
    homes = [piece // 2 for piece in taken(index, count)]
    come = [homes.count(other) for other in range(count)]
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if back:
        dist.all_to_all_single(out, x.contiguous(), to, come, exchange.group)
        return out[order]
    dist.all_to_all_single(out, x[order], come, to, exchange.group)
    return out


def reference(q: Tensor, k: Tensor, v: Tensor, count: int) -> list[Tensor]:
    """Equations (1) and (3) in one process: what each of the processes finds, its two pieces after each other.

    q, k, v: (T, K), one head.
    """
    size, found = q.shape[0] // (2 * count), []
    for index in range(count):
        pieces = []
        for piece in taken(index, count):
            for t in range(piece * size, (piece + 1) * size):
                weights = (k[: t + 1] @ q[t] / q.shape[-1] ** 0.5).softmax(0)
                pieces.append(weights @ v[: t + 1])
        found.append(torch.stack(pieces))
    return found

"""Ring attention: keys and values go round a ring, and every process merges what its queries find in each block.

Papers: "World Model on Million-Length Video And Language With RingAttention" (2024, 2402.08268), which trains with
"Ring Attention with Blockwise Transformers for Near-Infinite Context" (2023, 2310.01889, algorithm 1).

    for each of the S hops: o_b, l_b = softmax(q K_b^T / sqrt(K)) V_b and its log-sum-exp, over the block at hand    (1)
        l' = log(e^l + e^{l_b}),   o = o e^{l - l'} + o_b e^{l_b - l'},   l = l'                 (online softmax)  (2)
        K_b, V_b go on to the next process, and those of the one before arrive
    backward: the blocks go round once more, and with them their gradients, which are home again after S hops       (3)

| code | paper |
|---|---|
| hop | j, the inner loop over key-value blocks |
| out, level | the numerator over the denominator, and the log of the denominator (max-score included) |

No process holds more keys than two blocks, where a gather holds them all; it sends as much. Recurrent layers pass
their memories along the same ring. Deviates: no overlap of sending and computing, which a CPU would not gain by; blocks
that a causal mask hides are still computed, so that processes stay in step. A call must start from the empty memory,
and leaves on each process the entries of its own slice, from which none can go on: that is what lasp2 is for.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from runnel import layouts
from runnel.layouts import After, pass_along
from runnel.lineage import Lineage
from runnel.ops.attend import Call, KeyValues

PAPERS = {"World Model on Million-Length Video And Language With RingAttention": "2402.08268"}


class Exchange(layouts.Exchange):
    def states(self, after: After, memory: Tensor, *summary: Tensor) -> tuple[Tensor, Tensor]:
        return pass_along(after, memory, summary, self)

    def attend(self, call: Call) -> tuple[Tensor, KeyValues]:
        if call.cap is not None:
            raise ValueError("ring_attention has no form for capped scores: the exchange lasp2 has one")
        if not call.is_fresh:
            raise ValueError("ring_attention starts from the empty memory; the exchange lasp2 can go on from a state")
        q, k, v = call.q, call.k, call.v
        group = q.shape[2] // k.shape[2]
        wide = [x.repeat_interleave(group, dim=2) for x in (k, v)]
        y = _Ring.apply(*[x.transpose(1, 2) for x in (q, *wide)], _Masks(call.lineage, call.window, call.sinks), self)
        return y.transpose(1, 2), KeyValues(k, v, call.lineage.positions)


class _Masks:
    """Which keys of a block the queries of this slice see."""

    def __init__(self, lineage: Lineage, window: int | None, sinks: int) -> None:
        assert lineage.part is not None
        self.whole, self.length, self.window, self.sinks = lineage.part.whole, lineage.length, window, sinks
        self.rows = self._columns(lineage.part.index)

    def hidden(self, block: int) -> Tensor:
        """(B, 1, T, T) bool."""
        columns = self._columns(block)
        seen = self.whole.reach(self.rows, columns)
        if self.window is not None:
            at = self.whole.positions
            near = at[:, self.rows, None] - at[:, None, columns] < self.window
            seen = seen & (near | (at[:, None, columns] < self.sinks))
        return ~seen[:, None]

    def _columns(self, block: int) -> slice:
        return slice(block * self.length, (block + 1) * self.length)


class _Ring(torch.autograd.Function):
    """q, k, v (B, H, T, K), those of this process. Backward keeps them, the outputs and the levels, and no scores."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, masks: _Masks, exchange: Exchange) -> Tensor:
        block = torch.cat([k, v], dim=-1)
        level, out = q.new_full((*q.shape[:3], 1), -torch.inf), torch.zeros_like(v)
        for hop in range(exchange.count):
            source = (exchange.index - hop) % exchange.count
            scores = _scores(q, block[..., : k.shape[-1]], masks.hidden(source))
            found = scores.logsumexp(-1, keepdim=True)
            merged = torch.logaddexp(level, found)
            safe = merged.masked_fill(merged.isinf(), 0)  # nothing seen so far: every weight is exp(-inf)
            out = out * (level - safe).exp() + (scores - safe).exp() @ block[..., k.shape[-1] :]  # eq. (2)
            level = merged
            block = _to_next(block, exchange) if hop + 1 < exchange.count else block
        ctx.masks, ctx.exchange = masks, exchange
        ctx.save_for_backward(q, k, v, out, level.masked_fill(level.isinf(), 0))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, level = ctx.saved_tensors
        exchange, width, scale = ctx.exchange, k.shape[-1], 1 / math.sqrt(k.shape[-1])
        inner, dq = (grad * out).sum(-1, keepdim=True), torch.zeros_like(q)
        block = torch.cat([k, v, torch.zeros_like(k), torch.zeros_like(v)], dim=-1)
        for hop in range(exchange.count):
            source = (exchange.index - hop) % exchange.count
            keys, values, dk, dv = block.split([width, v.shape[-1], width, v.shape[-1]], dim=-1)
            weights = (_scores(q, keys, ctx.masks.hidden(source)) - level).exp()
            dscores = weights * (grad @ values.mT - inner) * scale
            dq = dq + dscores @ keys
            block = torch.cat([keys, values, dk + dscores.mT @ q, dv + weights.mT @ grad], dim=-1)
            block = _to_next(block, exchange)
        return dq, block[..., -width - v.shape[-1] : -v.shape[-1]], block[..., -v.shape[-1] :], None, None


def _scores(q: Tensor, k: Tensor, hidden: Tensor) -> Tensor:
    return (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(hidden, -torch.inf)


def _to_next(block: Tensor, exchange: Exchange) -> Tensor:
    """Send a block to the next process and receive that of the one before."""
    leaving = block.contiguous()
    arriving = torch.empty_like(leaving)
    ahead, behind = (exchange.index + 1) % exchange.count, (exchange.index - 1) % exchange.count
    sends = dist.P2POp(dist.isend, leaving, group=exchange.group, group_peer=ahead)
    receives = dist.P2POp(dist.irecv, arriving, group=exchange.group, group_peer=behind)
    for work in dist.batch_isend_irecv([sends, receives]):
        work.wait()
    return arriving


def reference(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, blocks: int) -> Tensor:
    """Equations (1) and (2) over blocks of keys in one process. q, k, v (B, H, T, K), hidden (B, 1, T, T) bool."""
    out, weight, top = torch.zeros_like(v), q.new_zeros(*q.shape[:3], 1), q.new_full((*q.shape[:3], 1), -torch.inf)
    for keys, values, mask in zip(k.chunk(blocks, 2), v.chunk(blocks, 2), hidden.chunk(blocks, 3), strict=True):
        scores = _scores(q, keys, mask)
        new = torch.maximum(top, scores.amax(-1, keepdim=True))
        kept, fresh = (top - new).exp().nan_to_num(0), (scores - new).exp().nan_to_num(0)
        out, weight, top = out * kept + fresh @ values, weight * kept + fresh.sum(-1, keepdim=True), new
    return out / weight

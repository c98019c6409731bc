"""Selective scan: a diagonal scan with an outer-product state that is never written out over time.

    h_t = exp(dt_t A) * h_p + (dt_t x_t) B_t^T,   y_t = h_t C_t,   h (D, N), p the parent of t

Paper: "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023, arXiv:2312.00752, eq. 2
and algorithm 2).
The fast form keeps one state per chunk of time and computes the rest anew in the backward pass (section 3.3.2), so
its memory is (B, T, D), not (B, T, D, N). Where the extension was built, float32 on the CPU is scanned in C++
(`native/scans.py`). A tree is walked level by level.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, silu, softplus

from runnel import native
from runnel.lineage import Lineage
from runnel.native import scans
from runnel.ops.precision import full_precision
from runnel.ops.recording import primitive
from runnel.ops.scan import decayed, diagonal_scan
from runnel.ops.unroll import walk_tree
from runnel.state import Memory, Pending

CHUNK = 16
"""Tokens whose states are held at once: few enough to stay in cache."""


def step(
    x: Float[Tensor, "M D"],
    dt: Float[Tensor, "M D"],
    a: Float[Tensor, "D N"],
    b: Float[Tensor, "M N"],
    c: Float[Tensor, "M N"],
    memory: Float[Tensor, "M D N"],
) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M D N"]]:
    """One token of each of M rows: its output and the new memory."""
    memory = (dt[..., None] * a).exp() * memory + (dt * x)[..., None] * b[:, None, :]
    return (memory @ c[..., None])[..., 0], memory


def reference(
    x: Float[Tensor, "B T D"],
    dt: Float[Tensor, "B T D"],
    a: Float[Tensor, "D N"],
    b: Float[Tensor, "B T N"],
    c: Float[Tensor, "B T N"],
    memory: Float[Tensor, "B D N"],
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"]]:
    """The literal loop over an ordinary sequence; arguments as in `selective_scan`."""
    outputs = []
    for t in range(x.shape[1]):
        y, memory = step(x[:, t], dt[:, t], a, b[:, t], c[:, t], memory)
        outputs.append(y)
    return torch.stack(outputs, dim=1), memory


@primitive
@full_precision
def selective_scan(
    x: Float[Tensor, "B T D"],
    dt: Float[Tensor, "B T D"],
    a: Float[Tensor, "D N"],
    b: Float[Tensor, "B T N"],
    c: Float[Tensor, "B T N"],
    memory: Float[Tensor, "B D N"],
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T D"], Memory]:
    """dt >= 0, a <= 0. Returns the outputs and the memory after the last token (pending after a tree)."""
    if lineage.is_tree:

        def advance(memory: Tensor, lineage: Lineage, x: Tensor, dt: Tensor, b: Tensor, c: Tensor) -> Tensor:
            return selective_scan(x, dt, a, b, c, memory, lineage)[1]

        if lineage.chain is not None:
            y, _ = selective_scan(x, dt, a, b, c, memory, lineage.chain)
        else:
            y = walk_tree(lambda i, h: step(i[0], i[1], a, i[2], i[3], h), (x, dt, b, c), memory, lineage)
        return y, Pending(advance, memory, (x, dt, b, c))
    if lineage.valid is not None:
        valid = lineage.valid[..., None]
        x, dt, b = torch.where(valid, x, 0), torch.where(valid, dt, 0), torch.where(valid, b, 0)
    if lineage.is_step:
        y, memory = step(x[:, 0], dt[:, 0], a, b[:, 0], c[:, 0], memory)
        return y[:, None], memory
    if lineage.part is None:
        return _along(x, dt, a, b, c, memory, lineage.reset)
    kept = (dt.sum(1)[..., None] * a).exp()
    if lineage.reset is not None:
        kept = kept * ~lineage.reset.any(1)[:, None, None]
    _, written = _along(x, dt, a, b, c, torch.zeros_like(memory), lineage.reset)
    before, last = lineage.part.exchange.states(decayed, memory, kept, written)
    return _along(x, dt, a, b, c, before, lineage.reset)[0], last


def _along(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, memory: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """A chain without padding."""
    if native.runs(x, dt, a, b, c, memory):
        return scans.selective_scan(x, dt, a, b, c, memory, reset)
    y, memory = _SelectiveScan.apply(x, dt, a, b, c, memory, None if reset is None else (~reset).to(x.dtype))
    return y, memory


def gated_selective_scan(
    x: Float[Tensor, "B T D"],
    rank: Float[Tensor, "B T R"],
    dt_weight: Float[Tensor, "D R"],
    dt_bias: Float[Tensor, "D"],
    a: Float[Tensor, "D N"],
    b: Float[Tensor, "B T N"],
    c: Float[Tensor, "B T N"],
    skip: Float[Tensor, "D"],
    z: Float[Tensor, "B T D"],
    memory: Float[Tensor, "B D N"],
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T D"], Memory]:
    """(y + skip x) silu(z), y being the scan of x with steps dt = softplus(W_dt rank + b_dt).

    In one pass where that runs in C++, and then what backward needs of dt, y and the gate is computed anew.
    """
    inputs = (x, rank, dt_weight, dt_bias, a, b, c, skip, z, memory)
    unpadded = not lineage.is_tree and lineage.valid is None and lineage.part is None
    if unpadded and lineage.length > 1 and native.runs(*inputs):
        return scans.gated_selective_scan(*inputs, lineage.reset)
    dt = softplus(linear(rank, dt_weight) + dt_bias)
    y, after = selective_scan(x, dt, a, b, c, memory, lineage)
    return (y + skip * x) * silu(z), after


def signed_selective_scan(
    x: Float[Tensor, "B T D"],
    rank: Float[Tensor, "B T R"],
    dt_weight: Float[Tensor, "D R"],
    dt_bias: Float[Tensor, "D"],
    a: Float[Tensor, "D N"],
    b: Float[Tensor, "B T N"],
    c: Float[Tensor, "B T N"],
    skip: Float[Tensor, "D"],
    z: Float[Tensor, "B T D"],
    memory: Float[Tensor, "B D N"],
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T D"], Memory]:
    """The same with decays 2 exp(dt a) - 1, which may be negative. The states of all tokens are written out."""
    dt = softplus(linear(rank, dt_weight) + dt_bias)
    decay, written = 2 * (dt[..., None] * a).exp() - 1, (dt * x)[..., None] * b[..., None, :]
    states, after = diagonal_scan(decay, written, memory, lineage)
    return ((states @ c[..., None])[..., 0] + skip * x) * silu(z), after


class _SelectiveScan(torch.autograd.Function):
    """Forward keeps the state before each chunk; backward recomputes a chunk's states, then runs it from its end.

    With g_t the gradient of h_t:  g_t = dy_t C_t^T + decay_{t+1} * g_{t+1}.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, memory: Tensor, keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        y, before = torch.empty_like(x), []
        for s in _chunks(x.shape[1]):
            before.append(memory)
            _, states = _states(x[:, s], dt[:, s], a, b[:, s], memory, None if keep is None else keep[:, s])
            y[:, s] = (states @ c[:, s, :, None])[..., 0]
            memory = states[:, -1].clone()
        ctx.save_for_backward(x, dt, a, b, c, *before)
        ctx.keep = keep
        return y, memory

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, g: Tensor) -> tuple[Tensor | None, ...]:
        x, dt, a, b, c, *before = ctx.saved_tensors
        dx, ddt, da, db, dc = [torch.zeros_like(z) for z in (x, dt, a, b, c)]
        for s, memory in reversed(list(zip(_chunks(x.shape[1]), before, strict=True))):
            keep = None if ctx.keep is None else ctx.keep[:, s]
            decay, states = _states(x[:, s], dt[:, s], a, b[:, s], memory, keep)
            dc[:, s] = (dy[:, s, None, :] @ states)[..., 0, :]
            grads = dy[:, s, :, None] * c[:, s, None, :]  # becomes g_t, from the end
            grads[:, -1] += g
            for t in range(grads.shape[1] - 2, -1, -1):
                grads[:, t].addcmul_(decay[:, t + 1], grads[:, t + 1])
            g = decay[:, 0] * grads[:, 0]
            wide = dt[:, s] * x[:, s]
            dwide = (grads @ b[:, s, :, None])[..., 0]
            db[:, s] = (wide[:, :, None, :] @ grads)[..., 0, :]
            states = torch.cat([memory[:, None], states[:, :-1]], dim=1)
            dlog = grads.mul_(decay).mul_(states)  # gradient of dt * a
            ddt[:, s] = (dlog * a).sum(-1) + dwide * x[:, s]
            dx[:, s] = dwide * dt[:, s]
            da += torch.einsum("btdn,btd->dn", dlog, dt[:, s])
        return dx, ddt, da, db, dc, g, None


def _chunks(length: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, length, CHUNK)]


def _states(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, memory: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """The decays and the states of one chunk, each (B, C, D, N)."""
    decay = (dt[..., None] * a).exp_()
    if keep is not None:
        decay = decay * keep[..., None, None]
    states = (dt * x)[..., None] * b[:, :, None, :]
    states[:, 0].addcmul_(decay[:, 0], memory)
    for t in range(1, states.shape[1]):
        states[:, t].addcmul_(decay[:, t], states[:, t - 1])
    return decay, states

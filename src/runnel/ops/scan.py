"""Diagonal scan over a vector state: h_t = a_t * h_p + b_t, p the parent of t, every channel on its own.

`a` may be of any sign or complex; nothing is ever divided or taken to a logarithm, so a = 0 is fine too.
The fast form cuts the sequence into chunks, scans all chunks side by side from zero, and adds what each inherits
(Blelloch, "Prefix sums and their applications", 1990; two levels suffice on a CPU). Where the extension was built,
float32 on the CPU is scanned in C++ (`native/scans.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Complex, Float, Inexact
from torch import Tensor
from torch.autograd.function import once_differentiable

from runnel import native
from runnel.lineage import Lineage
from runnel.native import scans
from runnel.ops.precision import full_precision, widen
from runnel.ops.recording import primitive
from runnel.ops.unroll import walk_tree
from runnel.state import Memory, Pending

CHUNK = 64


def reference(
    a: Inexact[Tensor, "B T *D"], b: Inexact[Tensor, "B T *D"], h: Inexact[Tensor, "B *D"]
) -> tuple[Inexact[Tensor, "B T *D"], Inexact[Tensor, "B *D"]]:
    """The literal loop: every h_t, and the last one."""
    states = []
    for t in range(a.shape[1]):
        h = a[:, t] * h + b[:, t]
        states.append(h)
    return torch.stack(states, dim=1), h


@primitive
@full_precision
def diagonal_scan(
    a: Inexact[Tensor, "B T *D"], b: Inexact[Tensor, "B T *D"], memory: Inexact[Tensor, "B *D"], lineage: Lineage
) -> tuple[Inexact[Tensor, "B T *D"], Memory]:
    """The state after every token, and the last one (pending after a tree)."""
    if lineage.is_tree:
        if lineage.chain is not None:
            states, _ = diagonal_scan(a, b, memory, lineage.chain)
        else:
            states = walk_tree(lambda x, h: (x[0] * h + x[1],) * 2, (a, b), memory, lineage)
        return states, Pending(_advance, memory, (a, b))
    a, b = mask_chain(a, b, lineage)
    if lineage.part is None:
        states = _along(a, b, memory)
        return states, states[:, -1]
    kept = _along(a, torch.zeros_like(b), torch.ones_like(memory))[:, -1]
    written = _along(a, b, torch.zeros_like(memory))[:, -1]
    before, last = lineage.part.exchange.states(decayed, memory, kept, written)
    return _along(a, b, before), last


def decayed(memory: Tensor, kept: Tensor, written: Tensor) -> Tensor:
    """The memory after a slice of which this is known: what it keeps of the memory before it, and what it writes."""
    return kept * memory + written


@primitive
def complex_scan(
    a: Complex[Tensor, "B T *D"], b: Complex[Tensor, "B T *D"], memory: Float[Tensor, "B *D 2"], lineage: Lineage
) -> tuple[Complex[Tensor, "B T *D"], Memory]:
    """The same with complex a and b. The memory is kept as pairs (real, imaginary): a state is made of real numbers."""
    states, after = diagonal_scan(a, b, from_pairs(memory), lineage)
    if isinstance(after, Pending):
        return states, Pending(_advance_pairs, memory, after.records)
    return states, torch.view_as_real(after)


def from_pairs(pairs: Float[Tensor, "*D 2"]) -> Complex[Tensor, "*D"]:
    """Complex numbers from (real, imaginary). A copy: what was read from a file may lie at an address that is aligned
    for real numbers only, where complex arithmetic crashes.
    """
    return torch.complex(*pairs.unbind(-1))


def polar(radius: Float[Tensor, "*#D"], angle: Float[Tensor, "*#D"]) -> Complex[Tensor, "*D"]:
    """radius * exp(i * angle), broadcast, in at least single precision."""
    return torch.polar(*torch.broadcast_tensors(widen(radius), widen(angle)))


def _along(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """The state after every token of a chain whose padding and resets are in the coefficients."""
    if a.shape[1] == 1:
        return torch.addcmul(b[:, 0], a[:, 0], h)[:, None]
    return scans.diagonal_scan(a, b, h) if native.runs(a, b, h) else _LinearScan.apply(a, b, h)


def _advance(memory: Tensor, lineage: Lineage, a: Tensor, b: Tensor) -> Tensor:
    return diagonal_scan(a, b, memory, lineage)[1]


def _advance_pairs(memory: Tensor, lineage: Lineage, a: Tensor, b: Tensor) -> Tensor:
    return complex_scan(a, b, memory, lineage)[1]


def mask_chain(a: Tensor, b: Tensor, lineage: Lineage) -> tuple[Tensor, Tensor]:
    """Fold a chain's padding (a = 1, b = 0: the identity) and resets (a = 0) into the coefficients."""
    if lineage.valid is not None:
        valid = _like(lineage.valid, a)
        a, b = torch.where(valid, a, 1), torch.where(valid, b, 0)
    if lineage.reset is not None:
        a = torch.where(_like(lineage.reset, a), 0, a)
    return a, b


def _like(mask: Tensor, x: Tensor) -> Tensor:
    return mask.reshape(*mask.shape, *[1] * (x.dim() - 2))


class _LinearScan(torch.autograd.Function):
    """The gradient of a linear scan is a linear scan from the other end: g_t = dy_t + conj(a_{t+1}) g_{t+1}."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h: Tensor) -> Tensor:
        states = _scan(a, b, h)
        ctx.save_for_backward(a, h, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, h, states = ctx.saved_tensors
        later = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], dim=1)
        g = _scan(later.flip(1).conj().resolve_conj(), grad.flip(1), torch.zeros_like(h)).flip(1)
        before = torch.cat([h[:, None], states[:, :-1]], dim=1)
        return g * before.conj(), g, g[:, 0] * a[:, 0].conj()


def _scan(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """All h_t: scan every chunk from zero, then add the inherited state times the running product of a."""
    batch, length = a.shape[:2]
    chunks = length // CHUNK
    whole = chunks * CHUNK
    states = torch.empty_like(b)
    if chunks:
        lanes = states[:, :whole].view(batch, chunks, CHUNK, *h.shape[1:])
        inherit = torch.empty_like(lanes)
        a_lanes, b_lanes = a[:, :whole].reshape(lanes.shape), b[:, :whole].reshape(lanes.shape)
        lanes[:, :, 0], inherit[:, :, 0] = b_lanes[:, :, 0], a_lanes[:, :, 0]
        for t in range(1, CHUNK):
            lanes[:, :, t] = torch.addcmul(b_lanes[:, :, t], a_lanes[:, :, t], lanes[:, :, t - 1])
            inherit[:, :, t] = a_lanes[:, :, t] * inherit[:, :, t - 1]
        for chunk in range(chunks):
            lanes[:, chunk].addcmul_(inherit[:, chunk], h[:, None])
            h = lanes[:, chunk, -1]
    for t in range(whole, length):
        h = torch.addcmul(b[:, t], a[:, t], h)
        states[:, t] = h
    return states

"""Exponential weights of any size: what softmax over the past needs, kept relative to a running maximum.

    m_t = max(f_t + m_p, i_t),   n_t = exp(f_t + m_p - m_t) n_p + exp(i_t - m_t),   p the parent of t

i_t is the log of the weight that token t brings, f_t <= 0 the log of what older weights keep, every channel on its own.
A numerator a_t that is kept and written with the same factors is one more scan (diagonal or outer), and a_t / n_t is
the weighted mean of the past. This is the online softmax (Milakov and Gimelshein, 2018, arXiv:1805.02867), with decay.

The maximum is a choice of unit that cancels out of every mean: no gradient flows through it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from runnel.lineage import Lineage
from runnel.ops.precision import widen
from runnel.ops.scan import CHUNK, diagonal_scan
from runnel.ops.unroll import walk_tree
from runnel.state import Memory, Pending


class Level(NamedTuple):
    """The memory of `weigh`: both (B, *D), zero where nothing has been seen."""

    maximum: Tensor
    total: Tensor


class Weights(NamedTuple):
    """What every token does to sums of weights, all (B, T, *D).

    write: exp(i - m), in (0, 1]; zero at padding. log_keep: f + m_p - m, <= 0; zero where nothing precedes.
    maximum: m. total: n, at least 1 (up to rounding) wherever something has been seen, and never below 1/2.
    """

    write: Tensor
    log_keep: Tensor
    maximum: Tensor
    total: Tensor


def reference(
    log_weight: Float[Tensor, "B T *D"], log_decay: Float[Tensor, "B T *D"], memory: Level
) -> tuple[Weights, Level]:
    """The literal loop over an ordinary sequence; arguments as in `weigh`."""
    tokens = []
    for t in range(log_weight.shape[1]):
        weights, memory = _step((log_weight[:, t], log_decay[:, t]), memory)
        tokens.append(weights)
    return Weights(*torch.stack(tokens, dim=2)), memory


def weigh(
    log_weight: Float[Tensor, "B T *D"], log_decay: Float[Tensor, "B T *D"], memory: Level, lineage: Lineage
) -> tuple[Weights, Memory]:
    """log_decay <= 0 (zeros: nothing is forgotten).

    Returns the weights, in at least float32, and the memory after the last token (pending after a tree).
    """
    tokens = (widen(log_weight), widen(log_decay))
    with torch.autocast(log_weight.device.type, enabled=False):
        if lineage.is_tree:
            if lineage.chain is not None:
                weights, _ = weigh(*tokens, memory, lineage.chain)
            else:
                weights = _safe(walk_tree(_step_of_tree, tokens, memory, lineage).movedim(2, 0))
            return weights, Pending(_advance, memory, tokens)
        if lineage.is_step:
            stacked, memory = _step((tokens[0][:, 0], tokens[1][:, 0]), memory)
            return _safe(stacked[:, :, None]), memory
        return _chain(*tokens, memory, lineage)


def _step(token: tuple[Tensor, ...], memory: Memory) -> tuple[Tensor, Level]:
    """One token of each of M rows: the four fields of Weights, stacked first (4, M, *D), and the new memory."""
    (log_weight, log_decay), empty = token, memory.total == 0
    carried = log_decay + memory.maximum
    maximum = torch.where(empty, log_weight, torch.maximum(carried, log_weight)).detach()
    write, log_keep = (log_weight - maximum).exp(), torch.where(empty, 0, carried - maximum)
    total = log_keep.exp() * memory.total + write
    return torch.stack([write, log_keep, maximum, total]), Level(maximum, total)


def _step_of_tree(token: tuple[Tensor, ...], memory: Memory) -> tuple[Tensor, Level]:
    stacked, memory = _step(token, memory)
    return stacked.movedim(0, 1), memory


def _chain(log_weight: Tensor, log_decay: Tensor, memory: Level, lineage: Lineage) -> tuple[Weights, Level]:
    valid = torch.ones_like(log_weight[:, :1]).bool()
    if lineage.valid is not None:
        valid = lineage.valid.reshape(*lineage.valid.shape, *[1] * (log_weight.dim() - 2))
    starts = torch.zeros_like(valid[:, :1])
    if lineage.reset is not None:
        starts = lineage.reset.reshape(*lineage.reset.shape, *[1] * (log_weight.dim() - 2))
    begun = torch.where(memory.total == 0, -torch.inf, memory.maximum)
    last_maximum = None
    with torch.no_grad():
        decays = torch.where(starts, -torch.inf, torch.where(valid, log_decay, 0))
        weights = torch.where(valid, log_weight, -torch.inf)
        if lineage.part is not None:
            alone = _maxima(weights, decays, torch.full_like(begun, -torch.inf))[:, -1]
            begun, last_maximum = lineage.part.exchange.states(_outgrown, begun, decays.sum(1).expand_as(alone), alone)
        maximum = _maxima(weights, decays, begun)
        before = torch.where(starts, -torch.inf, torch.cat([begun[:, None], maximum[:, :-1]], dim=1))
        nothing = torch.isinf(before)
        before, maximum = torch.where(nothing, 0, before), torch.where(torch.isinf(maximum), 0, maximum)
    write = torch.where(valid, torch.where(valid, log_weight, maximum).sub(maximum).exp(), 0)
    log_keep = torch.where(valid & ~nothing, log_decay + before - maximum, 0)
    total, last = diagonal_scan(log_keep.exp(), write, memory.total, lineage)
    after = maximum[:, -1] if last_maximum is None else torch.where(last_maximum.isinf(), 0, last_maximum)
    return _safe((write, log_keep, maximum, total)), Level(after, last)


def _outgrown(maximum: Tensor, decay: Tensor, own: Tensor) -> Tensor:
    """The maximum after a slice that decays the one before it and has a maximum of its own."""
    return torch.maximum(maximum + decay, own)


def _maxima(log_weight: Tensor, log_decay: Tensor, begun: Tensor) -> Tensor:
    """All m_t: every chunk from nothing, side by side; then what each inherits."""
    length = log_weight.shape[1]
    size = min(CHUNK, length)
    count = -(-length // size)
    spare = (*[0, 0] * (log_weight.dim() - 2), 0, count * size - length)
    lanes = pad(log_weight, spare, value=-torch.inf).unflatten(1, (count, size)).clone()
    decays = pad(log_decay.expand_as(log_weight), spare).unflatten(1, (count, size))
    for t in range(1, size):
        lanes[:, :, t] = torch.maximum(lanes[:, :, t], decays[:, :, t] + lanes[:, :, t - 1])
    inherited = decays.cumsum(2)
    for chunk in range(count):
        lanes[:, chunk] = torch.maximum(lanes[:, chunk], inherited[:, chunk] + begun[:, None])
        begun = lanes[:, chunk, -1]
    return lanes.flatten(1, 2)[:, :length]


def _safe(fields: tuple[Tensor, ...] | Tensor) -> Weights:
    """Totals that may be divided by: only padding that nothing precedes has less than 1/2."""
    write, log_keep, maximum, total = fields
    return Weights(write, log_keep, maximum, total.clamp(min=0.5))


def _advance(memory: Level, lineage: Lineage, log_weight: Tensor, log_decay: Tensor) -> Memory:
    return weigh(log_weight, log_decay, memory, lineage)[1]

"""Outer-product scan: S_t = Diag(a_t) S_p + k_t v_t^T, y_t = S_t^T q_t, p the parent of t.

The state of every head is a (K, V) matrix. `log_decay` = log a is one number per head or one per key channel
(zeros: no decay).
The chunked form is that of "Gated Linear Attention Transformers with Hardware-Efficient Training" (2023,
arXiv:2312.06635) and of state-space duality (2024, arXiv:2405.21060); with the causal mask replaced by
the ancestors it serves trees.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from runnel.lineage import Lineage
from runnel.ops.paths import Decay, blocks_of, join
from runnel.ops.precision import full_precision
from runnel.ops.recording import primitive
from runnel.ops.scan import decayed
from runnel.state import Memory, Pending

HEAD_CHUNK = 64
CHANNEL_CHUNK = 16
"""Per-channel decays want smaller chunks: their sums stay small enough to be split into two factors."""


def step(
    q: Float[Tensor, "B #H K"],
    k: Float[Tensor, "B #H K"],
    v: Float[Tensor, "B H V"],
    log_decay: Float[Tensor, "B #H 1"] | Float[Tensor, "B #H K"],
    memory: Float[Tensor, "B H K V"],
) -> tuple[Float[Tensor, "B H V"], Float[Tensor, "B H K V"]]:
    """One token: its output and the new memory."""
    memory = log_decay.exp()[..., None] * memory + k[..., :, None] * v[..., None, :]
    return (q[..., None, :] @ memory)[..., 0, :], memory


def reference(
    q: Float[Tensor, "B T #H K"],
    k: Float[Tensor, "B T #H K"],
    v: Float[Tensor, "B T H V"],
    log_decay: Float[Tensor, "B T #H"] | Float[Tensor, "B T #H K"],
    memory: Float[Tensor, "B H K V"],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    """The literal loop over an ordinary sequence; arguments as in `outer_scan`."""
    log_decay = per_key(log_decay)
    outputs = []
    for t in range(q.shape[1]):
        y, memory = step(q[:, t], k[:, t], v[:, t], log_decay[:, t], memory)
        outputs.append(y)
    return torch.stack(outputs, dim=1), memory


@primitive
@full_precision
def outer_scan(
    q: Float[Tensor, "B T #H K"],
    k: Float[Tensor, "B T #H K"],
    v: Float[Tensor, "B T H V"],
    log_decay: Float[Tensor, "B T #H"] | Float[Tensor, "B T #H K"] | None,
    memory: Float[Tensor, "B H K V"],
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T H V"], Memory]:
    """log_decay <= 0, or None where nothing decays; q, k and log_decay may be shared by all heads (an axis of 1: `#H`).

    Returns the outputs and the memory after the last token (pending after a tree).
    """
    decays = v.new_zeros(*v.shape[:2], 1) if log_decay is None else log_decay
    y, after = _scan(q, k, v, decays, memory, lineage, inclusive=True)
    if isinstance(after, Pending) and log_decay is None:
        after = replace(after, merge=_add)
    return y, after


@full_precision
def outer_scan_before(
    q: Float[Tensor, "B T #H K"],
    k: Float[Tensor, "B T #H K"],
    v: Float[Tensor, "B T H V"],
    log_decay: Float[Tensor, "B T #H"] | Float[Tensor, "B T #H K"],
    memory: Float[Tensor, "B H K V"],
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T H V"], Memory]:
    """The same memory, but read before the token decays it and writes to it: y_t = S_p^T q_t."""
    return _scan(q, k, v, log_decay, memory, lineage, inclusive=False)


@full_precision
def outer_scan_across(
    q: Float[Tensor, "B T H V"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    log_decay: Float[Tensor, "B T #H"] | Float[Tensor, "B T #H K"],
    memory: Float[Tensor, "B H K V"],
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T H K"], Memory]:
    """The same memory, read from the side of the values: y_t = S_t q_t."""
    log_decay = per_key(log_decay)
    if lineage.is_step:
        _, memory = step(k[:, 0], k[:, 0], v[:, 0], log_decay[:, 0], memory)
        return (memory @ q[:, 0, :, :, None])[..., 0][:, None], memory
    k, v, log_decay = mask_padding(lineage, k, v, log_decay)
    decay = decay_of(log_decay, lineage)
    split = decay.blocks.split
    q_, k_, v_ = split(q), split(k), split(v)
    y = decay.mix(q_ @ v_.mT, k_)
    if lineage.is_tree:
        y = y + (q_ @ memory[:, None].mT) * decay.from_start()
        return join(y, lineage.length), Pending(advance, memory, (log_decay, k, v))
    before, memory = carry(decay.whole(), (k_ * decay.to_end()).mT @ v_, memory, lineage)
    return join(y + (q_ @ before.mT) * decay.from_start(), lineage.length), memory


def mean_scan(
    q: Float[Tensor, "B T #H K"],
    k: Float[Tensor, "B T #H K"],
    v: Float[Tensor, "B T H V"],
    memory: Float[Tensor, "B H K V+1"],
    lineage: Lineage,
    log_decay: Float[Tensor, "B T #H"] | Float[Tensor, "B T #H K"] | None = None,
) -> tuple[Float[Tensor, "B T H V"], Memory]:
    """Linear attention: the mean of the values of the past with weights q_t . k_j >= 0 (decayed, if anything decays).

    The normaliser is one more value column, of ones: the last column of the memory.
    """
    y, after = outer_scan(q, k, pad(v, (0, 1), value=1.0), log_decay, memory, lineage)
    return y[..., :-1] / y[..., -1:].clamp(min=torch.finfo(y.dtype).tiny), after  # zero: padding after nothing


def _scan(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, memory: Tensor, lineage: Lineage, inclusive: bool
) -> tuple[Tensor, Memory]:
    """inclusive: the token's own decay and write count in what it reads."""
    log_decay = per_key(log_decay)
    if lineage.is_step:
        y, after = step(q[:, 0], k[:, 0], v[:, 0], log_decay[:, 0], memory)
        return (y if inclusive else (q[:, 0, :, None, :] @ memory)[..., 0, :])[:, None], after
    k, v, log_decay = mask_padding(lineage, k, v, log_decay)
    decay = decay_of(log_decay, lineage)
    split = decay.blocks.split
    q_, k_, v_ = split(q), split(k), split(v)
    y = decay.product(q_, k_, inclusive) @ v_
    reads = q_ * decay.from_start(inclusive)
    if lineage.is_tree:
        y = y + reads @ memory[:, None]
        return join(y, lineage.length), Pending(advance, memory, (log_decay, k, v))
    before, memory = carry(decay.whole(), (k_ * decay.to_end()).mT @ v_, memory, lineage)
    return join(y + reads @ before, lineage.length), memory


def _add(memory: Tensor, lineage: Lineage, *records: Tensor) -> Tensor:
    """The memory after all nodes of a tree that decay nothing: a sum."""
    return advance(memory, replace(lineage, parents=None), *records)


def advance(memory: Tensor, lineage: Lineage, log_decay: Tensor, *pairs: Tensor) -> Tensor:
    """The memory after a chain of writes.

    log_decay (B, P, H, 1 or K); pairs: keys (B, P, H, K) and values (B, P, H, V) in turn.
    """
    log_decay, *masked = mask_padding(lineage, log_decay, *pairs)
    decay = decay_of(log_decay, lineage, size=lineage.length)
    split = decay.blocks.split
    write = sum((split(k) * decay.to_end()).mT @ split(v) for k, v in zip(masked[::2], masked[1::2], strict=True))
    return (decay.whole() * memory[:, None] + write)[:, 0]


def carry(whole: Tensor, writes: Tensor, memory: Tensor, lineage: Lineage) -> tuple[Tensor, Tensor]:
    """The memory before every chunk (B, n, H, K, V) and after the last (of the last slice, where there are several).

    whole (b, n, h, K or 1, 1); writes (B, n, H, K, V).
    """
    if lineage.part is None:
        return _carry(whole, writes, memory)
    kept, (_, written) = whole.prod(1).expand(memory.shape[0], *whole.shape[2:]), _carry(whole, writes, memory * 0)
    memory, last = lineage.part.exchange.states(decayed, memory, kept, written)
    return _carry(whole, writes, memory)[0], last


def _carry(whole: Tensor, writes: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    before = []
    for chunk in range(writes.shape[1]):
        before.append(memory)
        memory = torch.addcmul(writes[:, chunk], whole[:, chunk % whole.shape[1]], memory)
    return torch.stack(before, dim=1), memory


def decay_of(log_decay: Tensor, lineage: Lineage, size: int | None = None) -> Decay:
    """Chunks of a fit size for decays per head or per key channel."""
    blocks = blocks_of(lineage, size or (HEAD_CHUNK if log_decay.shape[-1] == 1 else CHANNEL_CHUNK), log_decay)
    return Decay(blocks.split(log_decay), blocks)


def per_key(log_decay: Tensor) -> Tensor:
    """(B, T, H) -> (B, T, H, 1); (B, T, H, K) as it is."""
    return log_decay[..., None] if log_decay.dim() == 3 else log_decay


def mask_padding(lineage: Lineage, *tensors: Tensor) -> list[Tensor]:
    """Zero at padding: a zero key, value and log-decay change nothing."""
    if lineage.valid is None:
        return list(tensors)
    valid = lineage.valid[:, :, None, None]
    return [torch.where(valid, x, 0) for x in tensors]

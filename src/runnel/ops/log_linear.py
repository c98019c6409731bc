"""Log-linear scan: an outer-product memory in buckets of doubling size, each read with a weight of its own.

    y_t = sum over ancestors j of  scale_t[level(t, j)] (decay from j to t) (q_t . k_j) v_j

Paper: "Log-Linear Attention" (2025, arXiv:2506.04761). Its Fenwick tree puts token j, seen from token t, into the
bucket of the highest bit in which their positions differ: level(t, j) = bit length of (t xor j), 0 for the token
itself. The recent past lies in small buckets, the distant past in large ones, and T tokens need only log2 T of them.

The memory after s tokens holds, for every bit of s that is set, the sum over the tokens whose position first differs
from s in that bit. The last level takes in all that is older.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from runnel.lineage import Lineage
from runnel.ops.outer import decay_of, mask_padding, per_key
from runnel.ops.paths import join
from runnel.ops.precision import full_precision
from runnel.ops.recording import primitive
from runnel.state import Memory, Pending


def reference(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    log_decay: Float[Tensor, "B T H"],
    scales: Float[Tensor, "B T H L"],
) -> Float[Tensor, "B T H V"]:
    """The definition, token by token, over fresh rows."""
    outputs, last = [], scales.shape[-1] - 1
    for t in range(q.shape[1]):
        levels = torch.tensor([min((t ^ j).bit_length(), last) for j in range(t + 1)])
        decay = torch.stack([log_decay[:, j + 1 : t + 1].sum(1) for j in range(t + 1)], dim=1).exp()
        weights = (q[:, t, None] * k[:, : t + 1]).sum(-1) * decay * scales[:, t][..., levels].transpose(1, 2)
        outputs.append((weights[..., None] * v[:, : t + 1]).sum(1))
    return torch.stack(outputs, dim=1)


@primitive
@full_precision
def log_linear_scan(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    log_decay: Float[Tensor, "B T H"],
    scales: Float[Tensor, "B T H L"],
    memory: Float[Tensor, "B L-1 H K V"],
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T H V"], Memory]:
    """log_decay <= 0; scales: the weight of every level, for every token that reads.

    Returns the outputs and the memory after the last token (pending after a tree).
    """
    k, v, log_decay = mask_padding(lineage, k, v, per_key(log_decay))
    decay = decay_of(log_decay, lineage)
    split = decay.blocks.split
    q_, k_, v_, scales_ = split(q), split(k), split(v), split(scales)
    positions = split(lineage.positions[:, :, None, None])[:, :, 0, :, 0]  # (B, n, C)
    within = _level(positions[..., :, None], positions[..., None, :], scales.shape[-1])
    heads = q.shape[2]
    near = scales_.gather(-1, within[:, :, None].expand(-1, -1, heads, -1, -1))
    y = (decay.product(q_, k_) * near) @ v_
    reads, seen = q_ * decay.from_start(), _seen(lineage, decay.blocks.size)
    if lineage.is_tree:
        y = y + _read(reads[:, 0], scales_[:, 0], positions[:, 0], seen[:, 0], memory)[:, None]
        return join(y, lineage.length), Pending(_advance, memory, (log_decay, k, v))
    keys, whole = k_ * decay.to_end(), decay.whole()

    def carry(memory: Tensor) -> tuple[list[Tensor], Tensor]:
        """What every chunk reads of the memory before it, and the memory after the last."""
        far = []
        for n in range(y.shape[1]):
            far.append(_read(reads[:, n], scales_[:, n], positions[:, n], seen[:, n], memory))
            kept = whole[:, n % whole.shape[1], None] * memory
            memory = _merge(kept, keys[:, n], v_[:, n], positions[:, n], seen[:, n], seen[:, n + 1])
        return far, memory

    if lineage.part is None:
        far, last = carry(memory)
    else:
        kept = whole.prod(1)[:, None].expand(memory.shape[0], *[-1] * 4)
        written = carry(torch.zeros_like(memory))[1]
        borders = torch.stack([seen[:, 0], seen[:, -1]], dim=1).double()
        before, last = lineage.part.exchange.states(_decayed, memory, kept, written, borders)
        far, _ = carry(before)
    return join(y + torch.stack(far, dim=1), lineage.length), last


def _decayed(memory: Tensor, kept: Tensor, written: Tensor, borders: Tensor) -> Tensor:
    """The memory after a slice: what it keeps, in the buckets of its end, and what it writes. borders: tokens seen."""
    before, after = borders.long().unbind(1)
    nothing = memory.new_zeros(memory.shape[0], 1)
    none = memory.new_zeros(memory.shape[0], memory.shape[2], 1, 1)
    keys, values = none.expand(-1, -1, -1, memory.shape[3]), none.expand(-1, -1, -1, memory.shape[4])
    return _merge(kept * memory, keys, values, nothing.long(), before, after) + written


def _advance(memory: Tensor, lineage: Lineage, log_decay: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The memory after a chain of writes, in one chunk."""
    log_decay, k, v = mask_padding(lineage, log_decay, k, v)
    decay = decay_of(log_decay, lineage, size=lineage.length)
    split = decay.blocks.split
    kept, keys = decay.whole() * memory, (split(k) * decay.to_end())[:, 0]
    return _merge(kept, keys, split(v)[:, 0], lineage.positions, lineage.start, lineage.end)


def _read(q: Tensor, scales: Tensor, positions: Tensor, seen: Tensor, memory: Tensor) -> Tensor:
    """(B, H, C, V): what tokens at the given positions read of a memory after `seen` (B,) tokens."""
    level = _level_of_buckets(positions, seen, scales.shape[-1])  # (B, C, L-1)
    weights = scales.gather(-1, level[:, None].expand(-1, q.shape[1], -1, -1))
    return torch.einsum("bhck,blhkv,bhcl->bhcv", q, memory, weights)


def _merge(memory: Tensor, keys: Tensor, v: Tensor, positions: Tensor, seen: Tensor, now: Tensor) -> Tensor:
    """The buckets after `now` (B,) tokens: those after `seen`, decayed, and the tokens since (keys decayed too)."""
    count = memory.shape[1] + 1
    moved = one_hot(_level_of_buckets(now[:, None], seen, count)[:, 0] - 1, count - 1).to(memory.dtype)
    fresh = one_hot((_level(now[:, None], positions, count) - 1).clamp(min=0), count - 1).to(memory.dtype)
    return torch.einsum("blm,blhkv->bmhkv", moved, memory) + torch.einsum("bjm,bhjk,bhjv->bmhkv", fresh, keys, v)


def _seen(lineage: Lineage, size: int) -> Tensor:
    """(B, n+1): how many tokens of its document a row has seen before each chunk, and at the end (of a chain)."""
    lineage = replace(lineage, part=None)  # the end of this slice
    if lineage.is_tree:
        return lineage.start[:, None]
    after = lineage.positions + (1 if lineage.valid is None else lineage.valid.long())
    return torch.cat([lineage.start[:, None], after[:, size - 1 : -1 : size], lineage.end[:, None]], dim=1)


def _level_of_buckets(positions: Tensor, seen: Tensor, count: int) -> Tensor:
    """(B, C, L-1): the level at which tokens at `positions` (B, C) see the buckets of a memory after `seen` tokens.

    The positions in the bucket of bit i agree from that bit on: with those of `seen`, the bit itself cleared. Where the
    bit is not set the bucket is empty, and any level from 1 on will do.
    """
    bits = torch.arange(count - 1, device=seen.device)
    members = (seen[:, None, None] >> bits) ^ 1
    level = bits + _bit_length((positions[..., None] >> bits) ^ members)
    level[..., -1] = count - 1
    return level.clamp(min=1, max=count - 1)


def _level(later: Tensor, earlier: Tensor, count: int) -> Tensor:
    return _bit_length(later ^ earlier).clamp(max=count - 1)


def _bit_length(x: Tensor) -> Tensor:
    return torch.frexp(x.double()).exponent.long()

"""Delta scans: memories whose transition is a decay plus a rank-one term, in WY (chunked) form.

`delta_scan`, the gated delta rule ("Gated Delta Networks", 2024, arXiv:2412.06464, eq. 10; state transposed):
    S_t = a_t S_p + b_t k_t (v_t - (a_t S_p)^T k_t)^T,     y_t = S_t^T q_t
`dplr_scan`, diagonal plus low rank (generalised delta rule of RWKV-7, 2025, arXiv:2503.14456, eq. 16-17):
    S_t = Diag(a_t) S_p + e_t (S_p^T r_t)^T + k_t v_t^T,   y_t = S_t^T q_t

p is the parent of t. Both become additive once the corrections are known: inside a chunk these solve a unit
lower-triangular system ("Parallelizing Linear Transformers with the Delta Rule", 2024, arXiv:2406.06484), and so
they do on a tree, where ancestors replace the causal mask. The record of a node is its key, its correction, its decay.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.ops import unroll
from runnel.ops.outer import advance, decay_of, mask_padding, per_key
from runnel.ops.paths import Blocks, join
from runnel.ops.precision import full_precision
from runnel.ops.recording import primitive
from runnel.state import Memory, Pending


def delta_step(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    beta: Float[Tensor, "B H 1"],
    log_decay: Float[Tensor, "B H 1"] | Float[Tensor, "B H K"],
    memory: Float[Tensor, "B H K V"],
) -> tuple[Float[Tensor, "B H V"], Float[Tensor, "B H K V"]]:
    """One token: its output and the new memory."""
    memory = log_decay.exp()[..., None] * memory
    error = v - (k[..., None, :] @ memory)[..., 0, :]
    memory = memory + k[..., :, None] * (beta * error)[..., None, :]
    return (q[..., None, :] @ memory)[..., 0, :], memory


def dplr_step(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    read: Float[Tensor, "B H K"],
    erase: Float[Tensor, "B H K"],
    log_decay: Float[Tensor, "B H 1"] | Float[Tensor, "B H K"],
    memory: Float[Tensor, "B H K V"],
) -> tuple[Float[Tensor, "B H V"], Float[Tensor, "B H K V"]]:
    """One token: its output and the new memory."""
    found = read[..., None, :] @ memory
    memory = log_decay.exp()[..., None] * memory + erase[..., :, None] * found + k[..., :, None] * v[..., None, :]
    return (q[..., None, :] @ memory)[..., 0, :], memory


def delta_reference(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    beta: Float[Tensor, "B T H"],
    log_decay: Float[Tensor, "B T H"] | Float[Tensor, "B T H K"],
    memory: Float[Tensor, "B H K V"],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    """The literal loop over an ordinary sequence; arguments as in `delta_scan`."""
    tokens = (q, k, v, beta[..., None], per_key(log_decay))
    return unroll.reference(lambda x, s: delta_step(*[*x, s]), tokens, memory)


def dplr_reference(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    read: Float[Tensor, "B T H K"],
    erase: Float[Tensor, "B T H K"],
    log_decay: Float[Tensor, "B T H"] | Float[Tensor, "B T H K"],
    memory: Float[Tensor, "B H K V"],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    """The literal loop over an ordinary sequence; arguments as in `dplr_scan`."""
    tokens = (q, k, v, read, erase, per_key(log_decay))
    return unroll.reference(lambda x, s: dplr_step(*[*x, s]), tokens, memory)


@primitive
@full_precision
def delta_scan(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    beta: Float[Tensor, "B T H"],
    log_decay: Float[Tensor, "B T H"] | Float[Tensor, "B T H K"],
    memory: Float[Tensor, "B H K V"],
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T H V"], Memory]:
    """The gated delta rule: k of unit length, beta in [0, 2], log_decay <= 0.

    Returns the outputs and the memory after the last token (pending after a tree).
    """
    beta, log_decay = beta[..., None], per_key(log_decay)
    if lineage.is_step:
        y, memory = delta_step(q[:, 0], k[:, 0], v[:, 0], beta[:, 0], log_decay[:, 0], memory)
        return y[:, None], memory
    k, v, log_decay = mask_padding(lineage, k, v, log_decay)
    decay = decay_of(log_decay, lineage)
    split = decay.blocks.split
    q_, k_, b_ = split(q), split(k), split(beta)
    from_start = decay.from_start()
    from_v, from_memory = _solve(
        -b_ * decay.product(k_, k_) * decay.blocks.strict, b_ * split(v), -b_ * k_ * from_start, decay.blocks
    )
    scores, reads = decay.product(q_, k_), q_ * from_start
    if lineage.is_tree:
        written = from_v + from_memory @ memory[:, None]
        y = join(scores @ written + reads @ memory[:, None], lineage.length)
        return y, Pending(advance, memory, (log_decay, k, join(written, lineage.length)))
    before, written, memory = _carry(
        decay.whole(), (k_ * decay.to_end()).mT, from_v, from_memory, None, memory, lineage
    )
    return join(scores @ written + reads @ before, lineage.length), memory


@primitive
@full_precision
def dplr_scan(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    read: Float[Tensor, "B T H K"],
    erase: Float[Tensor, "B T H K"],
    log_decay: Float[Tensor, "B T H"] | Float[Tensor, "B T H K"],
    memory: Float[Tensor, "B H K V"],
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T H V"], Memory]:
    """Diagonal plus low rank; log_decay <= 0.

    Returns the outputs and the memory after the last token (pending after a tree).
    """
    log_decay = per_key(log_decay)
    if lineage.is_step:
        y, memory = dplr_step(q[:, 0], k[:, 0], v[:, 0], read[:, 0], erase[:, 0], log_decay[:, 0], memory)
        return y[:, None], memory
    k, v, erase, log_decay = mask_padding(lineage, k, v, erase, log_decay)
    decay = decay_of(log_decay, lineage)
    split = decay.blocks.split
    q_, k_, v_, r_, e_ = split(q), split(k), split(v), split(read), split(erase)
    from_v, from_memory = _solve(
        decay.product(r_, e_, inclusive=False),
        decay.product(r_, k_, inclusive=False) @ v_,
        r_ * decay.from_start(inclusive=False),
        decay.blocks,
    )
    scores, reads = decay.product(q_, e_), q_ * decay.from_start()
    y = decay.product(q_, k_) @ v_
    if lineage.is_tree:
        found = from_v + from_memory @ memory[:, None]
        y = join(y + scores @ found + reads @ memory[:, None], lineage.length)
        return y, Pending(advance, memory, (log_decay, k, v, erase, join(found, lineage.length)))
    to_end = decay.to_end()
    writes = (k_ * to_end).mT @ v_
    before, found, memory = _carry(decay.whole(), (e_ * to_end).mT, from_v, from_memory, writes, memory, lineage)
    return join(y + scores @ found + reads @ before, lineage.length), memory


def _solve(system: Tensor, constant: Tensor, per_memory: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor]:
    """U = system U + constant + per_memory S for any S: returns (c, M) with U = c + M S. system is strictly lower."""
    unit = torch.eye(blocks.size, dtype=system.dtype, device=system.device) - system
    right = torch.cat([constant, per_memory], dim=-1)
    solved = torch.linalg.solve_triangular(unit, right, upper=False, unitriangular=True)
    return solved[..., : constant.shape[-1]], solved[..., constant.shape[-1] :]


def _carry(
    whole: Tensor,
    keys: Tensor,
    from_v: Tensor,
    from_memory: Tensor,
    writes: Tensor | None,
    memory: Tensor,
    lineage: Lineage,
) -> tuple[Tensor, Tensor, Tensor]:
    """Chunk by chunk: the corrections given the memory, then the memory after them.

    whole (b, n, h, K or 1, 1); keys (B, n, H, K, C), decayed to the chunk's end; from_v (B, n, H, C, V);
    from_memory (B, n, H, C, K); writes (B, n, H, K, V) or None.
    Returns the memory before every chunk, all corrections, and the last memory (of the last slice of several).
    """
    if lineage.part is None:
        return _chunks(whole, keys, from_v, from_memory, writes, memory)
    eye = torch.eye(memory.shape[-2], dtype=memory.dtype, device=memory.device).expand(*memory.shape[:-1], -1)
    kept = _chunks(whole, keys, torch.zeros_like(from_memory), from_memory, None, eye)[2]
    written = _chunks(whole, keys, from_v, from_memory, writes, torch.zeros_like(memory))[2]
    memory, last = lineage.part.exchange.states(moved, memory, kept, written)
    return *_chunks(whole, keys, from_v, from_memory, writes, memory)[:2], last


def moved(memory: Tensor, kept: Tensor, written: Tensor) -> Tensor:
    """The memory after a slice that multiplies the one before it by a matrix."""
    return kept @ memory + written


def _chunks(
    whole: Tensor, keys: Tensor, from_v: Tensor, from_memory: Tensor, writes: Tensor | None, memory: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    before, corrections = [], []
    for n in range(from_v.shape[1]):
        before.append(memory)
        corrections.append(from_v[:, n] + from_memory[:, n] @ memory)
        write = keys[:, n] @ corrections[-1]
        if writes is not None:
            write = write + writes[:, n]
        memory = torch.addcmul(write, whole[:, n % whole.shape[1]], memory)
    return torch.stack(before, dim=1), torch.stack(corrections, dim=1), memory

"""Time-invariant systems with a full transition: h_t = A h_p + B u_t, y_t = C h_t, p the parent of t.

Every channel has a state of N numbers of its own, driven by that one channel; A, B and C do not depend on the input.
A token sees an ancestor through K_k = C A^k B at their distance, and the state before a chunk through C A^k. So chunks
are convolutions, the state is carried between them, and it is never written out over time. Nothing is diagonalised:
HiPPO's matrices are far from normal. With distances along paths it serves padded and packed rows and trees.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.ops.lti import contract, steps_since_start
from runnel.ops.paths import Blocks, blocks_of, join
from runnel.ops.precision import full_precision
from runnel.state import Memory, Pending

CHUNK = 32


def reference(
    u: Float[Tensor, "B T D"],
    a: Float[Tensor, "D N N"],
    b: Float[Tensor, "D N"],
    c: Float[Tensor, "D M N"],
    memory: Float[Tensor, "B D N"],
) -> tuple[Float[Tensor, "B T D M"], Float[Tensor, "B D N"]]:
    """The literal loop over an ordinary sequence; arguments as in `state_space_scan`."""
    h, outputs = memory, []
    for t in range(u.shape[1]):
        h = _apply(a, h) + b * u[:, t, :, None]
        outputs.append(_apply(c, h))
    return torch.stack(outputs, dim=1), h


@full_precision
def state_space_scan(
    u: Float[Tensor, "B T D"],
    a: Float[Tensor, "D N N"],
    b: Float[Tensor, "D N"],
    c: Float[Tensor, "D M N"],
    memory: Float[Tensor, "B D N"],
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T D M"], Memory]:
    """M outputs of every channel, and the memory after the last token (pending after a tree)."""
    if lineage.part is not None and lineage.valid is None:  # a slice is read as one: its spare columns are padding
        lineage = replace(lineage, valid=torch.ones(u.shape[:2], dtype=torch.bool, device=u.device))
    if lineage.is_plain and lineage.length > CHUNK and lineage.length % CHUNK:
        whole = lineage.length - lineage.length % CHUNK
        parts = []
        for part in (u[:, :whole], u[:, whole:]):
            y, memory = state_space_scan(
                part, a, b, c, memory, Lineage.sequence(part.shape[0], part.shape[1], u.device)
            )
            parts.append(y)
        return torch.cat(parts, dim=1), memory
    if lineage.is_plain and lineage.length == 1:
        return reference(u, a, b, c, memory)
    y, after = _chunks(u, a, b, c, memory, lineage)
    if not lineage.is_tree:
        return y, after

    def advance(memory: Tensor, lineage: Lineage, u: Tensor) -> Tensor:
        return state_space_scan(u, a, b, c, memory, lineage)[1]

    return y, Pending(advance, memory, (u,))


def _chunks(u: Tensor, a: Tensor, b: Tensor, c: Tensor, memory: Tensor, lineage: Lineage) -> tuple[Tensor, Tensor]:
    """The outputs, and the memory after the last column (of no meaning after a tree)."""
    if lineage.valid is not None:
        u = torch.where(lineage.valid[..., None], u, 0)
    blocks = blocks_of(lineage, CHUNK, u)
    inputs = blocks.split(u[:, :, None])[:, :, 0]  # (B, n, C, D)
    since = steps_since_start(lineage, blocks)  # (b, n, C)
    writes, reads = [b], [c]  # A^k B (D, N) and C A^k (D, M, N) for k = 0..C
    for _ in range(blocks.size):
        writes.append(_apply(a, writes[-1]))
        reads.append(reads[-1] @ a)
    written, read = torch.stack(writes), torch.stack(reads)
    kernel = (c @ written[..., None])[..., 0]  # (C+1, D, M)

    distance = (since[..., :, None] - since[..., None, :]).clamp(min=0)
    direct = kernel[distance] * blocks.reach[:, :, 0, ..., None, None]
    inherited = read[since] * blocks.from_start[:, :, 0, ..., None, None]
    left = written[since[..., -1:] - since] * blocks.to_end[:, :, 0, ..., None]
    steps, given = since[..., -1], contract("jdk,{}jd->{}dk", left, inputs)
    if lineage.part is None:
        before, after = _carry(a, steps, blocks, given, memory)
    else:
        kept, (_, own) = _kept(a, steps, blocks), _carry(a, steps, blocks, given, torch.zeros_like(memory))
        memory, after = lineage.part.exchange.states(_moved, memory, kept, own)
        before, _ = _carry(a, steps, blocks, given, memory)
    y = contract("tjdm,{}jd->{}tdm", direct, inputs) + contract("tdmk,{}dk->{}tdm", inherited, before)
    return join(y.flatten(-2)[:, :, None], lineage.length)[:, :, 0].unflatten(-1, c.shape[:2]), after


def _carry(a: Tensor, steps: Tensor, blocks: Blocks, writes: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """The memory before every chunk, and after the last. steps (b, n): tokens that a chunk's last one counts.

    A^steps is applied bit by bit, by squares of A.
    """
    squares = [a]
    while 2 ** len(squares) <= blocks.size:
        squares.append(squares[-1] @ squares[-1])
    before = []
    for chunk in range(writes.shape[1]):
        before.append(memory)
        at = min(chunk, steps.shape[1] - 1)
        for bit, square in enumerate(squares):
            taken = (steps[:, at] >> bit & 1).bool()[:, None, None]
            if bool(taken.any()):
                memory = torch.where(taken, _apply(square, memory), memory)
        kept = blocks.carries[:, min(chunk, blocks.carries.shape[1] - 1), :, None]  # (b, 1, 1)
        memory = kept * memory + writes[:, chunk]
    return torch.stack(before, dim=1), memory


def _kept(a: Tensor, steps: Tensor, blocks: Blocks) -> Tensor:
    """(B, D, N, N): what all chunks do to the memory before them."""
    total = steps.sum(1)
    power, square = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand(len(total), *a.shape), a
    for bit in range(int(total.max()).bit_length()):
        power = torch.where((total >> bit & 1).bool()[:, None, None, None], square @ power, power)
        square = square @ square
    return power * blocks.carries.prod(1)[..., None, None]


def _moved(memory: Tensor, kept: Tensor, written: Tensor) -> Tensor:
    """The memory after a slice that multiplies the one before it by a matrix."""
    return _apply(kept, memory) + written


def _apply(matrices: Tensor, h: Tensor) -> Tensor:
    """(..., D, M, N) times (..., D, N) -> (..., D, M)."""
    return (matrices @ h[..., None])[..., 0]

"""Time-invariant diagonal systems: h_t = a * h_p + u_t, y_t = Re sum over n of c_n h_tn, p the parent of t.

Every channel has a state of N numbers of its own, driven by that one channel; a = exp(log_a), real or complex, and c do
not depend on the input. So y is a convolution with K_k = Re sum over n of c_n a_n^k (the Vandermonde product of
"Diagonal State Spaces are as Effective as Structured State Spaces", 2022, arXiv:2203.14343), and a token sees an
ancestor through K at their distance. The fast form does that within chunks and carries h between them: the states are
never written out over time. With distances along paths it serves padded and packed rows and trees.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Complex, Float, Inexact
from torch import Tensor

from runnel.lineage import Lineage
from runnel.ops.outer import carry
from runnel.ops.paths import Blocks, blocks_of, join
from runnel.ops.precision import full_precision
from runnel.ops.recording import primitive
from runnel.ops.scan import from_pairs
from runnel.state import Memory, Pending

CHUNK = 32


def reference(
    u: Float[Tensor, "B T D"],
    log_a: Inexact[Tensor, "D N"],
    c: Inexact[Tensor, "D N"],
    memory: Float[Tensor, "B D N *2"],
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N *2"]]:
    """The literal loop over an ordinary sequence; arguments as in `lti_scan`."""
    h, outputs = _numbers(memory, log_a), []
    for t in range(u.shape[1]):
        h = log_a.exp() * h + u[:, t, :, None]
        outputs.append((c * h).real.sum(-1))
    return torch.stack(outputs, dim=1), _stored(h)


@primitive
@full_precision
def lti_scan(
    u: Float[Tensor, "B T D"],
    log_a: Inexact[Tensor, "D N"],
    c: Inexact[Tensor, "D N"],
    memory: Float[Tensor, "B D N *2"],
    lineage: Lineage,
) -> tuple[Float[Tensor, "B T D"], Memory]:
    """The real part of log_a is <= 0. A complex state is kept as pairs (real, imaginary).

    Returns the outputs and the memory after the last token (pending after a tree).
    """
    if lineage.part is not None and lineage.valid is None:  # a slice is read as one: its spare columns are padding
        lineage = replace(lineage, valid=torch.ones(u.shape[:2], dtype=torch.bool, device=u.device))
    if lineage.is_plain and lineage.length > CHUNK and lineage.length % CHUNK:
        whole = lineage.length - lineage.length % CHUNK
        parts = []
        for part in (u[:, :whole], u[:, whole:]):
            y, memory = lti_scan(part, log_a, c, memory, Lineage.sequence(part.shape[0], part.shape[1], u.device))
            parts.append(y)
        return torch.cat(parts, dim=1), memory
    blocks = blocks_of(lineage, CHUNK, u)
    y, after = _chunks(u, log_a, c, memory, lineage, blocks)
    if not lineage.is_tree:
        return y, after

    def advance(memory: Tensor, lineage: Lineage, u: Tensor) -> Tensor:
        return lti_scan(u, log_a, c, memory, lineage)[1]

    return y, Pending(advance, memory, (u,))


def zero_order_hold(
    poles: Inexact[Tensor, "*D N"], dt: Float[Tensor, "*D #N"]
) -> tuple[Inexact[Tensor, "*D N"], Inexact[Tensor, "*D N"]]:
    """log_a and the gain of the input, for h' = pole * h + u and u held over each step of size dt."""
    log_a = poles * dt
    return log_a, torch.expm1(log_a) / poles


def initial_poles(kind: str, count: int) -> Complex[Tensor, "{count}"]:
    """The upper half of 2 * count conjugate poles with real part -1/2.

    "legs": those of the normal part of HiPPO-LegS, which DSS starts from. "inv", "lin": the laws that S4D puts in their
    place ("On the Parameterization and Initialization of Diagonal State Space Models", 2022, arXiv:2206.11893).
    """
    n = torch.arange(count, dtype=torch.float64)
    if kind == "lin":
        imaginary = math.pi * n
    elif kind == "inv":
        imaginary = 2 * count / math.pi * (2 * count / (2 * n + 1) - 1)
    elif kind == "legs":
        root = (2 * torch.arange(2 * count, dtype=torch.float64) + 1).sqrt()
        skew = torch.outer(root, root) / 2
        skew = skew.triu(1) - skew.tril(-1)  # A + 1/2 + p p^T, with p = root / sqrt(2)
        imaginary = torch.linalg.eigvalsh(-1j * skew)[count:]
    else:
        raise ValueError(f"poles must begin as 'legs', 'inv' or 'lin'; got {kind!r}")
    return torch.complex(torch.full((count,), -0.5), imaginary.float())


def _chunks(
    u: Tensor, log_a: Tensor, c: Tensor, memory: Tensor, lineage: Lineage, blocks: Blocks
) -> tuple[Tensor, Tensor]:
    """The outputs, and the memory after the last column (of no meaning after a tree)."""
    if lineage.valid is not None:
        u = torch.where(lineage.valid[..., None], u, 0)
    inputs = blocks.split(u[:, :, None])[:, :, 0]  # (B, n, C, D)
    since = steps_since_start(lineage, blocks)  # (b, n, C)
    exponents = torch.arange(blocks.size + 1, device=u.device)[:, None, None]
    powers = (exponents * log_a).exp()  # (C+1, D, N)
    kernel = (c * powers).real.sum(-1)  # (C+1, D)

    distance = (since[..., :, None] - since[..., None, :]).clamp(min=0)
    direct = kernel[distance] * blocks.reach[:, :, 0, ..., None]  # (b, n, C, C, D)
    inherited = c * powers[since] * blocks.from_start[:, :, 0, ..., None]  # (b, n, C, D, N)
    left = powers[since[..., -1:] - since] * blocks.to_end[:, :, 0, ..., None]
    lasting = powers[since[..., -1]] * blocks.carries[..., None]  # (b, n, D, N)

    writes = contract("jdk,{}jd->{}dk", left, inputs.to(powers.dtype))
    before, after = carry(lasting, writes, _numbers(memory, log_a), lineage)
    y = contract("tjd,{}jd->{}td", direct, inputs) + contract("tdk,{}dk->{}td", inherited, before).real
    return join(y[:, :, None], lineage.length)[:, :, 0], _stored(after)


def steps_since_start(lineage: Lineage, blocks: Blocks) -> Tensor:
    """(b, n, C) int64: tokens on the path of t from the chunk's start, t included. Padding is no step."""
    ones = blocks.reach.new_ones(1, blocks.size) if lineage.valid is None else lineage.valid.to(blocks.reach.dtype)
    steps = blocks.split(ones[:, :, None, None])
    return (blocks.reach @ steps)[:, :, 0, :, 0].round().long()


def contract(terms: str, weights: Tensor, x: Tensor) -> Tensor:
    """An einsum over axes of chunks (B, n); weights that all chunks share lose those axes, for one large product."""
    if weights.shape[:2] == (1, 1):
        return torch.einsum(terms.format("bn", "bn"), weights[0, 0], x)
    return torch.einsum("bn" + terms.format("bn", "bn"), weights, x)


def _numbers(memory: Tensor, log_a: Tensor) -> Tensor:
    return from_pairs(memory) if log_a.is_complex() else memory


def _stored(h: Tensor) -> Tensor:
    return torch.view_as_real(h) if h.is_complex() else h

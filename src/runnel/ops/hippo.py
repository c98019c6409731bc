"""HiPPO: memories that hold the coefficients of the past in an orthogonal basis, and update them as time goes on.

"HiPPO: Recurrent Memory with Optimal Polynomial Projections" (2020, arXiv:2008.07669), "How to Train Your HiPPO" (2022,
arXiv:2206.12037). c' = A c + B u, and u at age s is about the sum over n of c_n phi_n(s):

| measure | what of the past counts | phi_n(s) |
|---|---|---|
| legs | all of it, evenly: time is scaled, c' = (A c + B u) / t, s = age / t | sqrt(2n+1) P_n(1 - 2s) |
| legt | the last unit of time | the same |
| fout | the last unit of time | 1, sqrt(2) cos(2 pi n s), sqrt(2) sin(2 pi n s) |
| lagt | all of it, fading | exp(-s/2) L_n(s) |

As a time-invariant system, "legs" has the basis exp(-s) in place of s: the past fades, warped.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

MEASURES = ("legs", "legt", "fout", "lagt")


def transition(measure: str, size: int) -> tuple[Float[Tensor, "N N"], Float[Tensor, "N"]]:
    """A and B in continuous time, in float64."""
    n = torch.arange(size, dtype=torch.float64)
    root = (2 * n + 1).sqrt()
    if measure == "legs":
        return -torch.outer(root, root).tril(-1) - torch.diag(n + 1), root
    if measure == "legt":
        sign = (-1.0) ** (n[:, None] - n)
        return -torch.outer(root, root) * torch.where(n[:, None] < n, sign, 1), root
    if measure == "lagt":
        return torch.eye(size, dtype=torch.float64) / 2 - torch.ones(size, size, dtype=torch.float64).tril(), n * 0 + 1
    if measure == "fout":
        turn = torch.zeros(size, size, dtype=torch.float64)
        for row in range(1, size - 1, 2):  # cos and sin of one frequency turn into each other
            turn[row, row + 1], turn[row + 1, row] = -math.pi * (row + 1), math.pi * (row + 1)
        now = basis("fout", size, torch.zeros(1, dtype=torch.float64))[0]
        return turn - 2 * torch.outer(now, now), 2 * now
    raise ValueError(f"measure must be one of {', '.join(MEASURES)}; got {measure!r}")


def basis(measure: str, size: int, s: Float[Tensor, "*T"]) -> Float[Tensor, "*T {size}"]:
    """phi_n(s) for all n: reconstruction is this times the coefficients."""
    n = torch.arange(size, dtype=s.dtype, device=s.device)
    if measure in ("legs", "legt"):
        return _legendre(size, 1 - 2 * s) * (2 * n + 1).sqrt()
    if measure == "lagt":
        return _laguerre(size, s) * (-s / 2).exp()[..., None]
    if measure == "fout":
        angle = 2 * math.pi * s[..., None] * ((n + 1) / 2).floor()
        waves = torch.where(n % 2 == 1, angle.cos(), angle.sin()) * 2**0.5
        return torch.where(n == 0, 1, waves)
    raise ValueError(f"measure must be one of {', '.join(MEASURES)}; got {measure!r}")


def normal_part(measure: str, count: int) -> tuple[Complex[Tensor, "{count}"], Complex[Tensor, "{count}"]]:
    """Poles and P with A = V (diag(poles) - P P*) V* for 2 * count coefficients, V unitary; B = sqrt(2) V P.

    Coordinates come in conjugate pairs: these are one of each. ("fout": the constant's partner is nought.)
    """
    if measure == "fout":
        n = torch.arange(count, dtype=torch.float64)
        p = torch.where(n == 0, n + 1, 2**0.5)
        return torch.complex(n * 0, 2 * math.pi * n), torch.complex(p, n * 0)
    if measure != "legs":
        raise ValueError(f"the normal part is known for measures legs and fout; got {measure!r}")
    a, b = transition("legs", 2 * count)
    p = b / 2**0.5
    values, vectors = torch.linalg.eigh(-1j * (a + torch.outer(p, p) + torch.eye(2 * count) / 2))
    half = torch.complex(values.new_full((count,), -0.5), values[count:])
    return half, vectors[:, count:].mH @ p.to(torch.complex128)


def bilinear(
    a: Float[Tensor, "*D N N"], b: Float[Tensor, "*D N"], dt: Float[Tensor, "*D"]
) -> tuple[Float[Tensor, "*D N N"], Float[Tensor, "*D N"]]:
    """The system in steps of size dt, by the trapezoidal rule: (I - dt/2 A)^-1 (I + dt/2 A), (I - dt/2 A)^-1 dt B."""
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    half = dt[..., None, None] / 2 * a
    right = torch.cat([eye + half, (dt[..., None] * b)[..., None]], dim=-1)
    solved = torch.linalg.solve(eye - half, right)
    return solved[..., :-1], solved[..., -1]


def _legendre(size: int, x: Tensor) -> Tensor:
    values = [torch.ones_like(x), x]
    for n in range(1, size - 1):
        values.append(((2 * n + 1) * x * values[n] - n * values[n - 1]) / (n + 1))
    return torch.stack(values[:size], dim=-1)


def _laguerre(size: int, x: Tensor) -> Tensor:
    values = [torch.ones_like(x), 1 - x]
    for n in range(1, size - 1):
        values.append(((2 * n + 1 - x) * values[n] - n * values[n - 1]) / (n + 1))
    return torch.stack(values[:size], dim=-1)

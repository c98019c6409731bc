"""Mamba-3: a state space by the trapezoidal rule, whose states turn as well as decay, without a convolution.

Paper: "Mamba-3: Improved Sequence Modeling using State Space Principles" (2026, 2603.15569).

    z, x, B, C, dt, A, lambda, theta = W_in u;   dt = softplus(dt + b),   A = -softplus(A),   lambda = sigmoid(lambda)
    B, C = RMSNorm(B) + b_B, RMSNorm(C) + b_C                                        per head
    phi_t = phi_p + dt_t pi tanh(theta_t);   B, C turned by phi_t in pairs           a complex transition, as rotations
    a_t = exp(dt_t A_t)
    h_t = a_t h_p + (1 - lambda_t) dt_t a_t B_p x_p^T + lambda_t dt_t B_t x_t^T      exponential-trapezoidal
    y_t = h_t^T C_t + D x_t,   u' = W_out (y * silu(z))

    With several inputs and outputs of a head (MIMO, rank R > 1) B and C are (N, R), and the state has its one size:
    X = x * w_x,  Z = z * w_z  for every rank;   h_t = a_t h_p + ... B_p X_p^T ... B_t X_t^T
    Y = h_t^T C_t + D X,   y = sum over ranks of w_o * Y * silu(Z)

| code | paper |
|---|---|
| head_dim, d_state | P and N; B and C before their biases are shared by all heads |
| rotated | pairs of B and C that turn: a quarter of N (half of its numbers) |
| rank; wide_x, wide_z, narrow (R, H, P) | R; w_x, w_z, w_o |
| last, angle | B_p and x_p of the token before: what its half of the trapezoid needs; phi |

lambda = 1 is Mamba-2's rule (Euler's). The R writes of the parent and the token's own are 2 R substeps of one scan; the
last of them and R - 1 more read. Deviates: no norm before W_out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad, silu, softplus

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear, log_uniform_inverse_softplus, parameter
from runnel.ops import conv
from runnel.ops.outer import outer_scan
from runnel.ops.rope import turn_pairs
from runnel.ops.scan import diagonal_scan
from runnel.ops.substeps import every_substep, substeps

PAPERS = {"Mamba-3: Improved Sequence Modeling using State Space Principles": "2603.15569"}
LEAST_RATE = 1e-4


@dataclass(frozen=True)
class Config:
    expand: int = 2
    head_dim: int | None = None
    d_state: int = 64
    rank: int = 1

    def __post_init__(self) -> None:
        if self.d_state < 4 or self.d_state % 4 or self.rank < 1:
            found = f"{self.d_state}, {self.rank}"
            raise ValueError(f"mamba3 needs a d_state that is a multiple of 4, and rank >= 1; got {found}")


class State(NamedTuple):
    angle: Tensor  # (B, H, N/4)
    last: Tensor  # (B, 1, H (R N + P))
    memory: Tensor  # (B, H, N, P)


class Mamba3(Mixer):
    variants = ({"d_state": 8, "head_dim": 4}, {"d_state": 8, "rank": 3})

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.inner, self.d_state, self.rank = config.expand * d_model, config.d_state, config.rank
        self.width = head_width(self.inner, config.head_dim)
        self.heads, self.rotated = self.inner // self.width, config.d_state // 4
        self.written = self.rank * self.d_state
        self.sizes = [self.inner, self.inner, self.written, self.written, *[self.heads] * 3, self.rotated]
        self.input = linear(d_model, sum(self.sizes))
        self.dt_bias = parameter(log_uniform_inverse_softplus(self.heads, 1e-3, 1e-1))
        self.b_norm, self.c_norm = RMSNorm(self.d_state), RMSNorm(self.d_state)
        self.b_bias, self.c_bias = [parameter(torch.ones(self.heads, self.written)) for _ in range(2)]
        self.skip = parameter(torch.ones(self.heads, 1))
        ranks = torch.ones(self.rank, self.heads, self.width)
        self.wide_x = parameter(ranks / self.rank) if self.rank > 1 else None
        self.wide_z = parameter(ranks) if self.rank > 1 else None
        self.narrow = parameter(ranks / self.rank) if self.rank > 1 else None
        self.out = linear(self.inner, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(
            self.zeros(batch_size, self.heads, self.rotated),
            self.zeros(batch_size, 1, self.heads * (self.written + self.width)),
            self.zeros(batch_size, self.heads, self.d_state, self.width),
        )

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        z, x, b, c, dt, log_decay, share, turn = self._input(x)
        phi, angle = diagonal_scan(torch.ones_like(turn), turn, state.angle, lineage)
        b, c = turn_pairs(b, phi[..., None, :]), turn_pairs(c, phi[..., None, :])
        before, last = conv.shift(torch.cat([b.flatten(-2), x], dim=-1).flatten(-2), state.last, lineage)
        b_before, x_before = before.unflatten(-1, (self.heads, -1)).split([self.written, self.width], dim=-1)
        decayed = (1 - share) * dt * log_decay.exp()
        written = [self._wide(decayed[..., None] * x_before), self._wide((share * dt)[..., None] * x)]
        by_head, more = [b_before.unflatten(-1, (self.rank, -1)), b], self.rank - 1  # substeps that only read
        keys = pad(torch.cat(by_head, dim=3).transpose(2, 3), (0, 0, 0, 0, 0, more))
        values = pad(torch.cat(written, dim=2), (0, 0, 0, 0, 0, more))
        queries = pad(c.transpose(2, 3), (0, 0, 0, 0, self.rank + more, 0))  # after all writes
        decays = pad(log_decay[:, :, None], (0, 0, 0, self.rank + 2 * more))  # before them
        scan = substeps if self.rank == 1 else every_substep
        y, memory = scan(outer_scan, (queries, keys, values, decays), state.memory, lineage)
        y = y.reshape(*y.shape[:2], -1, self.heads, self.width)[:, :, -self.rank :]
        return self._output(y, x, z), State(angle, last, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Every pair of the state as one complex number that turns, B and C as they are."""
        z, x, b, c, dt, log_decay, share, turn = self._input(x)
        h, outputs, wide = self.init_state(x.shape[0]).memory, [], self._wide(x)
        written = torch.zeros_like(h)
        for t in range(x.shape[1]):
            a = log_decay[:, t].exp()[..., None, None]
            h = h + ((1 - share) * dt)[:, t, :, None, None] * written  # by the token before
            turned = turn_pairs(h.mT, -turn[:, t, :, None]).mT  # back: what B and C would turn by on the way here
            written = torch.einsum("bhrn,brhp->bhnp", b[:, t], wide[:, t])
            h = a * turned + (share * dt)[:, t, :, None, None] * written
            outputs.append(torch.einsum("bhrn,bhnp->brhp", c[:, t], h))
        return self._output(torch.stack(outputs, dim=1), x, z)

    def _input(self, u: Tensor) -> tuple[Tensor, ...]:
        """z, x (B, T, H, P); B, C (B, T, H, R, N); dt, dt A, lambda (B, T, H); dt pi tanh(theta) (B, T, H, N/4)."""
        z, x, b, c, dt, rate, share, theta = self.input(u).split(self.sizes, dim=-1)
        b = self.b_norm(b.unflatten(-1, (1, self.rank, -1))) + self.b_bias.unflatten(-1, (self.rank, -1))
        c = self.c_norm(c.unflatten(-1, (1, self.rank, -1))) + self.c_bias.unflatten(-1, (self.rank, -1))
        dt = softplus(dt + self.dt_bias)
        turn = dt[..., None] * math.pi * theta.tanh()[:, :, None]
        z, x = [part.unflatten(-1, (self.heads, self.width)) for part in (z, x)]
        return z, x, b, c, dt, -dt * softplus(rate).clamp(min=LEAST_RATE), share.sigmoid(), turn

    def _wide(self, x: Tensor) -> Tensor:
        """(B, T, H, P) -> (B, T, R, H, P)"""
        return x[:, :, None] if self.wide_x is None else x[:, :, None] * self.wide_x

    def _output(self, y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        """y (B, T, R, H, P); x, z (B, T, H, P)."""
        y = y + self.skip * self._wide(x)
        if self.narrow is None or self.wide_z is None:
            return self.out(y.flatten(2) * silu(z).flatten(2))
        return self.out((self.narrow * y * silu(z[:, :, None] * self.wide_z)).sum(2).flatten(-2))

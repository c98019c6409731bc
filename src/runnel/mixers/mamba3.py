"""Mamba-3: a state space by the trapezoidal rule, whose states turn as well as decay, without a convolution.

Paper: "Mamba-3: Improved Sequence Modeling using State Space Principles" (2026, 2603.15569).

    z, x, B, C, dt, A, lambda, theta = W_in u;   dt = softplus(dt + b),   A = -softplus(A),   lambda = sigmoid(lambda)
    B, C = RMSNorm(B) + b_B, RMSNorm(C) + b_C                                        per head
    phi_t = phi_p + dt_t pi tanh(theta_t);   B, C turned by phi_t in pairs           a complex transition, as rotations
    a_t = exp(dt_t A_t)
    h_t = a_t h_p + (1 - lambda_t) dt_t a_t B_p x_p^T + lambda_t dt_t B_t x_t^T      exponential-trapezoidal
    y_t = h_t^T C_t + D x_t,   u' = W_out (y * silu(z))

| code | paper |
|---|---|
| head_dim, d_state | P and N; B and C before their biases are shared by all heads |
| rotated | pairs of B and C that turn: a quarter of N (half of its numbers) |
| last | B_p and x_p of the token before: what its half of the trapezoid needs |
| angle | phi |

lambda = 1 is Mamba-2's rule (Euler's). The write of the parent and the token's own are two substeps of one scan.
Deviates: one input and output per head (SISO; the paper's MIMO has R of each); no norm before W_out.
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
from runnel.ops.scan import diagonal_scan
from runnel.ops.substeps import substeps

PAPERS = {"Mamba-3: Improved Sequence Modeling using State Space Principles": "2603.15569"}
LEAST_RATE = 1e-4


@dataclass(frozen=True)
class Config:
    expand: int = 2
    head_dim: int | None = None
    d_state: int = 64

    def __post_init__(self) -> None:
        if self.d_state < 4 or self.d_state % 4:
            raise ValueError(f"mamba3 needs a d_state that is a multiple of 4; got {self.d_state}")


class State(NamedTuple):
    angle: Tensor  # (B, H, N/4)
    last: Tensor  # (B, 1, H (N + P))
    memory: Tensor  # (B, H, N, P)


class Mamba3(Mixer):
    variants = ({"d_state": 8, "head_dim": 4},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.inner, self.d_state = config.expand * d_model, config.d_state
        self.width = head_width(self.inner, config.head_dim)
        self.heads, self.rotated = self.inner // self.width, config.d_state // 4
        self.sizes = [self.inner, self.inner, self.d_state, self.d_state, *[self.heads] * 3, self.rotated]
        self.input = linear(d_model, sum(self.sizes))
        self.dt_bias = parameter(log_uniform_inverse_softplus(self.heads, 1e-3, 1e-1))
        self.b_norm, self.c_norm = RMSNorm(self.d_state), RMSNorm(self.d_state)
        self.b_bias, self.c_bias = [parameter(torch.ones(self.heads, self.d_state)) for _ in range(2)]
        self.skip = parameter(torch.ones(self.heads, 1))
        self.out = linear(self.inner, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(
            self.zeros(batch_size, self.heads, self.rotated),
            self.zeros(batch_size, 1, self.heads * (self.d_state + self.width)),
            self.zeros(batch_size, self.heads, self.d_state, self.width),
        )

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        z, x, b, c, dt, log_decay, share, turn = self._input(x)
        phi, angle = diagonal_scan(torch.ones_like(turn), turn, state.angle, lineage)
        b, c = _rotate(b, phi), _rotate(c, phi)
        before, last = conv.shift(torch.cat([b, x], dim=-1).flatten(-2), state.last, lineage)
        b_before, x_before = before.unflatten(-1, (self.heads, -1)).split([self.d_state, self.width], dim=-1)
        decayed = (1 - share) * dt * log_decay.exp()
        keys = torch.stack([b_before, b], dim=2)
        values = torch.stack([decayed[..., None] * x_before, (share * dt)[..., None] * x], dim=2)
        queries = pad(c[:, :, None], (0, 0, 0, 0, 1, 0))  # read after both writes
        decays = pad(log_decay[:, :, None], (0, 0, 0, 1))  # before both
        y, memory = substeps(outer_scan, (queries, keys, values, decays), state.memory, lineage)
        return self._output(y, x, z), State(angle, last, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Every pair of the state as one complex number that turns, B and C as they are."""
        z, x, b, c, dt, log_decay, share, turn = self._input(x)
        h, outputs = self.init_state(x.shape[0]).memory, []
        for t in range(x.shape[1]):
            a = log_decay[:, t].exp()[..., None, None]
            if t > 0:
                h = h + ((1 - share) * dt)[:, t, :, None, None] * b[:, t - 1, :, :, None] * x[:, t - 1, :, None]
            turned = _rotate(h.mT, -turn[:, t, :, None]).mT  # back: what B and C would turn by on the way here
            h = a * turned + (share * dt)[:, t, :, None, None] * b[:, t, :, :, None] * x[:, t, :, None]
            outputs.append((c[:, t, :, :, None] * h).sum(-2))
        return self._output(torch.stack(outputs, dim=1), x, z)

    def _input(self, u: Tensor) -> tuple[Tensor, ...]:
        """z; x (B, T, H, P); B, C (B, T, H, N); dt, dt A, lambda (B, T, H); dt pi tanh(theta) (B, T, H, N/4)."""
        z, x, b, c, dt, rate, share, theta = self.input(u).split(self.sizes, dim=-1)
        b, c = self.b_norm(b)[:, :, None] + self.b_bias, self.c_norm(c)[:, :, None] + self.c_bias
        dt = softplus(dt + self.dt_bias)
        turn = dt[..., None] * math.pi * theta.tanh()[:, :, None]
        x = x.unflatten(-1, (self.heads, self.width))
        return z, x, b, c, dt, -dt * softplus(rate).clamp(min=LEAST_RATE), share.sigmoid(), turn

    def _output(self, y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        return self.out((y + self.skip * x).flatten(-2) * silu(z))


def _rotate(x: Float[Tensor, "*B N"], phi: Float[Tensor, "*#B S"]) -> Float[Tensor, "*B N"]:
    """The first S neighbouring pairs of x turned by phi."""
    pairs, rest = x[..., : 2 * phi.shape[-1]].unflatten(-1, (-1, 2)), x[..., 2 * phi.shape[-1] :]
    first, second = pairs.unbind(-1)
    cos, sin = phi.cos().to(x.dtype), phi.sin().to(x.dtype)
    turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.flatten(-2), rest], dim=-1)

"""S4: a state space per channel whose HiPPO matrix is diagonal plus low rank, so that its long kernel is cheap to know.

Papers: "Efficiently Modeling Long Sequences with Structured State Spaces" (2021, 2111.00396).
"How to Train Your HiPPO: State Space Models with Generalized Orthogonal Basis Projections" (2022, 2206.12037):
`measure`, and that 1/dt is the length of the memory.

    h' = A h + B u,   y = C h + D u        per channel,  A = Lambda - P P*           (theorem 1)
    A_bar = (I - dt/2 A)^-1 (I + dt/2 A),   B_bar = (I - dt/2 A)^-1 dt B             (eq. 3)
          = 4/dt R - I,   2 R B,   R = (2/dt - A)^-1 by Sherman and Morrison         (appendix C.2)
    h_t = A_bar h_p + B_bar u_t                                                      (eq. 3)
    K(z) = 2/(1+z) C~ (g(z) - A)^-1 B,  g = 2/dt (1-z)/(1+z),  C~ = C (I - z^L A_bar^L)  (appendix C.3)
    y' = W_o gelu(y)

| code | paper |
|---|---|
| d_state | N, as N/2 conjugate pairs: b, c, p (D, N/2, 2) are one of each, as (real, imaginary) |
| measure | the start of A and B: "legs" or "fout" |
| dt_min, dt_max | the range of dt at the start |
| memory (B, D, N) | real and imaginary parts of the half that is kept |

`kernel(L)` is the paper's: K around the unit circle by Cauchy products, then one Fourier transform. The layer itself
reads streams in chunks (`ops.state_space`), whose short kernels are powers. Deviates: -P P* instead of -P Q*, so that A
stays stable (2022, 2202.09729); A is not shared by channels; the gated unit after the layer is the block's work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops.hippo import normal_part
from runnel.ops.scan import from_pairs
from runnel.ops.state_space import state_space_scan

PAPERS = {
    "Efficiently Modeling Long Sequences with Structured State Spaces": "2111.00396",
    "How to Train Your HiPPO: State Space Models with Generalized Orthogonal Basis Projections": "2206.12037",
}


@dataclass(frozen=True)
class Config:
    d_state: int = 64
    measure: str = "legs"
    dt_min: float = 1e-3
    dt_max: float = 1e-1

    def __post_init__(self) -> None:
        if self.d_state < 2 or self.d_state % 2:
            raise ValueError(f"s4 needs an even d_state >= 2; got {self.d_state}")
        if not 0 < self.dt_min <= self.dt_max:
            raise ValueError(f"s4 needs 0 < dt_min <= dt_max; got dt_min {self.dt_min}, dt_max {self.dt_max}")


class State(NamedTuple):
    memory: Tensor  # (B, D, N)


class S4(Mixer):
    variants = ({"measure": "fout", "d_state": 8},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        poles, p = normal_part(config.measure, config.d_state // 2)
        low, high = math.log(config.dt_min), math.log(config.dt_max)
        self.log_dt = parameter(torch.rand(d_model) * (high - low) + low, lr_scale=0.5)
        self.log_decay = parameter((-poles.real).clamp(min=1e-3).log().float().repeat(d_model, 1), lr_scale=0.5)
        self.frequency = parameter(poles.imag.float().repeat(d_model, 1), lr_scale=0.5)
        pairs = torch.view_as_real(p).float().repeat(d_model, 1, 1)
        self.p = parameter(pairs, lr_scale=0.5)
        self.b = parameter(2**0.5 * pairs, lr_scale=0.5)
        self.c = parameter(torch.randn_like(pairs) * 0.5**0.5)
        self.skip = parameter(torch.randn(d_model))
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.c.shape[0], 2 * self.c.shape[1]))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        a, b, c = self.system()
        y, memory = state_space_scan(x, a, b, c[:, None], state.memory, lineage)
        return self.out(gelu(y[..., 0] + self.skip * x)), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Over the full vector of conjugate pairs, by dense inverses."""
        poles, p, b, c = [torch.cat([z, z.conj()], dim=-1) for z in self._continuous()]
        a, half = torch.diag_embed(poles) - p[..., None] * p.conj()[..., None, :], self.log_dt.exp()[:, None, None] / 2
        eye = torch.eye(a.shape[-1], dtype=a.dtype)
        back = torch.linalg.inv(eye - half * a)
        h, outputs = torch.zeros_like(b)[..., None], []
        for t in range(x.shape[1]):
            h = back @ ((eye + half * a) @ h + 2 * half * b[..., None] * x[:, t, :, None, None])
            outputs.append(gelu((c[..., None, :] @ h)[..., 0, 0].real + self.skip * x[:, t]))
        return self.out(torch.stack(outputs, dim=1))

    def system(self) -> tuple[Tensor, Tensor, Tensor]:
        """A_bar (D, N, N), B_bar and C (D, N), in real coordinates: the real parts, then the imaginary ones."""
        poles, p, b, c = self._continuous()
        rate = 2 / self.log_dt.exp()[:, None]
        diagonal = 1 / (rate - poles)  # (2/dt - Lambda)^-1 of one of each pair: in real coordinates a turn
        turn = torch.cat(
            [
                torch.cat([diagonal.real.diag_embed(), -diagonal.imag.diag_embed()], dim=-1),
                torch.cat([diagonal.imag.diag_embed(), diagonal.real.diag_embed()], dim=-1),
            ],
            dim=-2,
        )
        column, row = _real(diagonal * p), _real(diagonal.conj() * p)
        shrink = 2 / (1 + 2 * (_real(p) * column).sum(-1))
        r = turn - shrink[:, None, None] * column[..., None] * row[..., None, :]
        a = 2 * rate[..., None] * r - torch.eye(r.shape[-1], dtype=r.dtype, device=r.device)
        return a, 2 * (r @ _real(b)[..., None])[..., 0], 2 * _real(c.conj())

    def kernel(self, length: int) -> Float[Tensor, "{length} D"]:
        """C A_bar^k B_bar for k < length."""
        a, _, c = self.system()
        poles, p, b, _ = [torch.cat([z, z.conj()], dim=-1) for z in self._continuous()]
        steps = torch.arange(length, dtype=c.dtype, device=c.device)
        z = torch.polar(
            torch.ones_like(steps), -2 * math.pi / length * (steps + 0.25)
        )  # beside -1, where g is infinite
        last = (c[:, None] @ torch.linalg.matrix_power(a, length))[:, 0]
        real, imaginary = (c + 1j * last).chunk(2, dim=-1)  # C~ = C (I - z^L A_bar^L), z^L = -i
        short = torch.cat([real - 1j * imaginary, real + 1j * imaginary], dim=-1) / 2
        cauchy = 1 / ((2 / self.log_dt.exp() * ((1 - z) / (1 + z))[:, None])[..., None] - poles)  # (L, D, N)
        cb, cp, pb, pp = [(x * cauchy * y).sum(-1) for x in (short, p.conj()) for y in (b, p)]
        values = 2 / (1 + z)[:, None] * (cb - cp * pb / (1 + pp))
        turned_back = torch.polar(torch.ones_like(steps), math.pi / 2 / length * steps)
        return (torch.fft.ifft(values, dim=0) * turned_back[:, None]).real

    def _continuous(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Lambda, P, B, C, one of each pair: (D, N/2) complex."""
        poles = torch.complex(-self.log_decay.exp(), self.frequency)
        return poles, from_pairs(self.p), from_pairs(self.b), from_pairs(self.c)


def _real(z: Tensor) -> Tensor:
    return torch.cat([z.real, z.imag], dim=-1)

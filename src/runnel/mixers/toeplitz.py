"""Toeplitz neural network: a learned kernel of relative position, turned in closed form into a small state.

Papers: "Toeplitz Neural Network for Sequence Modeling" (2023, 2305.04749).
"Accelerating Toeplitz Neural Network with Constant-time Inference Complexity" (2023, 2311.08756).

    t_j = RPE(j)  for j < n,   a small network of the distance                       (TNN, eq. 10)
    o_t = sum over j of lambda^j t_j v_(t-j)                                         (TNN, eq. 4, 13)
    t_j = 1/n sum over k of T_k exp(2 pi i j k / n),   T the Fourier transform of t  (accelerated, eq. 9)
      so h_t = Lambda h_p + v_t,  o_t = Re(C h_t),  Lambda_k = lambda exp(2 pi i k / n),  C = T / n
    y_t = W_o (silu(W_u x_t) * o_t),   v_t = silu(W_v x_t)                           the gated unit (TNN, figure 2)

| code | paper |
|---|---|
| length | n: the conversion is exact for distances below it; from there on the kernel repeats, times lambda^n |
| decay | lambda, one for all channels |
| memory (B, D, n/2 + 1, 2) | h, without the conjugates: the kernel is real |

A step takes the same time wherever it stands in the text. Deviates: distances are given to RPE in units of n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn.functional import silu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear
from runnel.ops.lti import lti_scan

PAPERS = {
    "Accelerating Toeplitz Neural Network with Constant-time Inference Complexity": "2311.08756",
    "Toeplitz Neural Network for Sequence Modeling": "2305.04749",
}


@dataclass(frozen=True)
class Config:
    length: int = 64
    decay: float = 0.99
    hidden: int = 32

    def __post_init__(self) -> None:
        if self.length < 2 or self.length % 2:
            raise ValueError(f"toeplitz needs an even length >= 2; got {self.length}")
        if not 0 < self.decay < 1:
            raise ValueError(f"toeplitz needs 0 < decay < 1, so that a stream's past fades; got {self.decay}")
        if self.hidden < 1:
            raise ValueError(f"toeplitz needs hidden >= 1; got {self.hidden}")


class State(NamedTuple):
    memory: Tensor  # (B, D, n/2 + 1, 2)


class Toeplitz(Mixer):
    variants = ({"length": 6, "decay": 0.9},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.length, self.decay = config.length, config.decay
        self.rpe = nn.Sequential(
            linear(1, config.hidden, bias=True),
            nn.ReLU(),
            linear(config.hidden, config.hidden, bias=True),
            nn.ReLU(),
            linear(config.hidden, d_model, bias=True),
        )
        self.input = linear(d_model, 2 * d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.out.in_features, self.length // 2 + 1, 2))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        u, v = silu(self.input(x)).chunk(2, dim=-1)
        o, memory = lti_scan(v, *self.system(), state.memory, lineage)
        return self.out(u * o), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """The Toeplitz matrix, entry after entry."""
        u, v = silu(self.input(x)).chunk(2, dim=-1)
        t, outputs = self.coefficients(), []
        for now in range(x.shape[1]):
            ages = range(now + 1)
            terms = [self.decay**age * t[age % self.length] * v[:, now - age] for age in ages]
            outputs.append(torch.stack(terms).sum(0))
        return self.out(u * torch.stack(outputs, dim=1))

    def coefficients(self) -> Float[Tensor, "n D"]:
        """t_j for every distance below the length."""
        like = self.out.weight
        distance = torch.arange(self.length, dtype=like.dtype, device=like.device) / self.length
        return self.rpe(distance[:, None])

    def system(self) -> tuple[Complex[Tensor, "D N"], Complex[Tensor, "D N"]]:
        """log Lambda and C; but for the first and the last, a frequency stands for its conjugate, too."""
        spectrum = torch.fft.rfft(self.coefficients().T, dim=-1)  # (D, n/2 + 1)
        k = torch.arange(spectrum.shape[-1], dtype=spectrum.real.dtype, device=spectrum.device)
        turns = torch.complex(torch.full_like(k, math.log(self.decay)), 2 * math.pi * k / self.length)
        twice = torch.where((k > 0) & (2 * k < self.length), 2.0, 1.0)
        return turns.expand_as(spectrum), spectrum * twice / self.length

"""LRU: a linear RNN in its eigenbasis, complex and stable by construction, normalised at any length of memory.

Paper: "Resurrecting Recurrent Neural Networks for Long Sequences" (2023, 2303.06349).

    lambda = exp(-exp(nu) + i exp(theta)),   so that |lambda| < 1                    (1)
    h_t = lambda * h_p + gamma * B x_t                                               (2)
    y_t = Re(C h_t) + D * x_t                                                        (3)
    at the start |lambda|^2 is uniform in [r_min^2, r_max^2], the phase in [0, max_phase], gamma = sqrt(1 - |lambda|^2)

| code | paper |
|---|---|
| d_state | N, the number of complex eigenvalues; None: d |
| input | B, rows of real parts and rows of imaginary parts in turn |
| out | C, acting on (Re h, Im h) in turn |
| log_gamma | log of gamma: learned, since the balance holds only at the start |

Deviates: the paper's layer ends in a gated linear unit, which is the channel block's work here. exp(theta) keeps the
phase positive, and its logarithm lets small phases move in small steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops.precision import widen
from runnel.ops.scan import complex_scan, from_pairs, polar

PAPERS = {"Resurrecting Recurrent Neural Networks for Long Sequences": "2303.06349"}


@dataclass(frozen=True)
class Config:
    d_state: int | None = None
    r_min: float = 0.4
    r_max: float = 0.99
    max_phase: float = 2 * math.pi

    def __post_init__(self) -> None:
        if not 0 <= self.r_min < self.r_max < 1:
            raise ValueError(f"lru needs 0 <= r_min < r_max < 1; got r_min {self.r_min}, r_max {self.r_max}")
        if not 0 < self.max_phase <= 2 * math.pi:
            raise ValueError(f"lru needs 0 < max_phase <= 2 pi; got {self.max_phase}")


class State(NamedTuple):
    h: Tensor  # (B, N, 2)


class LRU(Mixer):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.d_state = config.d_state or d_model
        squared = torch.rand(self.d_state) * (config.r_max**2 - config.r_min**2) + config.r_min**2
        phase = torch.rand(self.d_state).clamp(min=1e-6) * config.max_phase
        self.nu = parameter((-squared.log() / 2).log(), lr_scale=0.5)
        self.theta = parameter(phase.log(), lr_scale=0.5)
        self.log_gamma = parameter(torch.log1p(-squared) / 2, lr_scale=0.5)
        self.input = linear(d_model, 2 * self.d_state)
        self.skip = parameter(torch.randn(d_model))
        self.out = linear(2 * self.d_state, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.d_state, 2))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        b = self._input(x)
        h, last = complex_scan(self.eigenvalues().expand_as(b), b, state.h, lineage)
        return self._output(h, x), State(last)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        a, b = self.eigenvalues(), self._input(x)
        c_real, c_imag = self.out.weight.unflatten(1, (-1, 2)).unbind(-1)
        h, outputs = torch.zeros_like(b[:, 0]), []
        for t in range(x.shape[1]):
            h = a * h + b[:, t]
            outputs.append((h @ torch.complex(c_real, -c_imag).T).real + self.skip * x[:, t])
        return torch.stack(outputs, dim=1)

    def eigenvalues(self) -> Tensor:
        """lambda, (N,) complex."""
        return polar((-self.nu.exp()).exp(), self.theta.exp())

    def _input(self, x: Tensor) -> Tensor:
        """gamma * B x, (B, T, N) complex."""
        pairs = widen(self.input(x)).unflatten(-1, (self.d_state, 2))
        return from_pairs(pairs * self.log_gamma.exp()[:, None])

    def _output(self, h: Tensor, x: Tensor) -> Tensor:
        return self.out(torch.view_as_real(h).flatten(-2).to(x.dtype)) + self.skip * x

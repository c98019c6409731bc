"""S5: one multi-input, multi-output state space for all channels, computed by a scan, so that it restarts anywhere.

Papers: "Simplified State Space Layers for Sequence Modeling" (2022, 2208.04933); restarts inside a scan: "Structured
State Space Models for In-Context Reinforcement Learning" (2023, 2303.03982).

    h_t = a * h_p + (a - 1) / A * B u_t,   a = exp(dt * A)                           (1, zero-order hold)
    y_t = 2 Re(C h_t) + D * u_t,   y'_t = W_o gelu(y_t)                              (2)
    h_p = 0 where an episode begins                                                  (3, the second paper)

| code | paper |
|---|---|
| d_state | the latent size, of which P complex numbers are half, each standing for its conjugate too; None: 2 d |
| copies | J: the blocks of HiPPO-N along the diagonal at the start, each of d_state / J |
| log_dt (P) | log of dt: a time scale per state, not per channel |
| input, read | B and C, over pairs (real, imaginary) |

A is diagonal because the layer begins in the eigenbasis of the normal part of HiPPO-LegS; that basis is unitary, so
Gaussian B and C stay Gaussian in it and need no transform. Restarts are a packed Lineage (`Lineage.packed`). Deviates:
the gated linear unit after the layer is the channel block's work.
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
from runnel.ops.lti import initial_poles, zero_order_hold
from runnel.ops.precision import widen
from runnel.ops.scan import complex_scan, from_pairs

PAPERS = {
    "Simplified State Space Layers for Sequence Modeling": "2208.04933",
    "Structured State Space Models for In-Context Reinforcement Learning": "2303.03982",
}


@dataclass(frozen=True)
class Config:
    d_state: int | None = None
    copies: int = 1
    dt_min: float = 1e-3
    dt_max: float = 1e-1

    def __post_init__(self) -> None:
        if not 0 < self.dt_min <= self.dt_max:
            raise ValueError(f"s5 needs 0 < dt_min <= dt_max; got dt_min {self.dt_min}, dt_max {self.dt_max}")


class State(NamedTuple):
    h: Tensor  # (B, P, 2)


class S5(Mixer):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        size = config.d_state or 2 * d_model
        if config.copies < 1 or size < 1 or size % (2 * config.copies):
            raise ValueError(f"s5 needs d_state in multiples of 2 * copies; got d_state {size}, copies {config.copies}")
        self.count = size // 2
        poles = initial_poles("legs", self.count // config.copies).repeat(config.copies)
        low, high = math.log(config.dt_min), math.log(config.dt_max)
        self.log_dt = parameter(torch.rand(self.count) * (high - low) + low, lr_scale=0.5)
        self.log_decay = parameter((-poles.real).log(), lr_scale=0.5)
        self.frequency = parameter(poles.imag.clone(), lr_scale=0.5)
        self.input, self.read = linear(d_model, 2 * self.count), linear(2 * self.count, d_model)
        self.skip = parameter(torch.randn(d_model))
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.count, 2))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        a, gain = self.system()
        b = gain * self._input(x)
        h, last = complex_scan(a.expand_as(b), b, state.h, lineage)
        y = 2 * self.read(torch.view_as_real(h).flatten(-2).to(x.dtype))
        return self.out(gelu(y + self.skip * x)), State(last)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        a, gain = self.system()
        c_real, c_imag = self.read.weight.unflatten(1, (-1, 2)).unbind(-1)
        b, h, outputs = self._input(x), torch.zeros_like(a), []
        for t in range(x.shape[1]):
            h = a * h + gain * b[:, t]
            y = 2 * (h @ torch.complex(c_real, -c_imag).T).real + self.skip * x[:, t]
            outputs.append(self.out(gelu(y)))
        return torch.stack(outputs, dim=1)

    def system(self) -> tuple[Tensor, Tensor]:
        """a and (a - 1) / A, each (P,) complex."""
        log_a, gain = zero_order_hold(torch.complex(-self.log_decay.exp(), self.frequency), self.log_dt.exp())
        return log_a.exp(), gain

    def _input(self, x: Tensor) -> Tensor:
        """B u, (B, T, P) complex."""
        return from_pairs(widen(self.input(x)).unflatten(-1, (self.count, 2)))

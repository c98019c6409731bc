"""S4D: a bank of complex exponentials per channel, so that a layer is a long convolution with a learned kernel.

Papers: "On the Parameterization and Initialization of Diagonal State Space Models" (2022, 2206.11893); its start `legs`
is that of "Diagonal State Spaces are as Effective as Structured State Spaces" (2022, 2203.14343).

    h' = A h + u,   y = 2 Re(C h) + D u       per channel, A diagonal and complex    (1)
    a = exp(dt A):  h_t = a h_p + u_t,   y_t = 2 Re(C (a - 1) / A h_t) + D u_t       (2, zero-order hold)
    A = -exp(log_decay) + i * frequency       so that Re A < 0                       (3)
    y' = W_o gelu(y)

| code | paper |
|---|---|
| d_state | N: N/2 poles, each standing for itself and its conjugate |
| poles | the start of A: "legs", "inv" or "lin" (S4D-LegS, -Inv, -Lin) |
| log_dt | log of dt, uniform between those of dt_min and dt_max at the start |
| c (D, N/2, 2) | C, as pairs (real, imaginary); B = 1 is folded into it |

Deviates: the gated linear unit after the layer is the channel block's work. DSS's own parametrisation by exp (its
"exp" form) is this one; its softmax form needs to know the length, which a stream has not.
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
from runnel.ops.lti import initial_poles, lti_scan, zero_order_hold
from runnel.ops.scan import from_pairs

PAPERS = {
    "On the Parameterization and Initialization of Diagonal State Space Models": "2206.11893",
    "Diagonal State Spaces are as Effective as Structured State Spaces": "2203.14343",
}


@dataclass(frozen=True)
class Config:
    d_state: int = 64
    poles: str = "legs"
    dt_min: float = 1e-3
    dt_max: float = 1e-1

    def __post_init__(self) -> None:
        if self.d_state < 2 or self.d_state % 2:
            raise ValueError(f"s4d needs an even d_state >= 2; got {self.d_state}")
        if not 0 < self.dt_min <= self.dt_max:
            raise ValueError(f"s4d needs 0 < dt_min <= dt_max; got dt_min {self.dt_min}, dt_max {self.dt_max}")


class State(NamedTuple):
    memory: Tensor  # (B, D, N/2, 2)


class S4D(Mixer):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        poles = initial_poles(config.poles, config.d_state // 2).repeat(d_model, 1)
        low, high = math.log(config.dt_min), math.log(config.dt_max)
        self.log_dt = parameter(torch.rand(d_model) * (high - low) + low, lr_scale=0.5)
        self.log_decay = parameter((-poles.real).log(), lr_scale=0.5)
        self.frequency = parameter(poles.imag.clone(), lr_scale=0.5)
        self.c = parameter(torch.randn(*poles.shape, 2) * 0.5**0.5)
        self.skip = parameter(torch.randn(d_model))
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, *self.c.shape))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        log_a, c = self.system()
        y, memory = lti_scan(x, log_a, c, state.memory, lineage)
        return self.out(gelu(y + self.skip * x)), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        log_a, c = self.system()
        h, outputs = torch.zeros_like(log_a), []
        for t in range(x.shape[1]):
            h = log_a.exp() * h + x[:, t, :, None]
            outputs.append(gelu((c * h).sum(-1).real + self.skip * x[:, t]))
        return self.out(torch.stack(outputs, dim=1))

    def system(self) -> tuple[Tensor, Tensor]:
        """log a and what reads the state, 2 C (a - 1) / A, each (D, N/2) complex."""
        poles = torch.complex(-self.log_decay.exp(), self.frequency)
        log_a, gain = zero_order_hold(poles, self.log_dt.exp()[:, None])
        return log_a, 2 * from_pairs(self.c) * gain

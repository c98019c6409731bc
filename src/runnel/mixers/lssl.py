"""LSSL: a linear state space with a structured HiPPO matrix that is trained, one system seen three ways.

Paper: "Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space Layers" (2021,
2110.13985).

    h' = A h + B u,   y = C h + D u          per channel                             (eq. 1, 2)
    h_t = A_bar h_p + B_bar u_t,   A_bar, B_bar of (A, B, dt) by the generalised bilinear rule:  (eq. 3)
          (I - alpha dt A)^-1 (I + (1 - alpha) dt A),   (I - alpha dt A)^-1 dt B
    y = K(A_bar, B_bar, C) * u,   K_k = C A_bar^k B_bar                              (eq. 4, 5)
    y' = W_o gelu(y)

| code | paper |
|---|---|
| below, above, log_decay | A: below_n above_k under the diagonal, -exp(log_decay) on it; LegS at the start |
| alpha | 1/2: trapezoidal; 0 and 1 would be Euler's forward and backward rules |
| resampled(by) | the same system in continuous time, read at another rate: dt is multiplied |

Every channel has an A and a dt of its own. Deviates: one output per channel (the paper has M, and a larger projection),
and A, quasiseparable as the paper wants it, stays triangular, so that log_decay says that it is stable.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops.hippo import transition
from runnel.ops.state_space import state_space_scan

PAPERS = {
    "Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space Layers": "2110.13985",
}


@dataclass(frozen=True)
class Config:
    d_state: int = 32
    alpha: float = 0.5
    dt_min: float = 1e-3
    dt_max: float = 1e-1

    def __post_init__(self) -> None:
        if self.d_state < 2:
            raise ValueError(f"lssl needs d_state >= 2; got {self.d_state}")
        if not 0.5 <= self.alpha <= 1:
            raise ValueError(f"lssl needs 1/2 <= alpha <= 1, where its steps are stable; got {self.alpha}")
        if not 0 < self.dt_min <= self.dt_max:
            raise ValueError(f"lssl needs 0 < dt_min <= dt_max; got dt_min {self.dt_min}, dt_max {self.dt_max}")


class State(NamedTuple):
    memory: Tensor  # (B, D, N)


class LSSL(Mixer):
    variants = ({"alpha": 1.0, "d_state": 5},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.alpha = config.alpha
        a, b = [z.float() for z in transition("legs", config.d_state)]
        low, high = math.log(config.dt_min), math.log(config.dt_max)
        self.log_dt = parameter(torch.rand(d_model) * (high - low) + low, lr_scale=0.5)
        self.log_decay = parameter((-a.diagonal()).log().repeat(d_model, 1), lr_scale=0.5)
        self.below = parameter(-b.repeat(d_model, 1), lr_scale=0.5)
        self.above = parameter(b.repeat(d_model, 1), lr_scale=0.5)
        self.b = parameter(b.repeat(d_model, 1), lr_scale=0.5)
        self.c = parameter(torch.randn(d_model, config.d_state) * config.d_state**-0.5)
        self.skip = parameter(torch.ones(d_model))
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, *self.c.shape))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        y, memory = state_space_scan(x, *self.system(), self.c[:, None], state.memory, lineage)
        return self._output(y[..., 0], x), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        a, dt, eye = self._continuous(), self.log_dt.exp()[:, None, None], torch.eye(self.c.shape[1], dtype=x.dtype)
        back = torch.linalg.inv(eye - self.alpha * dt * a)
        h, outputs = self.init_state(x.shape[0]).memory[..., None], []
        for t in range(x.shape[1]):
            h = back @ ((eye + (1 - self.alpha) * dt * a) @ h + dt * self.b[..., None] * x[:, t, :, None, None])
            outputs.append((self.c * h[..., 0]).sum(-1))
        return self._output(torch.stack(outputs, dim=1), x)

    def system(self) -> tuple[Float[Tensor, "D N N"], Float[Tensor, "D N"]]:
        """A_bar and B_bar."""
        a, dt = self._continuous(), self.log_dt.exp()[:, None, None]
        eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        right = torch.cat([eye + (1 - self.alpha) * dt * a, dt * self.b[..., None]], dim=-1)
        solved = torch.linalg.solve_triangular(eye - self.alpha * dt * a, right, upper=False)
        return solved[..., :-1], solved[..., -1]

    def resampled(self, by: float) -> LSSL:
        """The same layer for inputs taken every `by` times the interval that it was made for."""
        made = copy.deepcopy(self)
        with torch.no_grad():
            made.log_dt.add_(math.log(by))
        return made

    def _continuous(self) -> Tensor:
        """A (D, N, N), lower triangular."""
        return (self.below[..., :, None] * self.above[..., None, :]).tril(-1) - self.log_decay.exp().diag_embed()

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(gelu(y + self.skip * x))

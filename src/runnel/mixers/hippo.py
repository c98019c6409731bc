"""HiPPO memory: fixed systems that hold the best polynomial (or Fourier) approximation of all that went through them.

Papers: "HiPPO: Recurrent Memory with Optimal Polynomial Projections" (2020, 2008.07669).
"How to Train Your HiPPO: State Space Models with Generalized Orthogonal Basis Projections" (2022, 2206.12037): fout.

    u_t = W_u x_t                                            C signals                                      (1)
    c' = A c + B u,   by the bilinear rule with a step of 1/window:   c_t = A_bar c_p + B_bar u_t           (eq. 13)
    legs:  c' = (A c + B u) / t,   c_t = (I - A/2t)^-1 ((I + A/2t) c_p + B u_t / t),  t tokens read         (eq. 3, 4)
    y_t = W_o gelu(R c_t + D u_t)                            R reads the coefficients of each signal        (2)

| code | paper |
|---|---|
| measure | "legs", "legt" (the Legendre memory unit), "lagt", "fout": see `ops.hippo`, which holds A and B |
| order | N, coefficients of a signal |
| window | theta in tokens, but for legs, which has no timescale |
| reconstruct | the function that the coefficients stand for |

The paper puts the memory inside a gated cell, h_t = tau(h_p, c_t), u_t = f(h_p, x_t); here signals come from the input
alone (as in LMUFormer), which leaves the memory linear, and the gating to the other layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops.hippo import MEASURES, basis, bilinear, transition
from runnel.ops.state_space import state_space_scan
from runnel.ops.unroll import unroll
from runnel.state import Memory

PAPERS = {
    "HiPPO: Recurrent Memory with Optimal Polynomial Projections": "2008.07669",
    "How to Train Your HiPPO: State Space Models with Generalized Orthogonal Basis Projections": "2206.12037",
}


@dataclass(frozen=True)
class Config:
    measure: str = "legs"
    order: int = 32
    window: float = 128.0

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise ValueError(f"hippo needs a measure of {', '.join(MEASURES)}; got {self.measure!r}")
        if self.order < 2:
            raise ValueError(f"hippo needs order >= 2; got {self.order}")
        if self.window < 1:
            raise ValueError(f"hippo needs window >= 1; got {self.window}")


class State(NamedTuple):
    memory: Tensor  # (B, D, N)


class HiPPO(Mixer):
    variants = ({"measure": "legt", "order": 6, "window": 20.0}, {"measure": "fout", "order": 5, "window": 20.0})
    a: Tensor
    b: Tensor

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.config = config
        a, b = transition(config.measure, config.order)
        if config.measure != "legs":
            a, b = bilinear(a, b, torch.tensor(1 / config.window, dtype=torch.float64))
        self.register_buffer("a", a.float(), persistent=False)
        self.register_buffer("b", b.float(), persistent=False)
        self.signals = linear(d_model, d_model)
        self.read = parameter(torch.randn(d_model, config.order) * config.order**-0.5)
        self.skip = parameter(torch.ones(d_model))
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, *self.read.shape))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        u = self.signals(x)
        if self.config.measure == "legs":
            y, after = unroll(self._step, (u, lineage.positions), state, lineage)
            return self._output(y.to(u.dtype), u), after
        a, b = [z.to(state.memory.dtype).expand(u.shape[-1], *z.shape) for z in (self.a, self.b)]
        y, memory = state_space_scan(u, a, b, self.read[:, None], state.memory, lineage)
        return self._output(y[..., 0], u), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        u = self.signals(x)
        c, outputs, eye = self.init_state(x.shape[0]).memory[..., None], [], torch.eye(self.config.order, dtype=x.dtype)
        for t in range(x.shape[1]):
            signal = u[:, t, :, None, None]
            if self.config.measure == "legs":
                half = self.a / (2 * (t + 1))
                c = torch.linalg.inv(eye - half) @ ((eye + half) @ c + self.b[:, None] / (t + 1) * signal)
            else:
                c = self.a @ c + self.b[:, None] * signal
            outputs.append((self.read * c[..., 0]).sum(-1))
        return self._output(torch.stack(outputs, dim=1), u)

    def reconstruct(self, memory: Float[Tensor, "B D N"], ages: Float[Tensor, "S"]) -> Float[Tensor, "B D S"]:
        """The signals at ages in windows (legs: in units of all that was read), from their coefficients."""
        return memory @ basis(self.config.measure, self.config.order, ages).to(memory.dtype).T

    def _step(self, token: tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
        """legs at the position that each row has got to."""
        u, position = token
        a, b = self.a.to(u.dtype), self.b.to(u.dtype)
        time = (position + 1).to(u.dtype)[:, None, None]
        half = a / (2 * time)  # lower triangular
        moved = state.memory + state.memory @ half.mT + u[..., None] * (b / time)
        eye = torch.eye(self.config.order, dtype=u.dtype, device=u.device)
        c = torch.linalg.solve_triangular(eye - half, moved.mT, upper=False).mT
        return (c * self.read).sum(-1), State(c)

    def _output(self, y: Tensor, u: Tensor) -> Tensor:
        return self.out(gelu(y + self.skip * u))

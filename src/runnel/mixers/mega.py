"""Mega: single-head attention whose queries and keys are moving averages, so that nearness needs no positions.

Paper: "Mega: Moving Average Equipped Gated Attention" (2022, 2209.10655).

    h_t = alpha * beta x_t + (1 - alpha * delta) * h_p,   e_t = eta . h_t    per channel, h of width N  (1)
    x' = silu(e + omega * x)                            damped EMA with a skip, as in the authors' code  (2)
    z = silu(W_z x' + b_z),   q = kappa_q z + mu_q,   k = kappa_k z + mu_k,   v = silu(W_v x + b_v)  (3)
    o = softmax(q k^T / sqrt(width)) v,   r = silu(W_r x' + b_r),   u = sigmoid(W_u x' + b_u)  (4)
    y = W_o (u * silu(W_h x' + b_h + U_h (r * o)))                                   (5)

| code | paper |
|---|---|
| ema | N: h, the dimensions that each channel's average is expanded to |
| width, expand | z, the width of queries and keys; v / d, that of values |
| window | Mega-chunk's c: how far attention looks; None: everywhere |
| kappa, mu (2, width) | of q and k in turn |

Deviates: the window slides, where the paper cuts the text into chunks: the memory is bounded alike, and no token stands
alone at a border. Positions enter by the average only, without the paper's relative bias. The residual stream is the
block's, so u scales what is added to it and 1 - u does not scale it; W_o is that of the house. The paper's Laplace
attention, made for images, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops import attend
from runnel.ops.lti import lti_scan

PAPERS = {"Mega: Moving Average Equipped Gated Attention": "2209.10655"}


@dataclass(frozen=True)
class Config:
    ema: int = 16
    width: int = 64
    expand: int = 2
    window: int | None = None

    def __post_init__(self) -> None:
        if min(self.ema, self.width, self.expand, self.window or 1) < 1:
            raise ValueError(f"mega needs ema, width, expand and window >= 1; got {self}")


class State(NamedTuple):
    ema: Tensor  # (B, D, N)
    memory: attend.KeyValues


class Mega(Mixer):
    variants = ({"ema": 2, "width": 3, "expand": 1, "window": 3},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width, self.values, self.window = config.width, config.expand * d_model, config.window
        self.alpha, self.delta = [parameter(torch.randn(d_model, config.ema) * 0.2) for _ in range(2)]  # before sigmoid
        sign = 1.0 - 2 * (torch.arange(config.ema) % 2)
        self.beta = parameter(sign + torch.randn(d_model, config.ema) * 0.02)
        self.eta = parameter(torch.randn(d_model, config.ema) * config.ema**-0.5)
        self.omega = parameter(torch.randn(d_model))
        self.sizes = (self.width, self.values, d_model, d_model)
        self.z_r_u_h = linear(d_model, sum(self.sizes), bias=True)
        self.v = linear(d_model, self.values, bias=True)
        self.kappa = parameter(torch.ones(2, self.width))
        self.mu = parameter(torch.zeros(2, self.width))
        self.from_values = linear(self.values, d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        memory = attend.KeyValues.empty(batch_size, 1, self.width, self.out.weight, self.values)
        return State(self.zeros(batch_size, *self.alpha.shape), memory)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        log_keep, read = self.average()
        e, ema = lti_scan(x, log_keep, read, state.ema, lineage)
        q, k, v, r, u, h = self._project(x, e)
        o, memory = attend.attend(q, k, v, state.memory, lineage, self.window)
        return self._output(o, r, u, h), State(ema, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        alpha, delta = self.alpha.sigmoid(), self.delta.sigmoid()
        h, averages = torch.zeros_like(x[:, 0, :, None]), []
        for t in range(x.shape[1]):
            h = alpha * self.beta * x[:, t, :, None] + (1 - alpha * delta) * h
            averages.append((self.eta * h).sum(-1))
        q, k, v, r, u, h = self._project(x, torch.stack(averages, dim=1))
        return self._output(attend.reference(q, k, v, self.window), r, u, h)

    def average(self) -> tuple[Tensor, Tensor]:
        """log(1 - alpha delta) and alpha beta eta, each (D, N)."""
        alpha, delta = self.alpha.sigmoid(), self.delta.sigmoid()
        return torch.log1p(-alpha * delta), alpha * self.beta * self.eta

    def _project(self, x: Tensor, e: Tensor) -> tuple[Tensor, ...]:
        """q, k, v with one head; r, u and what of h comes from x'."""
        z, r, u, h = self.z_r_u_h(silu(e + self.omega * x)).split(self.sizes, dim=-1)
        q, k = (silu(z)[..., None, :] * self.kappa + self.mu).to(z.dtype)[..., None, :].unbind(-3)
        return q, k, silu(self.v(x))[..., None, :], silu(r), u.sigmoid(), h

    def _output(self, o: Tensor, r: Tensor, u: Tensor, h: Tensor) -> Tensor:
        return self.out(u * silu(h + self.from_values(r * o[..., 0, :])))

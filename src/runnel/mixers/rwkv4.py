"""RWKV-4 time mixing: attention without queries, as a recurrence of one decaying mean per channel.

Paper: "RWKV: Reinventing RNNs for the Transformer Era" (2023, 2305.13048).

    r_t, k_t, v_t = W_r, W_k, W_v of lerp(x_p, x_t, mu):  token shift                (1)
    wkv_t = (a_p + exp(u + k_t) v_t) / (b_p + exp(u + k_t))                          (2)
    a_t = exp(-w) a_p + exp(k_t) v_t,   b_t = exp(-w) b_p + exp(k_t)                 (3)
    y_t = W_o (sigmoid(r_t) * wkv_t)                                                 (4)

| code | paper |
|---|---|
| level | b, as its maximum (the running maximum of its stable form) and the sum relative to it |
| numerator (B, D) | a, relative to the same maximum |
| decay | log w: w = exp(decay) > 0, one per channel |
| bonus | u: the weight of the token's own write, which nothing has decayed yet |

Deviates: channel mixing is the block's work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops import conv
from runnel.ops.scan import diagonal_scan
from runnel.ops.stable import Level, weigh

PAPERS = {"RWKV: Reinventing RNNs for the Transformer Era": "2305.13048"}


@dataclass(frozen=True)
class Config:
    """Nothing to choose: every channel is a head of its own."""


class State(NamedTuple):
    tail: Tensor  # (B, 1, D)
    level: Level  # both (B, D)
    numerator: Tensor  # (B, D)


class RWKV4(Mixer):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        channel = torch.arange(d_model) / max(1, d_model - 1)
        self.mu = parameter(channel ** torch.tensor([[0.5], [1.0], [1.0]]))  # of r, k, v
        self.decay = parameter(-5 + 8 * channel**0.7)  # from almost no forgetting to at once, over the channels
        self.bonus = parameter(torch.full((d_model,), 0.3).log() + 0.5 * (torch.arange(d_model) % 3 - 1))
        self.r, self.k, self.v = [linear(d_model, d_model) for _ in range(3)]
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        d_model = self.bonus.shape[0]
        level = Level(*[self.zeros(batch_size, d_model) for _ in Level._fields])
        return State(self.zeros(batch_size, 1, d_model), level, self.zeros(batch_size, d_model))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        shifted, tail = conv.shift(x, state.tail, lineage)
        r, k, v = self._project(x, shifted)
        past, level = weigh(k, -self.decay.exp().expand_as(k), state.level, lineage)
        a, numerator = diagonal_scan(past.log_keep.exp(), past.write * v, state.numerator, lineage)
        wkv = self._read(k, v, *self._before(past.maximum, past.total, a, state, lineage))
        return self.out(r * wkv.to(r.dtype)), State(tail, level, numerator)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        r, k, v = self._project(x, torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1))
        a, b, outputs = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            own = (self.bonus + k[:, t]).exp()
            outputs.append(self.out(r[:, t] * (a + own * v[:, t]) / (b + own)))
            keep = (-self.decay.exp()).exp()
            a, b = keep * a + k[:, t].exp() * v[:, t], keep * b + k[:, t].exp()
        return torch.stack(outputs, dim=1)

    def _project(self, x: Tensor, shifted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """sigmoid(r), k and v, each (B, T, D)."""
        xr, xk, xv = torch.lerp(shifted[..., None, :], x[..., None, :], self.mu.to(x.dtype)).unbind(-2)
        return self.r(xr).sigmoid(), self.k(xk), self.v(xv)

    def _before(
        self, maximum: Tensor, total: Tensor, a: Tensor, state: State, lineage: Lineage
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The maximum, b and a of every token's parent; b is zero where there is none."""
        held = (state.level.maximum, state.level.total, state.numerator)
        shifted = [conv.shift(z, h[:, None], lineage)[0] for z, h in zip((maximum, total, a), held, strict=True)]
        return shifted[0], shifted[1], shifted[2]

    def _read(self, k: Tensor, v: Tensor, maximum: Tensor, b: Tensor, a: Tensor) -> Tensor:
        own = self.bonus + k.to(b.dtype)
        unit = torch.where(b == 0, own, torch.maximum(maximum, own)).detach()
        past, write = torch.where(b == 0, 0, maximum - unit).exp(), (own - unit).exp()
        return (past * a + write * v) / (past * b + write)

"""RWKV-4 time mixing: attention without queries, as a recurrence of one decaying mean per channel.

Papers: "RWKV: Reinventing RNNs for the Transformer Era" (2023, 2305.13048); for several perspectives, "Enhancing
Transformer RNNs with Multiple Temporal Perspectives" (2024, 2402.02625).

    r_t, k_t, v_t = W_r, W_k, W_v of lerp(x_p, x_t, mu):  token shift                (1)
    wkv_t = (a_p + exp(u + k_t) v_t) / (b_p + exp(u + k_t))                          (2)
    a_t = exp(-w) a_p + exp(k_t) v_t,   b_t = exp(-w) b_p + exp(k_t)                 (3)
    y_t = W_o sum over perspectives of  share * sigmoid(r_t) * wkv_t                 (4)

| code | paper |
|---|---|
| level | b, as its maximum (the running maximum of the stable form) and the sum relative to it |
| numerator (B, P, D) | a, relative to the same maximum |
| decay | log w: w = exp(decay) > 0, one per channel |
| bonus | u: the weight of the token's own write, which nothing has decayed yet |
| perspectives | P copies of mu, w and u, each with a state of its own; the projections are shared |
| share (P, 1) | how much each of several perspectives counts: at the start the first is all, which is plain RWKV-4 |

Deviates: channel mixing is the work of the block, or of `channel_mix`. Further perspectives start with slower decays
than the first, where the paper copies it: identical copies would stay identical.
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

PAPERS = {
    "RWKV: Reinventing RNNs for the Transformer Era": "2305.13048",
    "Enhancing Transformer RNNs with Multiple Temporal Perspectives": "2402.02625",
}


@dataclass(frozen=True)
class Config:
    perspectives: int = 1

    def __post_init__(self) -> None:
        if self.perspectives < 1:
            raise ValueError(f"rwkv4 needs perspectives >= 1; got {self.perspectives}")


class State(NamedTuple):
    tail: Tensor  # (B, 1, D)
    level: Level  # both (B, P, D)
    numerator: Tensor  # (B, P, D)


class RWKV4(Mixer):
    variants = ({"perspectives": 3},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        count, channel = config.perspectives, torch.arange(d_model) / max(1, d_model - 1)
        self.mu = parameter((channel ** torch.tensor([[0.5], [1.0], [1.0]])).repeat(count, 1, 1))  # of r, k, v
        slower = torch.arange(count)[:, None]  # by a factor of e each
        self.decay = parameter(
            -5 + 8 * channel**0.7 - slower
        )  # from almost no forgetting to at once, over the channels
        self.bonus = parameter((torch.tensor(0.3).log() + (torch.arange(d_model) % 3 - 1) / 2).repeat(count, 1))
        self.share = parameter(torch.eye(count)[:, :1].clone()) if count > 1 else None
        self.r, self.k, self.v = [linear(d_model, d_model) for _ in range(3)]
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        level = Level(*[self.zeros(batch_size, *self.decay.shape) for _ in Level._fields])
        numerator = self.zeros(batch_size, *self.decay.shape)
        return State(self.zeros(batch_size, 1, self.decay.shape[1]), level, numerator)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        shifted, tail = conv.shift(x, state.tail, lineage)
        r, k, v = self._project(x, shifted)
        past, level = weigh(k, -self.decay.exp().expand_as(k), state.level, lineage)
        a, numerator = diagonal_scan(past.log_keep.exp(), past.write * v, state.numerator, lineage)
        sums, held = (past.maximum, past.total, a), (*state.level, state.numerator)
        parents = [_parent(z, h, lineage) for z, h in zip(sums, held, strict=True)]
        return self._output(r * self._read(k, v, *parents).to(r.dtype)), State(tail, level, numerator)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        r, k, v = self._project(x, torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1))
        a, b, outputs = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), []
        for t in range(x.shape[1]):
            own = (self.bonus + k[:, t]).exp()
            outputs.append(self._output(r[:, t] * (a + own * v[:, t]) / (b + own)))
            keep = (-self.decay.exp()).exp()
            a, b = keep * a + k[:, t].exp() * v[:, t], keep * b + k[:, t].exp()
        return torch.stack(outputs, dim=1)

    def _project(self, x: Tensor, shifted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """sigmoid(r), k and v, each (B, T, P, D)."""
        mixed = torch.lerp(shifted[..., None, None, :], x[..., None, None, :], self.mu.to(x.dtype))  # (B, T, P, 3, D)
        xr, xk, xv = mixed.unbind(-2)
        return self.r(xr).sigmoid(), self.k(xk), self.v(xv)

    def _read(self, k: Tensor, v: Tensor, maximum: Tensor, b: Tensor, a: Tensor) -> Tensor:
        """wkv, from the sums of the parent: b is zero where there is none."""
        own = self.bonus + k.to(b.dtype)
        unit = torch.where(b == 0, own, torch.maximum(maximum, own)).detach()
        past, write = torch.where(b == 0, 0, maximum - unit).exp(), (own - unit).exp()
        return (past * a + write * v) / (past * b + write)

    def _output(self, y: Tensor) -> Tensor:
        return self.out(y.squeeze(-2) if self.share is None else (self.share * y).sum(-2).to(y.dtype))


def _parent(z: Tensor, held: Tensor, lineage: Lineage) -> Tensor:
    """(B, T, P, D): z at every token's parent; the held one (B, P, D) where the parent is the state."""
    return conv.shift(z.flatten(2), held.flatten(1)[:, None], lineage)[0].view_as(z)

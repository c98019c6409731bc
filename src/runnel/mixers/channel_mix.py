"""RWKV's channel mixing: a perceptron over channels that also sees the token before, with a gate.

Papers: "RWKV: Reinventing RNNs for the Transformer Era" (2023, 2305.13048), section 3.1.2; not gated, as in
"RWKV-7 \"Goose\" with Expressive Dynamic State Evolution" (2025, 2503.14456).

    r_t, k_t = W_r, W_k of lerp(x_p, x_t, mu):  token shift                          (18, 19)
    y_t = sigmoid(r_t) * W_v max(k_t, 0)^2                                           (20)
    not gated:  k_t = W_k lerp(x_t, x_p, mu),  y_t = W_v max(k_t, 0)^2               (RWKV-7)

| code | paper |
|---|---|
| hidden | the width of k; None: 4 d |

It stands where other models have a block, but has a state, the token before: so it is a mixer, in a layer of its own
without a block: `"(rwkv4+none, channel_mix+none)*12"` is RWKV-4 as published, and
`"(rwkv7+none, channel_mix(gated=False)+none)*12"` RWKV-7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops import conv
from runnel.state import Memory

PAPERS = {"RWKV: Reinventing RNNs for the Transformer Era": "2305.13048"}


@dataclass(frozen=True)
class Config:
    hidden: int | None = None
    gated: bool = True

    def __post_init__(self) -> None:
        if self.hidden is not None and self.hidden < 1:
            raise ValueError(f"channel_mix needs hidden >= 1; got {self.hidden}")


class State(NamedTuple):
    tail: Tensor  # (B, 1, D)


class ChannelMix(Mixer):
    variants = ({"hidden": 5}, {"gated": False})

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        hidden = config.hidden or 4 * d_model
        ramp = torch.arange(d_model) / max(1, d_model - 1)
        self.mu = parameter(ramp.repeat(2, 1) if config.gated else 1 - ramp[None])  # of r and k, or of k
        self.r = linear(d_model, d_model) if config.gated else None
        self.k = linear(d_model, hidden)
        self.out = linear(hidden, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, 1, self.mu.shape[1]))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        shifted, tail = conv.shift(x, state.tail, lineage)
        return self._mix(x, shifted), State(tail)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        before, outputs = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            outputs.append(self._mix(x[:, t], before))
            before = x[:, t]
        return torch.stack(outputs, dim=1)

    def _mix(self, x: Tensor, shifted: Tensor) -> Tensor:
        if self.r is None:
            return self.out(relu(self.k(torch.lerp(x, shifted, self.mu[0].to(x.dtype)))).square())
        xr, xk = torch.lerp(shifted[..., None, :], x[..., None, :], self.mu.to(x.dtype)).unbind(-2)
        return self.r(xr).sigmoid() * self.out(relu(self.k(xk)).square())

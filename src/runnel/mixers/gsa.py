"""Gated slot attention: softmax over a fixed number of slots, each of which forgets at its own, input-dependent rate.

Paper: "Gated Slot Attention for Efficient Linear-Time Sequence Modeling" (2024, 2409.07146).

    a_t = sigmoid(W_a x_t)^(1/tau),  tau = 8, one per slot                           (1)
    K_t = Diag(a_t) K_p + (1 - a_t) k_t^T,   V_t = Diag(a_t) V_p + (1 - a_t) v_t^T   (2)
    o_t = V_t^T softmax(K_t q_t)                                                     (3)
    y_t = W_o RMSNorm(silu(o_t)),   q_t, k_t, v_t = silu(W x_t)                      (4)

| code | paper |
|---|---|
| keys (B, H, M, K), values (B, H, M, V) | K~, V~: the slots |
| slots | m, 64 in the paper |
| temperature | tau |

Two gated linear attentions joined by a softmax: the first is read from the side of its values (the slots).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, silu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear
from runnel.ops.outer import outer_scan, outer_scan_across

PAPERS = {"Gated Slot Attention for Efficient Linear-Time Sequence Modeling": "2409.07146"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    slots: int = 64
    temperature: float = 8.0

    def __post_init__(self) -> None:
        if self.slots < 1 or self.temperature <= 0:
            raise ValueError(f"gsa needs slots >= 1 and temperature > 0; got {self.slots}, {self.temperature}")


class State(NamedTuple):
    keys: Tensor  # (B, H, M, K)
    values: Tensor  # (B, H, M, K)


class GatedSlotAttention(Mixer):
    variants = ({"head_dim": 4, "slots": 3},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim)
        self.heads, self.slots, self.temperature = d_model // self.width, config.slots, config.temperature
        self.qkv = linear(d_model, 3 * d_model)
        self.gate = linear(d_model, self.heads * self.slots)
        self.norm = RMSNorm(d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        keys, values = [self.zeros(batch_size, self.heads, self.slots, self.width) for _ in State._fields]
        return State(keys, values)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v, write, log_keep = self._project(x)
        scores, keys = outer_scan_across(q, write, k, log_keep, state.keys, lineage)
        y, values = outer_scan(scores.softmax(-1), write, v, log_keep, state.values, lineage)
        return self._output(y), State(keys, values)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v, _, log_keep = self._project(x)
        (keys, values), outputs = self.init_state(x.shape[0]), []
        for t in range(x.shape[1]):
            a = log_keep[:, t].exp()[..., None]
            keys = a * keys + (1 - a) * k[:, t, :, None, :]
            values = a * values + (1 - a) * v[:, t, :, None, :]
            scores = (keys * q[:, t, :, None, :]).sum(-1)
            outputs.append((scores.softmax(-1)[..., None] * values).sum(-2))
        return self._output(torch.stack(outputs, dim=1))

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        """q, k, v (B, T, H, K), then 1 - a and log a (B, T, H, M)."""
        q, k, v = silu(self.qkv(x)).unflatten(-1, (3, self.heads, self.width)).unbind(-3)
        log_keep = (logsigmoid(self.gate(x)) / self.temperature).unflatten(-1, (self.heads, self.slots))
        return q, k, v, -torch.expm1(log_keep), log_keep

    def _output(self, y: Tensor) -> Tensor:
        return self.out(self.norm(silu(y.flatten(-2))))

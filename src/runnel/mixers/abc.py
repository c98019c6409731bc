"""ABC: attention with bounded memory; tokens are averaged into a fixed number of slots, and softmax reads the slots.

Paper: "ABC: Attention with Bounded-memory Control" (2021, 2110.02488), with its learned control (ABC_MLP).

    phi_j = exp(W_phi x_j) / sum_{i <= t} exp(W_phi x_i), one per slot               (1)
    K_t = sum_j phi_j k_j^T,   V_t = sum_j phi_j v_j^T                               (2)
    y_t = W_o V_t^T softmax(K_t q_t / sqrt(d))                                       (3)

| code | paper |
|---|---|
| keys, values (B, H, M, K) | K~, V~, times the total weight of their slot |
| slots | n, the size of the bounded memory |
| level | the total weight of every slot, as its maximum and the sum relative to it |

Growing totals make the weights of all earlier tokens shrink together: a slot is the mean of what was let in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.mixer import Mixer, head_width, linear
from runnel.ops.outer import outer_scan, outer_scan_across
from runnel.ops.stable import Level, weigh

PAPERS = {"ABC: Attention with Bounded-memory Control": "2110.02488"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    slots: int = 32

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError(f"abc needs slots >= 1; got {self.slots}")


class State(NamedTuple):
    level: Level  # both (B, H, M)
    keys: Tensor  # (B, H, M, K)
    values: Tensor  # (B, H, M, K)


class ABC(Mixer):
    variants = ({"head_dim": 4, "slots": 3},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim)
        self.heads, self.slots = d_model // self.width, config.slots
        self.qkv = linear(d_model, 3 * d_model)
        self.control = linear(d_model, self.heads * self.slots)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        level = Level(*[self.zeros(batch_size, self.heads, self.slots) for _ in Level._fields])
        keys, values = [self.zeros(batch_size, self.heads, self.slots, self.width) for _ in range(2)]
        return State(level, keys, values)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v, control = self._project(x)
        slot, level = weigh(control, torch.zeros_like(control), state.level, lineage)
        scores, keys = outer_scan_across(q, slot.write, k, slot.log_keep, state.keys, lineage)
        read = (scores / slot.total).softmax(-1) / slot.total
        y, values = outer_scan(read, slot.write, v, slot.log_keep, state.values, lineage)
        return self.out(y.to(x.dtype).flatten(-2)), State(level, keys, values)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v, control = self._project(x)
        outputs = []
        for t in range(x.shape[1]):
            phi = control[:, : t + 1].softmax(1)[..., None]  # (B, t+1, H, M, 1)
            keys, values = [(phi * z[:, : t + 1, :, None, :]).sum(1) for z in (k, v)]
            scores = (keys * q[:, t, :, None, :]).sum(-1)
            outputs.append((scores.softmax(-1)[..., None] * values).sum(-2))
        return self.out(torch.stack(outputs, dim=1).flatten(-2))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v (B, T, H, K) and the logits of phi (B, T, H, M)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.width)).unbind(-3)
        return q * self.width**-0.5, k, v, self.control(x).unflatten(-1, (self.heads, self.slots))

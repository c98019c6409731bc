"""HGRN2: a gated linear RNN whose forget gate is also its key, so that a vector state grows to a matrix for free.

Paper: "HGRN2: Gated Linear RNNs with State Expansion" (2024, 2404.07904).

    f_t = gamma + (1 - gamma) sigmoid(W_f x_t):  the forget gate, bounded below      (1)
    S_t = Diag(f_t) S_p + (1 - f_t) i_t^T,   i_t = W_i x_t                           (2)
    y_t = W_y RMSNorm(S_t^T o_t),   o_t = silu(W_o x_t)                              (3)

| code | paper |
|---|---|
| head_dim | d / H, the expansion of the state; 128 in the paper |
| lower_bound | gamma; the paper learns it, growing with depth, here it is given to the layer |

The key 1 - f is tied to the gate, so the state expands H-fold without a parameter more than HGRN. Deviates: gamma is an
option of the layer, since a mixer does not know its depth (`"hgrn2, hgrn2(lower_bound=0.5)"`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, silu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear
from runnel.ops.outer import outer_scan

PAPERS = {"HGRN2: Gated Linear RNNs with State Expansion": "2404.07904"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    lower_bound: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.lower_bound < 1:
            raise ValueError(f"hgrn2 needs 0 <= lower_bound < 1; got {self.lower_bound}")


class State(NamedTuple):
    memory: Tensor  # (B, H, K, K)


class HGRN2(Mixer):
    variants = ({"head_dim": 2, "lower_bound": 0.5},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim, target=128)
        self.heads, self.lower_bound = d_model // self.width, config.lower_bound
        self.ofi = linear(d_model, 3 * d_model)
        self.norm = RMSNorm(d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.heads, self.width, self.width))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        o, k, i, log_f = self._project(x)
        y, memory = outer_scan(o, k, i, log_f, state.memory, lineage)
        return self.out(self.norm(y.flatten(-2))), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        o, f, i = self.ofi(x).unflatten(-1, (3, self.heads, self.width)).unbind(-3)
        f = self.lower_bound + (1 - self.lower_bound) * f.sigmoid()
        s, outputs = self.init_state(x.shape[0]).memory, []
        for t in range(x.shape[1]):
            s = f[:, t, :, :, None] * s + (1 - f[:, t, :, :, None]) * i[:, t, :, None, :]
            outputs.append((silu(o[:, t])[..., None] * s).sum(-2))
        return self.out(self.norm(torch.stack(outputs, dim=1).flatten(-2)))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """o, 1 - f, i and log f, each (B, T, H, K)."""
        o, f, i = self.ofi(x).unflatten(-1, (3, self.heads, self.width)).unbind(-3)
        log_f = logsigmoid(f)
        if self.lower_bound:
            bound = torch.full_like(f, math.log(self.lower_bound))
            log_f = torch.logaddexp(bound, log_f + math.log1p(-self.lower_bound))
        return silu(o), (1 - self.lower_bound) * (-f).sigmoid(), i, log_f

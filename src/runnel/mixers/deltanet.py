"""DeltaNet: a matrix state that overwrites what it holds under a key instead of adding to it, and never forgets else.

Papers: "Parallelizing Linear Transformers with the Delta Rule over Sequence Length" (2024, 2406.06484).
"Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues" (2024, 2411.12537) for beta_max = 2.

    q, k, v = silu(conv(W x));   q, k of unit length                                 (section 3.3)
    beta_t = beta_max sigmoid(W_b x_t)                                               (section 2.2)
    S_t = S_p (I - beta_t k_t k_t^T) + beta_t v_t k_t^T,   o_t = S_t q_t             (section 2.2)
    y_t = W_o RMSNorm(o_t)                                                           (section 3.3)

| code | paper |
|---|---|
| memory (B, H, K, V) | S transposed |
| beta_max | 1; with 2 the transition is a reflection at its end, which parity needs |
| key_eps | added to the squared length of q and k; 0 for the exact length |

The chunk form of `ops.delta` is the paper's (eq. 7-11, the UT transform). Hybrids are patterns of layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.mixer import RMSNorm, head_width, linear
from runnel.mixers import DeltaHeads, DeltaMixer, DeltaState, check_beta_max
from runnel.ops.delta import delta_scan

PAPERS = {
    "Parallelizing Linear Transformers with the Delta Rule over Sequence Length": "2406.06484",
    "Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues": "2411.12537",
}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    conv: int = 4
    beta_max: float = 1.0
    key_eps: float = 0.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        check_beta_max("deltanet", self.beta_max)


class DeltaNet(DeltaMixer):
    variants = ({"beta_max": 2.0}, {"key_eps": 0.1})

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width, self.beta_max = head_width(d_model, config.head_dim), config.beta_max
        self.heads = d_model // self.width
        self.inputs = DeltaHeads(d_model, self.heads, self.width, self.width, config.conv, eps=config.key_eps)
        self.beta = linear(d_model, self.heads)
        self.norm = RMSNorm(self.width, config.norm_eps)
        self.out = linear(d_model, d_model)

    def forward(
        self, x: Float[Tensor, "B T D"], state: DeltaState, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], DeltaState]:
        q, k, v, tail = self.inputs(x, state.tail, lineage)
        beta = self._beta(x)
        y, memory = delta_scan(q, k, v, beta, torch.zeros_like(beta), state.memory, lineage)
        return self._output(y), DeltaState(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self.inputs.reference(x)
        beta, eye = self._beta(x), torch.eye(self.width, dtype=x.dtype)
        s, outputs = self.init_state(x.shape[0]).memory, []  # (B, H, V, K), as the paper writes it
        for t in range(x.shape[1]):
            b, key, value = beta[:, t, :, None, None], k[:, t, :, :, None], v[:, t, :, :, None]
            s = s @ (eye - b * key @ key.mT) + b * value @ key.mT
            outputs.append((s @ q[:, t, :, :, None])[..., 0])
        return self._output(torch.stack(outputs, dim=1))

    def _beta(self, x: Tensor) -> Tensor:
        return self.beta_max * self.beta(x).sigmoid()

    def _output(self, y: Tensor) -> Tensor:
        return self.out(self.norm(y).flatten(-2))

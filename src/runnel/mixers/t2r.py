"""T2R: attention whose softmax is a product of learned features, so that the past is one matrix.

Paper: "Finetuning Pretrained Transformers into RNNs" (2021, 2103.13076), section 2.

    q_t, k_t, v_t = W x_t, as in attention;   phi(x) = relu(W_phi x + b_phi)
    S_t = S_p + phi(k_t) v_t^T,   z_t = z_p + phi(k_t)
    y_t = W_o S_t^T phi(q_t) / (z_t . phi(q_t))

| code | paper |
|---|---|
| memory (B, H, F, K+1) | S and z: the normaliser is one more value column, of ones |
| features | F, the size of phi, 32 |
| weight, bias of the map | W_phi and b_phi, one for queries and keys |
| groups | of heads with the same keys and values, as in attention; they share a map |

Deviates: LEAST is added to every feature, so that a weighted mean is there, with a gradient, also where a query and the
past have no feature in common. The paper's models have learned positions; where attention rotates queries and keys,
these are rotated before phi, so that what phi sees is what the softmax saw. The other options are those of attention,
and so are the names of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.lineage import Lineage
from runnel.mixer import linear, parameter
from runnel.mixers import AttentionConfig, AttentionWeights
from runnel.ops.outer import mean_scan

PAPERS = {"Finetuning Pretrained Transformers into RNNs": "2103.13076"}
LEAST = 1e-3


@dataclass(frozen=True, kw_only=True)
class Config(AttentionConfig):
    features: int = 32

    def __post_init__(self) -> None:
        if self.features < 1:
            raise ValueError(f"t2r needs features >= 1; got {self.features}")


class State(NamedTuple):
    memory: Tensor  # (B, H, F, K+1)


class FeatureMap(nn.Module):
    """relu(W x + b) and LEAST more, a W and b for every group of heads."""

    def __init__(self, groups: int, width: int, features: int) -> None:
        super().__init__()
        self.weight = parameter(torch.randn(groups, features, width) * width**-0.5, weight_decay=True)
        self.bias = parameter(torch.zeros(groups, features))

    def forward(self, x: Float[Tensor, "B T H K"]) -> Float[Tensor, "B T H F"]:
        each = x.shape[-2] // len(self.weight)  # heads of a group
        weight, bias = [w.repeat_interleave(each, dim=0) for w in (self.weight, self.bias)]
        return ((weight @ x[..., None])[..., 0] + bias).relu() + LEAST


class T2R(AttentionWeights):
    variants = (
        {"heads": 4, "head_dim": 2, "kv_heads": 2, "features": 3},
        {"qk_norm": True, "bias": True, "out_bias": True, "rotated": 2, "norm_offset": 1.0},
    )

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__(d_model, config)
        self.config = config
        self.phi = FeatureMap(self.groups, self.width, config.features)
        self.out = linear(self.heads * self.width, d_model, config.out_bias)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.heads, self.config.features, self.width + 1))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v = self._project(x, lineage.positions)
        y, memory = mean_scan(q, k, v, state.memory, lineage)
        return self._output(y), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self._project(x, torch.arange(x.shape[1])[None])
        s, z, outputs = x.new_zeros(()), x.new_zeros(()), []
        for t in range(x.shape[1]):
            s = s + k[:, t, :, :, None] * v[:, t, :, None, :]
            z = z + k[:, t]
            outputs.append((q[:, t, :, :, None] * s).sum(-2) / (q[:, t] * z).sum(-1, keepdim=True))
        return self._output(torch.stack(outputs, dim=1))

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of q and k (B, T, H, F), values (B, T, H, K)."""
        q, k, v = self._heads_of(x)
        q, k = [self.phi(self._rotated(y, positions)) for y in (q, k)]
        return q, self._for_all(k), self._for_all(v)

    def _output(self, y: Tensor) -> Tensor:
        return self.out(y.flatten(-2).to(self.out.weight.dtype))

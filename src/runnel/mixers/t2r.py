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
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, grouped_heads, linear, parameter
from runnel.ops.outer import mean_scan
from runnel.ops.rope import rope, scaling

PAPERS = {"Finetuning Pretrained Transformers into RNNs": "2103.13076"}
LEAST = 1e-3


@dataclass(frozen=True)
class Config:
    heads: int | None = None
    head_dim: int | None = None
    kv_heads: int | None = None
    features: int = 32
    rope_base: float = 10_000.0
    rope: dict[str, Any] | None = None
    rotated: int | None = None
    qk_norm: bool = False
    norm_eps: float = 1e-6
    norm_offset: float = 0.0
    bias: bool = False
    out_bias: bool = False

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


class T2R(Mixer):
    variants = (
        {"heads": 4, "head_dim": 2, "kv_heads": 2, "features": 3},
        {"qk_norm": True, "bias": True, "out_bias": True, "rotated": 2, "norm_offset": 1.0},
    )

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        heads, groups, width = grouped_heads("t2r", d_model, config.heads, config.head_dim, config.kv_heads)
        self.config, self.heads, self.groups, self.width = config, heads, groups, width
        self.scaling = None if config.rope is None else scaling(config.rope)
        self.qkv = linear(d_model, (heads + 2 * groups) * width, config.bias)
        norm = (width, config.norm_eps, config.norm_offset)
        self.q_norm = RMSNorm(*norm) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(*norm) if config.qk_norm else nn.Identity()
        self.phi = FeatureMap(groups, width, config.features)
        self.out = linear(heads * width, d_model, config.out_bias)

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
        sizes = (self.heads, self.groups, self.groups)
        q, k, v = self.qkv(x).unflatten(-1, (-1, self.width)).split(sizes, dim=-2)
        base, part = self.config.rope_base, self.config.rotated
        q, k = [self.phi(rope(y, positions, base, self.scaling, part)) for y in (self.q_norm(q), self.k_norm(k))]
        k, v = [y.repeat_interleave(self.heads // self.groups, dim=-2) for y in (k, v)]
        return q, k, v

    def _output(self, y: Tensor) -> Tensor:
        return self.out(y.flatten(-2).to(self.out.weight.dtype))

"""SUPRA: linear attention made of softmax attention: a learned feature map, a fixed decay, a norm for the denominator.

Paper: "Linearizing Large Language Models" (2024, 2405.06640), section 3.

    phi(x) = relu(W x + b);   q_t, k_t = rope(phi(q_t)), rope(phi(k_t))
    S_t = gamma_h S_p + k_t v_t^T / sqrt(K),   gamma_h = exp(-2^(-8 h / H)),  h = 1..H
    y_t = W_o GroupNorm_h(S_t^T q_t)

| code | paper |
|---|---|
| q_map, k_map | W and b of phi, for queries and for keys |
| groups | of heads with the same keys and values, as in attention |

Dividing by the sum of weights, as linear attention does, is what the paper found unstable: the norm, without weights,
takes its place. Deviates: W is a matrix per head, not one over all of them, and begins as the identity, so that a
converted layer begins with the features of its origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from runnel.lineage import Lineage
from runnel.mixer import Mixer, grouped_heads, linear, parameter
from runnel.mixers import slopes
from runnel.ops.outer import outer_scan
from runnel.ops.rope import check_rotated, rope, scaling

PAPERS = {"Linearizing Large Language Models": "2405.06640"}


@dataclass(frozen=True)
class Config:
    heads: int | None = None
    head_dim: int | None = None
    kv_heads: int | None = None
    rope_base: float = 10_000.0
    rope: dict[str, Any] | None = None
    rotated: int | None = None


class State(NamedTuple):
    memory: Tensor  # (B, H, K, K)


class FeatureMap(nn.Module):
    """relu(W x + b), a W and b per head."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.weight = parameter(torch.eye(width).repeat(heads, 1, 1), weight_decay=True)
        self.bias = parameter(torch.zeros(heads, width))

    def forward(self, x: Float[Tensor, "B T H K"]) -> Float[Tensor, "B T H K"]:
        return ((self.weight @ x[..., None])[..., 0] + self.bias).relu()


class Supra(Mixer):
    variants = ({"heads": 4, "head_dim": 4, "kv_heads": 2, "rope_base": 100.0, "rotated": 2},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        heads, groups, width = grouped_heads("supra", d_model, config.heads, config.head_dim, config.kv_heads)
        self.config, self.heads, self.groups, self.width = config, heads, groups, width
        check_rotated(config.rotated, width)
        self.scaling = None if config.rope is None else scaling(config.rope)
        self.qkv = linear(d_model, (heads + 2 * groups) * width)
        self.q_map, self.k_map = FeatureMap(heads, width), FeatureMap(groups, width)
        self.out = linear(heads * width, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.heads, self.width, self.width))

    def log_decay(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H"]:
        """log gamma of every head, the same at every token."""
        return -slopes(self.heads, x).expand(*x.shape[:2], -1)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v = self._project(x, lineage.positions)
        y, memory = outer_scan(q, k, v, self.log_decay(x), state.memory, lineage)
        return self._output(y), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self._project(x, torch.arange(x.shape[1])[None])
        gamma = self.log_decay(x)[0, 0].exp()[:, None, None]
        s, outputs = self.init_state(x.shape[0]).memory, []
        for t in range(x.shape[1]):
            s = gamma * s + k[:, t, :, :, None] * v[:, t, :, None, :]
            outputs.append((q[:, t, :, :, None] * s).sum(-2))
        return self._output(torch.stack(outputs, dim=1))

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v (B, T, H, K); keys are divided by sqrt(K)."""
        sizes = (self.heads, self.groups, self.groups)
        q, k, v = self.qkv(x).unflatten(-1, (-1, self.width)).split(sizes, dim=-2)
        turning = (self.config.rope_base, self.scaling, self.config.rotated)
        q, k = [rope(phi(y), positions, *turning) for phi, y in ((self.q_map, q), (self.k_map, k))]
        k, v = [y.repeat_interleave(self.heads // self.groups, dim=-2) for y in (k, v)]
        return q, k * self.width**-0.5, v

    def _output(self, y: Tensor) -> Tensor:
        return self.out(layer_norm(y, y.shape[-1:]).flatten(-2).to(self.out.weight.dtype))

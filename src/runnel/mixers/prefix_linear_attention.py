"""Prefix linear attention: a prompt is read as a whole, not causally, before a constant-size state goes on from it.

Paper: "Just read twice: closing the recall gap for recurrent language models" (2024, 2407.05483), JRT-RNN.

    E = sum over the prefix of phi(k^e_j) v^e_j^T,   k^e, v^e = W_ke x, W_ve x                  (1)
    S_t = E + sum_{j <= t} phi(k_j) v_j^T,   z_t likewise, with ones for values                 (2)
    y_t = W_o S_t^T phi(q_t) / (z_t . phi(q_t))                                                 (3)

| code | paper |
|---|---|
| encoder | W_ke and W_ve, a second pair of projections for the non-causal part |
| Lineage.with_prefix | the prefix, u_1 .. u_M: the prompt |
| memory (B, H, F, V+1) | S and z: prefill and decoding share one state |

phi is Based's Taylor feature map. A token of the prefix sees what follows it there, so that it need not guess what will
be asked for: the same as reading the prompt twice. A prefix must be in one call (`model(tokens, lineage=...)`); without
one the layer is causal, and decoding goes on from the state either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.mixer import FORMS, Mixer, head_width, linear
from runnel.ops.features import taylor
from runnel.ops.outer import mean_scan

PAPERS = {"Just read twice: closing the recall gap for recurrent language models": "2407.05483"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    feature_dim: int = 16

    def __post_init__(self) -> None:
        if self.feature_dim < 1:
            raise ValueError(f"prefix_linear_attention needs feature_dim >= 1; got {self.feature_dim}")


class State(NamedTuple):
    memory: Tensor  # (B, H, F, V+1): the last column is the normaliser


class PrefixLinearAttention(Mixer):
    forms = (*FORMS, "prefix")
    variants = ({"head_dim": 4, "feature_dim": 3},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.value_width, self.feature_dim = head_width(d_model, config.head_dim), config.feature_dim
        self.heads = d_model // self.value_width
        keys = self.heads * self.feature_dim
        self.q, self.decoder, self.encoder = [linear(d_model, n) for n in (keys, keys + d_model, keys + d_model)]
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        width = 1 + self.feature_dim + self.feature_dim * (self.feature_dim + 1) // 2
        return State(self.zeros(batch_size, self.heads, width, self.value_width + 1))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        memory = state.memory
        if lineage.prefix is not None:
            k, v = self._split(self.encoder(x))
            _, memory = mean_scan(taylor(k), taylor(k), v, memory, Lineage.padded(lineage.prefix))
        q = self.q(x).unflatten(-1, (self.heads, self.feature_dim))
        k, v = self._split(self.decoder(x))
        y, memory = mean_scan(taylor(q), taylor(k), v, memory, lineage)
        return self.out(y.flatten(-2)), State(memory)

    def reference(self, x: Float[Tensor, "B T D"], prefix: int = 0) -> Float[Tensor, "B T D"]:
        q = self.q(x).unflatten(-1, (self.heads, self.feature_dim))
        (k, v), (prefix_k, prefix_v) = self._split(self.decoder(x)), self._split(self.encoder(x[:, :prefix]))
        outputs = []
        for t in range(x.shape[1]):
            keys, values = torch.cat([prefix_k, k[:, : t + 1]], dim=1), torch.cat([prefix_v, v[:, : t + 1]], dim=1)
            s = (q[:, t, None] * keys).sum(-1, keepdim=True) * self.feature_dim**-0.5
            weights = 1 + s + s**2 / 2  # (B, prefix + t + 1, H, 1)
            outputs.append((weights * values).sum(1) / weights.sum(1))
        return self.out(torch.stack(outputs, dim=1).flatten(-2))

    def _split(self, kv: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (B, T, H, d') and values (B, T, H, V)."""
        k, v = kv.split([self.heads * self.feature_dim, self.heads * self.value_width], dim=-1)
        return k.unflatten(-1, (self.heads, self.feature_dim)), v.unflatten(-1, (self.heads, self.value_width))

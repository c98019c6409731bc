"""Softmax attention with grouped queries, rotary positions, an optional sliding window and attention sinks.

Papers: "Attention Is All You Need" (2017, 1706.03762); "GQA: Training Generalized Multi-Query Transformer Models from
Multi-Head Checkpoints" (2023, 2305.13245); "RoFormer: Enhanced Transformer with Rotary Position Embedding"
(2021, 2104.09864); "Efficient Streaming Language Models with Attention Sinks" (2023, 2309.17453).

    q_t, k_t, v_t = W x_t, q and k rotated by their position                        (RoFormer eq. 34)
    y_t = sum over visible j of softmax_j(q_t . k_j / sqrt(K)) v_j                  (Attention eq. 1)

| code | paper |
|---|---|
| kv_heads | G, the number of key and value heads; each serves H/G query heads |
| window | a query sees itself and the window-1 tokens before it |
| sinks | the first tokens of the document, visible whatever the window |

Deviates from the sinks paper: keys are rotated by their position in the text, not by their place in the cache, so that
the state stays a function of the text alone. qk_norm normalises queries and keys per head (RMS), as in Qwen3: it keeps
small models with large learning rates from diverging. The other options are what published models differ in: biases,
a scale of the scores that is not 1/sqrt(K) and one of the outputs, a cap on scores (Gemma 2), rotation of a part of a
head (`rotated`, 0 for none), rates stretched over long texts (`rope`, see `runnel.ops.rope`), and an output gate,
y * sigmoid(W_g x), as in Qwen3-Next ("Gated Attention for Large Language Models", 2025, 2505.06708).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, grouped_heads, linear
from runnel.ops import attend as ops
from runnel.ops.rope import check_rotated, rope, scaling
from runnel.state import Memory

PAPERS = {
    "Attention Is All You Need": "1706.03762",
    "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints": "2305.13245",
    "RoFormer: Enhanced Transformer with Rotary Position Embedding": "2104.09864",
}


@dataclass(frozen=True)
class Config:
    heads: int | None = None
    head_dim: int | None = None
    kv_heads: int | None = None
    window: int | None = None
    sinks: int = 0
    rope_base: float = 10_000.0
    rope: dict[str, Any] | None = None
    rotated: int | None = None
    qk_norm: bool = True
    norm_eps: float = 1e-6
    norm_offset: float = 0.0
    gated: bool = False
    bias: bool = False
    out_bias: bool = False
    scale: float | None = None
    cap: float | None = None
    out_scale: float = 1.0


class Attention(Mixer):
    variants = (
        {"kv_heads": 1},
        {"window": 3},
        {"window": 3, "sinks": 2},
        {"heads": 3, "head_dim": 4, "bias": True, "out_bias": True, "scale": 0.3, "cap": 2.0, "rotated": 2},
        {"out_scale": 0.7},
        {"gated": True, "norm_offset": 1.0},
        {"rope": {"kind": "dynamic", "factor": 2.0, "context": 5}},
    )

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        heads, groups, width = grouped_heads("attention", d_model, config.heads, config.head_dim, config.kv_heads)
        if (config.window is not None and config.window < 1) or config.sinks < 0:
            raise ValueError(f"attention needs window >= 1 and sinks >= 0; got {config.window}, {config.sinks}")
        check_rotated(config.rotated, width)
        self.config, self.heads, self.groups, self.width = config, heads, groups, width
        self.scaling = None if config.rope is None else scaling(config.rope)
        self.qkv = linear(d_model, (heads + 2 * groups) * width, config.bias)
        self.gate = linear(d_model, heads * width, config.bias) if config.gated else None
        norm = (width, config.norm_eps, config.norm_offset)
        self.q_norm = RMSNorm(*norm) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(*norm) if config.qk_norm else nn.Identity()
        self.out = linear(heads * width, d_model, config.out_bias)

    def init_state(self, batch_size: int) -> ops.KeyValues:
        return ops.KeyValues.empty(batch_size, self.groups, self.width, self.out.weight)

    def forward(
        self, x: Float[Tensor, "B T D"], state: ops.KeyValues, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        q, k, v = self._project(x, lineage.positions)
        config = self.config
        y, memory = ops.attend(q, k, v, state, lineage, config.window, config.sinks, config.cap)
        return self._output(y, x), memory

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self._project(x, torch.arange(x.shape[1])[None])
        return self._output(ops.reference(q, k, v, self.config.window, self.config.sinks, self.config.cap), x)

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sizes = (self.heads, self.groups, self.groups)
        q, k, v = self.qkv(x).unflatten(-1, (-1, self.width)).split(sizes, dim=-2)  # (B, T, H or G, K)
        q, k = [self._rotate(x, positions) for x in (self.q_norm(q), self.k_norm(k))]
        return q if self.config.scale is None else q * (self.config.scale * self.width**0.5), k, v

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        return rope(x, positions, self.config.rope_base, self.scaling, self.config.rotated)

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        flat, scale = y.flatten(-2), self.config.out_scale
        y = self.out(flat if self.gate is None else flat * self.gate(x).sigmoid())
        return y if scale == 1 else y * scale

"""Multi-head latent attention: softmax attention that keeps one short vector per token instead of keys and values.

Paper: "DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts Language Model" (2024, 2405.04434),
section 2.1.

    c_t = RMSNorm(W_DKV x_t),   k_t^R = RoPE(W_KR x_t), shared by the heads              (eq. 9, 15)
    k_t,i = [W_UK,i c_t; k_t^R],   v_t,i = W_UV,i c_t                                    (eq. 10, 11, 16)
    q_t,i = [q_t,i^C; RoPE(q_t,i^R)], of x_t, or of RMSNorm(W_DQ x_t)                    (eq. 12-14, 17)
    y_t = W_O sum over visible j of softmax_j(q_t,i . k_j,i / sqrt(N + P)) v_j,i         (eq. 18, 19)

| code | paper |
|---|---|
| head_dim N, rotated P, value_dim V | d_h, d_h^R, and the width of a head's values (there d_h) |
| rank R, query_rank | d_c, d_c'; query_rank None: queries are made of x_t |
| rope_base | None: no positions, as in Kimi Linear |

W_UK is taken into the query and W_UV into the output (the end of section 2.1.2), so that the memory is (c, k^R): one
head of width R + P. Values are c, which is kept a second time: the memory of `attend` holds keys and values apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear, matrix_of
from runnel.ops import attend as ops
from runnel.ops.rope import rope
from runnel.state import Memory

PAPERS = {"DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts Language Model": "2405.04434"}


@dataclass(frozen=True)
class Config:
    heads: int | None = None
    head_dim: int | None = None
    rotated: int | None = None
    value_dim: int | None = None
    rank: int | None = None
    query_rank: int | None = None
    rope_base: float | None = 10_000.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        sizes = [self.heads, self.head_dim, self.value_dim, self.rank, self.query_rank]
        if any(size is not None and size < 1 for size in sizes):
            raise ValueError(f"latent_attention needs sizes of at least 1; got {sizes}")
        if self.rotated is not None and (self.rotated < 2 or self.rotated % 2):
            raise ValueError(f"latent_attention needs an even number of rotated channels; got {self.rotated}")


class LatentAttention(Mixer):
    variants = (
        {"heads": 3, "head_dim": 5, "rotated": 2, "value_dim": 4, "rank": 6, "query_rank": 7},
        {"rope_base": None},
    )

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        width = config.head_dim or head_width(d_model, None)
        self.config, self.heads, self.width = config, config.heads or max(1, d_model // width), width
        self.rotated = config.rotated or 2 * max(1, width // 4)
        self.value_width, self.rank = config.value_dim or width, config.rank or 4 * width
        queries = self.heads * (width + self.rotated)
        if config.query_rank is None:
            self.q: nn.Module = linear(d_model, queries)
        else:
            parts = linear(d_model, config.query_rank), RMSNorm(config.query_rank, config.norm_eps)
            self.q = nn.Sequential(*parts, linear(config.query_rank, queries))
        self.down = linear(d_model, self.rank + self.rotated)
        self.norm = RMSNorm(self.rank, config.norm_eps)
        self.up = linear(self.rank, self.heads * (width + self.value_width))
        self.out = linear(self.heads * self.value_width, d_model)

    def init_state(self, batch_size: int) -> ops.KeyValues:
        return ops.KeyValues.empty(batch_size, 1, self.rank + self.rotated, self.out.weight, self.rank)

    def forward(
        self, x: Float[Tensor, "B T D"], state: ops.KeyValues, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        q, q_rotated, latent, k_rotated = self._project(x, lineage.positions)
        up = matrix_of(self.up).unflatten(0, (self.heads, -1))
        to_keys, to_values = up.split([self.width, self.value_width], dim=1)
        q = torch.cat([torch.einsum("bthn,hnr->bthr", q, to_keys), q_rotated], dim=-1)
        q = q * (q.shape[-1] / (self.width + self.rotated)) ** 0.5  # scores are over sqrt(N + P)
        k = torch.cat([latent, k_rotated], dim=-1)
        y, memory = ops.attend(q, k, latent, state, lineage)
        return self.out(torch.einsum("bthr,hvr->bthv", y, to_values).flatten(-2)), memory

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, q_rotated, latent, k_rotated = self._project(x, torch.arange(x.shape[1])[None])
        made = self.up(latent[:, :, 0]).unflatten(-1, (self.heads, -1))
        k, v = made.split([self.width, self.value_width], dim=-1)
        k = torch.cat([k, k_rotated.expand(-1, -1, self.heads, -1)], dim=-1)
        return self.out(ops.reference(torch.cat([q, q_rotated], dim=-1), k, v).flatten(-2))

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q (B, T, H, N) and its rotated part (B, T, H, P); c (B, T, 1, R) and that of keys (B, T, 1, P)."""
        q, q_rotated = self.q(x).unflatten(-1, (self.heads, -1)).split([self.width, self.rotated], dim=-1)
        latent, k_rotated = self.down(x)[:, :, None].split([self.rank, self.rotated], dim=-1)
        return q, self._rotate(q_rotated, positions), self.norm(latent), self._rotate(k_rotated, positions)

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        return x if self.config.rope_base is None else rope(x, positions, self.config.rope_base)

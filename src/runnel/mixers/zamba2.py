"""Zamba2's shared block: one transformer block, used again and again between layers of Mamba-2.

Papers: "Zamba: A Compact 7B SSM Hybrid Model" (2024, 2405.16712); "The Zamba2 Suite: Technical Report" (2024,
2411.15242), figure 2.

    u_t = RMSNorm([x_t, e_t]),   e_t the embedding of the token                      (Zamba, eq. 5)
    q, k, v = (W_s + B_s^i A_s^i) u_t  for s in q, k, v in the i-th use, q and k rotated or not
    h_t = RMSNorm(W_o attention(q, k, v)_t),   scores times sqrt(2 / K)
    g, w = (W + B^i A^i) h_t,   y_t = L^i W_d (f(g) * w)                             (Zamba, eq. 6)

W, W_s, W_o, W_d and the norms are shared by all layers with the same `share`; A^i, B^i (low-rank adapters) and L^i are
each layer's own. There is no residual inside. y is added to the input of a Mamba-2 layer, not to the stream:
`"(mamba2*5, zamba2 > mamba2)*6"`.

| code | paper |
|---|---|
| share | which of the shared blocks; Zamba2 takes two in turn: share="a", share="b" |
| rank | width of the adapters; adapters: also of q, k and v, not only of the perceptron |
| rotated | q and k are rotated by their position (RoPE with `rope_base`) |
| hidden, activation | width of the perceptron (4 d), f |

Deviates: each use of a block has a memory of keys and values of its own, as published.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.lineage import Lineage
from runnel.links import EMBEDDING, Linked, Links, Wiring
from runnel.mixer import RMSNorm, grouped_heads, linear
from runnel.ops import attend as ops
from runnel.ops.activations import activation
from runnel.ops.rope import rope
from runnel.state import Memory

PAPERS = {"Zamba: A Compact 7B SSM Hybrid Model": "2405.16712", "The Zamba2 Suite: Technical Report": "2411.15242"}


@dataclass(frozen=True)
class Config:
    share: str = "a"
    heads: int | None = None
    kv_heads: int | None = None
    hidden: int | None = None
    activation: str = "gelu"
    rank: int = 8
    adapters: bool = False
    rotated: bool = True
    rope_base: float = 10_000.0
    bias: bool = False
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.rank < 1 or (self.hidden is not None and self.hidden < 1):
            raise ValueError(f"zamba2 needs rank >= 1 and hidden >= 1; got {self.rank}, {self.hidden}")


class _Block(nn.Module):
    """What the layers share."""

    def __init__(self, d_model: int, inner: int, joined: int, hidden: int, config: Config) -> None:
        super().__init__()
        self.norm, self.block_norm = [RMSNorm(width, config.norm_eps) for width in (2 * d_model, d_model)]
        self.qkv, self.project = linear(2 * d_model, joined), linear(inner, d_model)
        self.gate_and_value = linear(d_model, 2 * hidden, config.bias)
        self.down = linear(hidden, d_model, config.bias)


class Zamba2(Linked):
    normed = False
    takes = (EMBEDDING,)
    variants = ({"heads": 4, "kv_heads": 2, "adapters": True, "rotated": False, "rank": 3, "hidden": 6, "bias": True},)
    places = ("{}", "{}, {}")

    def __init__(self, d_model: int, config: Config, wiring: Wiring) -> None:
        super().__init__()
        heads, groups, width = grouped_heads("zamba2", 2 * d_model, config.heads, None, config.kv_heads)
        hidden = config.hidden or 4 * d_model
        self.config, self.activation, self.groups, self.width = config, activation(config.activation), groups, width
        self.sizes = [count * width for count in (heads, groups, groups)]
        wide = (d_model, heads * width, sum(self.sizes), hidden, config)
        self.block = wiring.shared(f"zamba2(share={config.share!r})", config, lambda: _Block(*wide))
        own = self.sizes if config.adapters else []
        self.adapters = nn.ModuleList(_low_rank(2 * d_model, config.rank, size) for size in own)
        self.block_adapter = _low_rank(d_model, config.rank, 2 * hidden)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> ops.KeyValues:
        return ops.KeyValues.empty(batch_size, self.groups, self.width, self.out.weight)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B T D"], state: Memory, lineage: Lineage, links: Links
    ) -> tuple[Float[Tensor, "B T D"], Memory, Links]:
        y, memory = ops.attend(*self._project(x, links[EMBEDDING], lineage.positions), state, lineage)
        return self._output(y), memory, {}

    def reference(self, x: Float[Tensor, "B T D"], links: Links) -> Float[Tensor, "B T D"]:  # type: ignore[override]
        q, k, v = self._project(x, links[EMBEDDING], torch.arange(x.shape[1])[None])
        return self._output(ops.reference(q, k, v))

    def _project(self, x: Tensor, embedding: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v (B, T, H or G, K)."""
        u = self.block.norm(torch.cat([x, embedding], dim=-1))
        made = self.block.qkv(u)
        if self.config.adapters:
            made = made + torch.cat([adapter(u) for adapter in self.adapters], dim=-1)
        q, k, v = [part.unflatten(-1, (-1, self.width)) for part in made.split(self.sizes, dim=-1)]
        if self.config.rotated:
            q, k = [rope(part, positions, self.config.rope_base) for part in (q, k)]
        return q * 2**0.5, k, v

    def _output(self, y: Tensor) -> Tensor:
        h = self.block.block_norm(self.block.project(y.flatten(-2)))
        gate, value = (self.block.gate_and_value(h) + self.block_adapter(h)).chunk(2, dim=-1)
        return self.out(self.block.down(self.activation(gate) * value))


def _low_rank(d_in: int, rank: int, d_out: int) -> nn.Sequential:
    return nn.Sequential(linear(d_in, rank), linear(rank, d_out))

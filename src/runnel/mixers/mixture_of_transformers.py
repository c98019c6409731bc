"""Mixture of transformers: a transformer's layer with weights of its own for every modality; one attention for all.

Paper: "Mixture-of-Transformers: A Sparse and Scalable Architecture for Multi-Modal Foundation Models" (2024,
2411.04996), algorithm 1. m_i is the modality of token i, known from the token itself.

    q_i, k_i, v_i = W_Q^m x_i, W_K^m x_i, W_V^m x_i,   m = m_i
    a_i = attention of q_i to all k_j, v_j with j <= i, whatever their modality
    h_i = x_i + norm_attn^m(W_O^m a_i)
    y_i = h_i + norm_ffn^m(FFN^m(h_i)),   FFN^m(h) = W_2^m (silu(W^m h) * V^m h)

| code | paper |
|---|---|
| first | the first tokens of the second, third, ... modality: those from first[m-1] on are of modality m |
| sizes, gate_and_value, out | W_Q, W_K and W_V in one; W and V; W_2 |
| hidden | d_ff; None: 8/3 d, a round multiple |

Every product is of one token with the weights of its modality: as many operations as in one transformer. It is a whole
layer, so it has no block: `"(mixture_of_transformers(first=[256])+none)*12"`. Without `first` all tokens are of one
modality, and it is a transformer. The layer adds y_i - x_i to the stream. q and k are rotated by their position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from runnel.lineage import Lineage
from runnel.links import TOKENS, Linked, Links, Wiring
from runnel.mixer import RMSNorm, grouped_heads, linear
from runnel.ops import attend as ops
from runnel.ops.rope import rope
from runnel.state import Memory

PAPERS = {
    "Mixture-of-Transformers: A Sparse and Scalable Architecture for Multi-Modal Foundation Models": "2411.04996",
}


@dataclass(frozen=True)
class Config:
    first: Sequence[int] = ()
    heads: int | None = None
    kv_heads: int | None = None
    hidden: int | None = None
    rope_base: float = 10_000.0

    def __post_init__(self) -> None:
        firsts = list(self.first)
        if firsts != sorted(set(firsts)) or min(firsts, default=1) < 1:
            raise ValueError(f"mixture_of_transformers needs rising first tokens, at least 1; got {firsts}")
        if self.hidden is not None and self.hidden < 1:
            raise ValueError(f"mixture_of_transformers needs hidden >= 1; got {self.hidden}")


class MixtureOfTransformers(Linked):
    normed = False
    out: nn.ModuleList  # type: ignore[assignment]
    variants = ({"first": [4, 8], "heads": 4, "kv_heads": 2, "hidden": 5},)

    def __init__(self, d_model: int, config: Config, wiring: Wiring) -> None:
        super().__init__()
        heads, self.groups, self.width = grouped_heads(
            "mixture_of_transformers", d_model, config.heads, None, config.kv_heads
        )
        self.sizes = [heads, self.groups, self.groups]
        hidden = config.hidden or 8 * max(1, round(d_model / 3))
        self.config, self.takes = config, (TOKENS,) if config.first else ()

        def bank(make: Callable[[], nn.Module]) -> nn.ModuleList:
            return nn.ModuleList(make() for _ in range(1 + len(config.first)))

        self.qkv = bank(lambda: linear(d_model, sum(self.sizes) * self.width))
        self.project = bank(lambda: linear(heads * self.width, d_model))
        self.gate_and_value = bank(lambda: linear(d_model, 2 * hidden))
        self.out = bank(lambda: linear(hidden, d_model))
        self.norm, self.block_norm = [bank(lambda: RMSNorm(d_model)) for _ in range(2)]

    def init_state(self, batch_size: int) -> ops.KeyValues:
        return ops.KeyValues.empty(batch_size, self.groups, self.width, self.out[0].weight)  # type: ignore[arg-type]

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B T D"], state: Memory, lineage: Lineage, links: Links
    ) -> tuple[Float[Tensor, "B T D"], Memory, Links]:
        kinds = self._kinds(x, links)
        q, k, v = self._heads_of(_by_kind(kinds, self._read, x), lineage.positions)
        y, memory = ops.attend(q, k, v, state, lineage)
        return _by_kind(kinds, self._write, x, y.flatten(-2)), memory, {}

    def reference(self, x: Float[Tensor, "B T D"], links: Links) -> Float[Tensor, "B T D"]:  # type: ignore[override]
        """Token by token."""
        kinds, (rows, length) = self._kinds(x, links), x.shape[:2]
        at = [(b, t, int(kinds[b, t])) for b in range(rows) for t in range(length)]
        made = torch.stack([self._read(m, x[b, t]) for b, t, m in at]).unflatten(0, (rows, length))
        y = ops.reference(*self._heads_of(made, torch.arange(length)[None])).flatten(-2)
        return torch.stack([self._write(m, x[b, t], y[b, t]) for b, t, m in at]).view_as(x)

    def _kinds(self, x: Tensor, links: Links) -> Int[Tensor, "B T"]:
        """The modality of every token."""
        if not self.takes:
            return torch.zeros(x.shape[:2], dtype=torch.long, device=x.device)
        ids = links[TOKENS].ids[..., 0].contiguous()
        return torch.bucketize(ids, torch.tensor(self.config.first, device=x.device), right=True)

    def _read(self, kind: int, x: Float[Tensor, "*B D"]) -> Tensor:
        return self.qkv[kind](x)

    def _heads_of(self, made: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = made.unflatten(-1, (-1, self.width)).split(self.sizes, dim=-2)
        return rope(q, positions, self.config.rope_base), rope(k, positions, self.config.rope_base), v

    def _write(self, kind: int, x: Float[Tensor, "*B D"], y: Tensor) -> Float[Tensor, "*B D"]:
        """What is added to x, y being what attention read."""
        read = self.norm[kind](self.project[kind](y))
        gate, value = self.gate_and_value[kind](x + read).chunk(2, dim=-1)
        return read + self.block_norm[kind](self.out[kind](silu(gate) * value))


def _by_kind(kinds: Tensor, make: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """make(kind, *inputs) of the tokens of every kind that there is, each (N, width), where they were."""
    flat = kinds.flatten()
    rows = {int(kind): (flat == kind).nonzero()[:, 0] for kind in flat.unique()}
    made = [make(kind, *[x.flatten(0, 1)[own] for x in inputs]) for kind, own in rows.items()]
    return torch.cat(made)[torch.cat([*rows.values()]).argsort()].unflatten(0, kinds.shape)

"""A transformer layer with the relaxed causal mask: a place sees its own block, whole, and all blocks before it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from runnel.blocks import swiglu
from runnel.mixer import RMSNorm, head_width, linear
from runnel.ops.rope import rope


class RelaxedLayer(nn.Module):
    """block >= 1: places of a block, counted from the first one."""

    def __init__(self, d_model: int, block: int) -> None:
        super().__init__()
        self.width, self.block = head_width(d_model, None), block
        self.qkv, self.out = linear(d_model, 3 * d_model), linear(d_model, d_model)
        self.mlp = swiglu.SwiGLU(d_model, swiglu.Config())
        self.before, self.between, self.norm = RMSNorm(d_model), RMSNorm(d_model), RMSNorm(d_model)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """The normalised outputs."""
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, -1, self.width)).unbind(2)  # (B, T, H, K)
        places = torch.arange(x.shape[1], device=x.device)[None]
        q, k, v = [part.transpose(1, 2) for part in (rope(q, places), rope(k, places), v)]
        seen = scaled_dot_product_attention(q, k, v, relaxed(x.shape[1], self.block).to(x.device))
        x = x + self.out(seen.transpose(1, 2).flatten(-2))
        return self.norm(x + self.mlp(self.between(x)))


def relaxed(length: int, block: int) -> Bool[Tensor, "T T"]:
    """What each place sees."""
    blocks = torch.arange(length) // block
    return blocks[:, None] >= blocks

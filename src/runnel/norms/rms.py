"""Root-mean-square norm: vectors are divided by the root of their mean square, and scaled channel by channel.

Paper: "Root Mean Square Layer Normalization" (2019, 1910.07467), eq. 4:  y = x / sqrt(mean(x^2) + eps) * (offset + g).

| code | paper |
|---|---|
| weight | g |

offset: what the learned scale is counted from; Gemma's weights are differences from 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.mixer import RMSNorm

PAPERS = {"Root Mean Square Layer Normalization": "1910.07467"}


@dataclass(frozen=True)
class Config:
    eps: float = 1e-6
    offset: float = 0.0


class RMS(RMSNorm):
    def __init__(self, width: int, config: Config) -> None:
        super().__init__(width, config.eps, config.offset)

    def reference(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Vector by vector."""
        rows = [row / (row.square().mean() + self.eps).sqrt() * (self.offset + self.weight) for row in x.flatten(0, -2)]
        return torch.stack(rows).view_as(x)

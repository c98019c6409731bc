"""Layer norm: vectors lose their mean and are divided by their standard deviation.

Paper: "Layer Normalization" (2016, 1607.06450), eq. 4:  y = (x - mean) / sqrt(variance + eps) * g + b.

| code | paper |
|---|---|
| weight, bias | g, b |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

PAPERS = {"Layer Normalization": "1607.06450"}


@dataclass(frozen=True)
class Config:
    eps: float = 1e-5
    bias: bool = True


class Layer(nn.LayerNorm):
    def __init__(self, width: int, config: Config) -> None:
        super().__init__(width, eps=config.eps, bias=config.bias)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Taken in the dtype of its weight."""
        return super().forward(x.to(self.weight.dtype))

    def reference(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Vector by vector."""
        rows = []
        for row in x.flatten(0, -2):
            centred = row - row.mean()
            scaled = centred / (centred.square().mean() + self.eps).sqrt() * self.weight
            rows.append(scaled if self.bias is None else scaled + self.bias)
        return torch.stack(rows).view_as(x)

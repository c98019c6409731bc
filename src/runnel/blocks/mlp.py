"""MLP: a two-layer perceptron over channels, the block of the first Transformers.

Papers: "Attention Is All You Need" (2017, 1706.03762), eq. 2:  y = W2 f(W1 x + b1) + b2, there with f = relu;
"Gaussian Error Linear Units (GELUs)" (2016, 1606.08415) for the f of GPT-2.

| code | paper |
|---|---|
| expand | d_ff / d = 4 |
| hidden | d_ff, where it is not a round multiple of d |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.mixer import linear
from runnel.ops.activations import activation

PAPERS = {"Gaussian Error Linear Units (GELUs)": "1606.08415"}


@dataclass(frozen=True)
class Config:
    expand: float = 4.0
    hidden: int | None = None
    activation: str = "gelu"
    bias: bool = True


class MLP(nn.Module):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        hidden = config.hidden or 8 * max(1, round(config.expand * d_model / 8))
        self.config, self.activation = config, activation(config.activation)
        self.input = linear(d_model, hidden, config.bias)
        self.out = linear(hidden, d_model, config.bias)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.out(self.activation(self.input(x)))

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Token by token."""
        rows = [self._biased(self.out, self.activation(self._biased(self.input, token))) for token in x.flatten(0, 1)]
        return torch.stack(rows).view_as(x)

    @staticmethod
    def _biased(layer: nn.Linear, token: Tensor) -> Tensor:
        return layer.weight @ token + (0 if layer.bias is None else layer.bias)
